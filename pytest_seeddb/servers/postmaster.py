"""The embedded server's data directory, which ``initdb`` makes and which is kept between runs, and its postmaster."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.fingerprint.atomic import beside, free_name
from pytest_seeddb.servers import guard
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.libpq import variables_set
from pytest_seeddb.servers.memory import directory_for
from pytest_seeddb.servers.processes import boot_id, release, server_environment, spawn
from pytest_seeddb.servers.remedies import is_certain, start_remedy
from pytest_seeddb.servers.server import DOUBTED, GLOBALS, LEFT

if TYPE_CHECKING:
    import psycopg

    from pytest_seeddb.servers.places import Place

POLL_SECONDS: Final = 0.002  # pg_ctl's own 100 ms is four times what a start takes
START_PATIENCE_SECONDS: Final = 120.0  # it may have to recover from a kill first
_BLIND_SECONDS: Final = 0.25
"""So long after the start, and as often, a connection is tried though the postmaster does not say that it is ready."""
_CONNECT_TIMEOUT_SECONDS: Final = 5
_PORT: Final = "5432"
_SUPERUSER: Final = "postgres"  # the role that most applications' dumps and scripts expect
_KILLED: Final = ("terminated by signal 9", "is still in use")
_STOP_PATIENCE_SECONDS: Final = 20.0
_REFUSED: Final = "FATAL:  "
_PASSING: Final = ("the database system is", "too many clients", "remaining connection slots")
"""What a server says that lets the superuser in a little later."""
_ROBUST: Final = (
    "default_transaction_read_only=off",
    "statement_timeout=0",
    "lock_timeout=0",
    "role=none",
    "search_path=pg_catalog",
    "session_preload_libraries=",
    "local_preload_libraries=",
)
_AUTO: Final = "postgresql.auto.conf"
"""What ``ALTER SYSTEM`` writes, in the data directory."""
_LOG_LIMIT_BYTES: Final = 10 * 1024 * 1024
_TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 20_000
_OTHERWISE: Final = (
    "name other binaries (binaries = '/path/to/bin') or a running server "
    "(--seed-db-server=postgresql://user@host:port/postgres)"
)
_INITDB: Final = (
    f"--username={_SUPERUSER}",
    "--auth=trust",  # nobody else can enter the socket directory, and there is no TCP
    "--encoding=UTF8",
    "--no-sync",
    "--no-instructions",
    "--text-search-config=english",
    "--lc-messages=C",
)
_BUILTIN_PROVIDER_SINCE: Final = 17
_CHECKSUMS_BY_DEFAULT_SINCE: Final = 18

# Command-line settings, which no ALTER SYSTEM of a test can override.
SETTINGS: Final = {
    "listen_addresses": "",
    "port": _PORT,  # part of the socket's name
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
    # The same on every machine: initdb would take it from TZ.
    # So that what a test made is told from what was there before it.
    "track_commit_timestamp": "on",
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
    """The postmaster ended before it was ready."""

    log: str = ""
    killed: bool = False
    """Whether it was killed, or its first process; or what a killed one left has not ended yet."""


class LockedOutError(ServerError):
    """The server runs and does not let its superuser in: a test has changed it so."""


def failure(what: str, place: Place, words: str) -> ServerError:
    """An error with PostgreSQL's last words, where its programs came from, and what to do."""
    return ServerError(what, **describe(place, words))


def describe(place: Place, words: str) -> dict[str, str]:
    """The other parts of such an error."""
    remedy = (start_remedy(words) or _OTHERWISE).format(
        state=place.state,
        account=place.account.name,
        origin=place.binaries.origin,
        programs=place.binaries.directory,
    )
    return {
        "saw": "\n".join([line for line in words.splitlines() if line.strip()][-_TAIL_LINES:]),
        "source": f"PostgreSQL {place.binaries.version} ({place.binaries.origin}), account {place.account.name}",
        "remedy": remedy,
    }


