"""The import closure of Python inputs: everything of the project that runs when a module runs."""

from __future__ import annotations

import copy
import hashlib
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import MISSING, Part, chain, digest, file_digest, file_part
from pytest_seeddb.fingerprint.modules import COMPILED, Foreign, Module, Modules, Packages, distributions
from pytest_seeddb.fingerprint.scanning import OWN_PACKAGE, SCAN, Imports, scan
from pytest_seeddb.fingerprint.search_path import Search, may_add

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_PYTHON: Final = Part("python", _VERSION)
_FORMAT: Final = f"{SCAN} {_VERSION}"
_KEPT_FILES: Final = 3000
_KEPT_SITES: Final = 8
_SETTLED: Final = 3_000_000_000
"""Nanoseconds since a file's last change: from then on another change gives it another time, on any file system."""

_settled: dict[str, tuple[tuple[int, ...], str]] = {}
"""The states and digests of the settled files that this process has read, without those that change `sys.path`."""


@dataclass(frozen=True)
class _Reading:
    """A module's own part and what it leads to; ``walked`` are modules that it may import by computed names."""

    part: Part | None
    modules: tuple[Module, ...] = ()
    walked: tuple[Module, ...] = ()
    packages: tuple[Part, ...] = ()
    search: Search | None = None


class Sources:
    """The parts that Python inputs contribute to a fingerprint.

    Nothing of the project is imported or run: its files are read, each once in the life of this object, so that all
    steps of a plan see the same state. Make a new one for a new look.

    Args:
        root: The project's root.
        cache_file: Remembers what files import, by their content; by default in the user's cache directory. Any number
            of processes may share it. A damaged one is replaced, and one that cannot be written only costs time.
        search: Directories that will be in front of ``sys.path`` when the code runs.
    """

    def __init__(self, root: Path, cache_file: Path | None = None, search: Iterable[Path] = ()) -> None:
        self._root = root
        self._roots = tuple({os.path.abspath(root) + os.sep: 1, os.path.realpath(root) + os.sep: 1})  # noqa: PTH100 - prefixes
        self._search = tuple(search)
        self._added = Search()
        self.modules = Modules(root, self._search)
        installed = distributions()
        # Changes whenever a distribution is installed, removed or replaced by another version.
        site = digest("\0".join(sorted(installed.values())))
        self._memory = _Memory(cache_file, site)
        self._versions = Packages(installed, self._memory.owners)
        self._contents: dict[str, tuple[str, Imports]] = {}
        self._wider: dict[Search, Sources] = {}
        self._follows = True
        self._forget()

    def _forget(self) -> None:
        self._targets: dict[tuple[str, str], tuple[Module | Foreign, ...]] = {}
        self._chains: dict[str, tuple[Module | Foreign, ...]] = {}
        self._readings: dict[Module, _Reading] = {}

    def after(self, path: Path, within: Path) -> Sources:
        """The same for code that runs after this file; what it puts on the path holds (and its imports ``within``)."""
        return self._widened(self._collect([self.modules.at(path)], within))

    @property
    def plain(self) -> Sources | None:
        """The same without what the project's code puts on the path, if it puts anything there."""
        if not self._wider:
            return None
        return self._with(Search(), follows=False)

    def of_file(self, path: Path, within: Path | None = None, *, source: str = "") -> tuple[Part, ...]:
        """The parts of a Python file and of all own modules that it imports, transitively; sorted.

        They are one part for each file, ``package <name>`` with the version of each third-party package that one of
        them imports, and ``python``. With ``within``, only imports from that directory are followed, and none by
        computed names: for a file whose other imports do not affect what it does.

        Raises:
            ConfigError: The file does not exist or cannot be read; names ``source``, where the path came from.
        """
        file_part(path, self._root, source=source)  # raises if it cannot be read
        return tuple(sorted(set(self._closure([self.modules.at(path)], within))))

    def of_module(self, name: str, *, source: str = "") -> tuple[Part, ...]:
        """The same parts for a module by its dotted name, found as Python would find it.

        Raises:
            ConfigError: There is no such module; names ``source``, where the name came from.
        """
        module = self.modules.find(name)
        if isinstance(module, Foreign) and module.installed:
            return tuple(sorted({_PYTHON, *self._versions.parts(module)}))
        if isinstance(module, Module):
            first = [module] if module.path else [module, *self.modules.below(module)]
            return tuple(sorted(set(self._closure(first, None)), key=attrgetter("name", "digest")))  # hundreds
        if name.partition(".")[0] in sys.stdlib_module_names:
            return (_PYTHON,)
        import difflib

        close = difflib.get_close_matches(name, self.modules.names_beside(name), 1)
        hint = f' Did you mean "{close[0]}"?' if close else ""
        raise ConfigError(
            f'There is no module "{name}"',
            saw=f"not found in {', '.join(self.modules.places)}",
            source=source,
            remedy=f"Correct the name, or put its directory on sys.path.{hint}",
        )

    def file(self, path: Path) -> str:
        """What the part of this file is called."""
        return self.modules.label(self.modules.at(path))

    def files_of_module(self, name: str) -> tuple[str, ...]:
        """The files that importing this module runs first, by their parts' names."""
        module = self.modules.find(name)
        if not isinstance(module, Module):
            return ()
        first = [module] if module.path else self.modules.below(module)
        return tuple(self.modules.label(target) for target in first if target.path)

    def _closure(self, first: list[Module], within: Path | None) -> Iterator[Part]:
        yield _PYTHON
        sources, readings = self, self._collect(first, within)
        while (wider := sources._widened(readings)) is not sources:
            sources, readings = wider, wider._collect(first, within)  # noqa: SLF001 - as above
        for reading in readings:
            if reading.part:
                yield reading.part
            yield from reading.packages
        self._memory.save()

    def _collect(self, first: list[Module], within: Path | None) -> list[_Reading]:
        readings: dict[Module, _Reading] = {}
        waiting = [*first]
        for module in first:
            parents = (parent for parent in self.chain(_parent(module.name)) if isinstance(parent, Module))
            waiting += parents if within is None else _under(within, parents)
        while waiting:
            module = waiting.pop()
            if module in readings:
                continue
            reading = self._readings.get(module)
            if reading is None:
                reading = self._readings[module] = self._reading(module)
            readings[module] = reading
            waiting += reading.modules if within is None else _under(within, reading.modules)
            waiting += reading.walked if within is None else ()
        return [*readings.values()]

    def _widened(self, readings: Iterable[_Reading]) -> Sources:
        """The same with what these files put on ``sys.path``; itself where that is nothing new."""
        added = self._added
        for reading in readings:
            if reading.search and self._follows:
                added |= reading.search
        return self.with_added(added)

    def added_by(self, path: str, data: bytes) -> Search:
        """What a file with these bytes puts on ``sys.path``."""
        if not may_add(data):
            return Search()
        return Search.of(self.imports_of(data).paths, path, self._roots[0])

    def with_added(self, added: Search) -> Sources:
        """The same with these directories on ``sys.path``; itself where they are there already."""
        if added == self._added:
            return self
        if added not in self._wider:
            self._wider[added] = self._with(added, follows=True)
        return self._wider[added]

    def _with(self, added: Search, *, follows: bool) -> Sources:
        other = copy.copy(self)
        other._added, other._follows = added, follows  # noqa: SLF001 - of this class
        other.modules = Modules(self._root, self._search, added)
        other._forget()  # noqa: SLF001 - as above
        return other

    def _reading(self, module: Module) -> _Reading:
        if not module.path:
            return _Reading(None)
        label = self.modules.label(module)
        if module.path not in self._contents:
            self._contents[module.path] = self._content(module.path)
        key, imports = self._contents[module.path]
        part = Part(label, key[:16])
        modules: dict[Module, None] = {}
        packages: dict[Part, None] = {}
        for text in imports.names:
            # Most files import the same few names, and an absolute name means the same in all of them.
            place = (_package_of(module) if text[0] == "." else "", text)
            targets = self._targets.get(place)
            if targets is None:
                targets = self._targets[place] = tuple(self.resolved(text, module))
            for target in targets:
                if isinstance(target, Foreign):
                    packages.update(dict.fromkeys(self._versions.parts(target)))
                else:
                    modules[target] = None
        search = Search.of(imports.paths, module.path, self._roots[0]) if imports.paths else None
        return _Reading(part, tuple(modules), tuple(self.walked(module, imports)), tuple(packages), search)

    def _content(self, path: str) -> tuple[str, Imports]:
        """The digest of a file and what it imports."""
        try:
            state = _state(path)
            data = read_bytes(path)
        except OSError:
            return MISSING, Imports()
        key = hashlib.sha256(data).hexdigest()
        imports = Imports() if path.endswith(COMPILED) else self._memory.imports(key, data)
        if time.time_ns() - state[0] > _SETTLED and not imports.paths:
            _settled[path] = (state, key[:16])
        return key, imports

    def imports_of(self, data: bytes) -> Imports:
        """All imports of a file with these bytes."""
        return self._memory.imports(hashlib.sha256(data).hexdigest(), data)

    def packages(self, foreign: Foreign) -> tuple[Part, ...]:
        """The versions of the packages that provide this name."""
        return self._versions.parts(foreign)

    def resolved(self, text: str, module: Module) -> Iterator[Module | Foreign]:
        """Everything that one of `Imports.names` loads."""
        base, _, leaf = text.removeprefix("?").partition(":")
        name = absolute(base, module)
        chain = self.chain(name)
        package = chain[0] if chain else None
        if text.startswith("?") and isinstance(package, Foreign):
            return
        yield from chain
        if not leaf or not isinstance(package, Module) or not package.places or package.name != name:
            return
        submodules: tuple[str, ...] = (leaf,)
        if leaf == "*":
            submodules = ()
            with suppress(OSError):
                submodules = self.imports_of(read_bytes(package.path) if package.path else b"").exports
        for submodule in submodules:
            if (target := self.modules.find(f"{name}.{submodule}")) is not None:
                yield target

    def chain(self, name: str) -> tuple[Module | Foreign, ...]:
        """The module and the packages around it, whose files Python runs, too, even if there is no such module."""
        chain = self._chains.get(name)
        if chain is None:
            module = self.modules.find(name) if name else None
            parents = self.chain(_parent(name)) if "." in name else ()
            own = (module,) if module is not None else ()
            chain = self._chains[name] = parents if own and own == parents[:1] else own + parents
        return chain

    def walked(self, module: Module, imports: Imports) -> Iterator[Module]:
        """The modules that a file may import by computed names."""
        for walk in imports.walks:
            name = _package_of(module) if walk == OWN_PACKAGE else absolute(walk, module)
            if not name and walk == OWN_PACKAGE:
                yield from self.modules.siblings(module)
            package = self.modules.find(name) if name else None
            if isinstance(package, Module):
                yield from (package, *self.modules.below(package))


