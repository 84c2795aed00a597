"""A project's own fixtures that have the name of one of the plugin's: they are left alone."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.plugin.markers import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pytest

    Definition = pytest.FixtureDef[Any]

_OWN: Final = "pytest_seeddb."
_DATABASE: Final = "seeded_db"


def overrides(item: pytest.Item, name: str) -> bool:
    """Whether a test sees a definition of the fixture that is not the plugin's, under whichever function's name."""
    return any(not definition.func.__module__.startswith(_OWN) for definition in _definitions(item, name))


def uses_the_plugin(item: pytest.Item) -> bool:
    """Whether a test uses one of the per-test fixtures, directly or not: the plugin's, or one that is built on it."""
    if FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
        return False  # nearly every test of those who do not use the plugin
    return any(_is_built_on_ours(item, name, depth) for name, depth, _ in _wanted(item))


def clashes(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """The project's own fixtures that a test gets in place of the plugin's: each with its name and its place."""
    for name, depth, definition in _wanted(item):
        if not _is_built_on_ours(item, name, depth) and not definition.func.__module__.startswith("_pytest."):
            yield name, _place(item, definition)


def check_database(item: pytest.Item) -> None:
    """Raise a `ConfigError` if a seeded test would get its database from a fixture that is not the plugin's."""
    definitions = _definitions(item, _DATABASE)
    if not definitions or _is_built_on_ours(item, _DATABASE, 1):
        return
    raise ConfigError(
        f"A seeded test needs the fixture `{_DATABASE}`, and the project has a fixture of its own with that name",
        saw=f"{_DATABASE} of {_place(item, definitions[-1])}",
        source=item.nodeid,
        remedy=f"rename the project's fixture; or build it on the plugin's, def {_DATABASE}({_DATABASE}); or take the "
        "marker away: unmarked tests that use the project's fixture stay as they are",
    )


def _wanted(item: pytest.Item) -> list[tuple[str, int, Definition]]:
    names = getattr(getattr(item, "_fixtureinfo", None), "initialnames", ())
    # Also those that a hook has added since.
    start = [*names, *FIXTURES.intersection(getattr(item, "fixturenames", ()))]
    return [entry for entry in _reached(item, [(name, 1) for name in start]) if entry[0] in FIXTURES]


def _is_built_on_ours(item: pytest.Item, name: str, depth: int) -> bool:
    reached = _reached(item, [(name, depth)], by_call=True)
    return any(definition.func.__module__.startswith(_OWN) for _, _, definition in reached)


def _reached(
    item: pytest.Item, start: Iterable[tuple[str, int]], *, by_call: bool = False
) -> Iterator[tuple[str, int, Definition]]:
    """The fixtures that are set up for these; of those with one name, the last is 1 deep, and what it overrides 2.

    With ``by_call`` also the plugin's that they may ask for by ``request.getfixturevalue("seeded_db")``.
    """
    waiting, seen = list(start), set()
    while waiting:
        name, depth = waiting.pop()
        definitions = _definitions(item, name)
        if (name, depth) in seen or depth > len(definitions):
            continue
        seen.add((name, depth))
        yield name, depth, definitions[-depth]
        others = [*definitions[-depth].argnames]
        code = getattr(inspect.unwrap(definitions[-depth].func), "__code__", None) if by_call else None
        if code and "getfixturevalue" in code.co_names:
            others += FIXTURES.intersection(code.co_consts)
        waiting += [(other, depth + 1 if other == name else 1) for other in others]


def _definitions(item: pytest.Item, name: str) -> tuple[Definition, ...]:
    """All that a test sees under a name, the one that it gets last."""
    info, manager = getattr(item, "_fixtureinfo", None), item.session._fixturemanager  # noqa: SLF001 - no public way
    known = info.name2fixturedefs.get(name) if info else None  # also the test's own parameters
    return tuple(known or manager.getfixturedefs(name, item) or ())


def _place(item: pytest.Item, definition: Definition) -> str:
    code = getattr(inspect.unwrap(definition.func), "__code__", None)
    path = Path(code.co_filename) if code else Path(definition.baseid or ".")
    root = item.config.rootpath
    shown = path.relative_to(root) if path.is_relative_to(root) else path
    return f"{shown}:{code.co_firstlineno}" if code else str(shown)
