"""Import paths of the user's: ``package.module`` and ``package.module:attribute.of.it``."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.settings.converters import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.machinery import ModuleSpec

_PATH: Final = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*)(?::(?P<attribute>[^\W\d]\w*(?:\.[^\W\d]\w*)*))?")
_OWN: Final = str(Path(__file__).parent)


def is_import_path(text: str) -> bool:
    """Whether ``text`` is spelled as ``package.module`` or ``package.module:attribute``."""
    return _PATH.fullmatch(text) is not None


def module_of(path: str) -> str:
    """The module's part of an import path."""
    return path.partition(":")[0]


def load(path: str, *, source: str, root: Path) -> object:
    """Import the module that ``path`` names and return it, or its attribute.

    ``root``, and ``root/src`` where there is one, stay on ``sys.path`` afterwards: what the module
    imports later must be found as well.

    Args:
        path: ``shop.seeds``, ``shop.db:engine`` or ``shop.models:Base.metadata``.
        source: Where the path came from, for the error.
        root: The project's root.

    Raises:
        ConfigError: There is no such module or attribute, or the module fails while it is imported.
    """
    check(path, source=source, root=root)
    put_on_path(root)
    name, _, attributes = path.partition(":")
    try:
        found: object = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _failed_import(name, source, error, root) from error
    for attribute in filter(None, attributes.split(".")):
        found = _attribute(found, attribute, path, source)
    return found


def check(path: str, *, source: str, root: Path) -> None:
    """Find the module's file without importing anything of the user's.

    Raises:
        ConfigError: The path is misspelled or there is no such module.
    """
    if not is_import_path(path):
        raise ConfigError(
            f"{path!r} is not an import path",
            saw=path,
            source=source,
            remedy=f"{_as_module(path)} Write package.module or package.module:attribute".strip(),
        )
    name = module_of(path)
    if name not in sys.modules and _found(name, _places(root)) is None:
        raise _no_module(name, source, root)


def _as_module(path: str) -> str:
    """The import path that a file's path may stand for."""
    file, colon, attribute = path.partition(":")
    meant = file.removesuffix(".py").replace("/", ".") + colon + attribute
    return f"Did you mean {meant!r}?" if file.endswith(".py") and is_import_path(meant) else ""


def put_on_path(root: Path) -> None:
    """Let modules be imported from ``root`` and ``root/src``, before those installed."""
    for place in _places(root):
        if place not in sys.path:
            sys.path.insert(0, place)


def find(name: str, root: Path, *more: str) -> ModuleSpec | None:
    """The module's spec, without running its code or its packages'.

    Args:
        name: The dotted name.
        root: The project's root; ``root/src`` is looked through as well.
        more: Further directories, looked through before ``sys.path``.
    """
    return _found(name, [*more, *_places(root)])


def innermost_frame(error: BaseException, root: Path) -> traceback.FrameSummary | None:
    """The last line of the user's own code that an error went through.

    That is the innermost frame in a file under ``root`` that no package manager put there; where
    there is none, the innermost one that is not the import system's or ours.
    """
    frames = [frame for frame in _frames(error) if _is_code(frame.filename)]
    return next((frame for frame in reversed(frames) if is_users(frame.filename, root)), frames[-1] if frames else None)


def is_users(filename: str, root: Path) -> bool:
    """Whether the file belongs to the project and not to a package installed below it."""
    path = Path(filename)
    installed = {"site-packages", "dist-packages"}.intersection(path.parts)
    return not installed and _is_code(filename) and path.is_relative_to(root)


def place_of(error: BaseException, root: Path) -> str:
    """``path:line`` of the user's own code, relative to ``root``; nothing where the error went through none."""
    frame = innermost_frame(error, root)
    if frame is None or not is_users(frame.filename, root):
        return ""
    return f"{Path(frame.filename).relative_to(root)}:{frame.lineno}"


def _frames(error: BaseException) -> Iterator[traceback.FrameSummary]:
    yield from traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        yield traceback.FrameSummary(error.filename, error.lineno, "<module>")


def _is_code(filename: str) -> bool:
    return not filename.startswith(("<", _OWN))


def _places(root: Path) -> list[str]:
    source = root / "src"
    return [str(place) for place in (source, root) if place is root or source.is_dir()]


def _found(name: str, places: Iterable[str]) -> ModuleSpec | None:
    """The module's spec, going down through its packages without running their code."""
    path = [*places, *sys.path]
    importlib.invalidate_caches()
    spec = None
    parents = name.split(".")
    for depth in range(1, len(parents) + 1):
        spec = PathFinder.find_spec(".".join(parents[:depth]), path) or _built_in(parents[:depth])
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec


def _built_in(parents: list[str]) -> ModuleSpec | None:
    """Modules that no path finder knows: frozen ones, and those of editable installs."""
    if len(parents) > 1:
        return None
    for finder in sys.meta_path:
        if finder is not PathFinder and (find := getattr(finder, "find_spec", None)) is not None:
            spec: ModuleSpec | None = find(parents[0], None)
            if spec is not None:
                return spec
    return None


def _no_module(name: str, source: str, root: Path) -> ConfigError:
    parent, last, siblings = _missing_level(name, root)
    where = f"the package {parent}" if parent else f"{root} or on sys.path"
    return ConfigError(
        f"There is no module {name!r}",
        saw=f"no {last!r} in {where}. {did_you_mean(last, siblings)}".strip(),
        source=source,
        remedy="name a module that can be imported, or install its package into this environment",
    )


def _missing_level(name: str, root: Path) -> tuple[str, str, set[str]]:
    parents = name.split(".")
    path = _places(root)
    for depth, last in enumerate(parents):
        spec = _found(".".join(parents[: depth + 1]), _places(root))
        if spec is None:
            return ".".join(parents[:depth]), last, _modules_in(path)
        path = list(spec.submodule_search_locations or ())
    return "", name, set()


def _modules_in(places: Iterable[str]) -> set[str]:
    found = (each for place in places if Path(place).is_dir() for each in Path(place).iterdir())
    return {
        name
        for each in found
        if each.is_dir() or each.suffix == ".py"
        if (name := inspect.getmodulename(each.name) or each.name).isidentifier()
    }


def _failed_import(name: str, source: str, error: BaseException, root: Path) -> ConfigError:
    where = place_of(error, root)
    return ConfigError(
        f"The module {name!r} fails while it is imported",
        saw=f"{type(error).__name__}: {error}" + (f"\nat {where}" if where else ""),
        source=source,
        remedy=f"mend it; `python -c 'import {name}'` shows the whole traceback",
    )


def _attribute(owner: object, attribute: str, path: str, source: str) -> object:
    try:
        return getattr(owner, attribute)
    except AttributeError:
        pass
    name = getattr(owner, "__name__", type(owner).__name__)
    kind = "module" if isinstance(owner, ModuleType) else "object"
    raise ConfigError(
        f"There is no {attribute!r} in the {kind} {name!r}",
        saw=f"{path}. {did_you_mean(attribute, dir(owner))}".strip(),
        source=source,
        remedy="name an attribute that exists",
    ) from None
