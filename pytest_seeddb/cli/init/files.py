"""A project's own files, and the schema, dumps and SQL seeds among them."""

from __future__ import annotations

import gzip
import os
import re
import sys
import tomllib
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.migrations.arranging import Arranged
from pytest_seeddb.migrations.formats import PLAIN, Directory
from pytest_seeddb.settings.pytest_files import pytest_file

_NOT_ITS_OWN: Final = re.compile(
    r"\..*|.*\.(?:egg|dist)-info|__pycache__|__pypackages__|site-packages|node_modules|build|dist|htmlcov|vendor"
    r"|tests?|testing|docs?|examples|demos|samples|benchmarks"
)
_MOST: Final = 20_000
_BEGINNING: Final = 1_000_000
_ALEMBIC: Final = re.compile(rb"^\[alembic\]", re.MULTILINE)
_FLASK_APP: Final = re.compile(
    rb"^(app|application)\s*(?::[^=\n]+)?=\s*(?:\w+\.)?(?:create_app|make_app|Flask)\(", re.MULTILINE
)
_FLASK_MAKER: Final = re.compile(rb"^def ((?:create|make)_app(?:lication)?)\(", re.MULTILINE)
_NUMBERED: Final = re.compile(r"[VU]?\d+[^/]*\.sql", re.IGNORECASE)
_TABLE: Final = re.compile(rb"\bCREATE\s+(?:UNLOGGED\s+)?TABLE\b", re.IGNORECASE)
_DUMPED: Final = re.compile(rb"^-- PostgreSQL database (?:cluster )?dump", re.MULTILINE)
_ROWS: Final = re.compile(rb"^(?:COPY \S+ .*FROM stdin;|INSERT INTO )", re.MULTILINE)
_SEEDS: Final = re.compile(r"(?:.*/)?seeds?(?:/[^/]*)?\.sql", re.IGNORECASE)
_CHANGELOG: Final = re.compile(r"[^/]*change[-_.]?log[^/]*\.(?:xml|ya?ml|json)")
_SIGNS: Final = 3  # the most that tell a directory of migrations whose format nothing tells
_MIGRATIONS: Final = frozenset({"migrations", "migration", "migrate"})
_NOT_MIGRATIONS: Final = frozenset({"queries", "query", "fixtures", "seeds", "seed", "functions", "views", "scripts"})


