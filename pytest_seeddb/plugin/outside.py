"""Whose sake the code that is running now runs for: that of seeded tests alone, or of others, too."""

from __future__ import annotations

import re
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_seeddb.application.offspring import Offspring
from pytest_seeddb.application.outside import Asker, Outside
from pytest_seeddb.plugin.markers import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_seeddb.settings.settings import Settings

OUTSIDE: Final = pytest.StashKey["Askers"]()
"""Kept with pytest's config where connections of the application are watched."""

_XUNIT: Final = re.compile(r"_(?:xunit|unittest)_(set\w+?)_fixture_(.+)")


class Askers:
    """A plugin that follows which test, which fixture and which thread is running."""

    def __init__(
        self,
        settings_of: Callable[[pytest.Item | pytest.Collector | None], Settings],
        knows_address: Callable[[pytest.Item], bool],
    ) -> None:
        self.outside = Outside(self.asker)
        self._settings_of, self._knows_address = settings_of, knows_address
        self._collector: pytest.Collector | None = None
        self._main = threading.current_thread()
        self._item: pytest.Item | None = None
        self._fixtures: list[tuple[pytest.FixtureDef[Any], pytest.FixtureRequest, str]] = []
        self._blocks: list[pytest.Item | None] = []
        self._offspring = Offspring()
        self._of_seeded: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:  # noqa: ANN401 - pytest's own
        """Remember the test, and the threads that are started for it."""
        self._item, self._offspring = item, Offspring()
        try:
            return (yield)
        finally:
            if _is_seeded(item):
                self._of_seeded.update(self._offspring.threads())
            self._item = None

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Any:  # noqa: ANN401 - as above
        """Remember whose modules are imported."""
        self._collector = collector
        try:
            return (yield)
        finally:
            self._collector = None

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Any:  # noqa: ANN401 - as above
        """Remember the fixture while it is set up, and while it is torn down."""
        if fixturedef.func.__module__.startswith("pytest_seeddb."):
            return (yield)
        ends = (fixturedef, request, "the tear-down of ")
        fixturedef.addfinalizer(lambda: self._forget(ends))  # runs after its own code
        self._fixtures.append((fixturedef, request, ""))
        try:
            return (yield)
        finally:
            self._fixtures.pop()
            fixturedef.addfinalizer(lambda: self._fixtures.append(ends))  # runs before its own code

    def _forget(self, entry: tuple[pytest.FixtureDef[Any], pytest.FixtureRequest, str]) -> None:
        if entry in self._fixtures:  # not where its setup failed
            self._fixtures.remove(entry)

    @contextmanager
    def block(self) -> Iterator[None]:
        """The block of a `seeded_db_factory`."""
        self._blocks.append(self._item)
        try:
            yield
        finally:
            self._blocks.pop()

    def asker(self) -> Asker:
        """What runs now in this thread, whether it does so for seeded tests alone, and the settings of its table."""
        settings = self._settings_of(self._item or self._collector)
        return Asker(*self._who(), settings, self._item is not None and self._knows_address(self._item))

    def _who(self) -> tuple[str, bool]:
        thread, item = threading.current_thread(), self._item
        if thread is not self._main:
            is_new = item is not None and _is_seeded(item) and thread in self._offspring
            return f"the thread {thread.name!r}", is_new or thread in self._of_seeded
        test = item.nodeid if item else "pytest, outside of all tests"
        if self._fixtures:
            fixturedef, request, prefix = self._fixtures[-1]
            match = _XUNIT.match(fixturedef.argname)
            name = f"{match[1]} of {match[2]}" if match else f"the fixture {fixturedef.argname!r}"
            scope = "" if match else f" ({fixturedef.scope} scope)"
            return f"{prefix}{name}{scope}, for {test}", self._is_for_seeded(fixturedef, request)
        return test, item is not None and (_is_seeded(item) or item in self._blocks)

    def _is_for_seeded(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> bool:
        """Whether no unmarked test uses the fixture: it has one value for all tests of its scope, in any order."""
        users = [
            item
            for item in request.session.items
            if request.node in item.listchain()
            and fixturedef in getattr(item, "_fixtureinfo").name2fixturedefs.get(fixturedef.argname, ())  # noqa: B009
        ]
        return all(map(_is_seeded, users)) if users else self._item is not None and _is_seeded(self._item)


def _is_seeded(item: pytest.Item) -> bool:
    return item.get_closest_marker(NAME) is not None
