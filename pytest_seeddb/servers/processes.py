"""Processes that outlive the one that starts them, and locks that the kernel releases when their holder ends.

``flock``, not ``lockf``: that lock is lost when any descriptor of the file is closed, and no child can inherit it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers import guard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# The part of our environment that a server may see. PG* would change what it does, and an application's secrets have no
# business in the environment of a process that outlives it.
_PASSED: Final = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "LOCALE_ARCHIVE")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_released: Final[set[int]] = set()


@contextmanager
def hold_lock(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock on ``path`` for a block; a forked child that is still alive keeps it. Raises `ServerError`."""
    descriptor = _lock(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)  # never LOCK_UN: that would unlock it in forked children too


def try_lock(path: Path) -> int | None:
    """The descriptor of an exclusive lock on ``path``, taken without waiting; ``None`` where another process has it."""
    try:
        return _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock. Taking it for a moment makes others wait for that moment."""
    if not path.exists():
        return False
    lock = try_lock(path)
    if lock is not None:
        os.close(lock)
    return lock is None


def _lock(path: Path, operation: int) -> int:
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, operation)
    except BaseException as error:
        if descriptor >= 0:
            os.close(descriptor)
        if not isinstance(error, OSError) or isinstance(error, BlockingIOError):
            raise
        raise ServerError(
            f"Cannot lock {path}",
            saw=str(error),
            source="the cache directory",
            remedy="set XDG_CACHE_HOME to a directory of yours on a local disk",
        ) from error
    return descriptor


def server_environment() -> dict[str, str]:
    """The environment of a process that serves all runs."""
    # A valid LC_ALL also keeps macOS from starting threads in the postmaster, which then refuses to run.
    return {"LC_ALL": "C", **{name: os.environ[name] for name in _PASSED if name in os.environ}}


def spawn(
    command: Sequence[str],
    locks: Sequence[int],
    *,
    output: IO[bytes] | int = subprocess.DEVNULL,
    env: Mapping[str, str] | None,
    account: Mapping[str, Any] = MappingProxyType({}),
) -> subprocess.Popen[bytes]:
    """Start a process that outlives us and inherits locks, under an account's options; or raise `OSError`."""
    return subprocess.Popen(  # noqa: S603  # our own script, or a program that was chosen for this
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env=env,
        pass_fds=locks,
        start_new_session=True,  # Ctrl-C in the terminal is for pytest alone
        **account,
    )


def ensure_guard(state: Path, kind: guard.Kind, env: Mapping[str, str] | None) -> None:
    """Spawn the guard of a state directory unless one lives. It inherits its lock, so there are never two."""
    lock = try_lock(state / guard.GUARD)
    if lock is None:
        return
    flags = ["-I", "-S"] if kind == "server" else ["-P"]  # the engine's client is among the installed packages
    try:
        release(spawn([sys.executable, *flags, guard.__file__, str(state), str(lock), kind], [lock], env=env))
    except OSError as error:
        raise ServerError(
            f"The process that stops the {kind} after its last use cannot be started",
            saw=str(error),
            source=str(state),
            remedy="let this user start more processes, or free memory",
        ) from error
    finally:
        os.close(lock)


def release(process: subprocess.Popen[bytes]) -> None:
    """Let a child run on by itself: no warning when ``process`` is collected, no zombie kept for long."""
    if process.returncode is None:
        _released.add(process.pid)
        process.returncode = 0  # else Popen warns that it is still running


def reap() -> None:
    """Collect the released children that have ended since."""
    for pid in tuple(_released):
        with suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        _released.discard(pid)


def boot_id() -> str:
    """A text that changes whenever the machine starts; empty where the system has none."""
    try:
        if sys.platform == "darwin":
            # Not kern.boottime: that one moves whenever the clock is set.
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603  # fixed
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, subprocess.SubprocessError):
        return ""
