"""Which code took part in a build, step by step, and whether it is still the same.

That is what a template depends on beside what its steps declare; `pytest_seeddb.fingerprint.closure` collects it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

from pytest_seeddb.fingerprint import django_settings
from pytest_seeddb.fingerprint.digests import CODE, MISSING, Part, digest, part_pairs, parts_from
from pytest_seeddb.fingerprint.modules import Foreign, Module, Modules, versions
from pytest_seeddb.fingerprint.outline import DOCS, MODULE, NAMES
from pytest_seeddb.fingerprint.outlines import Outlines
from pytest_seeddb.fingerprint.places import Places
from pytest_seeddb.fingerprint.search_path import Search, may_add
from pytest_seeddb.fingerprint.sources import Sources, read_bytes, settled_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pytest_seeddb.fingerprint.digests import Steps

WHOLE: Final = "*"
IMPORTS: Final = "imports"
"""Stands for a step: names that lead to another file than before."""
_NAMESPACE: Final = "(no file)"
_INSTALLED: Final = "(installed)"
_NONE: Final = "(none)"
PACKAGE: Final = "package "
PYTHON_PART: Final = "python"
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Root:
    """A file that a step runs; with ``within``, only what it imports from that directory counts."""

    file: str
    within: str = ""


@dataclass(frozen=True)
class Participation:
    """What the steps of a template depend on: parts that each step was the first to need.

    ``contents`` are the digests of whole files, as these were: an unchanged file needs no second look. ``modules`` says
    which file each imported name led to. ``asks`` is what the code asks of other code, see `outline.DOCS` and others.
    ``unread`` are the literals of Django's settings that nothing asked for, ``apps`` the digest of its applications if
    something did.
    """

    steps: Steps = ()
    contents: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    asks: frozenset[str] = frozenset()
    unread: Mapping[str, frozenset[str]] = field(default_factory=dict)
    apps: str = ""

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        steps = [[name, part_pairs(parts)] for name, parts in self.steps]
        fields = {"steps": steps, "contents": self.contents, "modules": self.modules}
        unread = {file: sorted(names) for file, names in self.unread.items()}
        return {**fields, "asks": sorted(self.asks), "unread": unread, "apps": self.apps} if steps else {}

    @classmethod
    def from_json(cls, fields: Any) -> Self:  # noqa: ANN401 - checked by unpacking it
        """Raises `ValueError`, `TypeError`, `KeyError` or `AttributeError` for anything that it never wrote."""
        if not fields:
            return cls()
        steps = tuple((str(name), parts_from(parts)) for name, parts in fields["steps"])
        contents, modules = (
            {str(key): str(value) for key, value in fields[name].items()} for name in ("contents", "modules")
        )
        unread = {str(file): frozenset(map(str, names)) for file, names in fields.get("unread", {}).items()}
        asks, apps = frozenset(map(str, fields["asks"])), str(fields.get("apps", ""))
        return cls(steps, contents, modules, asks, unread, apps)

    @property
    def files(self) -> frozenset[str]:
        """All files that took part."""
        return frozenset(self.contents)


def file_of(name: str) -> str:
    """The file that a part of code belongs to."""
    return name.partition(": ")[0]


def module_of(file: str) -> str:
    """The module that a file outside the project is named after."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def part_name(file: str, unit: str) -> str:
    """What a unit of a file's outline is called."""
    return f"{file}: {unit}" if unit else file


def compare(before: Participation, root: Path) -> tuple[Steps, Steps]:
    """The steps' parts as they were, and as they are now; the same where the template still holds."""
    now = _Now(before, root)
    places = [(f"module {name}", was, now.module(name)) for name, was in before.modules.items()]
    places += [(django_settings.LIST, before.apps, django_settings.apps())] if before.apps else []
    moved = [(name, was, is_now) for name, was, is_now in places if is_now != was]
    old: list[tuple[str, tuple[Part, ...]]] = []
    new: list[tuple[str, tuple[Part, ...]]] = []
    for name, parts in before.steps:
        old.append((name, parts))
        new.append((name, tuple(sorted(now.parts(parts)))))
    if moved:
        old.append((IMPORTS, tuple(Part(name, was) for name, was, _ in moved)))
        new.append((IMPORTS, tuple(Part(name, is_now) for name, _, is_now in moved)))
    now.outlines.save()
    return tuple(old), tuple(new)


