"""Where modules are: the project's own, and which names belong to somebody else's packages.

The rules are those of Python's own path finder (a regular package before a namespace package, the
first entry of ``sys.path`` before the next), done with one directory listing for each directory.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.machinery import ModuleSpec

_FOREIGN: Final = frozenset(
    {"site-packages", "dist-packages", "__pypackages__", "node_modules", ".tox", ".nox", ".venv", ".git"}
)
_ENVIRONMENT: Final = frozenset({"pyvenv.cfg", "conda-meta"})
_STANDARD: Final = os.path.dirname(os.path.realpath(os.__file__))  # noqa: PTH120 - strings throughout
# Any other name may be a module's: ``import_module`` takes what an import statement cannot spell.
_NO_MODULES: Final = frozenset({"", "__init__", "__pycache__", "test", "tests"})
_TEST_FILES: Final = frozenset({"conftest.py", "setup.py", "noxfile.py"})
# However it is installed: what it makes of the same inputs is told by its version and its format number.
_OURSELVES: Final = __name__.partition(".")[0]
COMPILED: Final = (".so", ".pyd")


@dataclass(frozen=True)
class Module:
    """One of the project's own modules.

    Attributes:
        name: Its dotted name.
        path: Its file; "" for a namespace package.
        places: The directories that its submodules are in; none if it is no package.
    """

    name: str
    path: str = ""
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Foreign:
    """A top-level name that somebody else's package provides.

    Attributes:
        top: The name.
        origin: The file that it stands for; "" for a namespace package.
        installed: Whether there is such a module at all.
    """

    top: str
    origin: str = ""
    installed: bool = True


class Modules:
    """Finds modules by name or file, as they are at the first look.

    Own are the modules in ``search``, under ``root``, ``root/src`` and every entry of ``sys.path`` that is neither
    the standard library nor a directory of installed packages; so an editable installation beside
    the project is own code too. Virtual environments inside of the project are not.
    """

    def __init__(self, root: Path, search: Iterable[Path] = ()) -> None:
        self._root = os.path.abspath(root)  # noqa: PTH100 - strings: this runs thousands of times
        self._real_root = os.path.realpath(root)
        self._listings: dict[str, frozenset[str]] = {}
        self._found: dict[str, Module | Foreign | None] = {}
        self.places = tuple(self._own_places([*map(str, search), *sys.path]))

    def find(self, name: str) -> Module | Foreign | None:
        """The module of this dotted name; ``None`` if it is the standard library's or nobody's."""
        if name not in self._found:
            parent, _, leaf = name.rpartition(".")
            self._found[name] = self._child(parent, leaf) if parent else self._top(leaf)
        return self._found[name]

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
        own = self._in(self.places, name, name)
        if (own and own.path) or name in sys.stdlib_module_names:
            return own if own and own.path else None
        spec = _spec(name)
        if spec is None:
            return own or Foreign(name, installed=False)
        return self._from_spec(name, spec, own)

    def _from_spec(self, name: str, spec: ModuleSpec, own: Module | None) -> Module | Foreign | None:
        """A name that import hooks know, or one of which only a part is ours."""
        locations = tuple(spec.submodule_search_locations or ())
        if not spec.has_location:
            mine = tuple(place for place in locations if not self._is_foreign(place))
            if own or mine:
                return Module(name, places=tuple(dict.fromkeys((*(own.places if own else ()), *mine))))
            return Foreign(name) if locations else None
        origin = spec.origin or ""
        return Foreign(name, origin) if self._is_foreign(origin) else Module(name, origin, locations)

    def _child(self, parent: str, leaf: str) -> Module | Foreign | None:
        package = self.find(parent)
        if not isinstance(package, Module):
            return package
        found = self._in(package.places, leaf, f"{parent}.{leaf}")
        if found or package.path:
            return found
        return self._foreign_portion(parent.partition(".")[0])

    def _foreign_portion(self, top: str) -> Foreign | None:
        """A namespace package may be ours in one place and somebody else's in another."""
        spec = _spec(top)
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
            if compiled := _compiled(leaf, entries):
                return Module(name, f"{place}{os.sep}{compiled}")
            if leaf in entries and os.path.isdir(directory) and not self._is_foreign(directory):  # noqa: PTH112 - see above
                portions.append(directory)
        return Module(name, places=tuple(portions)) if portions else None

    def _children(self, package: Module) -> Iterator[Module]:
        prefix = f"{package.name}." if package.name else ""
        for leaf in sorted({entry.partition(".")[0] for place in package.places for entry in self._listing(place)}):
            if leaf not in _NO_MODULES and not is_test(f"{leaf}.py"):
                found = self._in(package.places, leaf, f"{prefix}{leaf}")
                if found is not None:
                    yield found

    def _own_places(self, path: list[str]) -> Iterator[str]:
        seen = set()
        for place in (*map(os.path.abspath, path), self._root, os.path.join(self._root, "src")):  # noqa: PTH118 - see above
            real = os.path.realpath(place)
            if real not in seen and os.path.isdir(place) and not self._is_foreign(place):  # noqa: PTH112 - see above
                seen.add(real)
                yield place

    def _is_foreign(self, path: str) -> bool:
        """Whether a file or directory holds installed packages or the standard library."""
        real = os.path.realpath(path)
        below = next((path[len(root) :] for root in (self._root, self._real_root) if _is_below(path, root)), None)
        if _is_below(real, _STANDARD) and not _is_below(self._real_root, _STANDARD):
            return True
        names = Path(real if below is None else below.lstrip(os.sep)).parts
        return not _FOREIGN.isdisjoint(names) or (below is not None and self._is_in_environment(names))

    def _is_in_environment(self, names: tuple[str, ...]) -> bool:
        place = self._root
        for name in names:
            place = f"{place}{os.sep}{name}"
            if not _ENVIRONMENT.isdisjoint(self._listing(place)):
                return True
        return False

    def _listing(self, directory: str) -> frozenset[str]:
        found = self._listings.get(directory)
        if found is None:
            try:
                found = frozenset(os.listdir(directory))  # noqa: PTH208 - names only, and fast
            except OSError:
                found = frozenset()
            self._listings[directory] = found
        return found


@cache
def is_test(file: str) -> bool:
    """Whether it is a file of tests, or one that tools run and no application imports."""
    return file in _TEST_FILES or file.startswith("test_") or file.endswith("_test.py")


def _compiled(leaf: str, entries: frozenset[str]) -> str | None:
    if not any(entry.endswith(COMPILED) for entry in entries):
        return None
    return min((entry for entry in entries if entry.startswith(f"{leaf}.") and entry.endswith(COMPILED)), default=None)


def _is_below(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip(os.sep) + os.sep)


def _spec(top: str) -> ModuleSpec | None:
    """Ask Python's finders; for a top-level name they look, but run nothing of the module."""
    try:
        return find_spec(top)
    except Exception:  # noqa: BLE001 - finders are anybody's code, and this is a question, not an import
        return None
