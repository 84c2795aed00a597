"""The formats of SQL migrations: how each tool names its files, in which order it runs them, and what it leaves out."""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import relative_name
from pytest_seeddb.fingerprint.places import is_ignored
from pytest_seeddb.migrations import arranging
from pytest_seeddb.migrations.arranging import Arranged, Candidate, by_name, leading_number, number, numbers, text
from pytest_seeddb.migrations.directions import is_down, names_a_way_back
from pytest_seeddb.migrations.parts import MARKS, read_head, tools_in
from pytest_seeddb.settings.converters import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What lies beside migrations and is none.
_COMPANION: Final = re.compile(
    r"(?:^|/)(?:[._][^/]*|README[^/]*|[^/]*\.(?:md|rst|txt|sum|toml|conf|ini|cfg|lock|plan|mako|hcl)|[^/]*_test\.go"
    r"|(?:embed|migrations?|fs|doc)\.go|mod\.rs)$",
    re.IGNORECASE,
)
_UNDO: Final = re.compile(r"(?:^|/)U\d[\d._]*__", re.IGNORECASE)
_NUMBERED: Final = re.compile(r"\d+(?:[-_.][^/]*)?\.sql")
_BELOW: Final = re.compile(r"(?:.*/)?(?:\d+(?:[-_.][^/]*)?|\d[^/]*/(?:migration|up))\.sql")
_NOT_SQL: Final = "its name does not end in .sql"
_WAY_BACK: Final = "a down migration"
_MOST_SHOWN: Final = 5


@dataclass(frozen=True)
class Format:
    """What one tool makes of a directory; paths are relative to it, with ``/``."""

    name: str
    title: str
    files: str
    """Of a path that the tool runs; its group ``version`` is what ``order`` gets."""
    order: Callable[[str], Any] = text
    names: str = ""
    """Of a path by which the format is recognised."""
    marks: str = ""
    """The marks in files by which it is recognised: their name in `MARKS`."""
    signs: tuple[str, ...] = ()
    """Files in the directory (``./``) or above by which it is recognised, with a word in them: ``structure.sql:x``.

    In a ``Cargo.toml`` the word is a dependency.
    One that begins with a slash is the end of the directory's path.
    """
    over: tuple[str, ...] = ("plain",)
    """Formats that a directory of this one looks like."""
    back: str = ""
    """Of a path that is a down migration."""
    code: str = ""
    """Of a path that the tool runs, and nothing else can."""
    names_decide: bool = False
    """Whether a name that ends in ``_down`` is one as any other."""
    has_placeholders: bool = False
    tells_all: bool = True
    """Whether ``arrange`` leaves it to others to tell what lies in the directory beside its files."""
    is_numbered: bool = False
    """Whether a numbered file at the top that the tool does not run belongs to another format."""
    arrange: Callable[[Sequence[Candidate], Mapping[str, Path]], Arranged] = arranging.by_version


