"""The import closure of Python inputs: everything of the project that runs when a module runs."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import MISSING, Part, file_part
from pytest_seeddb.fingerprint.modules import COMPILED, Foreign, Module, Modules
from pytest_seeddb.fingerprint.packages import Packages, installed, state
from pytest_seeddb.fingerprint.scanning import OWN_PACKAGE, SCAN, Imports, scan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FORMAT: Final = f"{SCAN} {sys.version_info.major}.{sys.version_info.minor}"
_KEPT_FILES: Final = 3000
_KEPT_SITES: Final = 8
_PYTHON: Final = Part("python", f"{sys.version_info.major}.{sys.version_info.minor}")


@dataclass(frozen=True)
class _Reading:
    """One module as it was read: its part, and what it leads to."""

    part: Part | None
    modules: tuple[Module, ...] = ()
    walked: tuple[Module, ...] = ()
    packages: tuple[Part, ...] = ()


class Sources:
    """The parts that Python inputs contribute to a fingerprint.

    Nothing of the project is imported or run: its files are read. What you get is a snapshot: each
    file and directory is looked at once in the life of this object, so that all steps of a plan see
    the same state. Make a new one for a new look.

    Args:
        root: The project's root.
        cache_file: Where to remember what files import, by their content. Replaced atomically, so
            that any number of processes may share it; a damaged one is ignored and written anew,
            and one that cannot be written costs time, nothing else. By default in the user's cache
            directory.
        search: Directories that will be in front of ``sys.path`` when the code runs.
    """

    def __init__(self, root: Path, cache_file: Path | None = None, search: Iterable[Path] = ()) -> None:
        self._root = root
        self._roots = tuple({os.path.abspath(root) + os.sep: 1, os.path.realpath(root) + os.sep: 1})  # noqa: PTH100 - prefixes
        self._modules = Modules(root, search)
        distributions = installed()
        self._memory = _Memory(cache_file, state(distributions))
        self._packages = Packages(distributions, self._memory.owners)
        self._targets: dict[tuple[str, str], tuple[Module | Foreign, ...]] = {}
        self._chains: dict[str, tuple[Module | Foreign, ...]] = {}
        self._readings: dict[Module, _Reading] = {}

    def of_file(self, path: Path, within: Path | None = None, *, source: str = "") -> tuple[Part, ...]:
        """The parts of a Python file and of all own modules that it imports, transitively.

        They are the file's own, one for each module, ``package <name>`` with the version of each
        third-party package that one of them imports, and ``python``; sorted.

        Args:
            path: The file.
            within: Follow imports into this directory only, and no modules that are imported by
                computed names: for a file whose other imports have no bearing on what it does.
            source: Where the path came from, for the error.

        Raises:
            ConfigError: The file is not there or cannot be read.
        """
        file_part(path, self._root, source=source)  # says so if it cannot be read
        return tuple(sorted(set(self._closure([self._modules.at(path)], within))))

    def of_module(self, name: str, *, source: str = "") -> tuple[Part, ...]:
        """Likewise for a module by its dotted name, found as Python would find it.

        Args:
            name: The dotted name.
            source: Where the name came from, for the error.

        Raises:
            ConfigError: There is no such module.
        """
        found = self._modules.find(name)
        if isinstance(found, Foreign) and found.installed:
            return tuple(sorted({_PYTHON, *self._packages.parts(found)}))
        if isinstance(found, Module):
            first = [found] if found.path else [found, *self._modules.below(found)]
            return tuple(sorted(set(self._closure(first, None))))
        if name.partition(".")[0] in sys.stdlib_module_names:
            return (_PYTHON,)
        raise self._not_found(name, source)

    def _not_found(self, name: str, source: str) -> ConfigError:
        import difflib

        close = difflib.get_close_matches(name, self._modules.names_beside(name), 1)
        hint = f' Did you mean "{close[0]}"?' if close else ""
        return ConfigError(
            f'There is no module "{name}"',
            saw=f"not found in {', '.join(self._modules.places)}",
            source=source,
            remedy=f"Correct the name, or put its directory on sys.path.{hint}",
        )

    def _closure(self, first: list[Module], within: Path | None) -> Iterator[Part]:
        yield _PYTHON
        seen: set[Module] = set()
        waiting = [*first]
        for module in first:
            parents = (found for found in self._chain(_parent(module.name)) if isinstance(found, Module))
            waiting += parents if within is None else _under(within, parents)
        while waiting:
            module = waiting.pop()
            if module in seen:
                continue
            seen.add(module)
            reading = self._reading(module)
            if reading.part:
                yield reading.part
            yield from reading.packages
            waiting += reading.modules if within is None else _under(within, reading.modules)
            waiting += reading.walked if within is None else ()
        self._memory.save()

    def _reading(self, module: Module) -> _Reading:
        found = self._readings.get(module)
        if found is None:
            found = self._readings[module] = self._read(module)
        return found

    def _read(self, module: Module) -> _Reading:
        if not module.path:
            return _Reading(None)
        try:
            data = _bytes(module.path)
        except OSError:
            return _Reading(Part(self._label(module), MISSING))
        key = hashlib.sha256(data).hexdigest()
        part = Part(self._label(module), key[:16])
        if module.path.endswith(COMPILED):
            return _Reading(part)
        imports = self._memory.imports(key, data)
        modules, packages = self._followed(module, imports)
        return _Reading(part, modules, tuple(self._walked(module, imports)), packages)

    def _followed(self, module: Module, imports: Imports) -> tuple[tuple[Module, ...], tuple[Part, ...]]:
        modules: dict[Module, None] = {}
        packages: dict[Part, None] = {}
        for text in imports.names:
            # The same few names stand in most files, and absolute ones mean the same everywhere.
            key = (_package_of(module) if text[0] == "." else "", text)
            targets = self._targets.get(key)
            if targets is None:
                targets = self._targets[key] = tuple(self._found(text, module))
            for found in targets:
                if isinstance(found, Foreign):
                    packages.update(dict.fromkeys(self._packages.parts(found)))
                else:
                    modules[found] = None
        return tuple(modules), tuple(packages)

    def _found(self, text: str, module: Module) -> Iterator[Module | Foreign]:
        base, _, leaf = text.removeprefix("?").partition(":")
        name = _absolute(base, module)
        chain = self._chain(name)
        if text.startswith("?") and isinstance(chain[0] if chain else None, Foreign):
            return
        yield from chain
        if leaf and chain:
            yield from self._submodules(chain[0], name, leaf)

    def _chain(self, name: str) -> tuple[Module | Foreign, ...]:
        """The module and the packages around it: Python runs all of their files.

        Where there is no such module, what runs before Python finds that out.
        """
        chain = self._chains.get(name)
        if chain is None:
            found = self._modules.find(name) if name else None
            parents = self._chain(_parent(name)) if "." in name else ()
            own = (found,) if found is not None else ()
            chain = self._chains[name] = parents if own and own == parents[:1] else own + parents
        return chain

    def _submodules(self, package: Module | Foreign, name: str, leaf: str) -> Iterator[Module | Foreign]:
        """What ``from package import leaf`` loads beside the package itself."""
        if isinstance(package, Foreign) or not package.places or package.name != name:
            return
        for submodule in self._exported(package) if leaf == "*" else (leaf,):
            found = self._modules.find(f"{name}.{submodule}")
            if found is not None:
                yield found

    def _exported(self, package: Module) -> tuple[str, ...]:
        with suppress(OSError):
            data = _bytes(package.path) if package.path else b""
            return self._memory.imports(hashlib.sha256(data).hexdigest(), data).exports
        return ()

    def _walked(self, module: Module, imports: Imports) -> Iterator[Module]:
        for walk in imports.walks:
            name = _package_of(module) if walk == OWN_PACKAGE else _absolute(walk, module)
            if not name and walk == OWN_PACKAGE:
                yield from self._modules.siblings(module)
            package = self._modules.find(name) if name else None
            if isinstance(package, Module):
                yield from (package, *self._modules.below(package))

    def _label(self, module: Module) -> str:
        """The file's name from the root; from the package's directory if it is elsewhere."""
        for root in self._roots:
            if module.path.startswith(root):
                return module.path[len(root) :].replace(os.sep, "/")
        suffix = "/__init__.py" if module.places else Path(module.path).suffix
        return module.name.replace(".", "/") + suffix


def _bytes(path: str) -> bytes:
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - a Path for each of hundreds is slow
        return stream.readall()


def _package_of(module: Module) -> str:
    return module.name if module.places else _parent(module.name)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _absolute(name: str, module: Module) -> str:
    """A dotted name without its leading dots; "" if it leads out of every package."""
    relative = name.lstrip(".")
    level = len(name) - len(relative)
    if not level:
        return name
    parents = _package_of(module).split(".")
    kept = parents[: len(parents) - level + 1]
    return ".".join([*kept, *([relative] if relative else [])]) if kept and kept[0] else ""


def _under(directory: Path, modules: Iterable[Module]) -> Iterator[Module]:
    """Those that stand in the directory, by their own name or by that of what they are links to."""
    places = (Path(os.path.abspath(directory)), directory.resolve())  # noqa: PTH100 - resolve() would lose a link's own name
    for module in modules:
        names = (Path(module.path), Path(module.path).resolve()) if module.path else ()
        if any(name.is_relative_to(place) for name in names for place in places):
            yield module


class _Memory:
    """What files import, by their content, kept between runs; and who provides third-party names."""

    def __init__(self, file: Path | None, site: str) -> None:
        self._file = file
        kept = _loaded(self._place())
        self._lines: dict[str, object] = kept["imports"]
        self._used: dict[str, Imports] = {}
        self._sites: dict[str, dict[str, list[str]]] = kept["sites"]
        self.owners = self._sites.setdefault(site, {})
        self._saved = self._size()

    def imports(self, key: str, data: bytes) -> Imports:
        """The imports of a file with these bytes, whose SHA-256 is ``key``."""
        found = self._used.get(key) or Imports.unpacked(self._lines.get(key))
        if found is None:
            found = scan(data)
            self._lines.pop(key, None)
        self._used[key] = found
        return found

    def save(self) -> None:
        """Write what is new, if anything is; failing to is no failure."""
        added = {key: found.packed() for key, found in self._used.items() if key not in self._lines}
        self._lines.update(added)
        if self._size() == self._saved and not added:
            return
        import json

        with suppress(OSError):
            if not _is_anothers((place := self._place()).parent):
                _replace(place, json.dumps(self._bounded()))
        self._saved = self._size()

    def _size(self) -> int:
        return sum(len(owners) for owners in self._sites.values())

    def _bounded(self) -> dict[str, object]:
        spare = max(0, _KEPT_FILES - len(self._used))
        others = [key for key in self._lines if key not in self._used]
        kept = [*(others[-spare:] if spare else ()), *self._used]
        return {
            "format": _FORMAT,
            "imports": {key: self._lines[key] for key in kept},
            "sites": dict(list(self._sites.items())[-_KEPT_SITES:]),
        }

    def _place(self) -> Path:
        if self._file is None:
            import platformdirs

            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            self._file = Path(platformdirs.user_cache_dir("pytest-seeddb")) / f"imports-{version}.json"
        return self._file


def _loaded(file: Path) -> dict[str, Any]:
    """The file's content if it is one of ours and whole; otherwise nothing known."""
    import json

    with suppress(OSError, ValueError, RecursionError):
        data = json.loads(file.read_bytes())
        if isinstance(data, dict) and data.get("format") == _FORMAT:
            imports, sites = data.get("imports"), data.get("sites")
            if isinstance(imports, dict) and isinstance(sites, dict) and all(map(_is_owners, sites.values())):
                return {"imports": imports, "sites": sites}
    return {"imports": {}, "sites": {}}


def _is_owners(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in value.values()
    )


def _is_anothers(directory: Path) -> bool:
    """Whether we are root with another user's environment, who could not use what we make there."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return False
    there = next(each for each in (directory, *directory.parents) if each.exists())
    return there.stat().st_uid != 0


def _replace(file: Path, text: str) -> None:
    from pytest_seeddb.fingerprint.atomic import beside

    file.parent.mkdir(parents=True, exist_ok=True)
    with beside(file) as partial:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
