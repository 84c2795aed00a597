"""A running server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_seeddb.errors import ServerError
    from pytest_seeddb.fingerprint.digests import Part
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.memory import Memory


GLOBALS: Final = "globals.json"
"""In a server's state directory: what its `pytest_seeddb.servers.globals` are to be."""
DOUBTED: Final = "globals.doubted"
"""In a server's state directory while its globals may differ from that; the next start compares them."""
LEFT: Final = "globals.left"
"""In a server's state directory: the keys of what tests left, for the last who uses the server to undo."""


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL.

    Attributes:
        kind: Whether we started it (``embedded``, ``container``) or found it running (``external``).
        address: A maintenance database, as a role that may create databases.
        version: As people write it: ``15.18``.
        version_num: As PostgreSQL counts it: 150018.
        origin: Where it comes from, for people.
        superuser: Whether that role is a superuser.
        fsync: Whether the server waits for the disk.
        is_ephemeral: Whether its databases go with it.
        inputs: What determines its databases beside what it says of itself.
        identity: The container's id; empty where there is none.
        state: The directory for what we know of a server that we started.
        notes: What the run is to say of the server.
        memory: What says of a clone whether it is made in memory; ``None`` where none is.
        find_end: Gives the error for a server that we started and that has ended; ``None`` while it may come back.
    """

    kind: Literal["embedded", "container", "external"]
    address: Address
    version: str
    version_num: int
    origin: str
    superuser: bool
    fsync: bool
    is_ephemeral: bool = False
    inputs: tuple[Part, ...] = ()
    identity: str = ""
    state: Path | None = None
    notes: Sequence[str] = ()
    memory: Memory | None = field(default=None, repr=False, compare=False)
    find_end: Callable[[], ServerError | None] = field(default=lambda: None, repr=False, compare=False)

    @property
    def major(self) -> int:
        """The major version: 15."""
        return self.version_num // 10_000
