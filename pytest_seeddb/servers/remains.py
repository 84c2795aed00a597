"""What embedded servers have left in the cache directory, and removing what nobody uses.

A server's state directory outlives its binaries, and copied programs outlive the environment that they were copied
from: each new version leaves a pair behind. The locks in the state directory alone tell which of them are in use (see
`pytest_seeddb.servers.guard`).

Lock files are never removed, nor the directory that they are in: a process that waits for a lock would get one that
nobody else can see any more.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pytest_seeddb.fingerprint.atomic import free_name, sweep
from pytest_seeddb.servers import guard, memory
from pytest_seeddb.servers.places import (
    COPY_LOCK,
    NAME,
    SERVERS,
    SHELF,
    cache_place,
    make_private,
    server_account,
    state_place,
)
from pytest_seeddb.servers.processes import hold_lock, is_locked, try_lock
from pytest_seeddb.servers.server import DOUBTED, GLOBALS, LEFT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FILES: Final = (guard.RECORD, guard.CLEAN, "postgres.log", GLOBALS, DOUBTED, LEFT, guard.MEMORY)


@dataclass(frozen=True)
class Remains:
    """One directory that an embedded server has left: its databases, or copied programs."""

    kind: Literal["data", "programs"]
    place: Path
    state: Path
    """The state directory of the server that it belongs to; its locks guard both kinds."""
    used: str
    """The day of its last use, ISO 8601."""
    in_use: bool

    @property
    def size(self) -> int:
        """Bytes; looks at every file."""
        size = 0
        for parent, _, names in os.walk(self.place):
            for name in names:
                with suppress(OSError):  # gone meanwhile
                    size += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - there are thousands
        return size


def remains() -> list[Remains]:
    """What there is, sorted by place. Makes nothing and disturbs nobody. Raises `ServerError`."""
    cache = cache_place(server_account())
    left = [
        Remains("data", state, state, _last_use(state), _is_in_use(state))
        for state in _directories(cache / SERVERS)
        if (state / guard.DATA).is_dir() or any(state.glob(f".{guard.DATA}.*.part"))
    ]
    for copy in _directories(cache / SHELF):
        programs = next((path.parent for path in copy.rglob("initdb")), copy)
        state = state_place(cache, copy.name.rpartition("-")[0], programs)
        left.append(Remains("programs", copy, state, max(_last_use(state), _day(copy)), _is_in_use(state)))
    return sorted(left, key=lambda entry: entry.place)


def remove(entry: Remains) -> bool:
    """Remove it, unless a process uses it by now; whether it was removed.

    A process that wants to use it meanwhile waits, then finds an empty directory and makes everything anew. Killed in
    between, it leaves what the next start or the next copy removes. Raises `ServerError`.
    """
    make_private(entry.state, server_account())
    with ExitStack() as stack:
        for name in (guard.USERS, guard.SERVER):
            lock = try_lock(entry.state / name)
            if lock is None:
                return False
            stack.callback(os.close, lock)
        if entry.kind == "data":
            _empty_state(entry.state)
        else:
            with hold_lock(entry.place.parent / COPY_LOCK), suppress(FileNotFoundError):
                entry.place.rename(free_name(entry.place))
                sweep(entry.place.parent, NAME, private=True)
    return True


def remove_data(state: Path) -> bool:
    """Remove data that only their key leads to, unless a process uses them, and their directory; whether they are gone.

    The caller keeps others from using the key meanwhile.
    """
    if state.parent.name != SERVERS or not state.is_dir():  # a container's go with it
        return True
    lock = try_lock(state / guard.GUARD)
    if lock is None:
        return False
    try:
        if not remove(Remains("data", state, state, "", in_use=False)):
            return False
        shutil.rmtree(state, ignore_errors=True)
    finally:
        os.close(lock)
    return True


def _empty_state(state: Path) -> None:
    socket = guard.record(str(state)).get("socket", "")
    if (data := state / guard.DATA).exists():
        # A half-removed directory must not pass for a data directory, should we be killed now.
        data.rename(free_name(data))
    sweep(state, f"{guard.DATA}|{re.escape(guard.RECORD)}", private=True)
    memory.sweep(server_account())
    for name in _FILES:
        (state / name).unlink(missing_ok=True)
    guard.remove_socket_directory(socket)


def _directories(parent: Path) -> Iterator[Path]:
    """Those that are named as ours are and belong to us; what was linked there is not ours to remove."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in parent.iterdir():
            status = path.lstat()
            if re.fullmatch(NAME, path.name) and stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                yield path


def _is_in_use(state: Path) -> bool:
    return is_locked(state / guard.USERS) or is_locked(state / guard.SERVER)


def _last_use(state: Path) -> str:
    """Starts and stops write files of the server's; its data directory's own time says less."""
    return max((_day(state / name) for name in (guard.SERVER, *_FILES)), default="")


def _day(path: Path) -> str:
    try:
        return dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC).date().isoformat()
    except OSError:
        return ""