class _Now:
    """The project as it is, beside what took part in a build."""

    def __init__(self, before: Participation, root: Path) -> None:
        self._before = before
        self._root = root
        self._places = Places(root)
        self._modules = Modules(root)
        self._by_file = {file: name for name, file in before.modules.items()}
        self.outlines = Outlines()
        self._added = Search()
        self._states = {file: self._read(file) for file in before.contents}
        if self._added != Search():
            self._modules = Modules(root, added=self._added)
        self._versions: Mapping[str, str] | None = None
        self._words: dict[str, bool] = {}

    @cached_property
    def _sources(self) -> Sources:
        return Sources(self._root)  # lists what is installed: only where a file may change `sys.path`

    def module(self, name: str) -> str:
        return leads_to(self._modules, self._modules.find(name))

    def _read(self, file: str) -> bytes | str:
        """The file's content if it is another than before, else its digest."""
        known = self._before.contents[file]
        try:
            path = self._places.path(file)
            if path and settled_digest(path) == known:
                return known
            if path is None or not os.path.isfile(path):  # noqa: PTH113 - strings: hundreds of files
                module = self._modules.find(self._by_file.get(file, module_of(file)))
                path = module.path if isinstance(module, Module) else None
            data = read_bytes(path) if path else None
        except (OSError, ValueError):
            data = None
        if data is None or path is None:
            return MISSING
        if may_add(data):
            self._added |= self._sources.added_by(str(path), data)
        return known if digest(data) == known else data

    def parts(self, parts: tuple[Part, ...]) -> Iterator[Part]:
        """These parts of a step as they are."""
        by_file: dict[str, list[Part]] = {}
        for part in parts:
            if part.name.startswith(PACKAGE):
                if self._versions is None:
                    self._versions = versions(
                        [p.name.removeprefix(PACKAGE) for _, ps in self._before.steps for p in ps]
                    )
                yield Part(part.name, self._versions.get(part.name.removeprefix(PACKAGE), part.digest))
            elif part.name == PYTHON_PART:
                yield Part(PYTHON_PART, PYTHON)
            else:
                by_file.setdefault(file_of(part.name), []).append(part)
        for file, own in by_file.items():
            state = self._states.get(file, MISSING)
            if isinstance(state, bytes):
                yield from self._changed(file, own, state)
            elif state == MISSING:
                yield Part(file, MISSING)
            else:
                yield from own

    def _changed(self, file: str, parts: list[Part], data: bytes) -> Iterator[Part]:
        outline = self.outlines.of(data, docs=DOCS in self._before.asks)
        if outline is None or any(part.name == file and not part.digest.startswith(CODE) for part in parts):
            yield Part(file, digest(data))
            return
        every = [part.name for _, step in self._before.steps for part in step if file_of(part.name) == file]
        units = [name.partition(": ")[2] for name in every]
        executed = {unit.removesuffix("()") for unit in units if unit.endswith("()")}
        known = {unit.removesuffix("(...)") for unit in units if unit.endswith("(...)")}
        asked = known | {name for name in outline.optional - executed - known if self._is_asked(name)}
        now = outline.parts(executed, asked, self._before.unread.get(file, ()))
        own = {part.name.partition(": ")[2] for part in parts}
        if MODULE in own:
            now = {unit: value for unit, value in now.items() if unit in own or part_name(file, unit) not in every}
        else:  # functions that a later step was the first to run
            now = {unit: value for unit, value in now.items() if unit in own}
        yield from unit_parts(file, now)

    def _is_asked(self, name: str) -> bool:
        """Whether code that took part asks for a function of this name."""
        if NAMES in self._before.asks:
            return True
        if name not in self._words:
            self._words[name] = any(self._asks(file, name) for file in self._before.contents)
        return self._words[name]

    def _asks(self, file: str, name: str) -> bool:
        state = self._states[file]
        data = state if isinstance(state, bytes) else self._data(file)
        if name.encode() not in data:
            return False
        outline = self.outlines.of(data, docs=False)  # as a build does: a docstring asks for nothing
        if outline is None:
            return True
        parts = [part for _, step in self._before.steps for part in step if file_of(part.name) == file]
        if any(part.name == file and not part.digest.startswith(CODE) for part in parts):
            return True
        units = {part.name.partition(": ")[2].removesuffix("()") for part in parts}
        return any(name in unit.words for own, unit in outline.units.items() if own in units)

    def _data(self, file: str) -> bytes:
        with suppress(OSError, ValueError):
            if path := self._places.path(file):
                return read_bytes(path)
        return b""


def leads_to(modules: Modules, target: Module | Foreign | None) -> str:
    """The file that a name leads to; else what the name is."""
    if isinstance(target, Module):
        return modules.label(target) if target.path else _NAMESPACE
    return _INSTALLED if target and target.installed else _NONE


def unit_parts(file: str, units: Mapping[str, str]) -> Iterator[Part]:
    """The parts of a file, by the digests of its units."""
    for unit, value in units.items():
        yield Part(part_name(file, unit), f"{CODE}{value}" if unit == MODULE else value)
