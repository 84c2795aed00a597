"""What is looked at when the tests are collected and none has run yet: markers, files, import paths.

All that a person can mistype ends the run here, with exit code 4, one text and no traceback.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_seeddb.errors import ConfigError, SeedDbError
from pytest_seeddb.plugin.markers import NAME, wish_of
from pytest_seeddb.plugin.package_scope import package_of
from pytest_seeddb.plugin.state import PLANS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_seeddb.plan.plan import Plans
    from pytest_seeddb.plugin.markers import Wish
    from pytest_seeddb.settings.settings import Scope, Settings

_OUTPUT = "seeddb_usage"
_OVERRIDABLE = ("seeddb_settings", "seeddb_plan")


def look(session: pytest.Session, settings: Settings) -> None:
    """See that each collected seeded test can be followed, as far as that needs no server.

    Raises:
        pytest.UsageError: Names everything that is wrong. An xdist worker raises nothing, which would
            look like a crash: it runs no test and hands the text to the controller; see `handed_over`.
    """
    seeded = [item for item in session.items if item.get_closest_marker(NAME)]
    wrong = _told_once(_errors(seeded, settings)) if seeded else []
    if not wrong:
        return
    output = getattr(session.config, "workeroutput", None)
    if output is None:
        raise pytest.UsageError("\n".join(wrong))
    output[_OUTPUT] = "\n".join(wrong)
    session.items.clear()


def handed_over(workeroutput: dict[str, str]) -> None:
    """Raise in the controller what a worker of xdist found wrong.

    Raises:
        pytest.UsageError: It found something.
    """
    if text := workeroutput.get(_OUTPUT):
        raise pytest.UsageError(text)


@dataclass(frozen=True)
class _Wrong:
    """An error, and the test that it is about; of many tests that stand under one marker the first is named."""

    error: SeedDbError
    nodeid: str = ""

    @property
    def origin(self) -> str:
        """Where the value came from, beside the test."""
        return "" if self.error.source == self.nodeid else self.error.source

    @property
    def alike(self) -> str:
        """The same for all that differ by their test alone."""
        return self._text(self.origin)

    def told(self, others: int) -> str:
        more = f" and {others} more" if others else ""
        return self._text(", ".join(filter(None, (self.origin, f"{self.nodeid}{more}"))))

    def _text(self, source: str) -> str:
        error = self.error
        return str(type(error)(error.what, saw=error.saw, source=source, remedy=error.remedy))


def _told_once(found: Iterable[_Wrong]) -> list[str]:
    alike: dict[str, list[_Wrong]] = {}
    for each in found:
        alike.setdefault(each.alike, []).append(each)
    return [same[0].told(len(same) - 1) for same in alike.values()]


def _errors(seeded: Sequence[pytest.Item], settings: Settings) -> Iterator[_Wrong]:
    wishes: list[tuple[Wish, str]] = []
    for item in seeded:
        try:
            wishes.append((_wish(item, settings), item.nodeid))
        except SeedDbError as error:
            yield _Wrong(error, item.nodeid)
    if not _overridden(seeded):
        yield from _errors_in_plans(wishes, settings, seeded[0].config)


def _wish(item: pytest.Item, settings: Settings) -> Wish:
    """What the test's markers ask for, which must be the same for all that share a database."""
    wish = wish_of(item)
    place = None if settings.scope == "function" else _scope_node(item, settings.scope)
    if place is not None and wish != wish_of(place):
        raise ConfigError(
            f"A test's marker differs from that of its {settings.scope}, which shares one database",
            saw=f"{wish.shown} on the test, {wish_of(place).shown} on the {settings.scope}",
            source=f"scope = {settings.scope!r}, {settings.source('scope')}",
            remedy=_same_for_all(settings.scope),
        )
    return wish


def _same_for_all(scope: Scope) -> str:
    if scope in {"session", "package"}:
        return f"let all tests of the {scope} have the same marker, or take a smaller scope: module, class or function"
    by = "pytestmark in it" if scope == "module" else "above it"
    return f"mark the whole {scope} ({by}), or move the test to another"


def _scope_node(item: pytest.Item, scope: Scope) -> pytest.Item | pytest.Collector | None:
    if scope == "package":
        return package_of(item)
    kinds: dict[str, type[pytest.Collector]] = {
        "class": pytest.Class,
        "module": pytest.Module,
        "session": pytest.Session,
    }
    return item.getparent(kinds[scope])


def _overridden(seeded: Sequence[pytest.Item]) -> bool:
    """Whether a conftest or a test module replaces our settings or plan: then the table says little."""
    config = seeded[0].config
    ours = config.pluginmanager.get_plugin("seeddb-fixtures")
    chains = (node for item in seeded for node in item.listchain() if isinstance(node, pytest.Class | pytest.Module))
    return any(
        name in dir(place)
        for place in (*config.pluginmanager.get_plugins(), *{node: node.obj for node in chains}.values())
        if place is not ours
        for name in _OVERRIDABLE
    )


def _errors_in_plans(wishes: Sequence[tuple[Wish, str]], settings: Settings, config: pytest.Config) -> Iterator[_Wrong]:
    try:
        plans = config.stash[PLANS] = _plans(settings)
    except SeedDbError as error:
        yield _Wrong(error)
        return
    for wish, nodeid in wishes:
        try:
            plans.of(wish.profile, wish.parameters)
        except SeedDbError as error:
            yield _Wrong(error, nodeid)


def _plans(settings: Settings) -> Plans:
    from pytest_seeddb.application import imports
    from pytest_seeddb.plan.plan import Plans
    from pytest_seeddb.seeds.planning import plan_of

    for path in settings.engines:
        if path != "all":
            imports.check(path, source=settings.source("engines"), root=settings.root)
    return Plans(plan_of(settings))