FORMATS: Final = (
    Format(
        "flyway",
        "Flyway",
        r"(?:.*/)?(?:[VvB](?P<version>\d+(?:[._]\d+)*)__[^/]*|R__[^/]*|(?:before|after)[A-Z]\w*?(?:__[^/]*)?)\.sql",
        numbers,
        names=r"(?:.*/)?(?:[VvB]\d+(?:[._]\d+)*__|R__)[^/]*\.sql",
        code=r"(?:.*/)?V\d[\d._]*__[^/]*\.(?:java|kt|class|py|sh|cmd|ps1|js)",
        names_decide=True,
        has_placeholders=True,
        is_numbered=True,
        arrange=arranging.flyway,
    ),
    Format(
        "refinery",
        "refinery",
        r"(?:.*/)?[UV](?P<version>\d+(?:\.\d+)?)__\w+\.sql",
        numbers,
        signs=("Cargo.toml:refinery", "refinery.toml"),
        over=("plain", "flyway"),
        code=r"(?:.*/)?[UV]\d+(?:\.\d+)?__\w+\.rs",
        names_decide=True,
    ),
    Format(
        "liquibase",
        "Liquibase formatted SQL",
        r".*\.sql",
        marks="liquibase",
        code=r"(?:.*/)?[^/]*change[-_.]?log[^/]*\.(?:xml|ya?ml|json)|(?:.*/)?[^/]*master[^/]*\.(?:xml|ya?ml|json)",
        names_decide=True,
        has_placeholders=True,
        arrange=by_name,
    ),
    Format(
        "golang-migrate",
        "golang-migrate",
        r"(?P<version>\d+)_[^/]*\.up\.sql",
        number,
        names=r"\d+_[^/]*\.up\.sql",
        names_decide=True,
        is_numbered=True,
    ),
    Format("goose", "goose", r"(?P<version>\d+)_[^/]*\.sql", number, marks="goose", code=r"\d+_[^/]*(?<!_test)\.go"),
    Format("dbmate", "dbmate", r"\d[^/]*\.sql", marks="dbmate"),
    Format("sql-migrate", "sql-migrate", r"[^/]*\.sql", leading_number, marks="sql-migrate", arrange=by_name),
    Format(
        "sqlx",
        "sqlx",
        r"(?P<version>\d+)_[^/]*\.sql",
        number,
        signs=("Cargo.toml:sqlx", ".sqlx", "sqlx-data.json"),
        over=("plain", "golang-migrate"),
    ),
    Format(
        "diesel",
        "Diesel",
        r"(?P<version>[^/_.]+)[^/]*/up\.sql",
        arranging.without_dashes,
        names=r"\d[^/]*/up\.sql",
        names_decide=True,
        is_numbered=True,
        arrange=arranging.diesel,
    ),
    Format(
        "hasura",
        "Hasura",
        r"(?:[^/]+/)?(?P<version>\d+)_[^/]*/up\.sql",
        number,
        names=r"(?:[^/]+/)?\d{13}_[^/]*/up\.sql|[^/\d][^/]*/\d+_[^/]*/up\.sql",
        over=("plain", "diesel"),
        code=r"(?:[^/]+/)?\d+_[^/]*/up\.yaml",
        names_decide=True,
        is_numbered=True,
        arrange=arranging.hasura,
    ),
    Format(
        "prisma",
        "Prisma",
        r"(?P<version>[^/]+)/migration\.sql",
        names=r"[^/]+/migration\.sql",
        names_decide=True,
        is_numbered=True,
    ),
    Format("supabase", "Supabase", r"(?P<version>\d+)_[^/]*\.sql", signs=("/supabase/migrations",)),
    Format("atlas", "Atlas", r"[^/]+\.sql", signs=("./atlas.sum",), arrange=arranging.atlas),
    Format(
        "yoyo",
        "yoyo",
        r"[^/]+\.sql",
        marks="yoyo",
        signs=("yoyo.ini",),
        code=r"(?!__init__|conftest)[^/]+\.py",
        arrange=arranging.yoyo,
    ),
    Format(
        "aerich",
        "aerich",
        r"(?P<version>\d+)_[^/]*\.sql",
        number,
        marks="aerich",
        code=r"\d+_[^/]*\.py",
        arrange=by_name,
    ),
    Format(
        "pogo-migrate",
        "pogo-migrate",
        r"[^/]+\.sql",
        marks="pogo-migrate",
        over=("plain", "yoyo"),
        code=r"(?!__init__|conftest)[^/]+\.py",
        arrange=arranging.yoyo,
    ),
    Format("tern", "tern", r"(?P<version>\d+)_[^/]*\.sql", number, marks="tern", signs=("tern.conf",)),
    Format(
        "node-pg-migrate",
        "node-pg-migrate",
        r"(?P<version>\d+)[^/]*\.sql",
        arranging.timestamp,
        marks="node-pg-migrate",
        code=r"\d[^/]*\.(?:[cm]?js|[cm]?ts)(?<!\.d\.ts)",
        arrange=by_name,
    ),
    Format(
        "postgrator",
        "postgrator",
        r"(?P<version>\d+)\.do(?:\.[^/]*)?\.sql",
        number,
        names=r"\d+\.do(?:\.[^/]*)?\.sql",
        code=r"\d+\.do(?:\.[^/]*)?\.[cm]?js",
        names_decide=True,
        is_numbered=True,
    ),
    Format(
        "sqitch",
        "Sqitch",
        r".*\.sql",
        names=r"sqitch\.plan",
        back=r"revert/.*\.sql",
        names_decide=True,
        tells_all=False,
        arrange=arranging.sqitch,
    ),
    Format("rails", "Rails", r"structure\.sql", signs=("./structure.sql:schema_migrations",)),
    Format("plain", "plain SQL files", r"[^/]+\.sql", over=(), arrange=arranging.plain),
)
"""In the order in which the documentation lists them."""

