"""Whether clones are made in memory or on the disk: the setting ``storage``, and what ``auto`` measures."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.fingerprint.atomic import beside
from pytest_seeddb.servers.processes import boot_id

if TYPE_CHECKING:
    from pytest_seeddb.servers.places import Account
    from pytest_seeddb.settings.settings import Settings

MEASURED: Final = "storage.json"
"""In the cache directory: what `auto` has measured since the machine started."""

PARENT: Final = Path("/dev/shm")  # noqa: S108 - what we make there is private
_SYSTEMD: Final = Path("/run/systemd/system")
_LINGER: Final = Path("/var/lib/systemd/linger")
_LOGIND: Final = ("/usr/lib/systemd", "/run/systemd", "/etc/systemd")
_FILES: Final = 300
"""As many as a small clone has, a page in each."""
_LEAST: Final = 512 * 2**20
"""A quarter of it holds what one worker has of a small template. Docker gives a container 64 MB."""
_TIMES_SLOWER: Final = 3
_SECONDS_SLOWER: Final = 0.015
_FIRST_USER: Final = 1000
"""The accounts below it are the system's, whose files systemd leaves alone."""


@dataclass(frozen=True)
class Storage:
    """Where clones are to be made, and why."""

    in_memory: bool
    why: str

    def __str__(self) -> str:
        """For people."""
        return f"clones {'in memory' if self.in_memory else 'beside the templates'}: {self.why}"


def storage_of(settings: Settings, cache: Path, account: Account, databases: Path | None = None) -> Storage:
    """Where clones of the server in the cache directory are to be made.

    `auto` measures once after each boot, in the directory where the server has its ``databases``: other directories
    of the same disk may be quicker. Without it nothing is made, and what was not measured is on the disk.

    Raises:
        ServerError: The machine has no place in memory.
    """
    is_possible, wanted = PARENT.is_dir() and os.access(PARENT, os.W_OK | os.X_OK), settings.storage
    if wanted == "memory" and not is_possible:
        raise ServerError(
            "Clones cannot be made in memory on this machine",
            saw=f"{PARENT} is not a directory that can be written to",
            source=settings.source("storage"),
            remedy='mount a tmpfs there (docker run --shm-size=1g), or choose storage = "auto", the default',
        )
    if wanted != "auto":
        return Storage(wanted == "memory", settings.source("storage"))
    if not is_possible:
        why = f"{PARENT} is not there, or cannot be written to"
    elif _ends_with_the_session(account):
        why = f"systemd removes files in {PARENT} when {account.name} logs out"
    elif (size := shutil.disk_usage(PARENT).total) < _LEAST:
        why = f"{PARENT} has {size // 2**20} MB"
    elif _is_same_device(cache):
        why = "the data directory is in memory itself"
    elif measured := _remembered(cache) or (_measure(cache, databases) if databases else None):
        disk, memory = measured
        why = f"{_FILES} files are made and removed in {disk * 1000:.0f} ms on the disk, {memory * 1000:.0f} in memory"
        return Storage(disk > _TIMES_SLOWER * memory and disk > memory + _SECONDS_SLOWER, why)
    else:
        why = "not measured since the machine was started"
    return Storage(in_memory=False, why=why)


def _is_same_device(cache: Path) -> bool:
    return cache.exists() and cache.stat().st_dev == PARENT.stat().st_dev


def _remembered(cache: Path) -> tuple[float, float] | None:
    """What was measured on the disk and in memory since the machine was started."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        measured = json.loads((cache / MEASURED).read_text(encoding="utf-8"))
        if measured["boot"] == boot_id():
            return float(measured["disk"]), float(measured["memory"])
    return None


def _measure(cache: Path, databases: Path) -> tuple[float, float] | None:
    with suppress(OSError):
        disk, memory = _probe(databases), _probe(PARENT)
        with beside(cache / MEASURED) as partial:
            partial.write_text(json.dumps({"boot": boot_id(), "disk": disk, "memory": memory}), encoding="utf-8")
            partial.replace(cache / MEASURED)
        return disk, memory
    return None


def _probe(parent: Path) -> float:
    """Seconds to make and remove as many files as a clone has: the better of two times.

    Neither is the first: some disks are quick until files have been removed, and avoid the place of those for seconds.
    """
    seconds = []
    for _ in range(3):
        started = perf_counter()
        with beside(parent / "seeddb-probe", directory=True) as directory:
            for number in range(_FILES):
                with (directory / str(number)).open("xb", buffering=0) as file:
                    file.write(bytes(8192))
        seconds.append(perf_counter() - started)
    return min(seconds[1:])


def _ends_with_the_session(account: Account) -> bool:
    """Whether systemd removes the account's files in memory when its last session ends (``RemoveIPC``)."""
    if not _SYSTEMD.is_dir() or account.uid < _FIRST_USER:
        return False
    if (_LINGER / account.name).exists():
        return False
    files = [Path(place, "logind.conf") for place in _LOGIND]
    files += sorted(
        (file for place in _LOGIND for file in Path(place).glob("logind.conf.d/*.conf")), key=lambda file: file.name
    )
    removes = "yes"
    for file in files:
        with suppress(OSError, UnicodeDecodeError):
            for line in file.read_text(encoding="utf-8").splitlines():
                name, _, value = line.partition("=")
                removes = value.strip().lower() if name.strip() == "RemoveIPC" else removes
    return removes not in {"no", "false", "off", "0", "n", "f"}
