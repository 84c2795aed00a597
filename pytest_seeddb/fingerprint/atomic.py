"""What appears complete or not at all: it is written beside its place, and renamed into it.

Whoever writes it holds a lock on it, which the kernel gives back when the process ends, however it ends. So what
nobody holds was left by somebody who was killed, and whoever writes in the same place next removes it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ABANDONED_SECONDS: Final = 24 * 3600.0
"""The age that must do for a sign where a file system has no locks."""


@contextmanager
def beside(path: Path, *, directory: bool = False, private: bool = False) -> Iterator[Path]:
    """Give an empty file, or directory, beside the path for a block that renames it when it is complete.

    It is removed if the block leaves it there. What killed processes left is removed first (see `sweep`).

    Raises:
        OSError: It cannot be made.
    """
    sweep(path.parent, re.escape(path.name), private=private)
    partial, lock = _made(path, directory=directory)
    try:
        yield partial
    finally:
        remove(partial)
        _close(lock)


def sweep(directory: Path, names: str, *, private: bool = False) -> None:
    """Remove what killed processes left beside paths with such names, a regular expression, as far as possible.

    Only what belongs to this process's user, unless the directory is ``private``: then all that is in it is ours.
    """
    ours = re.compile(rf"\.(?:{names})\.[0-9a-f]{{8}}\.part")
    for leftover in [path for path in directory.iterdir() if ours.fullmatch(path.name)]:
        with suppress(OSError):
            if private or leftover.lstat().st_uid == _own_id():
                _remove_abandoned(leftover)


def free_name(path: Path) -> Path:
    """A name beside the path that nothing has; what stays under it counts as left by a killed process."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def remove(path: Path) -> None:
    """Remove a file or a directory with all that is in it; one that is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _made(path: Path, *, directory: bool) -> tuple[Path, int | None]:
    while True:
        partial = free_name(path)
        if directory:
            partial.mkdir(mode=0o700)
        else:
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        try:
            lock = _opened(partial)
        except FileNotFoundError:
            continue  # somebody took it for abandoned before it was locked
        if _is_held(lock) is not False and partial.exists():
            return partial, lock
        _close(lock)


def _remove_abandoned(leftover: Path) -> None:
    lock = _opened(leftover)
    try:
        held = _is_held(lock)
        if held or (held is None and time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS):
            remove(leftover)
    finally:
        _close(lock)


def _own_id() -> int:
    return 0 if sys.platform == "win32" else os.geteuid()


def _opened(path: Path) -> int | None:
    """A descriptor to be locked; none on Windows, where an open file cannot be renamed."""
    return None if sys.platform == "win32" else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _close(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _is_held(lock: int | None) -> bool | None:
    """Whether the lock is ours now; ``None`` where there are no locks."""
    if sys.platform == "win32" or lock is None:
        return None
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
