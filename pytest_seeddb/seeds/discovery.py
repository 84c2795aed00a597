"""Find the seeders of modules: from their source where it says it all, else by importing them.

Most runs need only the fingerprint, which must not cost an import of the application. A build imports and compares.
"""

from __future__ import annotations

import inspect
import tokenize
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import relative_name
from pytest_seeddb.fingerprint.modules import Module, Modules
from pytest_seeddb.seeds.declaration import Seeder, seeder_of, seeders_in
from pytest_seeddb.seeds.hints import ANYTHING
from pytest_seeddb.seeds.kinds import Declaration, Parameter
from pytest_seeddb.seeds.reading import Doubt, Outline, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LITERALS = (bool, int, float, str, bytes, type(None))


class Catalogue:
    """The seeders of a project, each module looked at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules = Modules(root)
        self._outlines: dict[str, Outline | None] = {}
        self._seeders: dict[str, tuple[Declaration, ...]] = {}

    def seeders(self, module: str, *, source: str) -> tuple[Declaration, ...]:
        """The seeders that the module declares, in order of declaration; perhaps none. Raises `ConfigError`."""
        if module not in self._seeders:
            outline = self._outline(module)
            # None at all is a doubt as well: the settings or another seeder name this module.
            seeders = (outline and outline.seeders) or import_seeders(module, root=self._root, source=source)
            first: dict[str, Declaration] = {}
            for seeder in seeders:
                if seeder.identity in first:
                    raise ConfigError(
                        f"Two seeders are called {seeder.identity}",
                        saw=f"{first[seeder.identity].place}\n{seeder.place}",
                        source=seeder.place,
                        remedy='rename one, or give it another name: @seeder(name="...")',
                    )
                first[seeder.identity] = seeder
            self._seeders[module] = seeders
        return self._seeders[module]

    def static(self, module: str) -> tuple[Declaration, ...]:
        """The seeders and functions that the module's source tells; none where an import would be needed."""
        outline = self._outline(module)
        return (*outline.seeders, *outline.functions.values()) if outline else ()

    def callable(self, path: str, *, source: str) -> Declaration:
        """The function that ``module:attribute`` names, seeder or not; raises `ConfigError` where there is none."""
        module, _, attribute = path.partition(":")
        declaration = self._read(module, attribute)
        if declaration is not None:
            return declaration
        function = _import(path, root=self._root, source=source)
        note = seeder_of(function)
        if note is not None:
            return _seeder(note, self._root)
        if not callable(function):
            raise ConfigError(
                f"The seed {path} cannot be called",
                saw=f"it is of the type {type(function).__name__}",
                source=source,
                remedy="name a function, or the module that holds @seeder functions",
            )
        return _function(path, function, self._root)

    def _read(self, module: str, attribute: str) -> Declaration | None:
        """The function, where the source tells; through the imports of other modules if need be."""
        seen = set()
        while (module, attribute) not in seen and (outline := self._outline(module)) is not None:
            seen.add((module, attribute))
            functions = outline.functions | {seeder.function: seeder for seeder in reversed(outline.seeders)}
            if attribute in functions:
                return functions[attribute]
            module, _, attribute = outline.imports.get(attribute, "").rpartition(".")
        return None

    def _identity(self, path: str) -> str:
        module, _, attribute = path.rpartition(".")
        seeder = self._read(module, attribute)
        if seeder is None or not seeder.is_seeder:
            raise Doubt
        return seeder.identity

    def _outline(self, module: str) -> Outline | None:
        if module not in self._outlines:
            self._outlines[module] = None  # where modules import each other
            where = self._modules.find(module)
            if isinstance(where, Module) and where.path.endswith(".py"):
                package = module if where.places else module.rpartition(".")[0]
                file = relative_name(Path(where.path), self._root)
                modules = self._modules
                reader = Reader(
                    module, package, file, lambda top: isinstance(modules.find(top), Module), self._identity
                )
                # The import says what is wrong with a file that cannot be read.
                with suppress(Doubt, OSError, SyntaxError, UnicodeDecodeError), tokenize.open(where.path) as text:
                    self._outlines[module] = reader.outline(text.read())
        return self._outlines[module]


def import_seeders(module: str, *, root: Path, source: str) -> tuple[Declaration, ...]:
    """Import a module and return the seeders that it declares; raises `ConfigError`."""
    return tuple(_seeder(note, root) for note in _notes(module, root=root, source=source))


