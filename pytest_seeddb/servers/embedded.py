"""The embedded server: started by the first who needs it, shared by all, stopped after the last."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers import cluster, guard, postmaster
from pytest_seeddb.servers.accounts import server_account
from pytest_seeddb.servers.binaries import choose
from pytest_seeddb.servers.children import environment, reap, release
from pytest_seeddb.servers.copies import expected, runnable
from pytest_seeddb.servers.diagnosis import failed, log_since
from pytest_seeddb.servers.locks import held, tried
from pytest_seeddb.servers.places import Place, cache_directory, cache_place, state_directory, state_place
from pytest_seeddb.servers.remedies import start_remedy
from pytest_seeddb.servers.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.servers.binaries import Binaries
    from pytest_seeddb.settings.settings import Settings

JOIN_PATIENCE_SECONDS: Final = 15.0
RECOVERY_PATIENCE_SECONDS: Final = 300.0
_PAUSES_SECONDS: Final = (0.05, 0.2, 1.0)  # what a killed postmaster leaves needs a moment to end
_RECOVERS: Final = "the database system is"  # starting up, in recovery, shutting down


@contextmanager
def running(settings: Settings) -> Iterator[Server]:
    """Start or join the embedded server; it runs for at least as long as the block.

    All who have the same binaries share one server, whatever their project, Python or terminal. When
    the last of them is gone, its guard stops it. The data directory, templates included, is kept.

    Raises:
        ServerError: There are no binaries, or the server cannot be started or reached.
    """
    reap()
    place = _place(settings)
    with held(place.users_lock, shared=True):
        if not place.binaries.program("postgres").exists():
            _place(settings)  # removed as unused before the lock was ours: copied again
        with held(place.start_lock):
            _ensure_guard(place)
            server = _joined_or_started(place)
        try:
            yield server
        finally:
            # Ours may be the last to leave, and the guard may have been killed since. Should this fail,
            # the next user's guard stops the server: no reason to fail a run that has ended.
            with suppress(ServerError):
                _ensure_guard(place)


@dataclass(frozen=True)
class Standing:
    """How the embedded server stands, told without starting it or making anything.

    Attributes:
        binaries: What it runs, or will run, from.
        state: Its state directory, which may not be there.
        running: Whether a process of it runs.
        kept: Whether it has databases that its next start finds again.
    """

    binaries: Binaries
    state: Path
    running: bool
    kept: bool


def standing(settings: Settings) -> Standing:
    """See how the server stands that `running` would give.

    Raises:
        ServerError: There are no binaries, or no account to run them.
    """
    account = server_account()
    cache = cache_place(account)
    binaries = expected(choose(settings), account, cache)
    place = Place(binaries, account, state_place(cache, binaries.version, binaries.directory))
    return Standing(binaries, place.state, _is_running(place), cluster.is_kept(place))


def _is_running(place: Place) -> bool:
    if not place.server_lock.exists():
        return False
    lock = tried(place.server_lock)
    if lock is not None:
        os.close(lock)
    return lock is None


def _place(settings: Settings) -> Place:
    account = server_account()
    cache = cache_directory(account)
    binaries = runnable(choose(settings), account, cache)
    return Place(binaries, account, state_directory(cache, binaries, account))


def _ensure_guard(place: Place) -> None:
    """Spawn a guard unless one lives. It inherits its lock, so that there are never two."""
    lock = tried(place.guard_lock)
    if lock is None:
        return
    command = [sys.executable, "-I", "-S", str(Path(guard.__file__)), str(place.state), str(lock)]
    try:
        process = subprocess.Popen(  # noqa: S603  # our own script, in our own Python
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment(),
            pass_fds=(lock,),
            start_new_session=True,
        )
    except OSError as error:
        raise failed("The embedded server's guard cannot be started", place, str(error)) from error
    finally:
        os.close(lock)
    release(process)


def _joined_or_started(place: Place) -> Server:
    """Join the server that runs, or start it when no process of one is left."""
    began = time.monotonic()
    while True:
        lock = tried(place.server_lock)
        if lock is not None:
            _start(place, lock)
        found = _probed(place)
        if isinstance(found, Server):
            return found
        _end_orphans(place)
        patience = RECOVERY_PATIENCE_SECONDS if _RECOVERS in found else JOIN_PATIENCE_SECONDS
        if time.monotonic() - began > patience:
            raise _unreachable(place, found)
        time.sleep(postmaster.POLL_SECONDS)


def _end_orphans(place: Place) -> None:
    with suppress(OSError), place.server_lock.open("rb") as server:
        guard.end_orphans(str(place.state), server.fileno())


def _start(place: Place, lock: int) -> None:
    guard.note(lock, 0, "")
    try:
        kept = cluster.is_kept(place)
        if not kept:
            cluster.make(place, lock)
        try:
            _start_patiently(place, lock)
        except postmaster.StartError as error:
            # Kept data is a cache: what cannot be started is made anew, unless that would not help either.
            if not kept or start_remedy(error.told):
                raise
            cluster.make(place, lock)
            postmaster.start(place, lock)
    finally:
        os.close(lock)  # the server has its own


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


def _probed(place: Place) -> Server | str:
    """The server, or why it cannot be reached."""
    import psycopg

    try:
        with postmaster.connect(place) as connection:
            return Server(
                kind="embedded",
                address=postmaster.address(place),
                version=place.binaries.version,
                version_num=connection.info.server_version,
                origin=place.binaries.origin,
                superuser=True,
                fsync=False,
            )
    except psycopg.OperationalError as error:
        return str(error)


def _unreachable(place: Place, told: str) -> ServerError:
    pid = guard.postmaster(str(place.state))
    shown = failed(
        f"The embedded server is running (process {pid or 'unknown'}), but does not accept connections; "
        f"its log is {place.log}",
        place,
        f"{log_since(place, 0)}\n{told}",
    )
    remedy = (
        "end the test runs that use it, and it is stopped and started anew. If another container or machine "
        "shares this directory, set XDG_CACHE_HOME to a directory of its own for each"
    )
    return ServerError(shown.what, saw=shown.saw, source=shown.source, remedy=remedy)
