"""One run of pytest: its settings, its plans, what its tests did, and the checks before the first of them.

Everything that a person can mistype ends the run here, with exit code 4, one text and no traceback.
"""

from __future__ import annotations

import weakref
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import pytest

from pytest_seeddb.errors import ConfigError, SeedDbError
from pytest_seeddb.plugin.markers import NAME, SIGNATURE, uses_a_fixture, wish_of
from pytest_seeddb.plugin.package_scope import ScopeEnd, package_of
from pytest_seeddb.plugin.report import Tally
from pytest_seeddb.servers import libpq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pytest_seeddb.clones.database import SeededDatabase
    from pytest_seeddb.clones.worker import Worker
    from pytest_seeddb.plan.plan import Plan
    from pytest_seeddb.plugin.markers import Wish
    from pytest_seeddb.seeds.planning import Plans
    from pytest_seeddb.servers.embedded import Ahead
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.settings.settings import Found, Settings
    from pytest_seeddb.templates.templates import Template

RUN: pytest.StashKey[Run] = pytest.StashKey()
"""Kept with pytest's config; missing where pytest only shows its help."""

DATABASE: pytest.StashKey[SeededDatabase] = pytest.StashKey()
"""Kept with the test, or with the scope that shares a database."""

LENT: pytest.StashKey[SeededDatabase] = pytest.StashKey()
"""Kept with a test that Django rolls back, or with a class of Django's: a database that never stays after a failure."""

ISOLATION: pytest.StashKey[str] = pytest.StashKey()
"""That of the database, kept where the database is, and also after it is gone."""

LAST_STATE: pytest.StashKey[list[str]] = pytest.StashKey()
"""Kept with a test whose tear-down failed: what its databases held."""

ENDING: pytest.StashKey[bool] = pytest.StashKey()
"""Kept with a test whose tear-down has begun."""

ELSEWHERE: pytest.StashKey[bool] = pytest.StashKey()
"""Kept with a seeded test that gets its database from another plugin's fixtures."""

DISABLED: Final = 'seeded tests run with --seed-db, or with enabled = "always" in [tool.seeddb]'
PACKAGE_SCOPE: Final = "seeddb-package-scope"
_SHOWING: Final = ("collectonly", "showfixtures", "show_fixtures_per_test", "setupplan")
"""pytest's options with which no test runs."""
SHELL: Final = "seeddb_shell"
"""Under this name an xdist worker is told which of libpq's variables the shell has set, and not a conftest."""

_OUTPUT: Final = "seeddb_usage"


