"""Where the embedded server keeps things: only below our own cache directory, and safe from others."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers import guard

if TYPE_CHECKING:
    from pytest_seeddb.servers.accounts import Account
    from pytest_seeddb.servers.binaries import Binaries

SERVERS: Final = "servers"
"""The directory in the cache directory that holds the servers' state directories."""

CONTAINERS: Final = "containers"
"""The same for containers."""

PARTIAL: Final = "partial-"
"""What a directory's name begins with that is being made or removed, before eight random digits."""

PARTIALS: Final = PARTIAL + 8 * "[0-9a-f]"
"""The pattern of such names. Others that begin so are not ours."""

_FOR_ROOT: Final = Path("/var/cache/pytest-seeddb")
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Place:
    """One embedded server: its programs, its account, and the directory with its state."""

    binaries: Binaries
    account: Account
    state: Path

    @property
    def users_lock(self) -> Path:
        """See `guard` for this lock and the next three."""
        return self.state / guard.USERS

    @property
    def start_lock(self) -> Path:
        """Exclusive around "look for the server, or start it"."""
        return self.state / guard.START

    @property
    def guard_lock(self) -> Path:
        """Held by the guard."""
        return self.state / guard.GUARD

    @property
    def server_lock(self) -> Path:
        """Held by whatever process uses the data directory."""
        return self.state / guard.SERVER

    @property
    def data(self) -> Path:
        """The data directory; complete whenever it exists."""
        return self.state / guard.DATA

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.state / "postgres.log"

    def record(self) -> dict[str, str]:
        """What the last start wrote down: ``boot``, ``token``, ``socket``."""
        return guard.record(str(self.state))


def cache_directory(account: Account) -> Path:
    """Our cache directory, made if need be, which ``account`` can enter.

    Raises:
        ServerError: It cannot be made, or belongs to somebody else.
    """
    place = cache_place(account)
    if place.parent == _FOR_ROOT:
        ours(_FOR_ROOT, account)
    return ours(place, account)


def cache_place(account: Account) -> Path:
    """Where our cache directory is, or will be.

    Root's own is usually closed to the account that runs the server, and with ``sudo`` it may be in
    another user's hands; then a directory in ``/var/cache`` takes its place.
    """
    import platformdirs

    wanted = Path(platformdirs.user_cache_dir("pytest-seeddb"))
    if (os.geteuid() != 0 or _only_roots(wanted)) and (account.is_ours or account.can_enter(wanted)):
        return wanted
    return _FOR_ROOT / hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]


def state_directory(cache: Path, binaries: Binaries, account: Account) -> Path:
    """The directory for the state of the server that these binaries make, made if need be."""
    place = state_place(cache, binaries.version, binaries.directory)
    ours(place.parent, account)
    return ours(place, account)


def container_directory(name: str) -> Path:
    """The directory for what we know of a container, made if need be; only its user's."""
    from pytest_seeddb.servers.accounts import own_account

    cache = cache_directory(own_account())
    return ours(ours(cache / CONTAINERS, own_account()) / name, own_account())


def state_place(cache: Path, version: str, programs: Path) -> Path:
    """Where that directory is, or will be."""
    digest = hashlib.sha256(os.fsencode(programs)).hexdigest()[:12]
    return cache / SERVERS / f"{version}-{digest}"


def ours(directory: Path, account: Account) -> Path:
    """Make ``directory`` if need be, owned by us and writable by nobody else.

    Raises:
        ServerError: It cannot be made, or belongs to somebody else.
    """
    mode = 0o700 if account.is_ours else 0o755
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            if found.st_mode & _WRITABLE_BY_OTHERS or found.st_mode & mode != mode:
                directory.chmod(mode)  # whatever the umask says
            return directory
    except OSError as error:
        raise _unusable(directory, str(error)) from error
    raise _unusable(directory, f"it is no directory of user {os.geteuid()}, but of user {found.st_uid}")


def _only_roots(directory: Path) -> bool:
    """Whether nobody but root can put another directory in this one's place."""
    return all(_is_roots(part) for part in (directory, *directory.parents) if part.exists())


def _is_roots(directory: Path) -> bool:
    found = directory.stat()
    sticky = found.st_mode & stat.S_ISVTX
    return found.st_uid == 0 and bool(sticky or not found.st_mode & _WRITABLE_BY_OTHERS)


def _unusable(directory: Path, saw: str) -> ServerError:
    return ServerError(
        f"The embedded server cannot keep its data in {directory}",
        saw=saw,
        source="the user's cache directory",
        remedy="set XDG_CACHE_HOME to a directory of yours that can be written to",
    )
