"""Import paths of the user's code, ``package.module:attribute.of.it``: finding, loading, and acting on an import."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import re
import symtable
import sys
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.modules import Module
from pytest_seeddb.fingerprint.sources import Sources
from pytest_seeddb.settings.converters import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from importlib.machinery import ModuleSpec

_PATH: Final = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*)(?::(?P<attribute>[^\W\d]\w*(?:\.[^\W\d]\w*)*))?")
# What gives a module names that its statements do not show.
_MAKES_NAMES: Final = re.compile(
    r"import\s*\(?\s*\*|\b(?:global\s|(?:globals|vars|locals|setattr|exec)\s*\(|__getattr__|__dict__|modules\b)"
)
_OWN: Final = str(Path(__file__).parents[1])


def is_import_path(text: str) -> bool:
    """Whether ``text`` is spelled as ``package.module`` or ``package.module:attribute``."""
    return _PATH.fullmatch(text) is not None


def module_of(path: str) -> str:
    """The module's part of an import path."""
    return path.partition(":")[0]


def load(path: str, *, source: str, root: Path) -> object:
    """Import the module that ``path`` names, and return it or its attribute; raises `ConfigError` where that fails."""
    check(path, source=source, root=root)
    put_on_path(root)
    name, _, attributes = path.partition(":")
    try:
        value: object = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _failure(name, describe(error, root), source) from error
    for attribute in filter(None, attributes.split(".")):
        try:
            value = getattr(value, attribute)
        except AttributeError:
            kind = "module" if isinstance(value, ModuleType) else "object"
            name = getattr(value, "__name__", type(value).__name__)
            raise _no_attribute(attribute, f"{kind} {name!r}", path, dir(value), source) from None
    return value


def _failure(name: str, saw: str, source: str) -> ConfigError:
    return ConfigError(
        f"The module {name!r} fails while it is imported",
        saw=saw,
        source=source,
        remedy=f"correct the module; `python -c 'import {name}'` shows the whole traceback",
    )


def check_source(path: str, *, source: str, root: Path) -> None:
    """Raise the `ConfigError` of `load` where the module's source tells of it already; imports nothing.

    That is a module that it imports in any case and that is nowhere, or an attribute that it does not have.
    """
    name, _, attributes = path.partition(":")
    attribute = attributes.partition(".")[0]
    spec = find(name, root)
    if spec is None or not (spec.origin or "").endswith(".py"):
        return
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        file = Path(str(spec.origin))
        text = file.read_text(encoding="utf-8")
        modules = Sources(root).after(file, root).modules  # on the path that the project's code changes
        for node in ast.parse(text).body:
            for top in _tops(node):
                is_there = top in sys.stdlib_module_names or top in sys.modules or find(top, root)
                if not is_there and not isinstance(modules.find(top), Module):
                    place = f"{modules.label(modules.at(file))}:{node.lineno}"
                    raise _failure(name, f"ModuleNotFoundError: No module named {top!r}\nat {place}", source)
        if not attribute or find(f"{name}.{attribute}", root):
            return
        names = symtable.symtable(text, str(spec.origin), "exec").get_identifiers()
        if attribute not in names and not _MAKES_NAMES.search(text):
            raise _no_attribute(attribute, f"module {name!r}", path, names, source)


def _tops(node: ast.stmt) -> list[str]:
    """The first parts of the absolute names that an import statement names."""
    match node:
        case ast.Import(names=aliases):
            return [alias.name.partition(".")[0] for alias in aliases]
        case ast.ImportFrom(module=str(module), level=0):
            return [module.partition(".")[0]]
    return []


def _no_attribute(attribute: str, of: str, path: str, known: Iterable[str], source: str) -> ConfigError:
    return ConfigError(
        f"There is no {attribute!r} in the {of}",
        saw=f"{path}. {did_you_mean(attribute, known)}".strip(),
        source=source,
        remedy="name an attribute that exists",
    )


def check(path: str, *, source: str, root: Path) -> None:
    """Raise a `ConfigError` for a misspelled path or a missing module, without importing the user's code."""
    if not is_import_path(path):
        file, colon, attribute = path.partition(":")
        meant = file.removesuffix(".py").replace("/", ".") + colon + attribute
        hint = f"Did you mean {meant!r}? " if file.endswith(".py") and is_import_path(meant) else ""
        raise ConfigError(
            f"{path!r} is not an import path",
            saw=path,
            source=source,
            remedy=f"{hint}Write package.module or package.module:attribute",
        )
    name = module_of(path)
    if name in sys.modules or find(name, root) is not None:
        return
    parents = name.split(".")
    specs, places = _descend(parents, _places(root))
    parent, last = ".".join(parents[: len(specs)]), parents[len(specs)]
    paths = (path for place in (places if specs else _places(root)) for path in Path(place).glob("*"))
    siblings = {
        inspect.getmodulename(path.name) or path.name for path in paths if path.is_dir() or path.suffix == ".py"
    }
    where = f"the package {parent}" if parent else f"{root} or on sys.path"
    raise ConfigError(
        f"There is no module {name!r}",
        saw=f"no {last!r} in {where}. {did_you_mean(last, filter(str.isidentifier, siblings))}".strip(),
        source=source,
        remedy="name a module that can be imported, or install its package into this environment. seeddb runs no "
        "conftest.py: if one changes sys.path, name the directory in pytest's setting `pythonpath`",
    )


