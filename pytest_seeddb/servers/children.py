"""Start processes that outlive us: the postmaster and its guard."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import subprocess

# What a server may see of our environment. Not the rest: PG* would change what it does, and an
# application's secrets have no business in the environment of a process that outlives it.
_PASSED: Final = (
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "DYLD_FALLBACK_LIBRARY_PATH",
    "LOCALE_ARCHIVE",
)
_released: Final[set[int]] = set()


def environment() -> dict[str, str]:
    """The environment of a process that belongs to nobody's run in particular."""
    # A valid LC_ALL also keeps macOS from starting threads in the postmaster, which then refuses to run.
    return {"LC_ALL": "C", **{name: os.environ[name] for name in _PASSED if name in os.environ}}


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
