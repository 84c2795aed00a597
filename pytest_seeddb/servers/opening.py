"""Where PostgreSQL comes from: a server that we start, or one that is already running."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pytest_seeddb.errors import SeedDbError, ServerError, mask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.servers.embedded import Standing
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.settings.settings import Settings


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
        from pytest_seeddb.servers.address import Address

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
        saw=f"server = {mask(settings.server)!r}",
        source=settings.source("server"),
        remedy="name a running server: --seed-db-server=postgresql://user@host:port/postgres",
    )
