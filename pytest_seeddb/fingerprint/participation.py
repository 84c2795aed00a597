"""Which code took part in a build, step by step: what a template depends on beside what its steps declare.

A file takes part when its code ran in a step, or when it is imported by one that does: by its code at module level, or
by a function of it that ran in this process. Of such a file the code at module level counts, and the functions that
ran, also before the build: their results may have been kept. Where it cannot be told what ran, the whole file counts.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pytest_seeddb.fingerprint import django_settings, tracing
from pytest_seeddb.fingerprint.digests import CODE, MISSING, Part, digest, part_pairs, parts_from
from pytest_seeddb.fingerprint.django_settings import APPS
from pytest_seeddb.fingerprint.modules import Foreign, Module, Modules, versions
from pytest_seeddb.fingerprint.outline import DOCS, MODULE, NAMES, TEXT
from pytest_seeddb.fingerprint.outlines import Outlines
from pytest_seeddb.fingerprint.places import Places
from pytest_seeddb.fingerprint.scanning import Imports
from pytest_seeddb.fingerprint.search_path import Search, may_add
from pytest_seeddb.fingerprint.sources import Sources, is_code

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from pytest_seeddb.fingerprint.digests import Steps
    from pytest_seeddb.fingerprint.outline import Outline, Unit
    from pytest_seeddb.fingerprint.tracing import Tracing

WHOLE: Final = "*"
IMPORTS: Final = "imports"
"""Stands for a step: names that lead to another file than before."""
_NAMESPACE: Final = "(no file)"
_INSTALLED: Final = "(installed)"
_NONE: Final = "(none)"
_PACKAGE: Final = "package "
_PYTHON_PART: Final = "python"
_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"


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


def _module_of(file: str) -> str:
    """The module that a file outside the project is named after."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _part_name(file: str, unit: str) -> str:
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
        return _leads_to(self._modules, self._modules.find(name))

    def _read(self, file: str) -> bytes | str:
        """The file's content if it is another than before, else its digest."""
        try:
            path = self._places.path(file)
            if path is None or not os.path.isfile(path):  # noqa: PTH113 - strings: hundreds of files
                module = self._modules.find(self._by_file.get(file, _module_of(file)))
                path = module.path if isinstance(module, Module) else None
            data = _bytes(path) if path else None
        except (OSError, ValueError):
            data = None
        if data is None or path is None:
            return MISSING
        if may_add(data):
            self._added |= self._sources.added_by(str(path), data)
        return known if digest(data) == (known := self._before.contents[file]) else data

    def parts(self, parts: tuple[Part, ...]) -> Iterator[Part]:
        """These parts of a step as they are."""
        by_file: dict[str, list[Part]] = {}
        for part in parts:
            if part.name.startswith(_PACKAGE):
                if self._versions is None:
                    self._versions = versions(
                        [p.name.removeprefix(_PACKAGE) for _, ps in self._before.steps for p in ps]
                    )
                yield Part(part.name, self._versions.get(part.name.removeprefix(_PACKAGE), part.digest))
            elif part.name == _PYTHON_PART:
                yield Part(_PYTHON_PART, _PYTHON)
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
            now = {unit: value for unit, value in now.items() if unit in own or _part_name(file, unit) not in every}
        else:  # functions that a later step was the first to run
            now = {unit: value for unit, value in now.items() if unit in own}
        yield from _parts_of(file, now)

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
                return _bytes(path)
        return b""


def _leads_to(modules: Modules, target: Module | Foreign | None) -> str:
    """The file that a name leads to; else what the name is."""
    if isinstance(target, Module):
        return modules.label(target) if target.path else _NAMESPACE
    return _INSTALLED if target and target.installed else _NONE


def _bytes(path: str) -> bytes:
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - a Path for each of hundreds is slow
        return stream.readall()


def _parts_of(file: str, units: Mapping[str, str]) -> Iterator[Part]:
    for unit, value in units.items():
        yield Part(_part_name(file, unit), f"{CODE}{value}" if unit == MODULE else value)


@dataclass
class _File:
    """A file that took part: its whole text counts, or else these units of its outline."""

    module: Module
    data: bytes | None
    outline: Outline | None
    units: dict[str, None] = field(default_factory=dict)


@dataclass
class _Step:
    """What a step was the first to need: files and units, and packages."""

    name: str
    units: list[tuple[str, str]] = field(default_factory=list)
    packages: set[Part] = field(default_factory=set)


