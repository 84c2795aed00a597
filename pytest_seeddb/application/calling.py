"""Calling a user's function with what its parameters ask for."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import types
import typing
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, Union

from pytest_seeddb.application.resources import AsyncResources, Resource, SyncResources, is_resource, resource
from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
    from contextlib import AbstractContextManager

    from pytest_seeddb.plan.plan import Mark, Step, Target

    Around = Callable[[SyncResources | AsyncResources], AbstractContextManager[object]]
    Transaction = Callable[[str, Mark | None], AbstractContextManager[object]]

T = TypeVar("T")

_MAY_ASK: Final = (
    "a function may ask for url, engine, connection or session, by these names or by the annotations "
    "Engine, AsyncEngine, Connection, AsyncConnection, Session, AsyncSession of SQLAlchemy and "
    "Connection, AsyncConnection of psycopg; give every other parameter a default or a value"
)
_VARIABLE: Final = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}

__all__ = ["Resource", "call", "is_async", "is_resource", "name_of", "run", "wanted"]


def call(
    function: Callable[..., Any],
    target: Target,
    *,
    arguments: Mapping[str, object] | None = None,
    step: Step | None = None,
    around: Around = nullcontext,
    transaction: Transaction | None = None,
) -> object:
    """Call ``function`` with what its parameters ask for, and return what it returns.

    A coroutine function runs in an event loop of its own. Where this thread has a running loop
    already, the call is made in a thread of its own, so that a plain function can start one too.
    Sessions and connections are committed when it returns and rolled back when it raises; either
    way they are closed afterwards and their engines disposed.

    Args:
        function: Any callable; without parameters for the database it is called all the same.
        target: The database.
        arguments: Values for its other parameters, by name.
        step: What it does; noted as ``target.marks`` says, in its own transaction where it has one.
        around: A context for the call itself, in the thread where that is made; gets the resources, from
            which further sessions can be had.
        transaction: Makes a transaction around the call of a plain function that asks for none, with the mark
            that is to be noted in it.

    Raises:
        ConfigError: A parameter without a default can be filled by nothing here, an argument
            fits no parameter, or it is a generator function, of which a call runs nothing.

    Whatever ``function`` raises is passed on unchanged.
    """
    bound = _Bound(function, target, dict(arguments or {}))
    bound.around = around
    if step and bound.has_transaction:
        bound.mark = target.marks.mark(step)
    elif step and transaction and not is_async(function):
        bound.within = partial(transaction, target.alias, target.marks.mark(step))
    with target.marks.around(step) if step and bound.notes_nothing else nullcontext():
        if is_async(function):
            return run(bound.called_async())
        result = call_without_loop(bound.called)
        return run(_awaited(result)) if inspect.isawaitable(result) else result


def wanted(function: Callable[..., Any]) -> Mapping[str, Resource]:
    """The parameters that `call` fills with the database, by name; all others are the caller's."""
    hints = hints_of(function)
    found = {each.name: _resource_of(each, hints, function) for each in parameters_of(function)}
    return {name: each for name, each in found.items() if each is not None}


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling ``function`` makes a coroutine, also where it is wrapped, partial or an object."""
    inner: Any = inspect.unwrap(function)
    while hasattr(inner, "func") and not inspect.isroutine(inner):  # functools.partial
        inner = inspect.unwrap(inner.func)
    if not inspect.isroutine(inner) and not isinstance(inner, type):
        inner = getattr(type(inner), "__call__", inner)  # noqa: B004 - the function itself is wanted
    return inspect.iscoroutinefunction(inner)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where this thread has a running loop.

    There it runs in a thread of its own, with this one's context variables, and this thread waits:
    the running loop stands still meanwhile.
    """
    return call_without_loop(lambda: asyncio.run(coroutine))


