"""Files and directories that appear complete or not at all: written beside their place, then renamed into it.

The writer holds a lock on the unfinished file, which the kernel releases however the process ends. So an unlocked one
was left by a killed process, and the next writer in the same place removes it.
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
"""Where a file system has no locks, this age counts as abandoned."""


@contextmanager
def beside(path: Path, *, directory: bool = False, private: bool = False) -> Iterator[Path]:
    """Give an empty file, or directory, beside the path for a block that renames it when it is complete.

    It is removed if the block leaves it there. First, the leftovers of killed processes are removed (see `sweep`).

    Raises:
        OSError: It cannot be made.
    """
    sweep(path.parent, re.escape(path.name), private=private)
    while True:
        partial = free_name(path)
        if directory:
            partial.mkdir(mode=0o700)
        else:
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        try:
            lock = _open(partial)
        except FileNotFoundError:
            continue  # another process took it for abandoned before it was locked
        if _is_held(lock) is not False and partial.exists():
            break
        _close(lock)
    try:
        yield partial
    finally:
        remove(partial)
        _close(lock)


def sweep(directory: Path, names: str, *, private: bool = False) -> None:
    """Remove what killed processes left beside paths with such names (a regular expression), as far as possible.

    In a directory that is not ``private``, files of other users stay.
    """
    ours = re.compile(rf"\.(?:{names})\.[0-9a-f]{{8}}\.part")
    own_id = 0 if sys.platform == "win32" else os.geteuid()
    for leftover in [path for path in directory.iterdir() if ours.fullmatch(path.name)]:
        with suppress(OSError):
            if private or leftover.lstat().st_uid == own_id:
                lock = _open(leftover)
                try:
                    is_held = _is_held(lock)
                    is_old = time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS
                    if is_held or (is_held is None and is_old):
                        remove(leftover)
                finally:
                    _close(lock)


def free_name(path: Path) -> Path:
    """A name beside the path that nothing has; what stays under it counts as left by a killed process."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def remove(path: Path) -> None:
    """Remove a file or a directory with all that is in it; one that is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _open(path: Path) -> int | None:
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
