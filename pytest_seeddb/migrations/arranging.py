"""In which order the tools run their files, and which of them they leave out."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_DIGITS: Final = re.compile(r"(\d+)")
_DEPENDS: Final = re.compile(r"\s*--\s*depends\s*:(.*)")
_COMMENT: Final = re.compile(r"\s*(?:--.*)?")
_CHECKPOINT: Final = re.compile(rb"^\s*--\s*atlas:checkpoint\b", re.MULTILINE)


class Unfit(Exception):  # noqa: N818 - it is caught by what knows the directory
    """The tool would not run these files, or nothing but the tool can."""

    def __init__(self, what: str, saw: str, remedy: str) -> None:
        self.what, self.saw, self.remedy = what, saw, remedy
        super().__init__(what)


@dataclass(frozen=True)
class Candidate:
    """A file that a tool may run, what it is sorted by, and whether it runs without a transaction."""

    name: str
    path: Path
    key: Any
    alone: bool = False
    beside: Path | None = None  # a further file that says how it is run


@dataclass(frozen=True)
class Arranged:
    """The files to run, in order, and those that are left out, with the reasons."""

    used: tuple[Candidate, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    format: str = ""
    title: str = ""


# What the version in a name is compared by.


def text(version: str) -> str:
    """By character."""
    return version


def number(version: str) -> int:
    """As one number."""
    return int(version)


def numbers(version: str) -> tuple[int, ...]:
    """Number by number: 1 is before 1.1 and the same as 1.0."""
    parts = [int(part) for part in _DIGITS.findall(version)]
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Digits by value, other text by character."""
    pieces = [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in _DIGITS.split(name) if piece]
    return pieces, name


def without_dashes(version: str) -> str:
    """By character, without its dashes."""
    return version.replace("-", "")


def leading_number(name: str) -> tuple[int, float, str]:
    """Those with a number first, by its value; the others by name."""
    digits = re.match(r"\d+", name)
    return (0, int(digits.group()), name) if digits else (1, 0, name)


def timestamp(version: str) -> float:
    """A number, or a UTC time of 17 digits in milliseconds since 1970."""
    try:
        moment = datetime.strptime(f"{version}000", "%Y%m%d%H%M%S%f").replace(tzinfo=UTC)
    except ValueError:
        return float(int(version))
    return moment.timestamp() * 1000 if len(version) == 17 else float(int(version))  # noqa: PLR2004 - as above


# Which files there are, and their order.


def by_name(candidates: Sequence[Candidate], _files: Mapping[str, Path]) -> Arranged:
    """By their keys, several of which may be the same."""
    return Arranged(tuple(sorted(candidates, key=lambda file: (file.key, file.name))))


def by_version(candidates: Sequence[Candidate], _files: Mapping[str, Path]) -> Arranged:
    """By their versions, no two of which are the same."""
    return Arranged(_unique(candidates))


