"""Calling a user's function with what its parameters ask for."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import types
import typing
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, Union

from pytest_seeddb.application.resources import AsyncResources, Resource, SyncResources, finish, resource
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.settings.converters import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from pytest_seeddb.plan.plan import Mark, Step, Target

    Around = Callable[[SyncResources], AbstractContextManager[object]]
    Transaction = Callable[[str, Mark | None], AbstractContextManager[object]]

T = TypeVar("T")

_MAY_ASK: Final = (
    "a function may ask for url, engine, connection or session, by these names or by the annotations "
    "Engine, AsyncEngine, Connection, AsyncConnection, Session, AsyncSession of SQLAlchemy and "
    "Connection, AsyncConnection of psycopg; give every other parameter a default or a value"
)
_VARIABLE: Final = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def call(
    function: Callable[..., Any],
    target: Target,
    *,
    arguments: Mapping[str, object] | None = None,
    step: Step | None = None,
    around: Around = nullcontext,
    transaction: Transaction | None = None,
) -> object:
    """Call ``function`` with what its parameters ask for, and return what it returns; its errors pass unchanged.

    Sessions and connections are committed when it returns, rolled back when it raises, and closed in any case. The step
    is noted as ``target.marks`` says, in the function's own transaction, in one that ``transaction`` makes where a
    plain function asks for none, or beside it. ``around`` surrounds the call in its thread. It gets the first
    of the application's own engines that fits, unless ``target`` says otherwise. Raises `ConfigError` where a parameter
    has no value, an argument fits no parameter, or the function is a generator.
    """
    given = dict(arguments or {})
    wanted = check_parameters(function, given)
    marks: AbstractContextManager[object] = nullcontext()
    within: Callable[[], AbstractContextManager[object]] = nullcontext
    mark: Mark | None = None
    if step and any(resource.has_transaction for resource in wanted.values()):
        mark = target.marks.mark(step)
    elif step and transaction and not is_async(function):
        within = partial(transaction, target.alias, target.marks.mark(step))
    elif step:
        marks = target.marks.around(step)

    def call_plain() -> Any:  # noqa: ANN401 - what the user's function returns
        with SyncResources(target, mark) as resources:
            values = {name: resources.get(resource) for name, resource in wanted.items()}
            with around(resources), within():
                return _apply(function, {**values, **given})

    async def call_async() -> Any:  # noqa: ANN401 - as above
        async with AsyncResources(target, mark) as resources:
            values = {name: await resources.get_async(resource) for name, resource in wanted.items()}
            with around(resources):
                return await _apply(function, {**values, **given})

    with marks:
        result: Any = call_async() if is_async(function) else call_without_loop(call_plain)
        return call_without_loop(lambda: asyncio.run(finish(result))) if inspect.isawaitable(result) else result


def check_parameters(function: Callable[..., Any], given: Mapping[str, object] = {}) -> dict[str, Resource]:
    """The resources for the parameters that are not given, connections first: a session joins the one beside it.

    Raises `ConfigError` as `call` does.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        # Nothing takes what it yields, and until then none of it runs: the database would stay empty.
        raise ConfigError(
            f"{name_of(function)} is a generator function: calling it runs none of its code",
            saw="it has a `yield`",
            source=_signature(function),
            remedy="remove the `yield`: its session or connection is open while the function runs, then closed",
        )
    resources = resources_of(function)
    parameters = parameters_of(function)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    parameters = tuple(parameter for parameter in parameters if parameter.kind not in _VARIABLE)
    for parameter in parameters:
        wanted = resources.get(parameter.name)
        needs_loop = wanted is not None and wanted.needs_loop and not is_async(function)
        is_missing = wanted is None and parameter.default is parameter.empty
        if parameter.name not in given and (needs_loop or is_missing):
            why = "; the function is not async, so it cannot use that" if needs_loop else ""
            raise ConfigError(
                f"{name_of(function)} asks for {parameter.name!r}, which has no value here",
                saw=f"{parameter}{why}",
                source=_signature(function),
                remedy=_MAY_ASK,
            )
    names = {parameter.name for parameter in parameters}
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None and not takes_any:
        names -= resources.keys()
        raise ConfigError(
            f"{name_of(function)} has no parameter {unknown!r}",
            saw=f"it has {', '.join(sorted(names)) or 'none'}. {did_you_mean(unknown, names)}".strip(),
            source=_signature(function),
            remedy="correct the name",
        )
    missing = [(name, wanted) for name, wanted in resources.items() if name not in given]
    return dict(sorted(missing, key=lambda item: item[1].is_session))