class Files:
    """A project's own files, the nearest to its root first: no hidden files, environments, caches or tests."""

    def __init__(self, root: Path) -> None:
        names: list[str] = []
        for place, directories, files in os.walk(root):
            within = Path(place)
            if within != root and ("pyvenv.cfg" in files or "conda-meta" in directories):
                directories.clear()
                continue
            directories[:] = [name for name in directories if not _NOT_ITS_OWN.fullmatch(name)]
            names += [(within / name).relative_to(root).as_posix() for name in files]
            if len(names) >= _MOST:
                break
        self.root = root
        self.names = sorted(names[:_MOST], key=lambda name: (name.count("/"), name))

    def ending(self, *ends: str) -> list[str]:
        """The files whose path ends so; a ``/`` in front means the whole name."""
        return [name for name in self.names if f"/{name}".endswith(ends)]

    def beginning(self, name: str) -> bytes:
        """The first bytes of a file, decompressed; nothing where it cannot be read."""
        try:
            with (gzip.open if name.endswith(".gz") else open)(self.root / name, "rb") as file:
                return file.read(_BEGINNING)
        except (OSError, EOFError, zlib.error):
            return b""

    @cached_property
    def pyproject(self) -> dict[str, Any]:
        """The content of ``pyproject.toml``; nothing without one."""
        return tomllib.loads(self.beginning("pyproject.toml").decode())

    @cached_property
    def django(self) -> str:
        """Where it shows that this is a Django project; or nothing."""
        for name in self.ending("/manage.py", "/wsgi.py", "/asgi.py"):
            if b"DJANGO_SETTINGS_MODULE" in self.beginning(name):
                return name
        file = pytest_file(self.root)
        return f"DJANGO_SETTINGS_MODULE in {file.path.name}" if file.path and file.django_settings else ""

    @cached_property
    def scripts(self) -> list[str]:
        """The functions that ``pyproject.toml`` makes commands of, as ``package.module:function``."""
        tables = (self.pyproject.get("project", {}), self.pyproject.get("tool", {}).get("poetry", {}))
        entries = [entry for table in tables for entry in table.get("scripts", {}).values()]
        return [entry for entry in entries if isinstance(entry, str) and ":" in entry]

    @cached_property
    def sources(self) -> list[str]:
        """The directories that modules are imported from, each with a slash at its end: the root is the empty one."""
        places = [self.root / "src", *map(Path, filter(None, (*pytest_file(self.root).python_path, *sys.path)))]
        within = [place.relative_to(self.root).as_posix() for place in places if place.is_relative_to(self.root)]
        return [*sorted({f"{place}/" for place in within if place != "."}, key=len, reverse=True), ""]

    @cached_property
    def modules(self) -> dict[str, str]:
        """The modules that can be imported, each with its file."""
        packages = {name.removesuffix("/__init__.py") for name in self.ending("/__init__.py")}
        modules: dict[str, str] = {}
        for name in self.ending(".py"):
            source = next(source for source in self.sources if name.startswith(source))
            parts = name.removeprefix(source).removesuffix(".py").split("/")
            regular = [f"{source}{'/'.join(parts[:end])}" in packages for end in range(1, len(parts))]
            if parts != ["__init__"] and all(map(str.isidentifier, parts)) and (not any(regular) or regular[0]):
                modules[".".join(parts).removesuffix(".__init__")] = name
        return dict(sorted(modules.items()))

    @cached_property
    def hidden(self) -> list[str]:
        """The packages that cannot be imported from here: their directories, from the root."""
        inner = {*self.ending("/__init__.py")} - {*self.modules.values()}
        return sorted({name.removesuffix("/__init__.py") for name in inner if name.count("/") > 1})

    @cached_property
    def flask_app(self) -> str:
        """The module with Flask's application, where Flask does not find it by itself; or nothing."""
        usual = {"app.py", "wsgi.py", ".flaskenv"} & {path.name for path in self.root.iterdir()}
        return "" if usual or "FLASK_APP" in os.environ else (self.flask_makers or [""])[0].partition(":")[0]

    @cached_property
    def flask_makers(self) -> list[str]:
        """The import paths of Flask applications, and then of functions that make one."""
        texts = {module: self.beginning(name) for module, name in self.modules.items()}
        matches = [(module, kind.search(text)) for kind in (_FLASK_APP, _FLASK_MAKER) for module, text in texts.items()]
        return [f"{module}:{match[1].decode()}" for module, match in matches if match]


@dataclass(frozen=True)
class Alembic:
    """What there is of Alembic: configurations, as the setting spells them, and directories without one."""

    configurations: list[str]
    flask: str
    """The first directory of Flask-Migrate, whose configuration does not say where it is."""
    alone: list[str]
    advanced: str
    """The first directory whose ``env.py`` only Advanced Alchemy's own command can run."""


def alembic(files: Files) -> Alembic:
    """Look for Alembic's files, whatever they are called."""
    homes = {name: name.rpartition("/")[0] for name in files.ending(".ini") if _ALEMBIC.search(files.beginning(name))}
    environments = [name.removesuffix("env.py").rstrip("/") for name in files.ending("/env.py")]
    texts = {home: files.beginning(f"{home}/env.py".lstrip("/")) for home in environments}
    flask = [home for home, text in texts.items() if b"current_app" in text and home in homes.values()]
    environments = [home for home, text in texts.items() if b"alembic" in text and home not in flask]
    names = [name for name, home in homes.items() if home not in flask]
    names.sort(key=lambda name: not f"/{name}".endswith("/alembic.ini"))
    if "alembic" in files.pyproject.get("tool", {}) and "alembic.ini" not in names:
        names.insert(0, "pyproject.toml")
    advanced = next((home for home, text in texts.items() if b"AlembicCommandConfig" in text), "")
    return Alembic(names, flask[0] if flask else "", [] if names or advanced else environments, advanced)


