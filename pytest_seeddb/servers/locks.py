"""Locks between processes that the kernel gives back when their holder ends, however it ends.

``flock``, not ``lockf``: a ``lockf`` lock is lost as soon as the process closes any other
descriptor of the same file. A ``flock`` lock belongs to the open file and so can be handed to a child.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_seeddb.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def held(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock on ``path`` while the block runs; wait for it in the kernel, however long.

    A forked child that is still alive keeps the lock with its parent: it may be using what is locked.

    Raises:
        ServerError: The file cannot be opened, or its file system has no locks.
    """
    descriptor = _opened(path)
    try:
        _flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, path)
        yield
    finally:
        os.close(descriptor)  # never LOCK_UN: that would unlock it in forked children too


def tried(path: Path) -> int | None:
    """Take the lock on ``path`` exclusively, without waiting.

    Returns:
        The descriptor that holds it, to be closed or handed to a child; ``None`` when it is held.

    Raises:
        ServerError: The file cannot be opened, or its file system has no locks.
    """
    descriptor = _opened(path)
    try:
        _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error


def _flock(descriptor: int, operation: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        raise
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> ServerError:
    return ServerError(
        f"Cannot lock {path}",
        saw=str(error),
        source="the cache directory",
        remedy="set XDG_CACHE_HOME to a directory of yours on a local disk",
    )
