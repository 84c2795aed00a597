"""Alembic's revisions and their order, read from the files without importing Alembic or running them."""

from __future__ import annotations

import ast
import heapq
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_seeddb.migrations.alembic_layout import Layout

_REVISION_FILE: Final = re.compile(r"(?!\.#|__init__).*\.py")  # alembic.script.base
_NAMES: Final = frozenset({"revision", "down_revision", "depends_on", "branch_labels"})
_CREATED: Final = re.compile(r"^Create Date:\s*(\S.*?)\s*$", re.MULTILINE)
_DIGITS: Final = re.compile(r"(\d+)")


class NotLiteral(Exception):  # noqa: N818 - it is no error: Alembic itself will tell
    """A migration computes its revision or what it follows."""


@dataclass(frozen=True)
class Revision:
    """One migration.

    Attributes:
        id: Its revision identifier.
        path: Its file.
        down: The revisions that it follows.
        depends: What it depends on otherwise: revisions or branch labels.
        labels: Branch labels that it carries.
        about: The first line of its docstring.
        created: Its ``Create Date``, as Alembic writes it into the docstring.
    """

    id: str
    path: Path
    down: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    about: str = field(default="", compare=False)
    created: str = field(default="", compare=False)


def read_revisions(layout: Layout) -> list[Revision]:
    """All migrations of the project, in no particular order.

    Raises:
        NotLiteral: A file does not say by itself which revision it is.
    """
    return [read_revision(path) for path in _files(layout)]


def read_revision(path: Path) -> Revision:
    """One migration, by its source alone.

    Raises:
        NotLiteral: It computes its identifier or what it follows, or is not Python.
    """
    try:
        tree = ast.parse(path.read_bytes())
        found = dict(_assigned(tree))
    except (SyntaxError, ValueError) as error:
        raise NotLiteral(str(path)) from error
    if not isinstance(found.get("revision"), str) or "down_revision" not in found:
        raise NotLiteral(str(path))
    document = ast.get_docstring(tree) or ""
    return revision_of(found, path, document)


def revision_of(found: Mapping[str, Any], path: Path, document: str) -> Revision:
    """A revision from its module's variables and docstring."""
    created = _CREATED.search(document)
    lines = document.strip().splitlines()
    return Revision(
        id=found["revision"],
        path=path,
        down=_names(found.get("down_revision")),
        depends=_names(found.get("depends_on")),
        labels=_names(found.get("branch_labels")),
        about=lines[0].strip() if lines else "",
        created=created[1] if created else "",
    )


def ordered(revisions: Iterable[Revision], *, source: str) -> tuple[Revision, ...]:
    """The revisions so that each comes after all that it follows or depends on.

    The order is the same on every machine, and a migration that is added later comes as late as it
    can: among those that could be next, the one created first is. So the steps before it, and
    their templates, stay what they are.

    Raises:
        ConfigError: Two files have one revision, one follows a revision that is not there, or
            some follow each other in a circle.
    """
    known = _by_id(revisions, source)
    before = {each.id: _before(each, known, source) for each in known.values()}
    after: dict[str, list[str]] = defaultdict(list)
    for name, earlier in before.items():
        for each in earlier:
            after[each].append(name)
    found = [known[name] for name in _sorted(before, after, known)]
    if len(found) < len(known):
        raise _circle([each for each in known.values() if each not in set(found)], source)
    return tuple(found)


def _sorted(
    before: Mapping[str, set[str]], after: Mapping[str, list[str]], known: Mapping[str, Revision]
) -> Iterator[str]:
    waiting = {name: len(earlier) for name, earlier in before.items()}
    depth = dict.fromkeys(before, 0)
    ready = [(_key(known[name], 0), name) for name, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    while ready:
        _, name = heapq.heappop(ready)
        yield name
        for later in after.get(name, ()):
            depth[later] = max(depth[later], depth[name] + 1)
            waiting[later] -= 1
            if waiting[later] == 0:
                heapq.heappush(ready, (_key(known[later], depth[later]), later))


def _key(revision: Revision, depth: int) -> tuple[str, int, list[tuple[int, str]]]:
    pieces = [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in _DIGITS.split(revision.id)]
    return revision.created, depth, pieces


def _by_id(revisions: Iterable[Revision], source: str) -> dict[str, Revision]:
    known: dict[str, Revision] = {}
    for each in sorted(revisions, key=lambda one: (one.id, str(one.path))):
        if each.id in known:
            raise _broken(
                f"Two migrations have the revision {each.id!r}", f"{known[each.id].path}\n{each.path}", source
            )
        known[each.id] = each
    return known


def _before(revision: Revision, known: Mapping[str, Revision], source: str) -> set[str]:
    carriers = {label: each.id for each in known.values() for label in each.labels}
    for name in revision.down:
        if name not in known:
            raise _missing(revision, "down_revision", name, known, source)
    depends = {carriers.get(name, name) for name in revision.depends}
    for name in depends:
        if name not in known:
            raise _missing(revision, "depends_on", name, known, source)
    return {*revision.down, *depends}


def _missing(revision: Revision, key: str, name: str, known: Mapping[str, Revision], source: str) -> ConfigError:
    from pytest_seeddb.settings.converters import did_you_mean

    return _broken(
        f"The migration {revision.path.name} follows a revision that is not there",
        f"{key} = {name!r} in {revision.path}. {did_you_mean(name, set(known) - {revision.id})}".strip(),
        source,
    )


def _circle(revisions: Sequence[Revision], source: str) -> ConfigError:
    lines = (f"{each.id} after {', '.join((*each.down, *each.depends))}: {each.path}" for each in revisions)
    return _broken("These migrations follow each other in a circle", "\n".join(lines), source)


def _broken(what: str, saw: str, source: str) -> ConfigError:
    return ConfigError(what, saw=saw, source=source, remedy="mend it; `alembic history` must work")


def _files(layout: Layout) -> Iterator[Path]:
    """The files that Alembic would load, each once."""
    seen: set[Path] = set()
    for directory in layout.versions:
        for path in sorted(directory.glob("**/*.py" if layout.recursive else "*.py")):
            if "__pycache__" in path.parts or not _REVISION_FILE.fullmatch(path.name):
                continue
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path.resolve()


def _assigned(tree: ast.Module) -> Iterator[tuple[str, object]]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            value = getattr(node, "value", None)
            if isinstance(target, ast.Name) and target.id in _NAMES and isinstance(value, ast.expr):
                yield target.id, ast.literal_eval(value)


def _names(value: object) -> tuple[str, ...]:
    """One name, several or none."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple | set | frozenset) and all(isinstance(each, str) for each in value):
        return tuple(sorted(value) if isinstance(value, set | frozenset) else value)
    raise NotLiteral(repr(value))
