"""Clones in memory: a tablespace in ``/dev/shm`` beside an embedded server's data directory, which stays on the disk.

Only clones are made there, so nothing is lost with it but what a test was doing. The tablespace's location is a link in
the state directory. Each start makes a directory of random name and lets the link lead to it. The server's processes
hold the directory's lock, so one that is not locked is of no use any more: the guard removes its own server's, and each
start all that servers of the account have left. The databases that were in it can then only be dropped.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.fingerprint.atomic import beside
from pytest_seeddb.servers import guard
from pytest_seeddb.servers.storage import PARENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_seeddb.servers.admin import Admin
    from pytest_seeddb.servers.places import Account, Place

TABLESPACE: Final = "seeddb_memory"
DISK: Final = "pg_default"

ON_DISK: Final = "clones are made on the disk"

_CGROUPS: Final = Path("/sys/fs/cgroup")
_CATALOG_VERSION_AT: Final = 12
"""Its place in ``pg_control``, behind the system's number and the file's own version."""
_SHARE: Final = 4
"""Clones take at most one part in so many of the memory that would be free without them."""
_GROWTH: Final = 16 * 2**20
"""What a test may add to its clone, beside a quarter of its size."""
_NO_LIMIT: Final = 2**60
"""The first version of cgroups says so by a number just below 2**63."""


def find(state: Path, account: Account) -> Path | None:
    """The server's directory in memory, if it is there and the account's alone."""
    with suppress(OSError):
        directory = (state / guard.MEMORY).readlink()
        status = directory.lstat()
        if stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o700 and status.st_uid == account.uid:  # noqa: PLR2004 - no others
            return directory
    return None


@contextmanager
def directory_for(place: Place) -> Iterator[tuple[str, Sequence[int]]]:
    """Make the directory before a start. Gives it, and its lock for the server to inherit; neither without /dev/shm.

    PostgreSQL's recovery from a crash, and DROP DATABASE, go on where databases have lost their files with an earlier
    one; but they need the directory of the version in it.
    """
    sweep(place.account)
    with ExitStack() as stack:
        made, locks = "", []
        with suppress(OSError, struct.error):
            directory, lock = _make_directory()
            stack.callback(os.close, lock)
            for link in (place.data / "pg_tblspc").iterdir():
                if link.is_symlink() and link.readlink().name == guard.MEMORY:
                    if str(link.readlink()) != _location(place):  # of a cache directory that was copied
                        _point(link, _location(place))
                    control = (place.data / "global" / "pg_control").read_bytes()
                    (catalog,) = struct.unpack_from("=I", control, _CATALOG_VERSION_AT)
                    version = directory / f"PG_{place.binaries.major}_{catalog}"
                    version.mkdir(mode=0o700)
                    place.account.take(version)
            place.account.take(directory)
            _point(place.state / guard.MEMORY, directory)
            made, locks = str(directory), [lock]
        yield made, locks


def _make_directory() -> tuple[Path, int]:
    while True:
        directory = Path(tempfile.mkdtemp(prefix=guard.MEMORY_PREFIX, dir=PARENT))
        with suppress(FileNotFoundError, BlockingIOError):  # taken for a left one before it was locked
            lock = _lock(directory)
            if directory.exists():
                return directory, lock
            os.close(lock)


def _lock(directory: Path) -> int:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _point(link: Path, target: object) -> None:
    with beside(link) as partial:
        partial.unlink()
        partial.symlink_to(str(target))
        partial.replace(link)


def sweep(account: Account) -> None:
    """Remove the directories that servers of the account have left."""
    with suppress(OSError):
        for directory in PARENT.glob(f"{guard.MEMORY_PREFIX}*"):
            with suppress(OSError):
                if directory.lstat().st_uid in {account.uid, os.geteuid()}:
                    lock = _lock(directory)
                    guard.remove_memory_directory(str(directory))
                    os.close(lock)


def has_tablespace(place: Place) -> bool:
    """Whether the data directory has the tablespace."""
    with suppress(OSError):
        return any(str(link.readlink()) == _location(place) for link in (place.data / "pg_tblspc").iterdir())
    return False


def _location(place: Place) -> str:
    return os.path.normpath(place.state / guard.MEMORY)  # as PostgreSQL writes it


def lacks_tablespace(place: Place) -> bool:
    """Whether there is a directory for one and the data directory does not have it."""
    return find(place.state, place.account) is not None and not has_tablespace(place)


def make_tablespace(admin: Admin, place: Place) -> None:
    """Make it if it is lacking. Where the server refuses it, clones are on the disk."""
    if lacks_tablespace(place):
        import psycopg  # here: data directories are made by runs that need no client
        from psycopg import sql

        name, location = sql.Identifier(TABLESPACE), sql.Literal(_location(place))
        with suppress(psycopg.Error):
            admin.run(sql.SQL("DROP TABLESPACE IF EXISTS {}").format(name))  # in another place
            admin.run(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(name, location))
            # As everybody may who names it in a database that has it for its default.
            admin.run(sql.SQL("GRANT CREATE ON TABLESPACE {} TO PUBLIC").format(sql.Identifier(DISK)))


def memory_of(place: Place, notes: list[str]) -> Memory | None:
    """What decides for each clone of a running server; ``None``, and a line in ``notes``, if it has no tablespace."""
    if has_tablespace(place):
        return Memory(place.state, place.account, notes)
    notes.append(f"{ON_DISK}: the server was started without a tablespace in memory; its next start makes one")
    return None


class Memory:
    """Says of each clone whether it is made in memory. What is unusual goes into ``notes``, once."""

    def __init__(self, state: Path, account: Account, notes: list[str]) -> None:
        self._state = state
        self._account = account
        self._notes = notes
        self._limits = _limits(Path(f"/proc/{guard.postmaster(str(state)) or 'self'}/cgroup"))

    def tablespace_for(self, size: int) -> str:
        """Where a clone of so many bytes is made. A few files are read: some 0.2 ms."""
        reason = "memory has no room for them"
        try:
            if directory := find(self._state, self._account):
                (version,) = directory.iterdir()
                clones = sum(name.isdigit() for name in os.listdir(version))  # noqa: PTH208 - the names alone
                wanted = (clones + 1) * (size + size // 4 + _GROWTH)
                if wanted * _SHARE <= self._free(version) + clones * size:
                    return TABLESPACE
            else:
                reason = "their directory in memory was removed or changed; the server's next start makes it again"
        except (OSError, ValueError) as error:
            reason = str(error)
        self.note(reason)
        return DISK

    def note(self, reason: str) -> None:
        """Say why clones are on the disk although they should be in memory."""
        if (line := f"{ON_DISK}: {reason}") not in self._notes:
            self._notes.append(line)

    def _free(self, directory: Path) -> int:
        """Bytes that can be had: of the file system, the machine and the server's cgroups the least."""
        system = os.statvfs(directory)
        free = [system.f_bavail * system.f_frsize, _number(Path("/proc/meminfo"), "MemAvailable:") * 1024]
        # Files that were read count as used, and go as soon as anything else needs the memory.
        free += [
            limit - int(usage.read_text(encoding="ascii")) + _number(usage.with_name("memory.stat"), files)
            for limit, usage, files in self._limits
        ]
        return min(free)


def _number(path: Path, word: str) -> int:
    """The number behind a word in one of the kernel's tables."""
    words = path.read_text(encoding="ascii").split()
    return int(words[words.index(word) + 1])


def _limits(groups: Path) -> list[tuple[int, Path, str]]:
    """Of a process's cgroups, which a file lists: limit, file with what is used, and word for files in its table."""
    limits = []
    with suppress(OSError):
        for line in groups.read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if "memory" in controllers.split(","):
                root, files = _CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            elif not controllers:
                root, files = _CGROUPS, ("memory.max", "memory.current")
            else:
                continue
            place = root / name.lstrip("/")
            # In a container the name may be the host's, and the root the container's own.
            for directory in (place, *(parent for parent in place.parents if parent.is_relative_to(root))):
                with suppress(OSError, ValueError):  # not there, or "max"
                    limit = int((directory / files[0]).read_text(encoding="ascii"))
                    if limit < _NO_LIMIT:
                        word = "total_inactive_file" if controllers else "inactive_file"
                        limits.append((limit, directory / files[1], word))
    return limits