_BY_NAME: Final = {format_.name: format_ for format_ in FORMATS}
PLAIN: Final = _BY_NAME["plain"]


@dataclass(frozen=True)
class Directory:
    """A directory of migrations in a project, and what the settings say about it."""

    path: Path
    root: Path
    source: str
    format: str = ""
    only: str = ""
    """The one file of it that is named, if not all are."""

    @cached_property
    def files(self) -> Mapping[str, Path]:
        """All files below it but those of caches and the like, by their relative paths, sorted."""
        if self.only:
            return {self.only: self.path / self.only}
        names_below: list[str] = []
        seen: set[str] = set()
        start = len(str(self.path)) + 1
        for place, directories, names in os.walk(self.path, followlinks=True):
            seen.add(os.path.realpath(place))
            directories[:] = [
                name
                for name in directories
                if not is_ignored((name,)) and os.path.realpath(Path(place, name)) not in seen  # a link may lead upward
            ]
            below = f"{place[start:]}/" if place[start:] else ""
            names_below += [f"{below}{name}" for name in names if not is_ignored((name,))]
        return {name: self.path / name for name in sorted(names_below)}

    @cached_property
    def heads(self) -> Mapping[str, bytes]:
        """The beginnings of its SQL files."""
        return {name: read_head(path) for name, path in self.files.items() if name.endswith(".sql")}

    @cached_property
    def _sql_names(self) -> Mapping[str, frozenset[str]]:
        """The names of its SQL files, by their directories."""
        places: dict[str, set[str]] = {}
        for name in self.files:
            place, _, file = name.rpartition("/")
            if file.lower().endswith(".sql"):
                places.setdefault(place, set()).add(file)
        return {place: frozenset(names) for place, names in places.items()}

    def arranged(self) -> Arranged:
        """The files to run, in order, and those that are left out; raises `ConfigError`."""
        format_ = self.chosen()
        files = re.compile(format_.files)
        matched = {name: match for name in self.files if (match := files.fullmatch(name))}
        back = {name for name in self.files if self._is_back(name, format_, matched)}
        if code := [name for name in self.files if format_.code and re.fullmatch(format_.code, name)]:
            raise self.refusal(
                f"{format_.title} runs a migration here that is not SQL",
                self._list(code),
                f'run the tool itself: {{command = "...", inputs = ["{self.inside("**")}"]}}',
            )
        candidates = [
            Candidate(name, self.files[name], format_.order(match.groupdict().get("version") or name))
            for name, match in matched.items()
            if name not in back
        ]
        try:
            arranged = format_.arrange(candidates, self.files)
        except arranging.Unfit as error:
            raise self.refusal(error.what, error.saw, error.remedy) from None
        left_out = {**dict.fromkeys(sorted(back), _WAY_BACK), **arranged.left_out}
        used = {candidate.name for candidate in arranged.used}
        for name in self.files:
            is_told = format_.tells_all and not _COMPANION.search(name)
            if is_told and name not in used and name not in left_out:
                left_out[name] = self._reason(name, format_)
        lower = sorted(name for name in left_out if "/" in name and _BELOW.fullmatch(name) and name not in back)
        if format_ is PLAIN and not self.format and lower and not any(map(_NUMBERED.fullmatch, used)):
            raise self.refusal(
                f"The migrations of {self.inside('').rstrip('/')} seem to be in a directory below",
                f"{self._list(lower)}; at the top are {self._list(sorted(used)) or 'none'}",
                f'name it: "{self.inside(re.sub(r"/[^/]+/(?:migration|up)[.]sql$|/[^/]+$", "", lower[0]))}"',
            )
        strange = [name for name in left_out if name not in back and _NUMBERED.fullmatch(name)]
        if format_.is_numbered and used and strange and not self.format:
            raise self._mixture({format_.title: sorted(used), "numbered files": strange})
        order = [candidate.name for candidate in arranged.used]
        if format_ is PLAIN and not self.format:
            self._check_plain(order)
        marks = MARKS[format_.marks] if format_.marks and not self.format else None
        if marks and marks.up and order != sorted(order, key=arranging.natural):
            bare = [name for name in order if format_.marks not in tools_in(self.heads[name])]
            if bare:
                marked = [name for name in order if name not in bare]
                raise self._mixture({format_.title: marked, "files without its marks": bare})
        return replace(arranged, format=format_.name, title=format_.title, left_out=_summarised(left_out))

    def chosen(self) -> Format:
        """The format that is set, or that is recognised; raises `ConfigError`."""
        if not self.format:
            return self._recognised()
        if self.format not in _BY_NAME:
            near = did_you_mean(self.format, _BY_NAME)
            allowed = f"{near} Write one of {', '.join(_BY_NAME)}".strip()
            raise self.refusal(f"{self.format!r} is not a format of migrations", f"format = {self.format!r}", allowed)
        return _BY_NAME[self.format]

    def _recognised(self) -> Format:
        examples: dict[str, list[str]] = {}
        marked = {name: tools for name in self.heads if (tools := self._tools(name))}
        for format_ in FORMATS:
            names, files = re.compile(format_.names or "(?!)"), re.compile(format_.files)
            own = [name for name in self.files if names.fullmatch(name)] if format_.names else []
            own += [name for name, tools in marked.items() if format_.marks in tools and files.fullmatch(name)]
            has_sign = any(map(self._has_sign, format_.signs)) and any(map(files.fullmatch, self.files))
            if own or has_sign:
                examples[format_.name] = own
        examples = {
            name: own for name, own in examples.items() if not any(name in _BY_NAME[other].over for other in examples)
        }
        sure = {name: own for name, own in examples.items() if own} or examples
        if len(sure) > 1 and "yoyo" in sure and not any(self._dependencies(name) & self._ids for name in sure["yoyo"]):
            del sure["yoyo"]  # another format's file says `-- depends:` in its own words
        if len(sure) > 1:
            raise self._mixture({_BY_NAME[name].title: own for name, own in sure.items()})
        if sure:
            return _BY_NAME[next(iter(sure))]
        if not any(re.fullmatch(PLAIN.files, name) for name in self.files):
            return next((f for f in (_BY_NAME["diesel"],) if any(re.fullmatch(f.files, n) for n in self.files)), PLAIN)
        return PLAIN

    @cached_property
    def _ids(self) -> frozenset[str]:
        """What yoyo calls its migrations."""
        return frozenset(name.removesuffix(".sql") for name in self.heads)

    def _dependencies(self, name: str) -> set[str]:
        return arranging.dependencies(self.files[name])

    def _tools(self, name: str) -> frozenset[str]:
        """The tools whose marks are in the file. After ``-- depends:``, words that name no file are prose."""
        tools = tools_in(self.heads[name])
        if "yoyo" in tools:
            wanted = self._dependencies(name)
            if not wanted or (len(wanted) > 1 and not wanted & self._ids):
                tools -= {"yoyo"}
        return tools

    def _check_plain(self, order: Sequence[str]) -> None:
        """Raise `ConfigError` where plain SQL files may be Sqitch's or yoyo's, or down migrations."""
        name = self.inside("").rstrip("/")
        plan = self.path.parent / "sqitch.plan"
        if plan.is_file() and {f"{change}.sql" for change, _ in arranging.changes(plan)} & self.files.keys():
            raise self.refusal(
                f"{name} holds scripts of Sqitch, whose plan has their order",
                f"{plan}",
                f'name the directory of the plan: "{relative_name(plan.parent, self.root)}"',
            )
        choices = f'{{directory = "{name}", format = "plain"}}'
        if names_a_way_back(self.path.name):
            raise self.refusal(
                f"The directory {name} seems to hold down migrations",
                f"its name is {self.path.name}",
                f"name the directory of the up migrations. If these are to run: migrations = {choices}",
            )
        rollbacks = [file for file in self.files if re.fullmatch(r"[^/]+\.rollback\.sql", file)]
        code = [file for file in self.files if re.fullmatch(_BY_NAME["yoyo"].code, file)]
        if rollbacks and (code or order != sorted(order)):
            raise self.refusal(
                f"The directory {name} may hold migrations of yoyo or plain SQL files",
                f"{self._list(rollbacks)} has a name of yoyo's; yoyo would run {self._list(sorted([*order, *code]))}",
                f'write which: migrations = {choices}, or format = "yoyo"',
            )

    def _has_sign(self, sign: str) -> bool:
        if sign.startswith("/"):
            return self.path.as_posix().endswith(sign)
        name, _, word = sign.partition(":")
        above = () if name.startswith("./") else self.path.parents
        places = [self.path, *(place for place in above if place.is_relative_to(self.root))]
        paths = [place / name for place in places if (place / name).exists()]
        if name == "Cargo.toml":
            return any(_depends_on(word, path) for path in paths)
        return any(word in path.read_text(encoding="utf-8", errors="replace") for path in paths)

    def _is_back(self, name: str, format_: Format, matched: Mapping[str, object]) -> bool:
        """Whether the file is a down migration; raises `ConfigError` where nobody can tell."""
        if format_.back:
            return bool(re.fullmatch(format_.back, name))
        if not name.lower().endswith(".sql"):
            return False
        tools = tools_in(self.heads[name]) if name in self.heads else frozenset()
        decides = format_.names_decide and name in matched and (not format_.marks or format_.marks in tools)
        place, _, file = name.rpartition("/")
        if not decides and (_UNDO.search(name) or any(map(names_a_way_back, place.split("/")))):
            return True
        is_told = any(map(names_a_way_back, file.split(".")[:-1]))
        if not is_told and (decides or (name in matched and any(MARKS[tool].up for tool in tools))):
            return False
        answer = is_down(file, self._sql_names[place])
        if answer is not None or name not in matched:
            return answer is not False
        raise self.refusal(
            f"{self.inside(name)} may be an up or a down migration",
            "its name is like a down migration's, but the directory has no up migration for it",
            "rename it, or move it out of the directory if it should not run",
        )

    def _reason(self, name: str, format_: Format) -> str:
        if not name.endswith(".sql"):
            return _NOT_SQL
        if "/" in name and re.fullmatch(format_.files, name.rpartition("/")[2]):
            return "in a directory below"
        return f"not named as {format_.title} names migrations"

    def refusal(self, what: str, saw: str, remedy: str) -> ConfigError:
        """The error about the directory."""
        return ConfigError(what, saw=saw, source=self.source, remedy=remedy)

    def _mixture(self, examples: Mapping[str, Sequence[str]]) -> ConfigError:
        name = self.inside("").rstrip("/")
        return self.refusal(
            f"The directory {name} holds migrations of more than one format",
            "\n".join(f"{title}: {self._list(own) or 'its own files'}" for title, own in examples.items()),
            f'separate them, or choose one: migrations = {{directory = "{name}", format = "..."}}',
        )

    def inside(self, name: str) -> str:
        """The name of a file in it from the project's root."""
        place = self.path.relative_to(self.root).as_posix() if self.path.is_relative_to(self.root) else str(self.path)
        return f"{place}/{name}"

    def _list(self, names: Sequence[str]) -> str:
        more = len(names) - _MOST_SHOWN
        return ", ".join([*map(self.inside, names[:_MOST_SHOWN]), *([f"and {more} more"] if more > 0 else [])])


def _depends_on(package: str, manifest: Path) -> bool:
    """Whether a ``Cargo.toml`` has the package among its dependencies, of whatever kind."""
    try:
        tables: list[Any] = [tomllib.loads(manifest.read_text(encoding="utf-8", errors="replace"))]
    except tomllib.TOMLDecodeError:
        return False
    for table in tables:  # it grows
        for key, value in table.items():
            if key.endswith("dependencies") and isinstance(value, dict):
                packages = {entry.get("package") for entry in value.values() if isinstance(entry, dict)} | value.keys()
                if {package, f"{package}-core"} & packages:
                    return True
            elif isinstance(value, dict):
                tables.append(value)
    return False


def _summarised(left_out: Mapping[str, str]) -> dict[str, str]:
    """The same with one line for a directory that has many files that are not SQL."""
    places = Counter(name.rpartition("/")[0] for name, why in left_out.items() if why is _NOT_SQL)
    crowded = {place: count for place, count in places.items() if count > _MOST_SHOWN}
    kept = {n: why for n, why in left_out.items() if why is not _NOT_SQL or n.rpartition("/")[0] not in crowded}
    return {
        **kept,
        **{f"{place}/*": f"{count} files whose names do not end in .sql" for place, count in crowded.items()},
    }