def is_code(name: str) -> bool:
    """Whether a file of this name is Python code."""
    return name.endswith(".py")


class Code:
    """Files that the project's code reads; one object looks at each of them once.

    The text of a Python file that is read may be executed, which only the code that reads it can tell. It counts as
    executed, so what it imports counts, too.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def _sources(self) -> Sources:
        return Sources(self._root)

    def digest(self, name: str) -> str:
        """A file's content; of a Python file also the names of the files that it leads to, and its packages' versions.

        Those files' contents are not in it: `imports_of` lists them, and they have digests of their own.

        Raises:
            OSError: The file cannot be read.
        """
        content = file_digest(self._root / name)
        if not is_code(name):
            return content
        parts = self._sources.of_file(self._root / name)
        files = self._files(parts)
        return chain(content, " ".join(sorted(files)), [part for part in parts if part.name not in files])

    def imports_of(self, names: Iterable[str]) -> frozenset[str]:
        """The project's files that run when these Python files run, including them, by name from the root."""
        paths = [self._root / name for name in names if is_code(name) and (self._root / name).is_file()]
        return frozenset().union(*(self._files(self._sources.of_file(path)) for path in paths))

    def _files(self, parts: Iterable[Part]) -> frozenset[str]:
        return frozenset(part.name for part in parts if (self._root / part.name).is_file())