class Closure:
    """Collects what takes part, step after step; ``before`` is what the build started from.

    ``roots`` are the files that each step runs, ``loaded`` all that this process has imported: of what is imported in
    functions of a file that counts whole, only these count. ``search`` is ``sys.path`` as the build left it. ``others``
    are the files that other steps of these stages run: they count there, although a tool may load them all at once.
    """

    def __init__(
        self,
        root: Path,
        trace: Tracing,
        roots: Mapping[str, Sequence[Root]],
        loaded: Collection[str],
        search: Iterable[str] = (),
        others: Iterable[str] = (),
    ) -> None:
        self._places = Places(root)
        self._sources = Sources(root, search=map(Path, search))
        self._root = root
        self._outlines = Outlines()
        self._trace = trace
        self._roots = roots
        self._loaded = frozenset(loaded)
        self._seen = trace.observation(self._places)
        added = Search()
        for path, _ in self._seen.paths.values():
            with suppress(OSError, ValueError):
                added |= self._sources.added_by(path, _bytes(path))
        self._sources = self._sources.with_added(added)
        self._executed: dict[str, set[str]] = {}
        self._files: dict[str, _File] = {}
        self._targets: dict[str, Module] = {}
        self._followed: set[str] = set()
        trace.scripts = self._within = {root.file: root.within for own in roots.values() for root in own if root.within}
        self._own = {root.file for own in roots.values() for root in own}.union(others)
        self._steps: list[_Step] = []

    def after(self, before: Participation) -> Participation:
        """What all steps depend on, those included that the build started from."""
        for name, parts in before.steps:
            self._steps.append(_Step(name))
            for part in parts:
                file, _, unit = part.name.partition(": ")
                if part.name.startswith((_PACKAGE, _PYTHON_PART)):
                    self._steps[-1].packages.add(part)
                elif not unit or unit.endswith("()"):
                    whole = not unit and not part.digest.startswith(CODE)
                    self._count(file, WHOLE if whole else unit.removesuffix("()"))
        for file, units in self._seen.earlier.items():
            self._executed[file] = {*units}
        ran = {name: (files, executed) for name, files, executed in self._trace.steps(self._places)}
        for name in dict.fromkeys((*self._roots, *ran)):
            files, executed = ran.get(name, (set(), {}))
            for file, units in executed.items():
                self._executed.setdefault(file, set()).update(units)
            self._steps.append(_Step(name, packages={Part(_PYTHON_PART, _PYTHON)}))
            self._follow([*files, *(root.file for root in self._roots.get(name, ())), *self._files])
        return self._result(before)

    def _follow(self, files: Iterable[str]) -> None:
        """Count these files, and what they import."""
        waiting = [*dict.fromkeys(files)]
        while waiting:
            name = waiting.pop()
            file = self._files.get(name) or self._open(name)
            new = self._new_units(name, file)
            if name not in self._followed:
                self._followed.add(name)
                waiting += self._named(self._sources.chain(file.module.name.rpartition(".")[0]))
                caused = self._seen.causes.get(name, set()) - self._own
                waiting += (cause for cause in caused if self._is_within(name, cause))
            for unit in new:
                self._count(name, unit)
                waiting += self._imports(name, file, unit)

    def _new_units(self, name: str, file: _File) -> list[str]:
        if WHOLE in file.units:
            return []
        if file.outline is None:
            return [WHOLE]
        executed = sorted(self._executed.get(name, set()) & file.outline.units.keys())
        return [unit for unit in (MODULE, *executed) if unit not in file.units]

    def _open(self, name: str) -> _File:
        if name in self._targets:
            return self._add(name, self._targets[name])
        path, module = self._seen.paths.get(name, (self._places.path(name) or "", ""))
        if not os.path.isfile(path):  # noqa: PTH113 - strings
            known = self._sources.modules.find(_module_of(name))
            path = known.path if isinstance(known, Module) else path
        return self._add(name, self._sources.modules.at(Path(path)) if path else Module(module))

    def _add(self, name: str, module: Module) -> _File:
        data = None
        with suppress(OSError, ValueError):
            data = _bytes(module.path)
        executed = self._seen.executed.get(name, set())
        is_told = tracing.is_exact() and name not in self._seen.whole and is_code(name) and not self._trace.is_partial
        outline = self._outlines.of(data, docs=False) if data is not None and is_told else None
        if outline and not (outline.is_complete(executed) and not outline.executes({MODULE, *executed})):
            outline = None
        file = self._files[name] = _File(module, data, outline)
        return file

    def _count(self, name: str, unit: str) -> None:
        file = self._files.get(name) or self._open(name)
        if unit == WHOLE:
            file.outline = None
        file.units[unit] = None
        self._steps[-1].units.append((name, unit))

    def _imports(self, name: str, file: _File, unit: str) -> Iterator[str]:
        if unit == WHOLE:
            imports = self._sources.imports_of(file.data) if file.data and is_code(name) else Imports()
        else:
            assert file.outline  # noqa: S101 - it has units
            imports = file.outline.units[unit].imports
        inner = self._named(self._sources.walked(file.module, imports))
        targets = [*self._named(t for text in imports.names for t in self._sources.resolved(text, file.module))]
        if unit == WHOLE and not self._trace.is_partial:
            at_import = self._outlines.of(file.data, docs=False) if file.data else None
            sure = at_import.units[MODULE].imports.names if at_import else ()
            always = {*self._named(t for text in sure for t in self._sources.resolved(text, file.module))}
            targets = [target for target in targets if target in always or target in self._loaded]
        loaded = (target for target in inner if target in self._loaded or self._trace.is_partial)
        yield from (target for target in (*targets, *loaded) if self._is_within(name, target))

    def _is_within(self, name: str, target: str) -> bool:
        within = self._within.get(name, ".")
        return within == "." or target.startswith(f"{within}/")

    def _named(self, targets: Iterable[Module | Foreign]) -> Iterator[str]:
        for target in targets:
            if isinstance(target, Foreign):
                self._steps[-1].packages.update(self._sources.packages(target))
            elif target.path:
                name = self._sources.modules.label(target)
                self._targets[name] = target
                yield name

    def _result(self, before: Participation) -> Participation:
        self._outlines.save()
        counted = [
            (name, unit, file.outline.units[unit])
            for name, file in self._files.items()
            if file.outline
            for unit in file.units
            if unit in file.outline.units
        ]
        asks = before.asks.union(*(unit.asks for *_, unit in counted))
        whole_words: frozenset[str] = frozenset()
        for file in self._files.values():
            if file.outline is None and file.units and file.data:
                whole = self._outlines.of(file.data, docs=False)
                units = whole.units.values() if whole else ()
                whole_words = whole_words.union(*(unit.words for unit in units))
        words = whole_words.union(*(unit.words for *_, unit in counted))
        unread, apps = self._unread(counted, whole_words, asks)
        for name in before.contents.keys() & unread.keys():
            unread[name] &= before.unread.get(name, frozenset())
        known: dict[str, dict[str, str]] = {}
        for name, file in self._files.items():
            if file.outline is None or file.data is None or TEXT in asks:
                continue
            if outline := self._outlines.of(file.data, docs=DOCS in asks):
                executed = outline.units.keys() & file.units.keys()
                asked = outline.optional if NAMES in asks else outline.optional & words
                known[name] = outline.parts(executed, asked, unread.get(name, ()))
        steps: dict[str, set[Part]] = {}  # a step may begin again in a later part of its stage
        for step in self._steps:
            steps.setdefault(step.name, set()).update((*self._parts(step, known), *step.packages))
        added = Search()
        for file in self._files.values():
            if file.units and file.data is not None:
                added |= self._sources.added_by(file.module.path, file.data)
        found = Modules(self._root, added=added)
        contents = {name: MISSING if f.data is None else digest(f.data) for name, f in self._files.items() if f.units}
        # A computed name stands nowhere, but another file that it would lead to is known all the same.
        computed = {file.module.name: name for name, file in self._files.items() if file.units}
        computed = {name: file for name, file in computed.items() if _leads_to(found, found.find(name)) == file}
        modules = computed | {
            name: _leads_to(found, target)
            for name in self._sources.modules.found
            if not isinstance(target := found.find(name), Foreign) or "." not in name
        }
        own = tuple((name, tuple(sorted(parts))) for name, parts in steps.items())
        apps = before.apps or apps
        return Participation(own, contents, {**before.modules, **modules}, frozenset(asks), unread, apps)

    def _unread(
        self, counted: Iterable[tuple[str, str, Unit]], whole: frozenset[str], asks: frozenset[str]
    ) -> tuple[dict[str, frozenset[str]], str]:
        """The literals of the settings' module that neither Django's settings were asked for nor any code names.

        Also the digest of Django's applications, if code asked for them.
        """
        seen = django_settings.reads()
        name = self._places.source_of(seen.path, seen.module) if seen else ""
        words = whole.union(*(unit.words for own, kind, unit in counted if (own, kind) != (name, MODULE)))
        read, apps = seen.names if seen else frozenset({APPS}), ""
        if not self._trace.has_apps:
            read |= {APPS}
        elif self._trace.lists_apps or APPS in read or words & django_settings.ASKS_FOR_APPS:
            read, apps = read | {APPS}, django_settings.apps()
        file = self._files.get(name)
        if seen is None or file is None or file.outline is None or name in self._targets or asks & {NAMES, TEXT}:
            return {}, apps
        mentions = (seen.module.encode(), b"SETTINGS_MODULE")
        others = [other.data for other in self._files.values() if other is not file and other.units and other.data]
        if any(mention in data for data in others for mention in mentions):
            return {}, apps
        return {name: file.outline.literals - read - words}, apps

    def _parts(self, step: _Step, known: Mapping[str, Mapping[str, str]]) -> Iterator[Part]:
        for name, unit in step.units:
            file = self._files[name]
            if name not in known:
                if unit in {MODULE, WHOLE}:
                    yield Part(name, MISSING if file.data is None else digest(file.data))
            elif unit == MODULE:
                functions = {f"{other}()" for other in file.units}
                yield from _parts_of(name, {k: v for k, v in known[name].items() if k not in functions})
            else:
                yield Part(_part_name(name, f"{unit}()"), known[name][f"{unit}()"])