class Run:
    """What one process of a run knows.

    pytest caches what a session fixture returned, and gives it to a test whose own conftest overrides what that
    was made from, too. So the run knows what the plugin's own fixtures made, and makes it again from what a test sees.

    Attributes:
        settings: Those of the table, the environment and the options.
        options: The command line's values, for all tables.
        tables: Those of further tables below it, by the node of their directory.
        broken: What is wrong in such a table, or in Django's settings that only ``manage.py`` names.
        registering: Those for which the fixtures are being registered; ``None`` for ``settings``.
        servers: Those that chose the server, for each worker.
        unsettled: Databases whose fixtures are done with them, each with its test or scope, the table's settings, and
            what ends it.
        workers: Those that have not left the server yet.
        settling: Surrounds the settling of a database, whose test or scope it gets.
        shown: The errors that were shown in full, each with the first test that met it.
    """

    def __init__(self, settings: Settings, options: Mapping[str, Found]) -> None:
        self.settings = settings
        self.options = options
        self.tables: dict[str, Settings] = {}
        self.broken: list[SeedDbError] = []
        self.registering: Settings | None = None
        self.servers: weakref.WeakKeyDictionary[Worker, Settings] = weakref.WeakKeyDictionary()
        self._own_templates: set[str] = set()
        self.tally = Tally()
        self.unsettled: list[tuple[pytest.Item | pytest.Collector, Settings, SeededDatabase, ExitStack]] = []
        self.workers: list[Worker] = []
        self.settling: Callable[[str, SeededDatabase], AbstractContextManager[None]] = lambda *_: nullcontext()
        self._around: ExitStack | None = None
        self._ahead: Ahead | None = None
        self.shown: dict[str, str] = {}

    def settings_of(self, node: pytest.Item | pytest.Collector) -> Settings:
        """Those of the nearest table."""
        if not self.tables:
            return self.settings
        return next((self.tables[up.nodeid] for up in node.iter_parents() if up.nodeid in self.tables), self.settings)

    @cached_property
    def plans(self) -> Plans:
        """The plans so far."""
        from pytest_seeddb.seeds.planning import Plans

        return Plans()

    def start_ahead(self, settings: Settings, config: pytest.Config) -> None:
        """Begin to start the embedded server, which tests will need, beside what comes before them."""
        if self._ahead is None and not only_shows(config):
            from pytest_seeddb.servers.opening import start_ahead

            self._ahead = start_ahead(settings)
            if self._ahead is not None:
                config.add_cleanup(self._ahead.close)

    def open_server(self, settings: Settings) -> AbstractContextManager[Server]:
        """The running server for a block."""
        from pytest_seeddb.servers.opening import open_server

        return self._ahead.open(settings) if self._ahead else open_server(settings)

    def plan(self, wish: Wish, settings: Settings, given: Plan) -> Plan:
        """The plan that a test wants.

        Args:
            wish: Of the test's markers.
            settings: What the test sees as ``seeddb_settings``.
            given: What the test sees as ``seeddb_plan``.
        """
        own = self.plans.of(settings) if self.plans.has(given) else given
        return self.plans.vary(own, wish.profile, wish.parameters)

    @contextmanager
    def around_test(self) -> Iterator[None]:
        """Surround a seeded test, from its first fixture's setup to its last one's end."""
        with ExitStack() as stack:
            for worker in self.workers:
                stack.enter_context(worker.server.address.alone())
            self._around = stack
            try:
                yield
            finally:
                self._around = None

    def join(self, worker: Worker, settings: Settings) -> None:
        """A worker has joined the server that these settings name."""
        self.workers.append(worker)
        self.servers[worker] = settings
        if self._around is not None:
            self._around.enter_context(worker.server.address.alone())

    def leave(self) -> None:
        """Leave the servers where no fixture needs any more what it made there, and count what was done."""
        for worker in [worker for worker in self.workers if worker.is_finished]:
            self.workers.remove(worker)
            worker.leave()
            self.tally.add(worker)

    def note_template(self, template: Template) -> Template:
        """Remember that the plugin's own fixture ``seeddb_template`` gave it."""
        self._own_templates.add(template.name)
        return template

    def note_clashes(self, clashes: Iterable[tuple[str, str]], item: pytest.Item) -> None:
        """Remember the project's own fixtures that a test gets in place of the plugin's, for the end of the run."""
        if self.settings_of(item).origin is not None and is_enabled(item.config):
            for name, place in clashes:
                self.tally.clashes.setdefault(f"{name} of {place}", item.nodeid)

    def templates(
        self, wish: Wish, settings: Settings, request: pytest.FixtureRequest
    ) -> tuple[Template, dict[str, Template]]:
        """The template of a test's database, and those of a Django project's further ones.

        Raises:
            ConfigError: The test's settings want another server than the run has.
        """
        worker: Worker = request.getfixturevalue("_seeddb_worker")
        for key in ("server", "postgres", "binaries"):
            if getattr(settings, key) != getattr(self.servers[worker], key):
                raise ConfigError(
                    f"A run has one server, but some tests set another `{key}` than earlier tests",
                    source="the fixture seeddb_settings, overridden in a conftest.py of a sub-directory",
                    remedy=f"set `{key}` for all tests, or run these tests on their own",
                )
        plan = self.plan(wish, settings, request.getfixturevalue("seeddb_plan"))
        template = request.getfixturevalue("seeddb_template") if wish.is_default else None
        if template is None or template.name in self._own_templates:
            template = worker.template(plan)
        return template, worker.beside(plan)


def is_enabled(config: pytest.Config) -> bool:
    """Whether seeded tests run, some at least."""
    run = config.stash[RUN]
    settings = (run.settings, *run.tables.values())
    return bool(config.getoption("--seed-db")) or any(table.enabled == "always" for table in settings)


def only_shows(config: pytest.Config) -> bool:
    """Whether pytest runs no test."""
    return any(config.getoption(name, default=False) for name in _SHOWING)


def is_seeded(item: pytest.Item) -> bool:
    """Whether the test has our marker. Where nothing is set, it is the project's own, from before it had the plugin."""
    if item.get_closest_marker(NAME) is None:
        return False
    if item.config.stash[RUN].settings_of(item).sources or item.config.getoption("--seed-db"):
        return True
    from pytest_seeddb.plugin.clashes import overrides, uses_the_plugin

    return uses_the_plugin(item) or overrides(item, "seeddb_settings")


def is_skipped(item: pytest.Item) -> bool:
    """Whether a seeded test does not run."""
    always = item.config.stash[RUN].settings_of(item).enabled == "always"
    return is_seeded(item) and not (always or item.config.getoption("--seed-db"))


