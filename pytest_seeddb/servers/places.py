"""The account that runs the embedded server, and the directories that it uses: below our own cache directory only."""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers import guard

if TYPE_CHECKING:
    from pytest_seeddb.servers.binaries import Binaries

SERVERS: Final = "servers"
"""The directory in the cache directory that holds the servers' state directories."""

_ACCOUNTS: Final = ("postgres", "_postgres", "nobody")
"""PostgreSQL refuses to run as root. Debian's account and most others', macOS's, and the one that every system has."""
_FOR_ROOT: Final = Path("/var/cache/pytest-seeddb")
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Account:
    """An existing account of this machine."""

    name: str
    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        """Whether this process runs under it."""
        return self.uid == os.geteuid()

    def spawn_options(self) -> dict[str, Any]:
        """The arguments of `subprocess.Popen` that run a child under this account."""
        return {} if self.is_ours else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def take(self, path: Path) -> None:
        """Give ``path`` to this account, or raise `ServerError`."""
        if self.is_ours:
            return
        try:
            os.chown(path, self.uid, self.gid)
        except OSError as error:
            raise ServerError(
                f"PostgreSQL refuses to run as root, and this root cannot become {self.name!r}",
                saw=str(error),
                source="probably a container or namespace that maps a single account",
                remedy="run pytest as an ordinary user, or name a running server: --seed-db-server=postgresql://...",
            ) from error

    def may(self, path: Path, wanted: int) -> bool:
        """Whether this account has the permission bits ``wanted`` (4 read, 1 enter or run).

        Looks at the modes, not at access control lists. A path that does not exist grants nothing.
        """
        try:
            status = path.stat()
        except OSError:
            return False
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
        return (status.st_mode >> shift) & wanted == wanted

    def can_enter(self, directory: Path) -> bool:
        """Whether this account can reach ``directory``; parts that do not exist yet do not count."""
        return all(self.may(part, stat.S_IXOTH) for part in (directory, *directory.parents) if part.exists())


def own_account() -> Account:
    """That of this process."""
    return Account("", os.geteuid(), os.getegid())


def server_account() -> Account:
    """The account for the server: our own, or for root one that is made for servers. Raises `ServerError`."""
    uid = os.geteuid()
    if uid != 0:
        try:
            return Account(pwd.getpwuid(uid).pw_name, uid, os.getegid())
        except KeyError:
            return Account(str(uid), uid, os.getegid())  # containers run under numbers that have no name
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise ServerError(
        "PostgreSQL refuses to run as root, and there is no account to run it as",
        saw=f"none of the accounts {', '.join(_ACCOUNTS)} exists",
        source="the embedded server",
        remedy="run pytest as an ordinary user, or make an account: useradd --system postgres",
    )


@dataclass(frozen=True)
class Place:
    """One embedded server: its programs, its account, and the directory with its state and its locks (see `guard`)."""

    binaries: Binaries
    account: Account
    state: Path

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
    """Our cache directory, made if need be, which ``account`` can enter. Raises `ServerError`."""
    place = cache_place(account)
    if place.parent == _FOR_ROOT:
        make_private(_FOR_ROOT, account)
    return make_private(place, account)


def cache_place(account: Account) -> Path:
    """Where our cache directory is, or will be.

    Root's own is usually closed to the account that runs the server, and with ``sudo`` it may be in another user's
    hands; then a directory in ``/var/cache`` takes its place.
    """
    import platformdirs

    wanted = Path(platformdirs.user_cache_dir("pytest-seeddb"))
    if (os.geteuid() != 0 or _only_root_can_replace(wanted)) and (account.is_ours or account.can_enter(wanted)):
        return wanted
    return _FOR_ROOT / hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]


def state_place(cache: Path, version: str, programs: Path) -> Path:
    """Where the state directory is, or will be, of the server that runs from these programs."""
    digest = hashlib.sha256(os.fsencode(programs)).hexdigest()[:12]
    return cache / SERVERS / f"{version}-{digest}"


def container_directory(name: str) -> Path:
    """The directory for what we know of a container, made if need be; only its user's."""
    account = own_account()
    return make_private(make_private(cache_directory(account) / "containers", account) / name, account)


def make_private(directory: Path, account: Account) -> Path:
    """Make ``directory`` if need be, owned by us, writable by nobody else, and open to ``account``.

    Raises:
        ServerError: It cannot be made, or belongs to another user.
    """
    mode = 0o700 if account.is_ours else 0o755
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            if status.st_mode & _WRITABLE_BY_OTHERS or status.st_mode & mode != mode:
                directory.chmod(mode)  # whatever the umask says
            return directory
        saw, cause = f"it is not a directory of user {os.geteuid()}; it belongs to user {status.st_uid}", None
    except OSError as error:
        saw, cause = str(error), error
    raise ServerError(
        f"The embedded server cannot keep its data in {directory}",
        saw=saw,
        source="the user's cache directory",
        remedy="set XDG_CACHE_HOME to a directory of yours that can be written to",
    ) from cause


def _only_root_can_replace(directory: Path) -> bool:
    """Whether nobody but root can put another directory in this one's place."""
    for part in (directory, *directory.parents):
        if part.exists():
            status = part.stat()
            sticky = status.st_mode & stat.S_ISVTX
            if status.st_uid != 0 or (status.st_mode & _WRITABLE_BY_OTHERS and not sticky):
                return False
    return True