def check_seeders(module: str, expected: Iterable[Declaration], *, root: Path, source: str) -> None:
    """See that the module, imported, declares the very seeders that its source said; else raise `ConfigError`."""
    before = [seeder.name for seeder in expected]
    now = [note.name for note in _notes(module, root=root, source=source)]
    if before != now:
        raise _difference(module, before, now, source)


def load_function(expected: Declaration, *, root: Path) -> tuple[Callable[..., object], Declaration]:
    """Import a declaration's function; give its declaration as it is now, too, or raise `ConfigError` if it differs."""
    function: Any
    if expected.is_seeder:
        notes = _notes(expected.module, root=root, source=expected.place)
        note = next((note for note in notes if note.name == expected.name), None)
        if note is None:
            raise _difference(expected.module, [expected.name], [note.name for note in notes], expected.place)
        function, now = note.function, _seeder(note, root)
    else:
        path = f"{expected.module}:{expected.function}"
        function = _import(path, root=root, source=expected.place)
        if not callable(function) or seeder_of(function) is not None:
            raise _difference(expected.module, [expected.identity], [repr(function)], expected.place)
        now = _function(path, function, root)
    if _summary(expected) != _summary(now):
        raise _difference(expected.module, [_summary(expected)], [_summary(now)], expected.place)
    return function, now


def _notes(module: str, *, root: Path, source: str) -> tuple[Seeder, ...]:
    return seeders_in(vars(_import(module, root=root, source=source)))


def _import(path: str, *, root: Path, source: str) -> object:
    from pytest_seeddb.application.imports import load

    try:
        return load(path, source=source, root=root)
    except ConfigError as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from None  # the decorator's own words say it better
        raise


def _summary(declaration: Declaration) -> str:
    parameters = ", ".join(parameter.name for parameter in declaration.parameters)
    after = f", after {', '.join(declaration.after)}" if declaration.after else ""
    return f"{declaration.name}({parameters}), {declaration.tier}{after}"


def _difference(module: str, before: list[str], now: list[str], source: str) -> ConfigError:
    return ConfigError(
        f"The imported seeders of {module} differ from those in its source",
        saw=f"source: {'; '.join(before) or 'none'}\nimported: {'; '.join(now) or 'none'}",
        source=source,
        remedy="declare each seeder at the top level of the module, with @seeder itself as its only decorator "
        "and with literal arguments",
    )


def _seeder(note: Seeder, root: Path) -> Declaration:
    after = tuple(
        earlier if isinstance(earlier, str) else cast("Seeder", seeder_of(earlier)).identity for earlier in note.after
    )
    return Declaration(
        note.name,
        note.module,
        getattr(note.function, "__name__", note.name),
        _parameters(note.function),
        relative_name(Path(note.file), root),
        note.line,
        note.tier,
        after,
        idempotent=note.idempotent,
    )


def _function(path: str, function: Callable[..., Any], root: Path) -> Declaration:
    module, _, attribute = path.partition(":")
    code = getattr(inspect.unwrap(function), "__code__", None)
    file = relative_name(Path(code.co_filename), root) if code else module
    line = code.co_firstlineno if code else 0
    return Declaration(attribute, module, attribute, _parameters(function), file, line, is_seeder=False)


def _parameters(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """The parameters that calling does not fill by itself."""
    from pytest_seeddb.application.calling import hints_of, parameters_of, resources_of

    resources, hints = resources_of(function), hints_of(function)
    parameters = []
    for parameter in parameters_of(function):
        if parameter.name in resources or parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        hint = hints.get(parameter.name, parameter.annotation)
        if hint is parameter.empty or isinstance(hint, str):  # a string is only for type checkers
            hint = ANYTHING
        default = None if parameter.default is parameter.empty else ""
        if default is not None and _is_literal(parameter.default):
            default = repr(parameter.default)
        parameters.append(Parameter(parameter.name, hint, default))
    return tuple(parameters)


def _is_literal(value: object) -> bool:
    if isinstance(value, list | tuple | set):
        return all(map(_is_literal, value))
    if isinstance(value, dict):
        return all(_is_literal(item) for pair in value.items() for item in pair)
    return type(value) in _LITERALS