def put_on_path(root: Path) -> None:
    """Let modules be imported from ``root`` and ``root/src``, before those installed, also later."""
    sys.path[:0] = [place for place in reversed(_places(root)) if place not in sys.path]


def _places(root: Path) -> list[str]:
    source = root / "src"
    return [str(source), str(root)] if source.is_dir() else [str(root)]


def find(name: str, root: Path, *more: str) -> ModuleSpec | None:
    """The module's spec, without running its code or its packages'; ``more`` directories come before the root's."""
    parents = name.split(".")
    specs, _ = _descend(parents, [*more, *_places(root)])
    return specs[-1] if len(specs) == len(parents) else None


def _descend(parents: Sequence[str], places: Iterable[str]) -> tuple[list[ModuleSpec], list[str]]:
    """The specs of a module's packages and of itself, as far as they exist, and where the next one would be."""
    importlib.invalidate_caches()
    specs: list[ModuleSpec] = []
    path = [*places, *sys.path]
    for depth in range(1, len(parents) + 1):
        spec = PathFinder.find_spec(".".join(parents[:depth]), path)
        if spec is None and depth == 1:  # frozen modules and those of editable installs, which no path leads to
            finders: list[Any] = [finder for finder in sys.meta_path if finder is not PathFinder]
            found = (finder.find_spec(parents[0], None) for finder in finders if hasattr(finder, "find_spec"))
            spec = next(filter(None, found), None)
        if spec is None:
            break
        specs.append(spec)
        path = list(spec.submodule_search_locations or ())
    return specs, path


def innermost_frame(error: BaseException, root: Path) -> traceback.FrameSummary | None:
    """The last line of the project's own code that an error went through, or else of any code but this package's."""
    frames = list(traceback.extract_tb(error.__traceback__))
    if isinstance(error, SyntaxError) and error.filename:
        frames.append(traceback.FrameSummary(error.filename, error.lineno, "<module>"))
    code = [frame for frame in reversed(frames) if _is_code(frame.filename)]
    return next((frame for frame in code if is_users(frame.filename, root)), code[0] if code else None)


def is_users(filename: str, root: Path) -> bool:
    """Whether the file belongs to the project and not to a package installed below it."""
    path = Path(filename)
    installed = {"site-packages", "dist-packages"}.intersection(path.parts)
    return not installed and _is_code(filename) and path.is_relative_to(root)


def _is_code(filename: str) -> bool:
    return not filename.startswith(("<", _OWN))


def place_of(error: BaseException, root: Path) -> str:
    """``path:line`` of the user's own code, relative to ``root``; nothing where the error went through none."""
    frame = innermost_frame(error, root)
    if frame is None or not is_users(frame.filename, root):
        return ""
    return f"{Path(frame.filename).relative_to(root)}:{frame.lineno}"


def describe(error: BaseException, root: Path) -> str:
    """The error's type and text, with the place in the user's code where it happened."""
    place = place_of(error, root)
    return f"{type(error).__name__}: {error}" + (f"\nat {place}" if place else "")


@contextlib.contextmanager
def on_import(name: str, action: Callable[[ModuleType], object]) -> Iterator[None]:
    """Call ``action`` with the module ``name``: at once if it is imported, else when its import in the block ends."""
    if name in sys.modules:
        action(sys.modules[name])
        yield
        return
    hook: Any = _Hook(name, action)
    sys.meta_path.insert(0, hook)
    try:
        yield
    finally:
        sys.meta_path.remove(hook)


@contextlib.contextmanager
def enter_on_import(
    name: str, context: Callable[[ModuleType], contextlib.AbstractContextManager[object]]
) -> Iterator[None]:
    """Enter a context for the module ``name`` when `on_import` would act on it; leave it at the block's end."""
    with contextlib.ExitStack() as stack, on_import(name, lambda module: stack.enter_context(context(module))):
        yield


class _Hook:
    """A finder that has those after it find the module, and the loader that calls the action after theirs."""

    def __init__(self, name: str, action: Callable[[ModuleType], object]) -> None:
        self._name = name
        self._action = action
        self._loader: Any = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of the module's own loader
        return getattr(self._loader, name)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        finders: list[Any] = list(sys.meta_path)
        if name != self._name or self not in finders:
            return None
        for finder in finders[finders.index(self) + 1 :]:
            spec: ModuleSpec | None = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                self._loader, spec.loader = spec.loader, self  # type: ignore[assignment]  # in all but its class
                return spec
        return None

    def exec_module(self, module: ModuleType) -> None:
        # Whoever asks the module for its loader later finds its own.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        if self in sys.meta_path:
            self._action(module)
