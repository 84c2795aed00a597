"""What makes a project's schema: Alembic, a directory of SQL files, Django; and the dumps that lie about."""

from __future__ import annotations

import gzip
import re
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_seeddb.cli.init.files import Files

_BEGINNING: Final = 1_000_000
_MARKS: Final = re.compile(rb"(?im)^[ \t]*--[ \t]*(?:migrate:up|\+goose[ \t]+Up|\+migrate[ \t]+Up)\b")
_NUMBERED: Final = re.compile(r"[VU]?\d+[^/]*\.sql", re.IGNORECASE)
_TABLE: Final = re.compile(rb"\bCREATE\s+(?:UNLOGGED\s+)?TABLE\b", re.IGNORECASE)
_DUMPED: Final = re.compile(rb"^-- PostgreSQL database (?:cluster )?dump", re.MULTILINE)
_ROWS: Final = re.compile(rb"^(?:COPY \S+ .*FROM stdin;|INSERT INTO )", re.MULTILINE)
_ARCHIVE: Final = b"PGDMP"
_SEEDS: Final = re.compile(r"(?:.*/)?seeds?(?:/[^/]*)?\.sql|(?:.*/)?seeds?/[^/]*\.sql", re.IGNORECASE)
_NOT_MIGRATIONS: Final = frozenset({"queries", "query", "fixtures", "seeds", "seed", "functions", "views", "scripts"})
_ENOUGH: Final = 20


@dataclass(frozen=True)
class SqlDirectory:
    """A directory of migrations in SQL.

    Attributes:
        name: The directory, relative to the root.
        files: How many files it has.
        tool: Whose marks they have: ``dbmate``, ``goose``; empty where they have none.
    """

    name: str
    files: int
    tool: str = ""


def alembic(files: Files) -> list[str]:
    """The configurations of Alembic, the nearest to the root first; as the setting spells them."""
    found = [name for name in files.called("alembic.ini") if not _is_flasks(files, name)]
    own = toml_of(files.root / "pyproject.toml").get("tool", {})
    return ["pyproject.toml", *found] if "alembic" in own and "alembic.ini" not in found else found


def flask_migrate(files: Files) -> str:
    """The directory of Flask-Migrate, whose ``env.py`` works inside its own command only; or nothing."""
    places = [name.rpartition("/")[0] for name in files.called("alembic.ini") if _is_flasks(files, name)]
    return next(iter(places), "")


def _is_flasks(files: Files, name: str) -> bool:
    env = f"{name.rpartition('/')[0]}/env.py".lstrip("/")
    return b"current_app" in files.beginning(env, _BEGINNING)


def django(files: Files) -> str:
    """What shows that it is a Django project; or nothing."""
    for name in files.called("manage.py", "wsgi.py", "asgi.py"):
        if b"DJANGO_SETTINGS_MODULE" in files.beginning(name, _BEGINNING):
            return name
    options = toml_of(files.root / "pyproject.toml").get("tool", {}).get("pytest", {}).get("ini_options", {})
    return "DJANGO_SETTINGS_MODULE in pyproject.toml" if "DJANGO_SETTINGS_MODULE" in options else ""


def dumps(files: Files) -> list[str]:
    """The dumps that hold rows, in any format that PostgreSQL's programs write to one file."""
    return [name for name in files.ending(".sql", ".gz", ".dump", ".backup", ".pgdump") if _is_dump(files, name)]


def _is_dump(files: Files, name: str) -> bool:
    text = _unpacked(files, name)
    return text.startswith(_ARCHIVE) or bool(_DUMPED.search(text) and _ROWS.search(text))


def _unpacked(files: Files, name: str) -> bytes:
    if not name.endswith(".gz"):
        return files.beginning(name, _BEGINNING)
    try:
        with gzip.open(files.root / name) as file:
            return file.read(_BEGINNING)
    except (OSError, EOFError):
        return b""


def sql_seeds(files: Files) -> list[str]:
    """Patterns for the SQL files that seed, told by their names."""
    found = [name for name in files.ending(".sql") if _SEEDS.fullmatch(name) and not _is_dumped(files, name)]
    directories = dict.fromkeys(f"{name.rpartition('/')[0]}/*.sql" for name in found if _in_seeds(name))
    return [*directories, *(name for name in found if not _in_seeds(name))]


def _in_seeds(name: str) -> bool:
    return name.rpartition("/")[0].rpartition("/")[2].lower() in {"seed", "seeds"}


def sql_directory(files: Files) -> SqlDirectory | None:
    """The directory that looks most like migrations; ``None`` where none does."""
    grouped: dict[str, list[str]] = defaultdict(list)
    for name in files.ending(".sql"):
        if not (name.endswith(".down.sql") or _is_dumped(files, name)):
            grouped[_home(name)].append(name)
    judged = {place: _likeness(files, place, names) for place, names in grouped.items() if place}
    best = max(judged, key=lambda place: judged[place], default="")
    if not best or judged[best] < _ENOUGH:
        return None
    return SqlDirectory(best, len(grouped[best]), _tool(files, grouped[best]))


def _home(name: str) -> str:
    """The directory that a file of migrations is in; Prisma and Diesel have one more for each migration."""
    place, _, file = name.rpartition("/")
    return place.rpartition("/")[0] if file in {"migration.sql", "up.sql"} else place


def _likeness(files: Files, place: str, names: list[str]) -> int:
    """How much a directory looks like migrations; a name alone is not enough."""
    last = place.rpartition("/")[2].lower()
    if last in _NOT_MIGRATIONS:
        return 0
    numbered = sum(bool(_NUMBERED.fullmatch(each.rpartition("/")[2])) for each in names)
    return (
        100 * bool(_tool(files, names))
        + 50 * (last in {"migrations", "migration", "migrate"})
        + 40 * (2 * numbered > len(names) or place != names[0].rpartition("/")[0])
        + 20 * any(_TABLE.search(files.beginning(each, _BEGINNING)) for each in names)
        + 5 * (last in {"sql", "db", "schema", "database"})
    )


def _tool(files: Files, names: Iterable[str]) -> str:
    for name in names:
        if found := _MARKS.search(files.beginning(name, _BEGINNING)):
            return "dbmate" if b"migrate:up" in found[0].lower() else "goose or sql-migrate"
    return ""


def _is_dumped(files: Files, name: str) -> bool:
    """Whether a tool has written it as a dump, with rows or without: no migration, and no seeds."""
    return bool(_DUMPED.search(files.beginning(name, _BEGINNING)))


def toml_of(path: Path) -> dict[str, Any]:
    """A TOML file's content; nothing where there is none. Whether it is sound is checked elsewhere."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}
