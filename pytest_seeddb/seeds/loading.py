"""Import the seeders, and hold them against what their source said."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import relative_name
from pytest_seeddb.seeds.declaration import Seeder, declared_in, seeder_of
from pytest_seeddb.seeds.hints import ANYTHING
from pytest_seeddb.seeds.kinds import Declaration, Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Loaded", "check_seeders", "imported_callable", "imported_seeders", "loaded"]

_LITERALS = (bool, int, float, str, bytes, type(None))


def imported_seeders(module: str, *, root: Path, source: str) -> tuple[Declaration, ...]:
    """Import a module and return the seeders that it declares.

    Raises:
        ConfigError: It cannot be imported, or a declaration is wrong.
    """
    return tuple(_declaration(each, root) for each in _declared(module, root=root, source=source))


def imported_callable(path: str, *, root: Path, source: str) -> Declaration:
    """Import ``module:attribute`` and describe it.

    Raises:
        ConfigError: It cannot be imported or called.
    """
    found = _import(path, root=root, source=source)
    noted = seeder_of(found)
    if noted is not None:
        return _declaration(noted, root)
    if not callable(found):
        raise ConfigError(
            f"The seed {path} cannot be called",
            saw=f"it is of the type {type(found).__name__}",
            source=source,
            remedy="name a function, or the module that holds @seeder functions",
        )
    return _plain(path, found, root)


@dataclass(frozen=True)
class Loaded:
    """A seeder's function, imported, and what it says of itself now."""

    function: Callable[..., object]
    declaration: Declaration


def loaded(said: Declaration, *, root: Path) -> Loaded:
    """Import the function that a declaration stands for.

    Raises:
        ConfigError: The module cannot be imported, or declares something else than its source said.
    """
    found = _loaded_seeder(said, root) if said.is_seeder else _loaded_callable(said, root)
    before, now = _summary(said), _summary(found.declaration)
    if before != now:
        raise _otherwise(said.module, [before], [now], said.place)
    return found


def _loaded_callable(said: Declaration, root: Path) -> Loaded:
    path = f"{said.module}:{said.function}"
    function = _import(path, root=root, source=said.place)
    if not callable(function) or seeder_of(function) is not None:
        raise _otherwise(said.module, [said.identity], [repr(function)], said.place)
    return Loaded(function, _plain(path, function, root))


def _loaded_seeder(said: Declaration, root: Path) -> Loaded:
    declared = _declared(said.module, root=root, source=said.place)
    for each in declared:
        if each.name == said.name:
            return Loaded(each.function, _declaration(each, root))
    raise _otherwise(said.module, [said.name], [each.name for each in declared], said.place)


def check_seeders(module: str, expected: Iterable[Declaration], *, root: Path, source: str) -> None:
    """See that the module, imported, declares the very seeders that its source said.

    Raises:
        ConfigError: It declares others, or in another order.
    """
    said = [each.name for each in expected]
    names = [each.name for each in _declared(module, root=root, source=source)]
    if said != names:
        raise _otherwise(module, said, names, source)


def _declared(module: str, *, root: Path, source: str) -> tuple[Seeder, ...]:
    return declared_in(vars(_import(module, root=root, source=source)))


def _import(path: str, *, root: Path, source: str) -> object:
    from pytest_seeddb.application.imports import load

    try:
        return load(path, source=source, root=root)
    except ConfigError as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from None  # the decorator's own words say it better
        raise


def _summary(declaration: Declaration) -> str:
    parameters = ", ".join(each.name for each in declaration.parameters)
    after = f", after {', '.join(declaration.after)}" if declaration.after else ""
    return f"{declaration.name}({parameters}), {declaration.tier}{after}"


def _otherwise(module: str, said: list[str], found: list[str], source: str) -> ConfigError:
    return ConfigError(
        f"The seeders of {module} are not those that its source says",
        saw=f"source: {'; '.join(said) or 'none'}\nimported: {'; '.join(found) or 'none'}",
        source=source,
        remedy="declare each seeder at the top level of the module, with @seeder itself as its only decorator "
        "and with literal arguments",
    )


def _declaration(noted: Seeder, root: Path) -> Declaration:
    from pytest_seeddb.application.calling import is_async

    after = tuple(each if isinstance(each, str) else _identity(each) for each in noted.after)
    return Declaration(
        noted.name,
        noted.module,
        getattr(noted.function, "__name__", noted.name),
        noted.tier,
        after,
        _parameters(noted.function),
        relative_name(Path(noted.file), root),
        noted.line,
        is_async(noted.function),
        idempotent=noted.idempotent,
    )


def _identity(function: Callable[..., object]) -> str:
    noted = seeder_of(function)
    if noted is None:  # the decorator has refused this
        raise TypeError(function)
    return noted.identity


def _plain(path: str, function: Callable[..., Any], root: Path) -> Declaration:
    from pytest_seeddb.application.calling import is_async

    module, _, attribute = path.partition(":")
    inner = inspect.unwrap(function)
    code = getattr(inner, "__code__", None)
    return Declaration(
        attribute,
        module,
        attribute,
        "essential",
        (),
        _parameters(function),
        relative_name(Path(code.co_filename), root) if code else module,
        code.co_firstlineno if code else 0,
        is_async(function),
        is_seeder=False,
    )


def _parameters(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """The parameters that calling does not fill by itself."""
    from pytest_seeddb.application.calling import wanted

    resources = wanted(function)
    scope = _scope(function)
    return tuple(
        Parameter(each.name, _hint(each.annotation, scope), _default(each.default))
        for each in _signature(function)
        if each.name not in resources and each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}
    )


def _signature(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    try:
        return tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a function written in C need not have one
        return ()


def _scope(function: Callable[..., Any]) -> dict[str, Any]:
    """The names that the function's annotations are written in."""
    inner: Any = inspect.unwrap(function)
    inner = inspect.unwrap(getattr(inner, "func", inner))  # functools.partial
    if not inspect.isroutine(inner):
        inner = getattr(inner, "__init__", inner) if isinstance(inner, type) else type(inner).__call__
    scope: dict[str, Any] = getattr(inner, "__globals__", {})
    return scope


def _hint(annotation: object, scope: dict[str, Any]) -> object:
    if annotation is inspect.Parameter.empty:
        return ANYTHING
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, scope)  # noqa: S307  # the user's own code, as typing.get_type_hints does
    except Exception:  # noqa: BLE001  # seen by type checkers only, or any code at all
        return ANYTHING


def _default(value: object) -> str | None:
    if value is inspect.Parameter.empty:
        return None
    return repr(value) if _is_literal(value) else ""


def _is_literal(value: object) -> bool:
    if isinstance(value, list | tuple | set):
        return all(map(_is_literal, value))
    if isinstance(value, dict):
        return all(_is_literal(each) for pair in value.items() for each in pair)
    return type(value) in _LITERALS