def _unique(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    ordered = sorted(candidates, key=lambda file: (file.key, file.name))
    for _, group in groupby(ordered, key=lambda file: file.key):
        if len(same := [file.name for file in group]) > 1:
            raise Unfit("Two migrations have the same version", "\n".join(same), "give one of them another version")
    return tuple(ordered)


def plain(candidates: Sequence[Candidate], _files: Mapping[str, Path]) -> Arranged:
    """In natural order."""
    return Arranged(tuple(sorted(candidates, key=lambda file: natural(file.name))))


_BEFORE: Final = ("beforeMigrate",)
_BETWEEN: Final = ("afterVersioned", "beforeRepeatables")
_AFTER: Final = ("afterMigrateApplied", "afterMigrate")
_EACH: Final = re.compile(r"(?:before|after)(?:Each\w*|Validate|Connect|CreateSchema)(?<!Error)")


def flyway(candidates: Sequence[Candidate], files: Mapping[str, Path]) -> Arranged:
    """Versioned migrations after the last baseline, then repeatable ones by their descriptions, with callbacks."""
    kinds: dict[str, list[Candidate]] = {"V": [], "v": [], "B": [], "R": [], "": []}
    for file in candidates:
        base = file.name.rpartition("/")[2]
        kinds[base[0] if re.match(r"[VvB]\d|R__", base) else ""].append(_configured(file, files))
    callbacks: dict[str, list[Candidate]] = {}
    for file in kinds[""]:
        callbacks.setdefault(re.sub(r"__.*|\.sql$", "", file.name.rpartition("/")[2]), []).append(file)
    if each := next((event for event in callbacks if _EACH.fullmatch(event)), None):
        raise Unfit(
            f"Flyway's callback {each} does not run here",
            callbacks[each][0].name,
            'move its statements to beforeMigrate.sql or afterMigrate.sql, or run Flyway: {command = "flyway migrate"}',
        )
    versioned = _unique(kinds["V"] or kinds["v"])
    baseline = max(kinds["B"], key=lambda file: file.key, default=None)
    left_out = dict.fromkeys((file.name for file in kinds["B"] if file is not baseline), "an earlier baseline")
    if kinds["V"]:
        left_out |= dict.fromkeys((file.name for file in kinds["v"]), "Flyway's names begin with an upper-case V")
    if baseline is not None:
        held = [file.name for file in versioned if file.key <= baseline.key]
        left_out |= dict.fromkeys(held, f"the baseline {baseline.name} holds it")
        versioned = (baseline, *(file for file in versioned if file.name not in left_out))
    repeatable = sorted(kinds["R"], key=lambda file: file.name.rpartition("/")[2][3:-4].replace("_", " "))

    def events(*names: str) -> list[Candidate]:
        return [file for name in names for file in sorted(callbacks.pop(name, ()), key=lambda file: file.name)]

    used = (*events(*_BEFORE), *versioned, *events(*_BETWEEN), *repeatable, *events(*_AFTER))
    others = (file.name for group in callbacks.values() for file in group)
    return Arranged(used, {**left_out, **dict.fromkeys(others, "a callback of another event")})


def _configured(file: Candidate, files: Mapping[str, Path]) -> Candidate:
    """The file with what ``V1__name.sql.conf`` says about it."""
    path = files.get(f"{file.name}.conf")
    if path is None:
        return file
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    options = dict(line.replace(" ", "").split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    alone = options.pop("executeInTransaction", "true").lower() == "false"
    if options:
        raise Unfit(
            f"Some of Flyway's options in {file.name}.conf are not supported",
            ", ".join(f"{key}={value}" for key, value in options.items()),
            "remove all except executeInTransaction, or run Flyway itself as a command",
        )
    return Candidate(file.name, file.path, file.key, alone, path)


def diesel(candidates: Sequence[Candidate], files: Mapping[str, Path]) -> Arranged:
    """By version; ``metadata.toml`` beside the file says whether it runs in a transaction."""
    known = []
    for file in _unique(candidates):
        path = files.get(f"{file.name.rpartition('/')[0]}/metadata.toml")
        alone = path is not None and tomllib.loads(path.read_text(encoding="utf-8")).get("run_in_transaction") is False
        known.append(Candidate(file.name, file.path, file.key, alone, path))
    return Arranged(tuple(known))


def hasura(candidates: Sequence[Candidate], _files: Mapping[str, Path]) -> Arranged:
    """By version, of one database."""
    databases = sorted({file.name.split("/")[0] for file in candidates if file.name.count("/") > 1})
    if len(databases) + any(file.name.count("/") == 1 for file in candidates) > 1:
        raise Unfit("The directory holds the migrations of several databases", ", ".join(databases), "name one of them")
    return Arranged(_unique(candidates))


def atlas(candidates: Sequence[Candidate], _files: Mapping[str, Path]) -> Arranged:
    """By name, from the last checkpoint on."""
    ordered = sorted(candidates, key=lambda file: file.name)
    marked = [number for number, file in enumerate(ordered) if _CHECKPOINT.search(file.path.read_bytes())]
    start = marked[-1] if marked else 0
    left_out = {file.name: f"the checkpoint {ordered[start].name} holds it" for file in ordered[:start]}
    return Arranged(tuple(ordered[start:]), left_out)


def yoyo(candidates: Sequence[Candidate], _files: Mapping[str, Path]) -> Arranged:
    """By name, but each after those that its ``-- depends:`` names; ``post-apply*.sql`` at the end."""
    named = {file.name.removesuffix(".sql"): file for file in candidates}
    last = sorted(name for name in named if name.startswith("post-apply"))
    graph: dict[str, set[str]] = {}
    for name, file in named.items():
        graph[name] = wanted = dependencies(file.path)
        if missing := sorted(wanted - named.keys()):
            raise Unfit(
                f"{file.name} depends on a migration that does not exist",
                f"-- depends: {' '.join(missing)}",
                "correct the header: it names other files, without .sql",
            )
    sorter = TopologicalSorter({name: wanted for name, wanted in graph.items() if name not in last})
    try:
        sorter.prepare()
    except CycleError as error:
        raise Unfit("Migrations depend on each other", " -> ".join(error.args[1]), "remove one `-- depends:`") from None
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()])
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return Arranged(tuple(named[name] for name in (*order, *last)))