def _signature(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    place = f", defined in {code.co_filename}:{code.co_firstlineno}" if code else ""
    return f"the signature of {name_of(function)}{place}"


def _apply(function: Callable[..., Any], values: dict[str, object]) -> Any:  # noqa: ANN401 - what it returns
    parameters = parameters_of(function)
    names = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY]
    positional = [values.pop(name) for name in names if name in values]
    return function(*positional, **values)


def call_without_loop(function: Callable[[], T]) -> T:
    """Call a function that may start an event loop; where this thread runs one, in another thread with its context."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function()
    executor = ThreadPoolExecutor(1, thread_name_prefix="pytest-seeddb")
    try:
        return executor.submit(contextvars.copy_context().run, function).result()
    finally:
        executor.shutdown(wait=False)  # an interruption must not wait for the function's end


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling ``function`` makes a coroutine, also where it is wrapped, partial or an object."""
    inner: Any = inspect.unwrap(function)
    while hasattr(inner, "func") and not inspect.isroutine(inner):  # functools.partial
        inner = inspect.unwrap(inner.func)
    if not inspect.isroutine(inner) and not isinstance(inner, type):
        inner = getattr(type(inner), "__call__", inner)  # noqa: B004 - the function itself is wanted
    return inspect.iscoroutinefunction(inner)


def name_of(function: Callable[..., Any]) -> str:
    """How people find the function: ``shop.seeds:roles``."""
    inner: Any = inspect.unwrap(function)
    inner = getattr(inner, "func", inner)
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{getattr(inner, '__module__', '?')}:{name}"


def parameters_of(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    """The parameters of its signature; none for a function written in C that has no signature."""
    try:
        return tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ()


def resources_of(function: Callable[..., Any]) -> dict[str, Resource]:
    """The parameters that `call` fills with the database, by name; all others are the caller's."""
    hints, needs_loop = hints_of(function), is_async(function)
    resources = {}
    for parameter in parameters_of(function):
        hint = hints.get(parameter.name, parameter.annotation)
        wanted = (resource(parameter.name, option, is_async=needs_loop) for option in _alternatives(hint))
        if parameter.kind not in _VARIABLE and (first := next(filter(None, wanted), None)) is not None:
            resources[parameter.name] = first
    return resources


def _alternatives(hint: Any) -> Iterator[object]:  # noqa: ANN401 - an annotation is any object
    """The types that an annotation allows: those of a union, without ``None`` and ``Annotated``'s notes."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        yield from _alternatives(typing.get_args(hint)[0])
    elif origin in {Union, types.UnionType}:
        for option in typing.get_args(hint):
            yield from _alternatives(option) if option is not type(None) else ()
    elif isinstance(hint, str):
        yield from (part.strip() for part in hint.split("|") if part.strip() != "None")
    else:
        yield hint if origin is None else origin


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, each evaluated on its own: one that only type checkers see stays a string."""
    inner: Any = inspect.unwrap(function)
    inner = inspect.unwrap(getattr(inner, "func", inner))
    if not inspect.isroutine(inner):
        name = "__init__" if isinstance(inner, type) else "__call__"
        inner = getattr(inner if isinstance(inner, type) else type(inner), name, inner)
    scope = getattr(inner, "__globals__", {})
    hints = dict(getattr(inner, "__annotations__", {}))
    for name, annotation in hints.items():
        if isinstance(annotation, str):
            with contextlib.suppress(Exception):  # an annotation is any code at all
                hints[name] = eval(annotation, scope)  # noqa: S307 - as typing.get_type_hints does
    return hints
