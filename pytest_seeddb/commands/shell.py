"""A prompt on a database."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_seeddb.admin import Admin
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.servers import open_server
from pytest_seeddb.servers.binaries import choose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.address import Address
    from pytest_seeddb.config import Settings


@contextmanager
def shell(settings: Settings, database: str = "") -> Iterator[tuple[str, Address]]:
    """The program ``psql`` and a database of a failed test, with the server running for the block.

    Args:
        settings: Where the server comes from.
        database: Its name; by default the newest that was kept.

    Raises:
        ConfigError: There is no such database, or no ``psql``.
        SeedDbError: There is no usable server.
    """
    with open_server(settings) as server, Admin(server.address) as admin:
        kept = [each.name for each in admin.ours(r"seeddb\_k\_%")]
        wanted = database or (kept[-1] if kept else "")
        if not wanted or not admin.exists(wanted):
            raise ConfigError(
                f"There is no database {wanted!r}" if wanted else "No database of a failed test was kept",
                saw="\n".join(kept) or "none is kept",
                source=server.address.masked,
                remedy="name one of those; a failed test's report shows its name",
            )
        yield _psql(settings), server.address.with_database(wanted)


def _psql(settings: Settings) -> str:
    """On the path, else beside the programs of the embedded server."""
    if found := shutil.which("psql"):
        return found
    beside = choose(settings).program("psql")
    if not beside.exists():
        raise ConfigError(
            "There is no psql", saw=str(beside), source="PATH", remedy="apt-get install postgresql-client"
        )
    return str(beside)
