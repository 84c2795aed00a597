"""``scope = "package"``: one clone for each package; and several tables: none outlives the tests of its table.

pytest keeps a package-scoped fixture as long as the package in which it is *defined*. For a plugin's fixtures that is
the whole session. The hooks here end them with the package of the test instead. Fixtures of one table, also those of
the session, end before a test of another: its application has the same variables and engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_seeddb.plugin.markers import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_DEFINED_IN: Final = "pytest_seeddb.plugin.fixtures"
_PER_TEST: Final = (FIXTURES - {"seeded_db_factory"}) | {"_seeddb_activation"}


class ScopeEnd:
    """Hooks that end the plugin's fixtures of a scope, after the user's that use them, before a test elsewhere.

    They run inside of the hook that settles databases: these are settled in the same tear-down.
    """

    def __init__(self, scope: str, place: Callable[[pytest.Item], object]) -> None:
        self._scope = scope
        self._place = place
        self._running: list[tuple[pytest.FixtureDef[Any], pytest.FixtureRequest]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Remember the plugin's; also one that failed, which pytest remembers, too."""
        is_own = fixturedef.func.__module__ == _DEFINED_IN and fixturedef.argname in _PER_TEST
        if is_own and fixturedef.scope == self._scope:
            self._running.append((fixturedef, request))
        return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """End them after the teardown of the user's own scope."""
        try:
            return (yield)
        finally:
            if nextitem is not None and self._place(nextitem) is not self._place(item):
                while self._running:
                    fixturedef, request = self._running.pop()
                    fixturedef.finish(request)  # type: ignore[arg-type]  # it is the SubRequest of its set-up


def package_of(item: pytest.Item) -> pytest.Collector | None:
    """The innermost package that contains the test, else the session."""
    return item.getparent(pytest.Package) or item.getparent(pytest.Session)