def dependencies(path: Path) -> set[str]:
    """What yoyo's comments at a file's head name."""
    names: set[str] = set()
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if header := _DEPENDS.match(line):
                names.update(header[1].split())
            elif not _COMMENT.fullmatch(line.rstrip("\r\n")):
                break
    return names


def changes(plan: Path) -> list[tuple[str, list[str]]]:
    """The changes of a ``sqitch.plan`` in its order, each with the tags that follow it."""
    planned: list[tuple[str, list[str]]] = []
    for line in plan.read_text(encoding="utf-8").splitlines():
        words = line.partition("#")[0].split()
        if words and words[0].startswith("@"):
            for _, tags in planned:
                tags.append(words[0])
        elif words and not words[0].startswith("%"):
            planned.append((words[0].lstrip("+"), []))
    return planned


def sqitch(_candidates: Sequence[Candidate], files: Mapping[str, Path]) -> Arranged:
    """As ``sqitch.plan`` has it; the scripts of a reworked change have a tag in their names."""
    if "sqitch.plan" not in files:
        raise Unfit("There is no sqitch.plan", "the directory does not have one", "name the directory that has it")
    conf = files["sqitch.conf"].read_text(encoding="utf-8") if "sqitch.conf" in files else ""
    options = dict(re.findall(r"^\s*(deploy_dir|extension)\s*=\s*(\S+)", conf, re.MULTILINE))
    place, suffix = options.get("deploy_dir", "deploy").rstrip("/"), options.get("extension", "sql")
    used: list[Candidate] = []
    for at, (name, tags) in enumerate(planned := changes(files["sqitch.plan"])):
        later = next((tags_ for other, tags_ in planned[at + 1 :] if other == name), None)  # where it is reworked
        between = [""] if later is None else tags[: len(tags) - len(later)]
        scripts = [f"{place}/{name}{tag}.{suffix}" for tag in between]
        script = next((script for script in scripts if script in files), None)
        if script is None:
            raise Unfit(
                f"The change {name} of sqitch.plan has no script", " ".join(scripts), "add it, or correct the plan"
            )
        used.append(Candidate(script, files[script], script))
    reasons = {"verify": "a verify script", "revert": "a down migration"}
    names = {file.name for file in used}
    left_out = {
        name: reasons.get(name.split("/")[0], "not in sqitch.plan")
        for name in files
        if name.startswith((f"{place}/", *(f"{other}/" for other in reasons))) and name not in names
    }
    return Arranged(tuple(used), left_out)
