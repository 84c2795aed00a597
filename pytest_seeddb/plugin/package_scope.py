"""``scope = "package"``: one clone for each package.

pytest keeps a package-scoped fixture as long as the package in which it is *defined*. For a plugin's fixtures that is
the whole session. The hooks here end them with the package of the test instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

_DEFINED_IN = "pytest_seeddb.plugin.fixtures"


class PackageScope:
    """Hooks that end the plugin's fixtures, after the user's that use them, before a test in another package."""

    def __init__(self) -> None:
        self._running: list[tuple[pytest.FixtureDef[Any], pytest.FixtureRequest]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Remember the plugin's; also one that failed, which pytest remembers, too."""
        if fixturedef.scope == "package" and fixturedef.func.__module__ == _DEFINED_IN:
            self._running.append((fixturedef, request))
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """End them after the teardown of the user's own package."""
        try:
            return (yield)
        finally:
            if nextitem is not None and package_of(nextitem) is not package_of(item):
                while self._running:
                    fixturedef, request = self._running.pop()
                    fixturedef.finish(request)  # type: ignore[arg-type]  # it is the SubRequest of its set-up


def package_of(item: pytest.Item) -> pytest.Collector | None:
    """The innermost package that contains the test, else the session."""
    return item.getparent(pytest.Package) or item.getparent(pytest.Session)