def log_since(place: Place, position: int) -> str:
    """What the server has written to its log since ``position``, at most the last 20 kB."""
    try:
        with place.log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(position, end - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


# -- the data directory --------------------------------------------------------------------------


def is_kept(place: Place) -> bool:
    """Whether the data directory can be trusted.

    With ``fsync=off`` a server's files are whole only while the machine stays up, or once the guard has written them
    to the disk and marked them clean.
    """
    try:
        if place.data.lstat().st_uid != place.account.uid:
            return False
    except OSError:
        return False
    record, boot = place.record(), boot_id()
    if boot and record.get("boot") == boot:
        return True
    try:
        clean = (place.state / guard.CLEAN).read_text(encoding="utf-8")
    except OSError:
        return False
    return bool(clean) and clean == record.get("token", "")


def make_data(place: Place, server_lock: int) -> None:
    """Put a new, empty data directory in the place of what is there, complete or not at all, or raise `ServerError`.

    ``initdb`` inherits ``server_lock``, so that one whose parent was killed still keeps others away until it has ended.
    """
    guard.note(server_lock, 0, "")  # a dead postmaster's number must not be taken for initdb's
    try:
        if place.data.exists():
            # A half-removed directory must not pass for a data directory, should we be killed now.
            place.data.rename(free_name(place.data))
        for name in (GLOBALS, DOUBTED, LEFT):
            (place.state / name).unlink(missing_ok=True)
        with beside(place.data, directory=True, private=True) as partial:
            place.account.take(partial)
            _initdb(place, partial, server_lock)
            partial.rename(place.data)
        guard.remove_socket_directory(place.record().get("socket", ""))  # of a start that was killed
        _write_record(place, "")
    except OSError as error:
        raise failure("The embedded server's data directory cannot be made", place, str(error)) from error


def _initdb(place: Place, target: Path, server_lock: int) -> None:
    """Text has the same order everywhere: that of C.UTF-8, or of the nearest locale that the system has."""
    locales = [["--locale=C.UTF-8"], ["--locale=C"]]
    if place.binaries.major >= _BUILTIN_PROVIDER_SINCE:
        builtin = "--locale-provider=builtin"
        locales = [[builtin, "--locale=C.UTF-8"], [builtin, "--builtin-locale=C.UTF-8", "--locale=C"]]
    checksums = ["--no-data-checksums"] if place.binaries.major >= _CHECKSUMS_BY_DEFAULT_SINCE else []
    for locale in locales:
        # A refused locale leaves an empty directory, which the next attempt takes.
        command = [str(place.binaries.program("initdb")), f"--pgdata={target}", *_INITDB, *locale, *checksums]
        env, account = server_environment(), place.account.spawn_options()
        with spawn(command, [server_lock], output=subprocess.PIPE, env=env, account=account) as initdb:
            stdout, stderr = initdb.communicate()
        if initdb.returncode == 0:
            return
        words = (stderr or stdout).decode(errors="replace")
        if "invalid locale" not in words:
            break
    raise failure("initdb failed to make the embedded server's data directory", place, words)


def reset_settings(place: Place) -> list[str]:
    """Put back what ``ALTER SYSTEM`` has set, which may keep the server from starting; gives the lines that went."""
    from pytest_seeddb.servers.globals import Globals  # and psycopg, which the header of a run does not need

    path = place.data / _AUTO
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    wanted = (Globals.load(place.state) or Globals({})).system
    if sorted(lines) == sorted(wanted):
        return []
    path.write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")
    return [line for line in lines if line not in wanted]


# -- the postmaster ------------------------------------------------------------------------------


def start(place: Place, server_lock: int) -> None:
    """Start the postmaster and wait until it accepts connections, or raise `StartError` or `ServerError`.

    It inherits ``server_lock``, and so do its backends: the lock is free again when the last one is gone. The caller
    holds it, so no process uses the data directory.
    """
    sockets = _make_socket_directory(place)
    (place.data / "postmaster.pid").unlink(missing_ok=True)  # of a killed one: its number may be another's now
    position = _trim_log(place)
    # Files, where there is no /dev/shm now: the data directory may have been made while there was one.
    has_memory = os.access("/dev/shm", os.W_OK | os.X_OK)  # noqa: S108 - we write no file there
    settings = {**SETTINGS, **({} if has_memory else {"dynamic_shared_memory_type": "mmap"})}
    command = [str(place.binaries.program("postgres")), "-D", str(place.data), "-k", str(sockets)]
    command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with directory_for(place) as (directory, locks):
        guard.note(server_lock, 0, str(sockets), directory)
        try:
            with place.log.open("ab") as log:
                account = place.account.spawn_options()
                process = spawn(command, [server_lock, *locks], output=log, env=server_environment(), account=account)
        except OSError as error:
            raise failure("The embedded server cannot be started", place, str(error)) from error
    try:
        guard.note(server_lock, process.pid, str(sockets), directory)
        _wait(place, process, position)
    finally:
        release(process)


def address(place: Place) -> Address:
    """How to reach the server that was started last."""
    params = {"host": place.record().get("socket", ""), "port": _PORT, "user": _SUPERUSER, "dbname": "postgres"}
    return Address(params, is_ours=True)


def robust_address(place: Place) -> Address:
    """The same, for a session on which no setting of the role or the database has an effect."""
    return address(place).having(options=" ".join(f"-c {setting}" for setting in _ROBUST))


def connect(place: Place) -> psycopg.Connection[tuple[object, ...]]:
    """Connect once to the server that was started last, or raise `OperationalError`."""
    import psycopg

    server = robust_address(place)
    if not server.params["host"]:  # libpq would take its own default
        raise psycopg.OperationalError("no server has been started yet")
    connection = server.connect(autocommit=True, connect_timeout=_CONNECT_TIMEOUT_SECONDS, application_name="seeddb")
    if connection.info.parameter_status("is_superuser") != "on":
        connection.close()
        raise psycopg.OperationalError(f'{_REFUSED}role "{_SUPERUSER}" is not a superuser')
    return connection


def locked_out(place: Place, refusal: str) -> LockedOutError:
    """The error for a server that refuses its superuser."""
    remedy = "end the test runs that use it: its next start begins on fresh data"
    what = "The embedded server does not let its superuser in: a test has changed that role or its database"
    return LockedOutError(what, **{**describe(place, refusal), "remedy": remedy})


def own_refusal(place: Place, refusal: str) -> ServerError:
    """The error for a connection that libpq itself refuses, because of its settings in this process."""
    variables = variables_set()
    names = ", ".join(variable.partition("=")[0] for variable in variables) or "what is in libpq's files"
    what = "libpq refuses to connect to the embedded server, because of its settings in this process"
    remedy = f"unset {names}, which is about another server; the code of the project, or of a plugin, has set it"
    return ServerError(what, **{**describe(place, "\n".join([refusal, *variables])), "remedy": remedy})


def is_locked_out(refusal: str) -> bool:
    """Whether the server runs and refuses its superuser, who can do nothing about it."""
    return _REFUSED in refusal and not any(sign in refusal for sign in _PASSING)


def stop(server_lock: int) -> None:
    """Stop the postmaster that this process has just started, and wait for its end."""
    pid = guard.read_note(server_lock)[0]
    deadline = time.monotonic() + _STOP_PATIENCE_SECONDS
    with suppress(OSError):  # it has ended, or it is not our child
        os.kill(pid, signal.SIGINT)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS)


