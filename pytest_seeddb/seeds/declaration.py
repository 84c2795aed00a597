"""The `seeder` decorator.

Applications import this module in production, so it imports next to nothing and the decorator does
nothing but take notes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, overload

from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Param", "Seeder", "Tier", "declared_in", "seeder", "seeder_of"]

# A type variable for the function itself, not a ParamSpec for its parameters: the very same object is
# given back, so that overloads, attributes and "async def" are kept as well.
F = TypeVar("F", bound="Callable[..., object]")

Tier = Literal["essential", "demo"]
"""``essential``: what the application cannot run without. ``demo``: refused in production."""

TIERS: Final = ("essential", "demo")

_ATTRIBUTE: Final = "__seeddb_seeder__"
_REGISTRY: Final = "__seeddb_seeders__"


class Param(NamedTuple):
    """What a parameter's annotation can say beside its type: ``password: Annotated[str, Param(secret=True)]``.

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
        ConfigError: The tier or an element of ``after`` is not one.
    """
    before = _each(after)

    def declare(declared: F, depth: int = 1) -> F:
        scope = sys._getframe(depth).f_globals  # noqa: SLF001  # where the "@" stands; inspect.stack() reads files
        noted = _noted(declared, name, tier, before, scope)._replace(idempotent=idempotent)
        _mark(declared, noted)
        _registry(scope).seeders.append(noted)
        return declared

    return declare if function is None else declare(function, depth=2)


def declared_in(scope: dict[str, Any]) -> tuple[Seeder, ...]:
    """The seeders that a module declares, given its globals, in the order of declaration.

    The function of each is the one that the module's name stands for: where another decorator was
    put on top, that is the decorated one.
    """
    outer = {id(noted): value for value in scope.values() if (noted := seeder_of(value)) is not None}
    return tuple(each._replace(function=outer.get(id(each), each.function)) for each in _registry(scope).seeders)


def seeder_of(value: object) -> Seeder | None:
    """What was noted about a function; ``None`` when it is no seeder."""
    try:
        # Not getattr(): a module may hold proxies that do something when they are asked.
        noted = object.__getattribute__(value, _ATTRIBUTE)
    except AttributeError:
        return None
    return noted if isinstance(noted, Seeder) else None


def _mark(function: Callable[..., object], noted: Seeder) -> None:
    try:
        setattr(function, _ATTRIBUTE, noted)
    except (AttributeError, TypeError):
        raise ConfigError(
            f"@seeder cannot mark {function!r}",
            saw=f"a {type(function).__name__}, which takes no attributes",
            source=noted.place,
            remedy="declare a function that calls it",
        ) from None


def _registry(scope: dict[str, Any]) -> _Registry:
    found = scope.get(_REGISTRY)
    if not isinstance(found, _Registry) or found.spec is not scope.get("__spec__"):
        found = scope[_REGISTRY] = _Registry(scope.get("__spec__"), [])
    return found


def _noted(
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
    called = name or str(getattr(function, "__name__", type(function).__name__))
    file = code.co_filename if code else str(scope.get("__file__", ""))
    line = code.co_firstlineno if code else 0
    noted = Seeder(called, str(scope.get("__name__", "")), tier, after, function, file, line)
    _check(noted)
    return noted


def _check(noted: Seeder) -> None:
    if not isinstance(noted.name, str):
        raise ConfigError(
            "A seeder's name is not text",
            saw=f"name={noted.name!r}",
            source=noted.place,
            remedy='write @seeder(name="..."), or leave it out: then it is the function\'s',
        )
    if noted.tier not in TIERS:
        raise ConfigError(
            f"The seeder {noted.identity} has a tier that there is not",
            saw=f"tier={noted.tier!r}",
            source=noted.place,
            remedy='write tier="essential" or tier="demo"',
        )
    for each in noted.after:
        if not isinstance(each, str) and seeder_of(each) is None:
            raise ConfigError(
                f"The seeder {noted.identity} is to run after something that is no seeder",
                saw=f"after: {getattr(each, '__qualname__', repr(each))}",
                source=noted.place,
                remedy="name a function that carries @seeder, or its name",
            )


def _each(after: Iterable[str | Callable[..., object]] | Callable[..., object]) -> tuple[Any, ...]:
    # A string is iterable too: its letters are not what was meant.
    return (after,) if isinstance(after, str) or callable(after) or not hasattr(after, "__iter__") else tuple(after)
