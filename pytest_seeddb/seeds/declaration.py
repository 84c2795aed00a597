"""The `seeder` decorator.

Applications import this module in production: it imports almost nothing, and the decorator only takes notes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, cast, overload

from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Param", "Seeder", "Tier", "seeder", "seeder_of", "seeders_in"]

# A type variable for the function itself, not a ParamSpec for its parameters: the very same object is
# given back, so that overloads, attributes and "async def" are kept as well.
F = TypeVar("F", bound="Callable[..., object]")

Tier = Literal["essential", "demo"]
"""``essential``: what the application cannot run without. ``demo``: refused in production."""

TIERS: Final = ("essential", "demo")

_ATTRIBUTE: Final = "__seeddb_seeder__"
_REGISTRY: Final = "__seeddb_seeders__"


class Param(NamedTuple):
    """A note on a parameter, beside its type: ``password: Annotated[str, Param(secret=True)]``.

    Attributes:
        secret: Its value is shown nowhere. In production its default, or nothing, is an error; elsewhere
            `seeddb apply` warns of it.
    """

    secret: bool = False


class Seeder(NamedTuple):
    """What the decorator has noted about a function."""

    name: str
    module: str
    tier: Tier
    after: tuple[str | Callable[..., object], ...]
    function: Callable[..., object]
    file: str
    line: int
    idempotent: bool = False

    @property
    def identity(self) -> str:
        """Module and name, ``shop.seeds:roles``; no other seeder has the same."""
        return f"{self.module}:{self.name}"

    @property
    def place(self) -> str:
        """Where it stands, as ``file:line``."""
        return f"{self.file}:{self.line}" if self.line else self.file


class _Registry(NamedTuple):
    """A module's seeders, kept in the module itself, so that they live and die with it."""

    spec: object  # another object after `importlib.reload`, which runs the decorators again
    seeders: list[Seeder]


@overload
def seeder(function: F, /) -> F: ...


@overload
def seeder(
    *,
    tier: Tier = ...,
    after: Iterable[str | Callable[..., object]] | Callable[..., object] = ...,
    name: str | None = ...,
    idempotent: bool = ...,
) -> Callable[[F], F]: ...


def seeder(
    function: F | None = None,
    /,
    *,
    tier: Tier = "essential",
    after: Iterable[str | Callable[..., object]] | Callable[..., object] = (),
    name: str | None = None,
    idempotent: bool = False,
) -> F | Callable[[F], F]:
    """Declare a function that fills the database; usable bare and with arguments.

    The function itself is given back unchanged: the application can call it as before. A function
    or ``async def`` gets what its parameters ask for (``session``, ``connection``, ``engine``,
    ``url``), and the parameters of the profile by name. It runs in a transaction of its own.

    Args:
        function: The function, when used bare.
        tier: ``essential`` seeds belong to every profile and are safe everywhere; ``demo`` seeds are
            refused in production.
        after: The seeders that run before it: functions, or names such as ``"roles"`` (in the same
            module) and ``"shop.seeds:roles"``. One alone needs no list.
        name: What it is called; the function's name by default. The name and the module decide the
            random numbers that it gets.
        idempotent: Whether running it again on a database that has its rows changes nothing but what it
            was changed for. ``seeddb apply`` runs it again then when it has changed; ``seeddb verify``
            checks that it is true.

    Raises:
        ConfigError: There is no such tier, or an element of ``after`` is not a seeder.
    """
    # A string is iterable, too: its letters are not what was meant.
    is_one = isinstance(after, str) or callable(after) or not hasattr(after, "__iter__")
    before: tuple[Any, ...] = (after,) if is_one else tuple(cast("Iterable[Any]", after))

    def declare(declared: F, depth: int = 1) -> F:
        scope = sys._getframe(depth).f_globals  # noqa: SLF001  # where the "@" stands; inspect.stack() reads files
        note = _note(declared, name, tier, before, scope)._replace(idempotent=idempotent)
        try:
            setattr(declared, _ATTRIBUTE, note)
        except (AttributeError, TypeError):
            raise ConfigError(
                f"@seeder cannot mark {declared!r}",
                saw=f"a {type(declared).__name__}, which takes no attributes",
                source=note.place,
                remedy="declare a function that calls it",
            ) from None
        _registry(scope).seeders.append(note)
        return declared

    return declare if function is None else declare(function, depth=2)


def seeders_in(scope: dict[str, Any]) -> tuple[Seeder, ...]:
    """The seeders that a module declares, in order; a function is the one that its name stands for, decorated again."""
    outer = {id(note): value for value in scope.values() if (note := seeder_of(value)) is not None}
    return tuple(note._replace(function=outer.get(id(note), note.function)) for note in _registry(scope).seeders)


def seeder_of(value: object) -> Seeder | None:
    """What the decorator noted about a function; ``None`` where it did not see it."""
    try:
        # Not getattr(): a module may hold proxies that do something when they are asked.
        note = object.__getattribute__(value, _ATTRIBUTE)
    except AttributeError:
        return None
    return note if isinstance(note, Seeder) else None


def _registry(scope: dict[str, Any]) -> _Registry:
    registry = scope.get(_REGISTRY)
    if not isinstance(registry, _Registry) or registry.spec is not scope.get("__spec__"):
        registry = scope[_REGISTRY] = _Registry(scope.get("__spec__"), [])
    return registry


def _note(
    function: Callable[..., object],
    name: str | None,
    tier: Tier,
    after: tuple[str | Callable[..., object], ...],
    scope: dict[str, Any],
) -> Seeder:
    inner: Any = function
    while hasattr(inner, "__wrapped__"):  # inspect.unwrap() would cost the import of inspect
        inner = inner.__wrapped__
    code = getattr(inner, "__code__", None)
    name = name or str(getattr(function, "__name__", type(function).__name__))
    file = code.co_filename if code else str(scope.get("__file__", ""))
    line = code.co_firstlineno if code else 0
    note = Seeder(name, str(scope.get("__name__", "")), tier, after, function, file, line)
    if not isinstance(name, str):
        raise ConfigError(
            "A seeder's name is not text",
            saw=f"name={name!r}",
            source=note.place,
            remedy='write @seeder(name="..."), or omit it: the default is the function\'s name',
        )
    if tier not in TIERS:
        raise ConfigError(
            f"The seeder {note.identity} has an unknown tier",
            saw=f"tier={tier!r}",
            source=note.place,
            remedy='write tier="essential" or tier="demo"',
        )
    for earlier in after:
        if not isinstance(earlier, str) and seeder_of(earlier) is None:
            raise ConfigError(
                f"The seeder {note.identity} names something in `after` that is not a seeder",
                saw=f"after: {getattr(earlier, '__qualname__', repr(earlier))}",
                source=note.place,
                remedy="name a function with @seeder, or a seeder's name",
            )
    return note