def is_given_a_database(item: pytest.Item) -> bool:
    """Whether the test is seeded, and neither makes its databases itself nor gets one from another plugin."""
    names = set(getattr(item, "fixturenames", ()))
    only_factory = "seeded_db_factory" in names and not uses_a_fixture(names - {"seeded_db_factory"})
    return is_seeded(item) and not item.stash.get(ELSEWHERE, False) and not only_factory


def check_settings(given: object) -> None:
    """Check that a conftest's `seeddb_settings` returns settings.

    Raises:
        ConfigError: It returns something else, or has no ``return``.
    """
    from pytest_seeddb.settings.settings import Settings

    if not isinstance(given, Settings):
        raise ConfigError(
            "The fixture seeddb_settings does not return settings",
            saw=repr(given),
            source="the fixture seeddb_settings, overridden in a conftest.py or a test module",
            remedy="end it with: return seeddb_settings.replace(...)",
        )


def prepare(config: pytest.Config, fixtures: object) -> None:
    """Register the fixtures before any conftest's: a test's database is there before autouse fixtures run.

    From here on it is recorded what modules read while conftests and tests import them: no build sees that again.
    """
    from pytest_seeddb.settings.settings import load_settings

    config.pluginmanager.register(fixtures, "seeddb-fixtures")
    with suppress(SeedDbError):  # `begin` reports it
        settings = load_settings(_start(config))
        if config.known_args_namespace.seed_db or settings.enabled == "always":
            from pytest_seeddb.fingerprint import recording

            recording.begin(settings.root)
            watch_outside(config, settings)


def _start(config: pytest.Config) -> Path:
    """Where the search for the table begins: pytest's root, unless ``-c`` or ``--rootdir`` names one elsewhere."""
    here = config.invocation_params.dir
    return config.rootpath if here.is_relative_to(config.rootpath) else here


def watch_outside(config: pytest.Config, settings: Settings) -> None:
    """From now to the end of the run, hear of connections that an application opens to databases of its own."""
    if settings.outside == "allow" or not (settings.engines or find_spec("django")):
        return
    from pytest_seeddb.plugin.outside import OUTSIDE, Askers

    if OUTSIDE not in config.stash:

        def settings_of(node: pytest.Item | pytest.Collector | None) -> Settings:
            run = config.stash.get(RUN, None)  # conftests are imported before there is one
            root = run.settings if run else settings
            return run.settings_of(node) if run and node else root

        def knows_address(item: pytest.Item) -> bool:
            return any(node.stash[DATABASE].was_read for node in item.listchain() if DATABASE in node.stash)

        askers = config.stash[OUTSIDE] = Askers(settings_of, knows_address)
        watching = ExitStack()
        watching.enter_context(askers.outside.on())
        config.add_cleanup(watching.close)
        config.pluginmanager.register(askers, "seeddb-outside")
    config.stash[OUTSIDE].outside.add(settings)


def note_outside(config: pytest.Config) -> None:
    """Have the summary say who connected."""
    from pytest_seeddb.plugin.outside import OUTSIDE

    askers = config.stash.get(OUTSIDE, None)
    if askers is not None and RUN in config.stash:
        config.stash[RUN].tally.outside.update(askers.outside.connected)


# -- before the first test -----------------------------------------------------------------------


def begin(config: pytest.Config) -> None:
    """Read the settings, unless only help is wanted: that works however broken the table is.

    Raises:
        pytest.UsageError: The settings are wrong.
    """
    config.addinivalue_line("markers", SIGNATURE)
    if hasattr(config, "workerinput"):
        libpq.narrow_shell(config.workerinput.get(SHELL, []))
    if config.option.help or config.option.version or config.getoption("markers", default=False):
        return
    from pytest_seeddb.settings.settings import KEYS, Found, load_settings

    given = ((key, config.getoption(key.option)) for key in KEYS.values() if key.option)
    options = {key.name: Found(value, f"the option {key.option}") for key, value in given if value is not None}
    try:
        settings = load_settings(_start(config), options=options)
    except SeedDbError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[RUN] = Run(settings, options)
    if config.getoption("--seed-db") and not only_shows(config):
        from pytest_seeddb.servers.opening import make_data

        if thread := make_data(settings):
            config.add_cleanup(thread.join)
    if settings.scope == "package":
        config.pluginmanager.register(ScopeEnd("package", package_of), PACKAGE_SCOPE)


