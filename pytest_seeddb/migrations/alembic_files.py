"""An Alembic project's files and the order of its revisions, read without importing Alembic or running them."""

from __future__ import annotations

import ast
import configparser
import heapq
import os
import re
import tomllib
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.imports import find
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.settings.converters import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# ``path_separator`` and, before Alembic 1.16, ``version_path_separator`` name one of these.
_SEPARATORS: Final = {"space": " ", "newline": "\n", "os": os.pathsep, ":": ":", ";": ";"}
_OLD_SEPARATORS: Final = {"prepend_sys_path": r", *| +|:", "version_locations": r", *| +"}
_REVISION_FILE: Final = re.compile(r"(?!\.#|__init__).*\.py")  # alembic.script.base
_VARIABLES: Final = frozenset({"revision", "down_revision", "depends_on", "branch_labels"})
_CREATED: Final = re.compile(r"^Create Date:\s*(\S.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Layout:
    """An Alembic project's files; relative paths start in ``directory``, and ``sys.path`` with ``search``."""

    ini: Path | None
    toml: Path | None
    directory: Path
    script: Path
    migrations: tuple[Path, ...]
    search: tuple[Path, ...] = ()

    @property
    def env(self) -> Path:
        """The project's ``env.py``."""
        return self.script / "env.py"


def read_layout(path: Path, root: Path, *, source: str) -> Layout:
    """Read the files' options; relative paths start beside the file, else above it. Raises `ConfigError`."""
    options = _Options(path, source)
    place = "[tool.alembic]" if path.suffix == ".toml" else "[alembic]"
    location = options.text("script_location")
    if location is None:
        raise ConfigError(
            f"{path.name} does not say where Alembic's scripts are",
            saw=f"no script_location in {place}",
            source=source,
            remedy="add script_location, or name the file that Alembic is run with",
        )
    search = options.paths("prepend_sys_path")

    def resolve(name: str, directory: Path) -> Path | None:
        """A directory as Alembic names it: a path, or ``package:directory``."""
        if not Path(name).is_absolute() and ":" in name:
            package, *inside = name.split(":")
            spec = find(package, root, str(directory), *(str(directory / entry) for entry in search))
            places = list(spec.submodule_search_locations or ()) if spec else []
            return Path(places[0], *inside) if places else None
        return Path(os.path.normpath(directory / name)) if (directory / name).is_dir() else None

    above = (directory for directory in path.parent.parents if directory.is_relative_to(root))
    for directory in dict.fromkeys((path.parent, *above, root)):
        script = resolve(location, directory)
        if script is not None and (script / "env.py").is_file():
            locations = [resolve(name, directory) for name in options.paths("version_locations")]
            pattern = "**/*.py" if options.text("recursive_version_locations") == "true" else "*.py"
            migrations = dict.fromkeys(
                file.resolve()
                for place in (filter(None, locations) if locations else [script / "versions"])
                for file in sorted(place.glob(pattern))
                if "__pycache__" not in file.parts and _REVISION_FILE.fullmatch(file.name)
            )
            search_path = tuple(directory / entry for entry in search)
            toml = options.files.get(".toml") if options.toml else None
            return Layout(options.files.get(".ini"), toml, directory, script, tuple(migrations), search_path)
    raise ConfigError(
        "Alembic's script directory has no env.py",
        saw=f"script_location = {location}, looked for in {path.parent}",
        source=f"{place} in {path}, named by {source}",
        remedy="correct script_location, or name the file that Alembic is run with",
    )


class _Options:
    """Alembic's options from both files that may hold them; the ini goes first."""

    def __init__(self, path: Path, source: str) -> None:
        self._source = source
        other = path.with_name("alembic.ini" if path.suffix == ".toml" else "pyproject.toml")
        self.files = {file.suffix: file for file in (path, other) if file.is_file()}
        self.toml: dict[str, Any] = {}
        self._here = {"here": path.parent.absolute().as_posix()}
        self._ini = configparser.ConfigParser(self._here)
        for suffix, file in self.files.items():
            try:
                if suffix == ".ini":
                    self._ini.read(file, encoding="locale")
                else:
                    table = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("alembic", {})
                    self.toml = table if isinstance(table, dict) else {}
            except (configparser.Error, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise self._unreadable(file, error) from None

    def text(self, name: str) -> str | None:
        try:
            text: str | None = self._ini.get("alembic", name, fallback=None)
        except configparser.Error as error:
            raise self._unreadable(self.files[".ini"], error) from None
        if text is not None:
            return text
        value = self.toml.get(name)
        return value % self._here if isinstance(value, str) else "true" if value is True else None

    def paths(self, name: str) -> list[str]:
        """A list of paths, split as Alembic splits it."""
        if not self._ini.has_option("alembic", name):
            value = self.toml.get(name)
            return [entry % self._here for entry in value] if isinstance(value, list) else []
        text = self.text(name) or ""
        separator = self.text("path_separator") or self.text("version_path_separator")
        if separator is None:
            return [entry for entry in re.split(_OLD_SEPARATORS[name], text) if entry]
        return [entry.strip() for entry in text.split(_SEPARATORS.get(separator, separator)) if entry.strip()]

    def _unreadable(self, file: Path, error: Exception) -> ConfigError:
        return ConfigError(
            "Alembic's configuration cannot be read",
            saw=f"{file}: {error}",
            source=self._source,
            remedy="correct the file",
        )


class NotLiteral(Exception):  # noqa: N818 - not an error: Alembic itself will say
    """A migration computes its revision or what it follows."""


@dataclass(frozen=True)
class Revision:
    """One migration: what it follows, depends on and is labelled, its docstring's first line and ``Create Date``."""

    id: str
    path: Path
    down: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    about: str = field(default="", compare=False)
    created: str = field(default="", compare=False)

    @classmethod
    def of(cls, variables: Mapping[str, Any], path: Path, document: str) -> Revision:
        """A revision from its module's variables and docstring."""
        created = _CREATED.search(document)
        down, depends, labels = (
            _names(variables.get(name)) for name in ("down_revision", "depends_on", "branch_labels")
        )
        about = next(iter(document.strip().splitlines()), "").strip()
        return cls(variables["revision"], path, down, depends, labels, about, created[1] if created else "")


def read_revision(path: Path) -> Revision:
    """One migration, by its source alone; raises `NotLiteral` where that does not say, or is not Python."""
    variables: dict[str, object] = {}
    try:
        tree = ast.parse(path.read_bytes())
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = {target.id for target in targets if isinstance(target, ast.Name)} & _VARIABLES
            value = getattr(node, "value", None)
            if names and isinstance(value, ast.expr):
                variables.update(dict.fromkeys(names, ast.literal_eval(value)))
    except (SyntaxError, ValueError) as error:
        raise NotLiteral(str(path)) from error
    if not isinstance(variables.get("revision"), str) or "down_revision" not in variables:
        raise NotLiteral(str(path))
    return Revision.of(variables, path, ast.get_docstring(tree) or "")


def _names(value: object) -> tuple[str, ...]:
    """One name, several or none."""
    if value is None or isinstance(value, str):
        return () if value is None else (value,)
    if isinstance(value, list | tuple | set | frozenset) and all(isinstance(name, str) for name in value):
        return tuple(sorted(value) if isinstance(value, set | frozenset) else value)
    raise NotLiteral(repr(value))


def order(revisions: Iterable[Revision], *, source: str) -> list[Revision]:
    """The revisions, each after all that it follows or depends on; raises `ConfigError`.

    Among those that could be next, the one created first is, on every machine: a migration that is added later comes as
    late as it can, and the steps before it, with their templates, stay what they are.
    """
    known: dict[str, Revision] = {}
    for revision in sorted(revisions, key=lambda one: (one.id, str(one.path))):
        if revision.id in known:
            first = known[revision.id].path
            raise _error(f"Two migrations have the revision {revision.id!r}", f"{first}\n{revision.path}", source)
        known[revision.id] = revision
    before = {revision.id: _before(revision, known, source) for revision in known.values()}
    sorter = TopologicalSorter(before)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = [known[name] for name in sorted(set(error.args[1]))]
        lines = (f"{one.id} after {', '.join((*one.down, *one.depends))}: {one.path}" for one in circle)
        raise _error("These migrations follow each other in a circle", "\n".join(lines), source) from None
    complete: list[Revision] = []
    depth: dict[str, int] = {}
    ready: list[tuple[str, int, list[tuple[int, str]], str]] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            depth[name] = 1 + max((depth[earlier] for earlier in before[name]), default=-1)
            pieces = [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", name)]
            heapq.heappush(ready, (known[name].created, depth[name], pieces, name))
        *_, name = heapq.heappop(ready)
        complete.append(known[name])
        sorter.done(name)
    return complete


def stops(revisions: Sequence[Revision], *, source: str) -> frozenset[int]:
    """After how many of the revisions, in their order, there is one head, which all others follow.

    Alembic runs those before it first, in whatever order it takes branches.
    """
    known = {revision.id: revision for revision in revisions}
    places = {name: place for place, name in enumerate(known)}
    before = [{places[name] for name in _before(revision, known, source)} for revision in revisions]
    heads: set[int] = set()
    with_one_head = set()
    for place in range(len(revisions)):
        heads = {*heads - before[place], place}
        with_one_head |= {place + 1} if len(heads) == 1 else set()
    result = set()
    earliest = len(revisions)  # of those that the later ones follow
    for count in range(len(revisions) - 1, 0, -1):
        earliest = min(earliest, *(before[count] or {-1}))
        if earliest == count - 1 and count in with_one_head:
            result.add(count)
    return frozenset(result)


def _before(revision: Revision, known: Mapping[str, Revision], source: str) -> set[str]:
    carriers = {label: one.id for one in known.values() for label in one.labels}
    depends = {carriers.get(name, name) for name in revision.depends}
    for key, names in (("down_revision", revision.down), ("depends_on", depends)):
        for name in names:
            if name not in known:
                near = did_you_mean(name, set(known) - {revision.id})
                raise _error(
                    f"The migration {revision.path.name} follows a revision that does not exist",
                    f"{key} = {name!r} in {revision.path}. {near}".strip(),
                    source,
                )
    return {*revision.down, *depends}


def _error(what: str, saw: str, source: str) -> ConfigError:
    return ConfigError(what, saw=saw, source=source, remedy="correct it; `alembic history` must work")