def _make_socket_directory(place: Place) -> Path:
    """Make a private directory, written down first so that it never gets lost; a path may have 100 bytes.

    The promise of clean data is taken back at the same time. It must be gone from the disk before the server writes
    its first page: otherwise it could come back after a power cut, over data that is no longer clean.
    """
    guard.remove_socket_directory(place.record().get("socket", ""))
    parents = [path for path in ("/tmp", "/var/tmp") if os.access(path, os.W_OK | os.X_OK)]  # noqa: S108  # private there
    if not parents:
        raise ServerError(
            "There is no directory for the embedded server's socket",
            saw="neither /tmp nor /var/tmp can be written to",
            source=f"account {place.account.name}",
            remedy="make /tmp writable, or name a running server: --seed-db-server=postgresql://...",
        )
    sockets = Path(parents[0]) / (guard.SOCKET_PREFIX + secrets.token_hex(5))
    clean = place.state / guard.CLEAN
    try:
        _write_record(place, str(sockets))
        if clean.exists() or clean.is_symlink():
            clean.unlink()
            guard.synchronize(str(place.state))
        sockets.mkdir(mode=0o700)
    except OSError as error:
        raise failure("The embedded server's socket directory cannot be made", place, str(error)) from error
    place.account.take(sockets)
    return sockets


def _write_record(place: Place, socket: str) -> None:
    """Write down that the data are whole while this boot lasts, and where the server's socket is."""
    record = {"boot": boot_id(), "token": secrets.token_hex(8), "socket": socket}
    with beside(place.state / guard.RECORD) as partial:
        partial.write_text(json.dumps(record), encoding="utf-8")
        partial.replace(place.state / guard.RECORD)


def _trim_log(place: Place) -> int:
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


def _is_ready(place: Place) -> bool:
    """Whether the postmaster has written that it accepts connections, into the last line of its file."""
    with suppress(OSError):
        lines = (place.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1].strip() == "ready" if lines else False
    return False


def _wait(place: Place, process: subprocess.Popen[bytes], position: int) -> None:
    import psycopg

    deadline = time.monotonic() + START_PATIENCE_SECONDS
    blind = time.monotonic() + _BLIND_SECONDS
    last = ""
    while time.monotonic() < deadline:
        # A refused attempt costs both sides the time that the start needs.
        if _is_ready(place) or time.monotonic() > blind:
            blind = time.monotonic() + _BLIND_SECONDS
            try:
                connect(place).close()
            except psycopg.OperationalError as error:
                last = str(error)
                if is_locked_out(last):
                    raise locked_out(place, last) from None
                if is_certain(last):
                    raise own_refusal(place, last) from None
            else:
                return
        if (code := process.poll()) is not None:
            log = log_since(place, position)
            what = f"The embedded server ended with code {code} before it was ready; its log is {place.log}"
            ended = StartError(what, **describe(place, log))
            ended.log = log
            ended.killed = code == -signal.SIGKILL or any(sign in log for sign in _KILLED)
            raise ended
        time.sleep(POLL_SECONDS)
    process.kill()
    raise failure(
        f"The embedded server was not ready within {START_PATIENCE_SECONDS:.0f} s; its log is {place.log}",
        place,
        f"{log_since(place, position)}\n{last}",
    )
