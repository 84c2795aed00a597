"""What embedded servers have left in the cache directory, and removing what nobody uses.

A server's state directory outlives its binaries, and copied programs outlive the environment that
they were copied from: each new version leaves a pair behind. Which of them are in use is told by
the locks in the state directory alone (see `pytest_seeddb.servers.opening.guard`).

Lock files are never removed, nor the directory that they are in: somebody who waits for a lock
would get one that nobody else can see any more.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import secrets
import shutil
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pytest_seeddb.servers import guard
from pytest_seeddb.servers.accounts import server_account
from pytest_seeddb.servers.copies import COPY_LOCK, SHELF
from pytest_seeddb.servers.locks import held, tried
from pytest_seeddb.servers.places import PARTIAL, PARTIALS, SERVERS, cache_place, ours, state_place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME: Final = re.compile(r"(?P<version>\d[\w.]*)-[0-9a-f]{12}")
_FILES: Final = (guard.RECORD, f"{guard.RECORD}.new", guard.CLEAN, "postgres.log")


@dataclass(frozen=True)
class Remains:
    """One directory that an embedded server has left.

    Attributes:
        kind: ``data``: a server's databases; ``programs``: copied binaries.
        place: The directory.
        state: The state directory of the server that it belongs to; its locks guard both kinds.
        used: The day of its last use, ISO 8601.
        in_use: Whether a process uses it.
    """

    kind: Literal["data", "programs"]
    place: Path
    state: Path
    used: str
    in_use: bool

    @property
    def size(self) -> int:
        """Bytes; looks at every file."""
        return sum(_sizes(self.place))


def remains() -> list[Remains]:
    """What there is, sorted by place. Makes nothing and disturbs nobody.

    Raises:
        ServerError: There is no account that a server could run under.
    """
    cache = cache_place(server_account())
    states = [each for each in _directories(cache / SERVERS) if _holds_data(each)]
    found = [Remains("data", each, each, _last_use(each), _is_in_use(each)) for each in states]
    for copy in _directories(cache / SHELF):
        state = _state_of(copy, cache)
        found.append(Remains("programs", copy, state, max(_last_use(state), _day(copy)), _is_in_use(state)))
    return sorted(found, key=lambda each: each.place)


def remove(found: Remains) -> bool:
    """Remove it, unless a process uses it by now; whether it was removed.

    Whoever wants to use it meanwhile waits, then finds an empty directory and makes everything anew.
    Killed in between, it leaves what the next start or the next copy clears away.

    Raises:
        ServerError: Its locks cannot be used.
    """
    ours(found.state, server_account())
    with ExitStack() as stack:
        for name in (guard.USERS, guard.SERVER):
            lock = tried(found.state / name)
            if lock is None:
                return False
            stack.callback(os.close, lock)
        _empty_state(found.state) if found.kind == "data" else _remove_copy(found.place)
    return True


def _empty_state(state: Path) -> None:
    socket = guard.record(str(state)).get("socket", "")
    if (data := state / guard.DATA).exists():
        # A half-removed directory must not pass for a data directory, should we be killed now.
        data.rename(state / (PARTIAL + secrets.token_hex(4)))
    _clear(state)
    for name in _FILES:
        (state / name).unlink(missing_ok=True)
    guard.remove_socket_directory(socket)


def _remove_copy(copy: Path) -> None:
    with held(copy.parent / COPY_LOCK), suppress(FileNotFoundError):
        copy.rename(copy.with_name(PARTIAL + secrets.token_hex(4)))
        _clear(copy.parent)


def _clear(directory: Path) -> None:
    for leftover in directory.glob(PARTIALS):
        shutil.rmtree(leftover, ignore_errors=True)


def _directories(parent: Path) -> Iterator[Path]:
    """Those that are named as ours are and belong to us; what somebody has linked there is not ours to remove."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for each in parent.iterdir():
            found = each.lstat()
            if _NAME.fullmatch(each.name) and stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                yield each


def _holds_data(state: Path) -> bool:
    return (state / guard.DATA).is_dir() or any(state.glob(PARTIALS))


def _state_of(copy: Path, cache: Path) -> Path:
    """The state directory of the server that runs from these programs."""
    programs = next((each.parent for each in copy.rglob("initdb")), copy)
    return state_place(cache, copy.name.rpartition("-")[0], programs)


def _is_in_use(state: Path) -> bool:
    """Whether anybody holds its locks. Taking them for a moment makes others wait for that moment."""
    for path in (state / guard.USERS, state / guard.SERVER):
        if path.exists():
            lock = tried(path)
            if lock is None:
                return True
            os.close(lock)
    return False


def _last_use(state: Path) -> str:
    """Starts and stops write files of the server's; its data directory's own time says less."""
    return max((_day(state / name) for name in (guard.SERVER, *_FILES)), default="")


def _day(path: Path) -> str:
    try:
        return dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC).date().isoformat()
    except OSError:
        return ""


def _sizes(directory: Path) -> Iterator[int]:
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):  # gone meanwhile
                yield os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - there are thousands
