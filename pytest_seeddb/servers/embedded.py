"""The embedded server: started by the first process that needs it, shared by all, stopped after the last."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import psycopg

from pytest_seeddb.errors import SeedDbError, ServerError
from pytest_seeddb.servers import binaries, guard, memory, postmaster
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.globals import CannotUndo, Globals, restore
from pytest_seeddb.servers.places import Place, place_of
from pytest_seeddb.servers.processes import ensure_guard, hold_lock, is_locked, reap, server_environment, try_lock
from pytest_seeddb.servers.remedies import is_certain, start_remedy
from pytest_seeddb.servers.server import DOUBTED, LEFT, Server
from pytest_seeddb.servers.storage import Storage, storage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pytest_seeddb.servers.binaries import Binaries
    from pytest_seeddb.settings.settings import Settings

JOIN_PATIENCE_SECONDS: Final = 15.0
RECOVERY_PATIENCE_SECONDS: Final = 300.0
END_PATIENCE_SECONDS: Final = 5.0
_PAUSES_SECONDS: Final = (0.05, 0.2, 1.0)  # what a killed postmaster leaves needs a moment to end
_LOG_END: Final = 1000
_RECOVERS: Final = "the database system is"  # starting up, in recovery, shutting down


@contextmanager
def open_embedded(settings: Settings, data: str = "") -> Iterator[Server]:
    """Start or join the embedded server; it runs for at least as long as the block.

    All who have the same binaries share one server, across projects, Pythons and terminals. When the last of them is
    gone, its guard stops it. The data directory, templates included, is kept. Raises `ServerError`.
    """
    reap()
    place = place_of(settings, data)
    storage_of(settings, place.cache, place.account)  # refused before anything is started
    with ExitStack() as use:
        try:
            version_num, storage, notes = _begin_use(settings, place, use, data)
        except postmaster.LockedOutError:
            use.close()
            # The guard stops it if nobody else uses it.
            deadline = time.monotonic() + END_PATIENCE_SECONDS
            while is_locked(place.state / guard.SERVER) and time.monotonic() < deadline:
                time.sleep(postmaster.POLL_SECONDS)
            version_num, storage, notes = _begin_use(settings, place, use, data)
        try:
            yield Server(
                kind="embedded",
                address=postmaster.address(place),
                version=place.binaries.version,
                version_num=version_num,
                origin=place.binaries.origin,
                superuser=True,
                fsync=False,
                state=place.state,
                notes=notes,
                memory=memory.memory_of(place, notes) if storage.in_memory else None,
                find_end=partial(_find_end, place),
            )
        finally:
            # Ours may be the last to leave, and the guard may have been killed since. Should this fail,
            # the next user's guard stops the server: no reason to fail a run that has ended.
            with suppress(ServerError):
                ensure_guard(place.state, "server", server_environment())


class Ahead:
    """The embedded server, which a thread starts or joins while this process plans; `open` takes it over.

    Lifetime: until `close`, or the end of the block of `open`.
    """

    def __init__(self, settings: Settings, open_server: Callable[[Settings], AbstractContextManager[Server]]) -> None:
        self._settings = settings
        self._open_server = open_server
        self._use = ExitStack()
        self._server: Server | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._start, name="seeddb-ahead", daemon=True)
        self._thread.start()

    def _start(self) -> None:
        has_binaries = False  # without them, a container may be meant
        try:
            with suppress(ServerError):
                has_binaries = bool(binaries.choose(self._settings))
            if has_binaries:
                self._server = self._use.enter_context(self._open_server(self._settings))
        except Exception as error:  # noqa: BLE001 - `open` raises it
            self._error = error

    @contextmanager
    def open(self, settings: Settings) -> Iterator[Server]:
        """As `open_server`, which it is where none was started with these settings, or it is taken."""
        self._thread.join()
        if self._settings != settings:
            self.close()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._server is None:
            with self._open_server(settings) as server:
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


def _begin_use(settings: Settings, place: Place, use: ExitStack, data: str) -> tuple[int, Storage, list[str]]:
    """Join the server or start it, as one of its users until ``use`` ends.

    Gives its version, where clones are made (which one process at a time measures), and what to say of it.
    """
    notes: list[str] = []
    use.enter_context(hold_lock(place.state / guard.USERS, shared=True))
    if not place.binaries.program("postgres").exists():
        place_of(settings, data)  # removed as unused before the lock was ours: copied again
    with hold_lock(place.state / guard.START):
        ensure_guard(place.state, "server", server_environment())
        version_num = _join_or_start(place, notes)
        return version_num, storage_of(settings, place.cache, place.account, place.data / "base"), notes


@dataclass(frozen=True)
class EmbeddedStatus:
    """The state of the embedded server, found without starting it or making anything."""

    binaries: Binaries
    state: Path
    """Its state directory, which may not be there."""
    running: bool
    kept: bool
    """Whether it has databases that its next start finds again."""
    storage: Storage
    """Where clones are made."""


def embedded_status(settings: Settings) -> EmbeddedStatus:
    """The state of the server that `open_embedded` would give. Raises `ServerError`."""
    place = place_of(settings, make=False)
    storage = storage_of(settings, place.cache, place.account)
    running = is_locked(place.state / guard.SERVER)
    return EmbeddedStatus(place.binaries, place.state, running, postmaster.is_kept(place), storage)


def _join_or_start(place: Place, notes: list[str]) -> int:
    """Join the server that runs, or start it when no process of one is left. Gives its version as a number."""
    began = time.monotonic()
    while True:
        lock = try_lock(place.state / guard.SERVER)
        if lock is not None:
            notes += _start(place, lock)
        try:
            with postmaster.connect(place) as connection:
                return connection.info.server_version
        except psycopg.OperationalError as error:
            refusal = str(error)
        if postmaster.is_locked_out(refusal):
            raise postmaster.locked_out(place, refusal)
        if is_certain(refusal):
            raise postmaster.own_refusal(place, refusal)
        with suppress(OSError), (place.state / guard.SERVER).open("rb") as server:
            guard.end_orphans(str(place.state), server.fileno())
        patience = RECOVERY_PATIENCE_SECONDS if _RECOVERS in refusal else JOIN_PATIENCE_SECONDS
        if time.monotonic() - began > patience:
            raise _unreachable(place, refusal)
        time.sleep(postmaster.POLL_SECONDS)


def _start(place: Place, lock: int) -> list[str]:
    """Start it; gives what the run is to say of it."""
    guard.note(lock, 0, "")
    try:
        kept = postmaster.is_kept(place)
        gone = postmaster.reset_settings(place) if kept else []
        if not kept:
            postmaster.make_data(place, lock)
        try:
            _start_patiently(place, lock)
            gone += _restore(place)
        except (postmaster.StartError, postmaster.LockedOutError, CannotUndo, psycopg.Error) as error:
            # Kept data is a cache: what cannot be started is made anew, unless that would not help either.
            if not kept or (isinstance(error, postmaster.StartError) and start_remedy(error.log)):
                raise
            postmaster.stop(lock)
            postmaster.make_data(place, lock)
            postmaster.start(place, lock)
            _restore(place)
            reason = error.saw if isinstance(error, ServerError) else str(error)
            return [f"the embedded server begins on fresh data: {reason.strip().splitlines()[-1]}"]
    finally:
        os.close(lock)  # the server has its own
    return [f"undone on the embedded server, where an earlier run had left it: {', '.join(gone)}"] if gone else []


def _restore(place: Place) -> list[str]:
    """Make what belongs to the whole server what it was before tests; gives what was otherwise."""
    wanted, doubted = Globals.load(place.state), place.state / DOUBTED
    if wanted and not doubted.exists() and not memory.lacks_tablespace(place):
        return []
    with Admin(postmaster.robust_address(place)) as admin:
        memory.make_tablespace(admin, place)
        changes = restore(admin, wanted) if wanted else []
        Globals.of(admin.run, superuser=True).save(place.state)
    doubted.unlink(missing_ok=True)
    (place.state / LEFT).unlink(missing_ok=True)
    return [str(change) for change in changes]


def _start_patiently(place: Place, lock: int) -> None:
    """Start the postmaster; again, where it was killed meanwhile: that says nothing against its data.

    Nor may they go then. Only a start on the same directory clears away a killed one's shared memory.
    """
    for pause in _PAUSES_SECONDS:
        try:
            postmaster.start(place, lock)
        except postmaster.StartError as error:
            if not error.killed:
                raise
            time.sleep(pause)
        else:
            return
    postmaster.start(place, lock)


def _find_end(place: Place) -> ServerError | None:
    """The error for a server whose last process has ended; one that recovers from a crash still has one."""
    if is_locked(place.state / guard.SERVER):
        return None
    return ServerError(
        f"The embedded server has ended in the middle of the run; its log is {place.log}",
        saw=f"no process of it is left; the end of its log:\n{postmaster.log_since(place, 0)[-_LOG_END:].strip()}",
        source=f"PostgreSQL {place.binaries.version} ({place.binaries.origin}), account {place.account.name}",
        remedy="find out what killed it (the kernel, for want of memory?), and run the tests again: they start it anew",
    )


def _unreachable(place: Place, refusal: str) -> ServerError:
    pid = guard.postmaster(str(place.state)) or "unknown"
    remedy = (
        "end the test runs that use it: then it is stopped and started anew. If another container or machine "
        "shares this directory, set XDG_CACHE_HOME to a directory of its own for each"
    )
    return ServerError(
        f"The embedded server is running (process {pid}), but does not accept connections; its log is {place.log}",
        **{**postmaster.describe(place, f"{postmaster.log_since(place, 0)}\n{refusal}"), "remedy": remedy},
    )