def dumps(files: Files) -> list[str]:
    """The dumps that hold rows, in any format that PostgreSQL's programs write to one file."""
    return [
        name
        for name in files.ending(".sql", ".gz", ".dump", ".backup", ".pgdump")
        if (text := files.beginning(name)).startswith(b"PGDMP") or (_DUMPED.search(text) and _ROWS.search(text))
    ]


def sql_seeds(files: Files) -> list[str]:
    """Patterns for the SQL files that seed, told by their names: whole directories first."""
    names = [name for name in files.ending(".sql") if _SEEDS.fullmatch(name)]
    names = [name for name in names if not _DUMPED.search(files.beginning(name))]
    patterns = dict.fromkeys(re.sub(r"(?i)((?:^|/)seeds?)/[^/]+$", r"\1/*.sql", name) for name in names)
    return sorted(patterns, key=lambda pattern: not pattern.endswith("/*.sql"))


def changelogs(files: Files) -> list[str]:
    """Liquibase's changelogs that are not SQL, which say what it runs."""
    names = [name for name in files.names if "/" in name and _CHANGELOG.fullmatch(name.rpartition("/")[2])]
    return [name for name in names if b"databaseChangeLog" in files.beginning(name)]


def sql_migrations(files: Files) -> list[tuple[str, str]]:
    """What looks like migrations in SQL, the likeliest first, each with a description.

    Directories, or a plan of Sqitch's, or the file beside seeds and in the root.
    """
    others = tuple(f"{name.rpartition('/')[0]}/" for name in changelogs(files))
    rated = [((True, _SIGNS), plan, plan) for plan in files.ending("/sqitch.plan")]
    refused: list[tuple[str, str]] = []
    places: dict[str, list[str]] = {}
    for name in files.ending(".sql"):
        place, _, file = name.rpartition("/")
        if file in {"migration.sql", "up.sql"}:  # Prisma and Diesel have a directory for each migration
            place = place.rpartition("/")[0]
        if not name.startswith(others):
            places.setdefault(place, []).append(name)
    for place, within in places.items():
        arranged, names, last = Arranged(()), within, place.rpartition("/")[2].lower()
        if place:
            try:
                arranged = Directory(files.root / place, files.root, "").arranged()
            except ConfigError:  # the way back, another tool's files, or several formats
                refused += [(place, place)] if last in _MIGRATIONS else []
            names = [f"{place}/{file.name}" for file in arranged.used]
        texts = {name: text for name in names if not _DUMPED.search(text := files.beginning(name))}
        tables = [name for name, text in texts.items() if _TABLE.search(text) and not _SEEDS.fullmatch(name)]
        numbered = [name for name in texts if _NUMBERED.fullmatch(name.rpartition("/")[2])]
        if (not place or any(map(_SEEDS.fullmatch, texts))) and not numbered and len(tables) == 1:
            rated.append(((False, 0), tables[0], tables[0]))
        elif place and texts:
            is_format = arranged.format != PLAIN.name
            signs = sum((last in _MIGRATIONS, 2 * len(numbered) > len(texts), bool(tables)))
            if last not in _NOT_MIGRATIONS and (is_format or signs):
                tool = f", {arranged.title}" if is_format else ""
                about = f"{place}: {len(texts)} file{'' if len(texts) == 1 else 's'}{tool}"
                rated.append(((is_format, signs), place, about))
    rated.sort(key=lambda entry: entry[0], reverse=True)
    return [(place, about) for _, place, about in rated] or refused
