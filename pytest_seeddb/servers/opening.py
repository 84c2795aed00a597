"""Where PostgreSQL comes from: a server that we start, or one that is already running."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from pytest_seeddb.errors import SeedDbError, ServerError, mask
from pytest_seeddb.servers import libpq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pytest_seeddb.servers.embedded import Ahead, EmbeddedStatus
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.settings.settings import Settings


@contextmanager
def open_server(settings: Settings, data: str = "") -> Iterator[Server]:
    """Give a running server for as long as the block runs.

    An embedded server is started, or joined when another process has started it; any number of processes and threads
    may open it at once and get the same one. It is stopped soon after its last user is gone, in any way. An external
    server is probed with one connection and otherwise left alone.

    A server that we start has as many sets of ``data`` as are asked for, each with a process of its own.

    Raises `ServerError` where there is no usable server, and `ConfigError` where the server's URL cannot be read.
    """
    with _opener(settings)(settings, data) as server:
        yield server


def _opener(settings: Settings) -> Callable[[Settings, str], AbstractContextManager[Server]]:
    if _is_url(settings):
        from pytest_seeddb.servers.external import probe_server

        return lambda settings, _: nullcontext(probe_server(settings))
    if os.name == "nt":
        raise _no_windows(settings)
    if settings.server == "container" or (settings.server == "auto" and _needs_container(settings)):
        from pytest_seeddb.servers.container import open_container

        return open_container
    from pytest_seeddb.servers.embedded import open_embedded

    return open_embedded


def is_started_here(settings: Settings) -> bool:
    """Whether the server may be an embedded one, by the settings alone."""
    return not (_is_url(settings) or settings.server == "container" or os.name == "nt")


def make_data(settings: Settings) -> threading.Thread | None:
    """Make the data directory of an embedded server on a thread, where there never was one; that takes a second.

    Starts no server, and imports no client.
    """
    if not is_started_here(settings):
        return None
    import platformdirs  # noqa: F401 - in this thread, as below

    from pytest_seeddb.servers import binaries, guard, places, postmaster, processes

    def make() -> None:
        with suppress(SeedDbError, OSError), ExitStack() as locks:  # whoever needs the server is told
            binaries.choose(settings)  # where there are none, no directory is made
            place = places.place_of(settings)
            locks.enter_context(processes.hold_lock(place.state / guard.USERS, shared=True))
            locks.enter_context(processes.hold_lock(place.state / guard.START))
            if (lock := processes.try_lock(place.state / guard.SERVER)) is not None:
                locks.callback(os.close, lock)
                if not postmaster.is_kept(place):
                    postmaster.make_data(place, lock)

    with suppress(SeedDbError, OSError):
        servers = places.cache_place(places.server_account()) / places.SERVERS
        if not any(servers.glob(f"*/{guard.DATA}")):
            thread = threading.Thread(target=make, name="seeddb-data", daemon=True)
            thread.start()
            return thread
    return None


def start_ahead(settings: Settings) -> Ahead | None:
    """Start the server that `open_server` would give; ``None`` where that is certainly not an embedded one."""
    # To connect, `os.environ` would be changed for a moment: not beside the project's code.
    if not is_started_here(settings) or libpq.names_in_shell():
        return None
    # In this thread, what the other one needs: imports must not meet in two threads.
    import platformdirs  # noqa: F401

    from pytest_seeddb.servers.embedded import Ahead

    return Ahead(settings, open_server)


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


def embedded_status(settings: Settings) -> EmbeddedStatus | None:
    """The state of the embedded server, which is not started for it; ``None`` where the settings name another."""
    if _is_url(settings) or settings.server == "container":
        return None
    if os.name == "nt":
        raise _no_windows(settings)
    from pytest_seeddb.servers import embedded

    return embedded.embedded_status(settings)


def describe(settings: Settings) -> str:
    """Say which server `open_server` would give, without starting or connecting to anything.

    Takes a few milliseconds and never raises: an error is described in words.
    """
    try:
        if _is_url(settings):
            from pytest_seeddb.servers.address import Address

            return f"PostgreSQL at {Address.parse(settings.server, source=settings.source('server')).masked}"
        if settings.server == "container":
            from pytest_seeddb.servers.container import Recipe

            return f"PostgreSQL in a container, image {Recipe.of(settings).image}"
        if os.name == "nt":
            raise _no_windows(settings)
        from pytest_seeddb.servers import binaries, places
        from pytest_seeddb.servers.storage import storage_of

        chosen = binaries.choose(settings)
        account = places.server_account()
        storage = storage_of(settings, places.cache_place(account), account)
    except SeedDbError as error:
        return error.what
    except OSError as error:
        return f"no embedded PostgreSQL: {error}"
    memory = ", clones in memory" if storage.in_memory else ""
    return f"embedded PostgreSQL {chosen.version} ({chosen.origin}){memory}"


def _is_url(settings: Settings) -> bool:
    return "://" in settings.server


def _no_windows(settings: Settings) -> ServerError:
    return ServerError(
        "The embedded server does not run on Windows, and neither does one in a container",
        saw=f"server = {mask(settings.server)!r}",
        source=settings.source("server"),
        remedy="name a running server: --seed-db-server=postgresql://user@host:port/postgres",
    )
