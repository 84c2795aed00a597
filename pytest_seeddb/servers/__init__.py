"""Where PostgreSQL comes from: a server that we start, or one that is already running."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_seeddb.errors import SeedDbError, ServerError, masked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.address import Address
    from pytest_seeddb.config import Settings
    from pytest_seeddb.fingerprint import Part
    from pytest_seeddb.servers.embedded import Standing

__all__ = ["Server", "describe", "open_server", "standing"]


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

    @property
    def major(self) -> int:
        """The major version: 15."""
        return self.version_num // 10_000


@contextmanager
def open_server(settings: Settings) -> Iterator[Server]:
    """Give a running server for as long as the block runs.

    An embedded server is started, or joined when another process has started it; any number of
    processes and threads may open it at once and get the same one. It is stopped soon after its last
    user is gone, however that one ended. An external server is probed with one connection and
    otherwise left alone.

    Raises:
        ServerError: There is no usable server.
        ConfigError: The server's URL cannot be read.
    """
    if _is_url(settings):
        from pytest_seeddb.servers import external

        yield external.probed(settings)
        return
    if os.name == "nt":
        raise _no_windows(settings)
    if settings.server == "container" or (settings.server == "auto" and _needs_container(settings)):
        from pytest_seeddb.servers import container

        with container.running(settings) as server:
            yield server
        return
    from pytest_seeddb.servers import embedded

    with embedded.running(settings) as server:
        yield server


def _needs_container(settings: Settings) -> bool:
    """Whether nothing is installed that could be started, and a container engine answers."""
    from pytest_seeddb.servers import binaries

    try:
        binaries.choose(settings)
    except ServerError:
        from pytest_seeddb.servers import engine

        with suppress(ServerError):
            engine.connect("auto").close()
            return True
    return False


def standing(settings: Settings) -> Standing | None:
    """How the embedded server stands, without starting it; ``None`` where the settings name another.

    Raises:
        ServerError: There can be no embedded server here.
    """
    if _is_url(settings) or settings.server == "container":
        return None
    if os.name == "nt":
        raise _no_windows(settings)
    from pytest_seeddb.servers import embedded

    return embedded.standing(settings)


def describe(settings: Settings) -> str:
    """Say which server `open_server` would give, without starting or connecting to anything.

    Takes a few milliseconds and never raises: trouble is said in words.
    """
    try:
        return _described(settings)
    except SeedDbError as error:
        return error.what
    except OSError as error:
        return f"no embedded PostgreSQL: {error}"


def _described(settings: Settings) -> str:
    if _is_url(settings):
        from pytest_seeddb.address import Address

        address = Address.parse(settings.server, source=settings.source("server"))
        return f"PostgreSQL at {address.masked}"
    if settings.server == "container":
        from pytest_seeddb.servers.container import Wanted

        return f"PostgreSQL in a container, image {Wanted.of(settings).image}"
    if os.name == "nt":
        raise _no_windows(settings)
    from pytest_seeddb.servers import binaries

    found = binaries.choose(settings)
    return f"embedded PostgreSQL {found.version} ({found.origin})"


def _is_url(settings: Settings) -> bool:
    return "://" in settings.server


def _no_windows(settings: Settings) -> ServerError:
    return ServerError(
        "A server of our own does not run on Windows",
        saw=f"server = {masked(settings.server)!r}",
        source=settings.source("server"),
        remedy="name a running server: --seed-db-server=postgresql://user@host:port/postgres",
    )