def read_bytes(path: str) -> bytes:
    """The file's content."""
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - a Path for each of hundreds is slow
        return stream.readall()


def settled_digest(path: str) -> str:
    """The digest of a settled file's content, if this process has read it and it is as it was; else empty."""
    state, value = _settled.get(path, ((), ""))
    try:
        return value if value and _state(path) == state else ""
    except OSError:
        return ""


def _state(path: str) -> tuple[int, ...]:
    status = os.stat(path)  # noqa: PTH116 - strings: hundreds of files
    return status.st_ctime_ns, status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


def _package_of(module: Module) -> str:
    return module.name if module.places else _parent(module.name)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def absolute(name: str, module: Module) -> str:
    """A dotted name without its leading dots; "" if it leads out of every package."""
    relative = name.lstrip(".")
    level = len(name) - len(relative)
    if not level:
        return name
    parents = _package_of(module).split(".")
    kept = parents[: len(parents) - level + 1]
    return ".".join([*kept, *([relative] if relative else [])]) if kept and kept[0] else ""


def _under(directory: Path, modules: Iterable[Module]) -> Iterator[Module]:
    """The modules in the directory, by their own name or by that of the file that they are links to."""
    places = (Path(os.path.abspath(directory)), directory.resolve())  # noqa: PTH100 - resolve() would lose a link's own name
    for module in modules:
        names = (Path(module.path), Path(module.path).resolve()) if module.path else ()
        if any(name.is_relative_to(place) for name in names for place in places):
            yield module


