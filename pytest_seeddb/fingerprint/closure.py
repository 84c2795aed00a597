"""Collects which code takes part in a build, step by step.

A file takes part when its code ran in a step, or when it is imported by one that does: by its code at module level, or
by a function of it that ran in this process. Of such a file the code at module level counts, and the functions that
ran, also before the build: their results may have been kept. Where it cannot be told what ran, the whole file counts.
A file that fills a registry of one of these takes part, too, see `pytest_seeddb.fingerprint.fillings`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import compress, count
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_seeddb.fingerprint import django_settings, tracing
from pytest_seeddb.fingerprint.digests import CODE, MISSING, Part, digest
from pytest_seeddb.fingerprint.django_settings import APPS
from pytest_seeddb.fingerprint.fillings import CHANGES, DEFINES, REGISTERS, Fillings
from pytest_seeddb.fingerprint.modules import Foreign, Module, Modules, is_test
from pytest_seeddb.fingerprint.outline import DOCS, MODULE, NAMES, TEXT
from pytest_seeddb.fingerprint.outlines import Outlines
from pytest_seeddb.fingerprint.participation import (
    PACKAGE,
    PYTHON,
    PYTHON_PART,
    WHOLE,
    Participation,
    leads_to,
    module_of,
    part_name,
    unit_parts,
)
from pytest_seeddb.fingerprint.places import Places
from pytest_seeddb.fingerprint.scanning import Imports
from pytest_seeddb.fingerprint.search_path import Search
from pytest_seeddb.fingerprint.sources import Sources, absolute, is_code, read_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from pytest_seeddb.fingerprint.fillings import Filling
    from pytest_seeddb.fingerprint.outline import Outline, Unit
    from pytest_seeddb.fingerprint.participation import Root
    from pytest_seeddb.fingerprint.tracing import Tracing


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
                added |= self._sources.added_by(path, read_bytes(path))
        self._sources = self._sources.with_added(added)
        self._executed: dict[str, set[str]] = {}
        self._files: dict[str, _File] = {}
        self._targets: dict[str, Module] = {}
        self._followed: set[str] = set()
        self._fillings: dict[str, tuple[Module, Fillings]] = {}
        self._fillers: set[str] = set()
        self._functions: dict[str, frozenset[str]] = {}
        self._registering: dict[str, bool] = {}
        trace.scripts = self._within = {root.file: root.within for own in roots.values() for root in own if root.within}
        self._own = {root.file for own in roots.values() for root in own}.union(others)
        self._steps: list[_Step] = []

    def after(self, before: Participation) -> Participation:
        """What all steps depend on, those included that the build started from."""
        for name, parts in before.steps:
            self._steps.append(_Step(name))
            for part in parts:
                file, _, unit = part.name.partition(": ")
                if part.name.startswith((PACKAGE, PYTHON_PART)):
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
            self._steps.append(_Step(name, packages={Part(PYTHON_PART, PYTHON)}))
            again = self._files.keys() - self._fillers
            self._follow([*files, *(root.file for root in self._roots.get(name, ())), *again])
        return self._result(before)

    def _follow(self, files: Iterable[str]) -> None:
        """Count these files, and what they import; then those that fill their registries, and what they put there."""
        waiting = [*dict.fromkeys(files)]
        while waiting := waiting or [*self._fill()]:
            name = waiting.pop()
            file = self._files.get(name) or self._open(name)
            new = self._new_units(name, file)
            for unit in new:
                self._count(name, unit)
            if name in self._fillers:
                self._fillers.remove(name)
                new = [*file.units]
            if name not in self._followed:
                self._followed.add(name)
                waiting += self._named(self._sources.chain(file.module.name.rpartition(".")[0]))
                caused = self._seen.causes.get(name, set()) - self._own
                waiting += (cause for cause in caused if self._is_within(name, cause))
            for unit in new:
                waiting += self._imports(name, file, unit)

    def _fill(self) -> Iterator[str]:
        """Count the files that change an object of one that takes part when they are imported; what they use for it.

        Of such a file neither other imports count nor functions that its import does not call.
        """
        files = {file.module.name: name for name, file in self._files.items() if file.units}
        for name in sorted(self._loaded.difference(self._own, files.values())):
            if name not in self._fillings:
                self._fillings[name] = self._read_fillings(name)
            module, fillings = self._fillings[name]
            filling = [any(self._is_of(change, module, files) for change in changes) for changes in fillings.changes]
            if any(filling):
                self._fillers.add(name)
                for unit in self._new_units(name, self._open(name)):
                    called = unit.rpartition(".")[2]
                    if unit in {MODULE, WHOLE} or called.startswith("__") or called in fillings.called:
                        self._count(name, unit)
                for text in fillings.needs(compress(count(), filling)):
                    yield from self._named(self._sources.resolved(text, module))

    def _read_fillings(self, name: str) -> tuple[Module, Fillings]:
        path, module = self._seen.paths.get(name, ("", ""))
        if is_code(name) and not is_test(os.path.basename(name)):  # noqa: PTH119 - strings
            with suppress(OSError, ValueError):
                return self._sources.modules.at(Path(path)), self._outlines.fillings(read_bytes(path))
        return Module(module), Fillings()

    def _is_of(self, change: Filling, module: Module, files: Mapping[str, str]) -> bool:
        """Whether it changes an object of one of the files, by module."""
        for text in change.targets:
            base, _, leaf = text.partition(":")
            name = absolute(base, module)
            if f"{name}.{leaf}" in files or name in files:
                if change.by == DEFINES:
                    return any(map(self._registers, files.values()))
                return change.by in CHANGES or any(change.by in self._functions_of(file) for file in files.values())
        return False

    def _registers(self, name: str) -> bool:
        """Whether a file's code may know classes that others define."""
        if name not in self._registering:
            self._registering[name] = REGISTERS.search(self._files[name].data or b"") is not None
        return self._registering[name]

    def _functions_of(self, name: str) -> frozenset[str]:
        """The last parts of the names of a file's functions and classes."""
        if name not in self._functions:
            file = self._files[name]
            outline = file.outline or (self._outlines.of(file.data, docs=False) if file.data else None)
            names = (*outline.units, *outline.classes) if outline else ()
            self._functions[name] = frozenset(function.rpartition(".")[2] for function in names)
        return self._functions[name]

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
            known = self._sources.modules.find(module_of(name))
            path = known.path if isinstance(known, Module) else path
        return self._add(name, self._sources.modules.at(Path(path)) if path else Module(module))

    def _add(self, name: str, module: Module) -> _File:
        data = None
        with suppress(OSError, ValueError):
            data = read_bytes(module.path)
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
        computed = {name: file for name, file in computed.items() if leads_to(found, found.find(name)) == file}
        modules = computed | {
            name: leads_to(found, target)
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
                yield from unit_parts(name, {k: v for k, v in known[name].items() if k not in functions})
            else:
                yield Part(part_name(name, f"{unit}()"), known[name][f"{unit}()"])