def check(session: pytest.Session) -> None:
    """Check that each collected seeded test can run, as far as that needs no server, and make the plans.

    Raises:
        pytest.UsageError: Names everything that is wrong. An xdist worker raises nothing, which would
            look like a crash: it runs no test and hands the text to the controller; see `raise_usage_error_of`.
    """
    if errors := [(error, "") for error in session.config.stash[RUN].broken] or [
        error for table in _tables(session) for error in _errors_in_table(session, *table)
    ]:
        _refuse(session, "\n".join(_texts(errors)))


def _refuse(session: pytest.Session, text: str) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is None:
        raise pytest.UsageError(text)
    output[_OUTPUT] = text
    session.items.clear()


def _tables(session: pytest.Session) -> list[tuple[Settings, list[pytest.Item]]]:
    """The settings of each table, with its seeded tests that run."""
    run = session.config.stash[RUN]
    by_table: dict[int, tuple[Settings, list[pytest.Item]]] = {}
    for item in session.items:
        if is_seeded(item) and not is_skipped(item):
            settings = run.settings_of(item)
            by_table.setdefault(id(settings), (settings, []))[1].append(item)
    return [*by_table.values()]


def _errors_in_table(
    session: pytest.Session, settings: Settings, seeded: Sequence[pytest.Item]
) -> list[tuple[SeedDbError, str]]:
    """What is wrong with the tests of one table, and in which test."""
    from pytest_seeddb.plugin.clashes import check_database, overrides

    run = session.config.stash[RUN]
    wishes: list[tuple[Wish, str]] = []
    errors: list[tuple[SeedDbError, str]] = []
    for item in seeded:
        try:
            wishes.append((_wish(item, settings), item.nodeid))
            if is_given_a_database(item):
                check_database(item)
        except SeedDbError as error:
            errors.append((error, item.nodeid))
    if any(overrides(item, name) for item in seeded for name in ("seeddb_settings", "seeddb_plan")):
        return errors  # the table says little
    try:
        _check_engines(settings)
        if not all(overrides(item, "seeddb_server") for item in seeded):
            run.start_ahead(settings, session.config)
        plan = run.plans.of(settings)
    except SeedDbError as error:
        return [*errors, (error, "")]
    for wish, nodeid in wishes:
        try:
            run.plan(wish, settings, plan)
        except SeedDbError as error:
            errors.append((error, nodeid))
    return errors


def raise_usage_error_of(workeroutput: dict[str, str]) -> None:
    """Raise in the controller what an xdist worker's check has found.

    Raises:
        pytest.UsageError: Something is wrong.
    """
    if text := workeroutput.get(_OUTPUT):
        raise pytest.UsageError(text)


def _texts(errors: Sequence[tuple[SeedDbError, str]]) -> Iterator[str]:
    """The errors' texts. Many tests may have one marker: the first is named, and the others are counted."""
    alike: dict[str, list[str]] = {}
    first: dict[str, SeedDbError] = {}
    for error, nodeid in errors:
        text = str(error.with_source("" if error.source == nodeid else error.source))
        alike.setdefault(text, []).append(nodeid)
        first.setdefault(text, error)
    for text, (nodeid, *others) in alike.items():
        test = f"{nodeid} and {len(others)} more" if others else nodeid
        source = first[text].source
        yield str(first[text].with_source(", ".join(filter(None, ("" if source == nodeid else source, test)))))


def _wish(item: pytest.Item, settings: Settings) -> Wish:
    """What the test's markers ask for, which must be the same for all that share a database."""
    wish, scope = wish_of(item), settings.scope
    if scope == "package":
        place = package_of(item)
    else:
        place = {
            "function": None,
            "class": item.getparent(pytest.Class),
            "module": item.getparent(pytest.Module),
            "session": item.getparent(pytest.Session),
        }[scope]
    if place is None or wish == wish_of(place):
        return wish
    if scope in {"session", "package"}:
        remedy = f"give all tests of the {scope} the same marker, or choose a smaller scope: module, class or function"
    else:
        by = "pytestmark in it" if scope == "module" else "above it"
        remedy = f"mark the whole {scope} ({by}), or move the test to another"
    raise ConfigError(
        f"A test's marker differs from that of its {scope}, which shares one database",
        saw=f"{wish.shown} on the test, {wish_of(place).shown} on the {scope}",
        source=f"scope = {scope!r}, {settings.source('scope')}",
        remedy=remedy,
    )


def _check_engines(settings: Settings) -> None:
    from pytest_seeddb.application import imports

    for key in ("engines", "session"):
        for path in getattr(settings, key):
            if path != "all":
                imports.check(path, source=settings.source(key), root=settings.root)