class _Memory:
    """What files import, by their content, and which distributions provide a name: kept between runs."""

    def __init__(self, file: Path | None, site: str) -> None:
        if file is None:
            import platformdirs

            file = Path(platformdirs.user_cache_dir("pytest-seeddb")) / f"imports-{_VERSION}.json"
        self._file = file
        content = _content(file)
        self._lines: dict[str, object] = content["imports"]
        self._used: dict[str, Imports] = {}
        self._sites: dict[str, dict[str, list[str]]] = content["sites"]
        self.owners = self._sites.setdefault(site, {})
        self._is_saved, self._owners_saved = True, len(self.owners)

    def imports(self, key: str, data: bytes) -> Imports:
        """The imports of a file with these bytes, whose SHA-256 is ``key``."""
        imports = self._used.get(key) or Imports.unpack(self._lines.get(key))
        if imports is None:
            imports = scan(data)
            self._lines[key] = imports.pack()
            self._is_saved = False
        self._used[key] = imports
        return imports

    def save(self) -> None:
        """Write what is new, if anything is; failing to only costs time."""
        if self._is_saved and len(self.owners) == self._owners_saved:
            return
        self._is_saved, self._owners_saved = True, len(self.owners)
        others = [key for key in self._lines if key not in self._used]
        spare = max(0, _KEPT_FILES - len(self._used))
        kept = [*(others[-spare:] if spare else ()), *self._used]
        content = {
            "format": _FORMAT,
            "imports": {key: self._lines[key] for key in kept},
            "sites": dict([*self._sites.items()][-_KEPT_SITES:]),
        }
        write_cache(self._file, content)


def write_cache(file: Path, content: object) -> None:
    """Write JSON into the user's cache; failing to only costs time."""
    import json

    from pytest_seeddb.fingerprint.atomic import beside

    with suppress(OSError):
        place = next(parent for parent in file.parents if parent.exists())
        # As root in another user's environment we would leave files that the user cannot replace.
        if sys.platform != "win32" and os.geteuid() == 0 and place.stat().st_uid != 0:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with beside(file) as partial:
            partial.write_text(json.dumps(content), encoding="utf-8")
            partial.replace(file)


def _content(file: Path) -> dict[str, Any]:
    """The file's content; empty if it is damaged or of another format."""
    import json

    with suppress(OSError, ValueError, RecursionError, TypeError, LookupError, AttributeError):
        data = json.loads(file.read_bytes())
        owners = [names for site in data["sites"].values() for names in site.values()]
        are_names = all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in owners)
        if data["format"] == _FORMAT and isinstance(data["imports"], dict) and are_names:
            return dict(data)
    return {"imports": {}, "sites": {}}
