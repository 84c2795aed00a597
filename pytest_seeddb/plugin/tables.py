"""Several tables below one root, as in a monorepo: each directory's tests have their own settings, plan and server."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.plugin.package_scope import ScopeEnd, package_of
from pytest_seeddb.plugin.run import PACKAGE_SCOPE, RUN, watch_outside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_seeddb.settings.settings import Settings

_CHAIN: Final = "seeddb_settings"


class Tables:
    """A plugin that gives a directory with a table of its own the fixtures once more, for that table."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectstart(self, collector: pytest.Collector) -> None:
        """A directory's conftests are imported by now, and none of its tests is collected."""
        run = collector.config.stash[RUN]
        if not isinstance(collector, pytest.Directory) or collector.nodeid in run.tables:
            return
        from pytest_seeddb.settings.settings import load_settings

        if not _has_table_of_its_own(collector, run.settings.root):
            return
        try:
            settings = load_settings(collector.path, options=run.options)
        except SeedDbError as error:
            run.broken.append(error)  # raised here, it would look like a crash of an xdist worker
            run.tables[collector.nodeid] = run.settings
            return
        run.tables[collector.nodeid] = settings
        config, manager = collector.config, collector.config.pluginmanager
        if is_enabled := config.getoption("--seed-db") or settings.enabled == "always":
            from pytest_seeddb.fingerprint import recording

            recording.begin(settings.root)
            watch_outside(config, settings)
        if settings.scope == "package" and not manager.has_plugin(PACKAGE_SCOPE):
            manager.register(ScopeEnd("package", package_of), PACKAGE_SCOPE)
        for scope in ("package", "session"):
            if not manager.has_plugin(f"seeddb-tables-{scope}"):
                manager.register(ScopeEnd(scope, run.settings_of), f"seeddb-tables-{scope}")
        from pytest_seeddb.plugin import fixtures

        given = {**vars(fixtures), _CHAIN: _settings_fixture(settings)}
        if settings.migrations == "django":
            from pytest_seeddb.plugin.django.models import has_pytest_django, set_up_below

            set_up_below(config, settings)
            if is_enabled and has_pytest_django(config):
                given |= _django_fixtures(manager)
        self._register(collector, settings, given)

    def _register(self, directory: pytest.Directory, settings: Settings, given: Mapping[str, object]) -> None:
        """The fixtures for a directory, before those that its own conftest makes of them."""
        own = ModuleType("pytest_seeddb.plugin.fixtures")
        vars(own).update(given)
        run = directory.config.stash[RUN]
        parse: Any = directory.session._fixturemanager.parsefactories  # noqa: SLF001 - pytest has no public way
        run.registering = settings
        try:
            if "holder" in inspect.signature(parse).parameters:  # it reads conftests' fixtures later
                parse(holder=own, node=directory)
                return
            parse(own, directory.nodeid)
        finally:
            run.registering = None
        for conftest in directory.config.pluginmanager.get_plugins():
            place = Path(getattr(conftest, "__file__", None) or "").parent
            if place.is_relative_to(directory.path) and (overrides := overrides_in(conftest, own)):
                again = ModuleType(getattr(conftest, "__name__", "conftest"))
                vars(again).update(overrides)
                parse(again, "/".join([directory.nodeid, *place.relative_to(directory.path).parts]))


def _has_table_of_its_own(directory: pytest.Directory, root: Path) -> bool:
    from pytest_seeddb.settings.files import has_table

    places = [directory.path]
    if isinstance(directory.parent, pytest.Session):  # --pyargs begins at a package, which may be below its table
        places += directory.path.parents
    return any(has_table(place) for place in places if place != root and place.is_relative_to(root))


def overrides_in(conftest: object, fixtures: ModuleType) -> dict[str, object]:
    """What a conftest has in place of one of the fixtures; a fixture's name may differ from its function's."""
    overrides = {}
    for attribute in dir(conftest):
        value = inspect.getattr_static(conftest, attribute, None)
        # pytest before 8.4 has the second.
        markers = (
            inspect.getattr_static(value, name, None) for name in ("_fixture_function_marker", "_pytestfixturefunction")
        )
        name = next((marker.name for marker in markers if marker and marker.name), attribute)
        if name.startswith(("seed", "django_")) and hasattr(fixtures, name):
            overrides[attribute] = value
    return overrides


def _django_fixtures(manager: pytest.PytestPluginManager) -> Mapping[str, object]:
    """Those in place of pytest-django's; the hook beside them looks at tests of tables with Django alone."""
    from pytest_seeddb.plugin.django import fixtures

    if not manager.has_plugin("seeddb-django"):
        hooks = ModuleType("seeddb_django")
        vars(hooks)["pytest_collection_modifyitems"] = fixtures.pytest_collection_modifyitems
        manager.register(hooks, "seeddb-django")
    return vars(fixtures)


def _settings_fixture(settings: Settings) -> object:
    @pytest.fixture(scope="session", name=_CHAIN)
    def seeddb_settings() -> Settings:
        """The settings of the nearest table."""
        return settings

    return seeddb_settings
