"""Start the embedded server's postmaster, and reach it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers import guard
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.children import environment, release
from pytest_seeddb.servers.cluster import SUPERUSER, socket_directory, write_record
from pytest_seeddb.servers.diagnosis import failed, log_since

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from pytest_seeddb.servers.places import Place

PORT: Final = "5432"
POLL_SECONDS: Final = 0.002  # pg_ctl's own 100 ms is four times what a start takes
START_PATIENCE_SECONDS: Final = 120.0  # it may have to recover from a kill first
_CONNECT_TIMEOUT_SECONDS: Final = 5
_KILLED: Final = ("terminated by signal 9", "is still in use")
_LOG_LIMIT_BYTES: Final = 10 * 1024 * 1024

# Command-line settings, which no ALTER SYSTEM of a test can override.
SETTINGS: Final = {
    "listen_addresses": "",
    "port": PORT,  # part of the socket's name
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "128MB",
    "max_connections": "200",
    # The same on every machine, whatever TZ is where initdb happens to run.
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Modest, and no statements: they may hold passwords.
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_statement": "none",
    "log_checkpoints": "off",
}


class StartError(ServerError):
    """The postmaster ended before it was ready.

    Attributes:
        told: What it wrote to its log.
        killed: Whether it was killed, or its first process; or what a killed one left has not ended yet.
    """

    told: str = ""
    killed: bool = False


def start(place: Place, server_lock: int) -> None:
    """Start the postmaster and wait until it accepts connections.

    It inherits ``server_lock``, and so do its backends: the lock is free again when the last one is
    gone. Whoever calls this holds it, so no process uses the data directory.

    Raises:
        StartError: It ended at once.
        ServerError: It does not become ready.
    """
    sockets = _socket_directory_for(place)
    (place.data / "postmaster.pid").unlink(missing_ok=True)  # of a killed one: its number may be another's now
    position = _shortened_log(place)
    guard.note(server_lock, 0, str(sockets))
    process = _spawned(place, sockets, server_lock)
    try:
        guard.note(server_lock, process.pid, str(sockets))
        _wait(place, process, position)
    finally:
        release(process)


def address(place: Place) -> Address:
    """How to reach the server that was started last."""
    return Address({"host": place.record().get("socket", ""), "port": PORT, "user": SUPERUSER, "dbname": "postgres"})


def connect(place: Place) -> psycopg.Connection[tuple[object, ...]]:
    """Connect once to the server that was started last.

    Raises:
        psycopg.OperationalError: It does not accept connections (yet).
    """
    import psycopg

    reached = address(place)
    if not reached.params["host"]:  # libpq would take its own default
        raise psycopg.OperationalError("no server has been started yet")
    return psycopg.connect(
        reached.conninfo,
        autocommit=True,
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        application_name="seeddb",
    )


def _socket_directory_for(place: Place) -> Path:
    """Make a private directory for the socket, written down first so that it never gets lost."""
    guard.remove_socket_directory(place.record().get("socket", ""))
    sockets = next(socket_directory(place))
    try:
        write_record(place, sockets)
        sockets.mkdir(mode=0o700)
    except OSError as error:
        raise failed("The embedded server's socket directory cannot be made", place, str(error)) from error
    place.account.take(sockets)
    return sockets


def _shortened_log(place: Place) -> int:
    """Empty a log that has grown large; return where the next entry will stand."""
    if place.log.is_symlink():
        place.log.unlink()  # what it leads to is not ours to write into
    try:
        size = place.log.stat().st_size
        if size <= _LOG_LIMIT_BYTES:
            return size
        os.truncate(place.log, 0)
    except FileNotFoundError:
        return 0
    return 0


def _spawned(place: Place, sockets: Path, server_lock: int) -> subprocess.Popen[bytes]:
    command = [str(place.binaries.program("postgres")), "-D", str(place.data), "-k", str(sockets)]
    settings = {**SETTINGS, **_shared_memory()}
    command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    try:
        with place.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # the program that was chosen for this
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment(),
                pass_fds=(server_lock,),
                start_new_session=True,  # Ctrl-C in the terminal is for pytest, not for the server
                **place.account.spawn_options(),
            )
    except OSError as error:
        raise failed("The embedded server cannot be started", place, str(error)) from error


def _shared_memory() -> dict[str, str]:
    """Files, where there is no /dev/shm now: the data directory may have been made while there was one."""
    return {} if os.access("/dev/shm", os.W_OK | os.X_OK) else {"dynamic_shared_memory_type": "mmap"}  # noqa: S108 - not a file of ours


def _wait(place: Place, process: subprocess.Popen[bytes], position: int) -> None:
    import psycopg

    deadline = time.monotonic() + START_PATIENCE_SECONDS
    last = ""
    while time.monotonic() < deadline:
        try:
            connect(place).close()
        except psycopg.OperationalError as error:
            last = str(error)
        else:
            return
        if process.poll() is not None:
            raise _ended(place, process.returncode, position)
        time.sleep(POLL_SECONDS)
    process.kill()
    raise failed(
        f"The embedded server was not ready within {START_PATIENCE_SECONDS:.0f} s; its log is {place.log}",
        place,
        f"{log_since(place, position)}\n{last}",
    )


def _ended(place: Place, code: int, position: int) -> StartError:
    told = log_since(place, position)
    shown = failed(
        f"The embedded server ended with code {code} before it was ready; its log is {place.log}", place, told
    )
    error = StartError(shown.what, saw=shown.saw, source=shown.source, remedy=shown.remedy)
    error.told = told
    error.killed = code == -signal.SIGKILL or any(sign in told for sign in _KILLED)
    return error
