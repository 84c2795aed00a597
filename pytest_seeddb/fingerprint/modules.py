"""Where modules are: the project's own, and those of other packages with their versions.

The rules are those of Python's own path finder (a regular package before a namespace package, the first entry of
``sys.path`` before the next), with one directory listing for each directory.

``importlib.metadata.packages_distributions`` says which distribution provides which module by parsing the record of
every distribution: tens of milliseconds. Here the names of the metadata directories are enough for the version and,
mostly, for the name. Records are searched for the few other modules only; the answers are remembered until something
is installed or removed.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from pytest_seeddb.fingerprint.digests import Part, file_digest
from pytest_seeddb.fingerprint.search_path import Search

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, MutableMapping
    from importlib.machinery import ModuleSpec

_FOREIGN: Final = frozenset(
    {"site-packages", "dist-packages", "__pypackages__", "node_modules", ".tox", ".nox", ".venv", ".git"}
)
_ENVIRONMENT: Final = frozenset({"pyvenv.cfg", "conda-meta"})
_STANDARD: Final = os.path.dirname(os.path.realpath(os.__file__))  # noqa: PTH120 - strings throughout
# Any other name may be a module's: ``import_module`` takes what an import statement cannot spell.
_NO_MODULES: Final = frozenset({"", "__init__", "__pycache__", "test", "tests"})
_TEST_FILES: Final = frozenset({"conftest.py", "setup.py", "noxfile.py"})
# This package is never the project's own, however it is installed: its version and format number stand for it.
_OURSELVES: Final = __name__.partition(".")[0]
COMPILED: Final = (".so", ".pyd")
_METADATA: Final = (".dist-info", ".egg-info")
# The package that makes the data, if that is not the one that is imported.
_COMPANIONS: Final = {"factory": ("faker",), "polyfactory": ("faker",)}


@dataclass(frozen=True)
class Module:
    """One of the project's own modules: its dotted name, file and, if it is a package, its submodules' directories.

    The file of a namespace package is "".
    """

    name: str
    path: str = ""
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Foreign:
    """A top-level name that another package provides, and its file; "" for a namespace package."""

    top: str
    origin: str = ""
    installed: bool = True


class Modules:
    """Finds modules by name or file, as they are at the first look.

    The project's own are those in ``search``, under ``root``, ``root/src`` and every entry of ``sys.path`` that is
    neither the standard library nor a directory of installed packages. So an editable installation beside the project
    is own code, too. Virtual environments in the project are not. ``added`` is what the project's code itself puts on
    ``sys.path``; no module has its name from there.
    """

    def __init__(self, root: Path, search: Iterable[Path] = (), added: Search | None = None) -> None:
        self._root = os.path.abspath(root)  # noqa: PTH100 - strings: this runs thousands of times
        self._real_root = os.path.realpath(root)
        self._listings: dict[str, frozenset[str]] = {}
        self.found: dict[str, Module | Foreign | None] = {}
        # Builds run in the root, which is what Alembic's relative entries mean, wherever this process began.
        path = (os.path.abspath(os.path.join(root, place)) for place in [*map(str, search), *sys.path])  # noqa: PTH100, PTH118 - see above
        places: dict[str, str] = {}  # by their real paths
        for place in (*path, self._root, os.path.join(self._root, "src")):  # noqa: PTH118 - see above
            real = os.path.realpath(place)
            if real not in places and os.path.isdir(place) and not self._is_foreign(place):  # noqa: PTH112 - see above
                places[real] = place
        self.places = tuple(places.values())
        added = added or Search()
        self._front = tuple(place for place in added.front if not self._is_foreign(place))
        self._end = tuple(place for place in added.end if not self._is_foreign(place))

    def find(self, name: str) -> Module | Foreign | None:
        """The module of this dotted name; ``None`` if it is the standard library's or does not exist."""
        if name not in self.found:
            parent, _, leaf = name.rpartition(".")
            self.found[name] = self._child(parent, leaf) if parent else self._top(leaf)
        return self.found[name]

    def at(self, path: Path) -> Module:
        """The module that a file is, under the name by which it would be imported."""
        file = os.path.abspath(path)  # noqa: PTH100 - see above
        directory, stem = os.path.dirname(file), Path(file).stem  # noqa: PTH120 - see above
        holders = [place for place in self.places if _is_below(file, place)]
        between = os.path.relpath(directory, max(holders, key=len)) if holders else "."
        names = list(Path(between).parts)
        if stem == "__init__" and names:
            return Module(".".join(names), file, (directory,))
        return Module(".".join([*names, stem]), file)

    def label(self, module: Module) -> str:
        """The file's name from the root; from the package's directory if it is elsewhere."""
        for root in (self._root, self._real_root):
            if _is_below(module.path, root):
                return module.path[len(root) :].lstrip(os.sep).replace(os.sep, "/")
        suffix = "/__init__.py" if module.places else Path(module.path).suffix
        return module.name.replace(".", "/") + suffix

    def below(self, package: Module) -> Iterator[Module]:
        """All modules of a package, however deep, except tests."""
        waiting = [package]
        seen = set(map(os.path.realpath, package.places))
        while waiting:
            for module in self._children(waiting.pop()):
                real = [os.path.realpath(place) for place in module.places]
                if not seen.isdisjoint(real):  # a link back up would never end
                    continue
                yield module
                seen.update(real)
                waiting.append(module)

    def siblings(self, module: Module) -> Iterator[Module]:
        """The modules in the directory of a module that is in no package."""
        for entry in sorted(self._listing(os.path.dirname(module.path))):  # noqa: PTH120 - see above
            path = os.path.join(os.path.dirname(module.path), entry)  # noqa: PTH118, PTH120 - see above
            if entry.endswith(".py") and not is_test(entry) and path != module.path:
                yield Module(entry.removesuffix(".py"), path)

    def names_beside(self, name: str) -> list[str]:
        """Own modules with the same parent, for "did you mean"."""
        parent, _, _ = name.rpartition(".")
        package = self.find(parent) if parent else Module("", places=self.places)
        return [module.name for module in self._children(package)] if isinstance(package, Module) else []

    def _top(self, name: str) -> Module | Foreign | None:
        if name == _OURSELVES:
            return Foreign(name, __file__)
        own = self._in((*self._front, *self.places), name, name)
        if (own and own.path) or name in sys.stdlib_module_names:
            return own if own and own.path else None
        spec = self._spec(name)
        if spec is None:
            return own or self._in(self._end, name, name) or Foreign(name, installed=False)
        # An import hook knows the name, or the project has only a part of it.
        locations = tuple(spec.submodule_search_locations or ())
        if spec.has_location:
            origin = spec.origin or ""
            return Foreign(name, origin) if self._is_foreign(origin) else Module(name, origin, locations)
        mine = tuple(place for place in locations if not self._is_foreign(place))
        if own or mine:
            return Module(name, places=tuple(dict.fromkeys((*(own.places if own else ()), *mine))))
        return Foreign(name) if locations else None

    def _spec(self, top: str) -> ModuleSpec | None:
        """Ask Python's finders; for a top-level name they look, but run nothing of the module.

        ``importlib.util.find_spec`` would also know what this process has imported, from places that the next one
        lacks. That is as good, and faster, for installed packages only.
        """
        loaded = getattr(sys.modules.get(top), "__spec__", None)
        if loaded is not None and loaded.has_location and self._is_foreign(loaded.origin or ""):
            return cast("ModuleSpec", loaded)
        for finder in [*sys.meta_path]:
            with suppress(Exception):  # finders may be any code, and nothing is imported here
                if (spec := finder.find_spec(top, None)) is not None:
                    return spec
        return None

    def _child(self, parent: str, leaf: str) -> Module | Foreign | None:
        package = self.find(parent)
        if not isinstance(package, Module):
            return package
        module = self._in(package.places, leaf, f"{parent}.{leaf}")
        if module or package.path:
            return module
        # A namespace package may be the project's in one place and another package's in another.
        top = parent.partition(".")[0]
        spec = self._spec(top)
        locations = (spec.submodule_search_locations or ()) if spec else ()
        return Foreign(top) if any(map(self._is_foreign, locations)) else None

    def _in(self, places: tuple[str, ...], leaf: str, name: str) -> Module | None:
        portions = []
        for place in places:
            entries = self._listing(place)
            directory = f"{place}{os.sep}{leaf}"
            if leaf in entries and "__init__.py" in self._listing(directory):
                return Module(name, f"{directory}{os.sep}__init__.py", (directory,))
            if f"{leaf}.py" in entries:
                return Module(name, f"{directory}.py")
            if compiled := [entry for entry in entries if entry.endswith(COMPILED) and entry.startswith(f"{leaf}.")]:
                return Module(name, f"{place}{os.sep}{min(compiled)}")
            if leaf in entries and os.path.isdir(directory) and not self._is_foreign(directory):  # noqa: PTH112 - see above
                portions.append(directory)
        return Module(name, places=tuple(portions)) if portions else None

    def _children(self, package: Module) -> Iterator[Module]:
        prefix = f"{package.name}." if package.name else ""
        for leaf in sorted({entry.partition(".")[0] for place in package.places for entry in self._listing(place)}):
            if leaf not in _NO_MODULES and not is_test(f"{leaf}.py"):
                module = self._in(package.places, leaf, f"{prefix}{leaf}")
                if module is not None:
                    yield module

    def _is_foreign(self, path: str) -> bool:
        """Whether a file or directory holds installed packages or the standard library."""
        real = os.path.realpath(path)
        below = next((path[len(root) :] for root in (self._root, self._real_root) if _is_below(path, root)), None)
        if _is_below(real, _STANDARD) and not _is_below(self._real_root, _STANDARD):
            return True
        names = Path(real if below is None else below.lstrip(os.sep)).parts
        if not _FOREIGN.isdisjoint(names):
            return True
        place = self._root
        for name in names if below is not None else ():
            place = f"{place}{os.sep}{name}"
            if not _ENVIRONMENT.isdisjoint(self._listing(place)):
                return True
        return False

    def _listing(self, directory: str) -> frozenset[str]:
        names = self._listings.get(directory)
        if names is None:
            try:
                names = frozenset(os.listdir(directory))  # noqa: PTH208 - names only, and fast
            except OSError:
                names = frozenset()
            self._listings[directory] = names
        return names


