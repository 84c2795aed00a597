"""Start the embedded server on a thread, while this process plans what it needs there; and make its data before."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Self

from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.servers import libpq
from pytest_seeddb.servers.opening import is_embedded, is_started_here, open_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.settings.settings import Settings


class Ahead:
    """The embedded server, which a thread starts or joins; `open` takes it over.

    Lifetime: until `close`, or the end of the block of `open`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._use = ExitStack()
        self._server: Server | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._start, name="seeddb-ahead", daemon=True)
        self._thread.start()

    @classmethod
    def begin(cls, settings: Settings) -> Self | None:
        """Start the server that `open_server` would give; ``None`` where that is certainly not an embedded one."""
        # To connect, `os.environ` would be changed for a moment: not beside the project's code.
        if not is_started_here(settings) or libpq.names_in_shell():
            return None
        # In this thread, what the other one needs: imports must not meet in two threads.
        import platformdirs  # noqa: F401

        from pytest_seeddb.servers import embedded  # noqa: F401

        return cls(settings)

    def _start(self) -> None:
        try:
            if is_embedded(self._settings):
                self._server = self._use.enter_context(open_server(self._settings))
        except Exception as error:  # noqa: BLE001 - `open` raises it
            self._error = error

    @contextmanager
    def open(self, settings: Settings) -> Iterator[Server]:
        """As `open_server`."""
        self._thread.join()
        if self._settings != settings:
            self.close()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._server is None:
            with open_server(settings) as server:
                yield server
            return
        server, self._server = self._server, None
        with self._use.pop_all():
            yield server

    def close(self) -> None:
        """Let the server go, if nobody has taken it over."""
        self._thread.join()
        self._server = self._error = None
        with suppress(SeedDbError):
            self._use.close()


def make_data(settings: Settings) -> threading.Thread | None:
    """Make the data directory of an embedded server on a thread, where there never was one; that takes a second.

    Starts no server, and imports no client.
    """
    if not is_started_here(settings):
        return None
    import platformdirs  # noqa: F401 - as above

    from pytest_seeddb.servers import guard, places, postmaster, processes

    def make() -> None:
        with suppress(SeedDbError, OSError), ExitStack() as locks:  # whoever needs the server is told
            if not is_embedded(settings):
                return
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