def call_without_loop(function: Callable[[], T]) -> T:
    """Call a function that may start an event loop, in a thread of its own where this one runs one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function()
    outcome: list[T] = []
    failure: list[BaseException] = []
    context = contextvars.copy_context()

    def work() -> None:
        try:
            outcome.append(context.run(function))
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that waits
            failure.append(error)

    thread = threading.Thread(target=work, name="pytest-seeddb")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def name_of(function: Callable[..., Any]) -> str:
    """How people find the function: ``shop.seeds:roles``."""
    inner: Any = inspect.unwrap(function)
    inner = getattr(inner, "func", inner)
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{getattr(inner, '__module__', '?')}:{name}"


class _Bound:
    """A function, a database, and how the one is filled from the other."""

    def __init__(self, function: Callable[..., Any], target: Target, arguments: dict[str, object]) -> None:
        self._function = function
        self._target = target
        self._arguments = arguments
        self._parameters = tuple(parameters_of(function))
        self._resources = wanted(function)
        self.mark: Mark | None = None
        self.around: Around = nullcontext
        self.within: Callable[[], AbstractContextManager[object]] = nullcontext
        _refuse_generator(function)
        self._check()

    @property
    def notes_nothing(self) -> bool:
        """Whether the step has no transaction in which it is noted."""
        return not self.has_transaction and self.within is nullcontext

    @property
    def has_transaction(self) -> bool:
        return any(each.has_transaction for _, each in self._filled())

    def called(self) -> Any:  # noqa: ANN401 - whatever the user's function returns
        with SyncResources(self._target.address, self.mark) as resources:
            self._refuse_async()
            filled = {name: resources.get(each) for name, each in self._filled()}
            with self.around(resources), self.within():
                return self._call(filled)

    async def called_async(self) -> Any:  # noqa: ANN401 - likewise
        async with AsyncExitStack() as stack:
            given = await stack.enter_async_context(AsyncResources(self._target.address, self.mark))
            filled = {name: await given.get(each) for name, each in self._filled()}
            with self.around(given):
                return await self._call(filled)

    def _filled(self) -> Iterator[tuple[str, Resource]]:
        """Connections before sessions, so that a session joins the connection that is asked for with it."""
        found = [pair for pair in self._resources.items() if pair[0] not in self._arguments]
        return iter(sorted(found, key=lambda pair: "session" in pair[1].kind))

    def _call(self, resources: dict[str, object]) -> Any:  # noqa: ANN401 - likewise
        values = {**resources, **self._arguments}
        positional = [
            values.pop(each.name)
            for each in self._parameters
            if each.kind is each.POSITIONAL_ONLY and each.name in values
        ]
        return self._function(*positional, **values)

    def _check(self) -> None:
        for each in self._parameters:
            if not self._is_filled(each):
                raise _unfilled(self._function, each, "")
        known = {each.name for each in self._parameters if each.kind not in _VARIABLE}
        takes_any = any(each.kind is each.VAR_KEYWORD for each in self._parameters)
        for name in self._arguments:
            if name not in known and not takes_any:
                raise _unknown(self._function, name, known - set(self._resources))

    def _is_filled(self, each: inspect.Parameter) -> bool:
        given = each.name in self._resources or each.name in self._arguments
        return given or each.default is not each.empty or each.kind in _VARIABLE

    def _refuse_async(self) -> None:
        for each in self._parameters:
            found = self._resources.get(each.name)
            if found is not None and found.needs_loop and each.name not in self._arguments:
                raise _unfilled(self._function, each, "; the function is not async, so it cannot use that")


def parameters_of(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    try:
        return tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a function written in C need not have a signature
        return ()


def _resource_of(
    parameter: inspect.Parameter, hints: Mapping[str, Any], function: Callable[..., Any]
) -> Resource | None:
    if parameter.kind in _VARIABLE:
        return None
    hint = hints.get(parameter.name, parameter.annotation)
    found = [resource(parameter.name, each, is_async=is_async(function)) for each in _alternatives(hint)]
    return next((each for each in found if each is not None), None)


def _alternatives(hint: Any) -> Iterator[object]:  # noqa: ANN401 - an annotation is any object
    """The types that an annotation allows: those of a union, without ``None`` and ``Annotated``'s notes."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        yield from _alternatives(typing.get_args(hint)[0])
    elif origin in {Union, types.UnionType}:
        for each in typing.get_args(hint):
            yield from _alternatives(each) if each is not type(None) else ()
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
    annotations = getattr(inner, "__annotations__", {})
    return {name: _evaluated(each, scope) for name, each in annotations.items()}


def _evaluated(annotation: object, scope: dict[str, Any]) -> object:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, scope)  # noqa: S307 - the user's own code, as typing.get_type_hints does
    except Exception:  # noqa: BLE001 - an annotation is any code at all
        return annotation


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _refuse_generator(function: Callable[..., Any]) -> None:
    """Nobody takes what it yields, and until then nothing of it runs: the database would stay empty."""
    if not (inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)):
        return
    raise ConfigError(
        f"{name_of(function)} is a generator function: calling it runs nothing of it",
        saw="it has a `yield`",
        source=_signature(function),
        remedy="take the `yield` out: what it needs is open while it runs, and is closed afterwards",
    )


def _signature(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    place = f", defined in {code.co_filename}:{code.co_firstlineno}" if code else ""
    return f"the signature of {name_of(function)}{place}"


def _unfilled(function: Callable[..., Any], parameter: inspect.Parameter, why: str) -> ConfigError:
    return ConfigError(
        f"{name_of(function)} asks for {parameter.name!r}, which nothing here can give",
        saw=f"{parameter}{why}",
        source=_signature(function),
        remedy=_MAY_ASK,
    )


def _unknown(function: Callable[..., Any], name: str, known: set[str]) -> ConfigError:
    from pytest_seeddb.settings.converters import did_you_mean

    return ConfigError(
        f"{name_of(function)} has no parameter {name!r}",
        saw=f"it has {', '.join(sorted(known)) or 'none'}. {did_you_mean(name, known)}".strip(),
        source=f"the signature of {name_of(function)}",
        remedy="mend the name",
    )