@cache
def is_test(file: str) -> bool:
    """Whether it is a file of tests, or one for tools that no application imports."""
    return file in _TEST_FILES or file.startswith("test_") or file.endswith("_test.py")


def _is_below(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip(os.sep) + os.sep)


class Packages:
    """Versions of installed distributions, as they are at the first look.

    Args:
        installed: The `distributions`.
        owners: Remembered answers; new ones are added to it.
    """

    def __init__(self, installed: dict[str, str], owners: MutableMapping[str, list[str]]) -> None:
        self._owners = owners
        self.installed = installed
        self._parts: dict[Foreign, tuple[Part, ...]] = {}

    def parts(self, foreign: Foreign) -> tuple[Part, ...]:
        """``package <distribution>`` with its version, for each distribution that has the module."""
        if foreign not in self._parts:
            self._parts[foreign] = self._look_up(foreign)
        return self._parts[foreign]

    def _look_up(self, foreign: Foreign) -> tuple[Part, ...]:
        top, own_name = foreign.top, _normal_name(foreign.top)
        if not foreign.installed:
            return (Part(f"package {own_name}", "not installed"),)
        names = [own_name]
        if own_name not in self.installed:
            names = self._owners.get(top, [""])
            if any(name not in self.installed for name in names):
                names = sorted(name for name, place in self.installed.items() if _provides(Path(place), top))
                self._owners[top] = names
        names = [*names, *(name for name in _COMPANIONS.get(top, ()) if name in self.installed)]
        if names:
            return tuple(Part(f"package {name}", self.version(name)) for name in names)
        try:  # it was put there without a package manager: only its content tells
            return (Part(f"package {own_name}", file_digest(foreign.origin)),)
        except OSError:
            return (Part(f"package {own_name}", "unknown"),)

    def version(self, name: str) -> str:
        """The version of an installed distribution."""
        if match := re.search(r"-(\d[^-]*)", Path(self.installed[name]).stem):
            return match[1]
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(name)
        except (PackageNotFoundError, KeyError):
            return "unknown"


def versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of these distributions, of those that are installed."""
    packages = Packages(distributions(), {})
    return {name: packages.version(name) if name in packages.installed else "not installed" for name in names}


def distributions() -> dict[str, str]:
    """Each installed distribution's normalized name and metadata directory; the first on ``sys.path`` counts."""
    installed: dict[str, str] = {}
    for place in dict.fromkeys(sys.path):
        try:
            entries = sorted(os.listdir(place or "."))  # noqa: PTH208 - names only, and fast
        except OSError:
            continue
        for entry in entries:
            if entry.endswith(_METADATA):
                name = _normal_name(entry.partition("-")[0].removesuffix(".egg"))
                installed.setdefault(name, f"{place or os.curdir}{os.sep}{entry}")  # hundreds, and few are wanted
    return installed


def _normal_name(name: str) -> str:
    """The name as package indexes compare it (PEP 503)."""
    name = name.lower().replace("_", "-").replace(".", "-")
    return re.sub("-+", "-", name) if "--" in name else name


def _provides(metadata: Path, top: str) -> bool:
    word = re.escape(top.encode())
    for file, pattern in (
        ("top_level.txt", rb"(?m)^%b\s*$" % word),
        ("RECORD", rb"(?m)^%b(/|\.py,|\.[^/,\n]*\.(so|pyd),)" % word),
    ):
        try:
            data = (metadata / file).read_bytes()
        except OSError:
            continue
        if top.encode() in data and re.search(pattern, data):
            return True
    return False
