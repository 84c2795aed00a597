"""pytest-django's databases come from templates, and are settled instead of flushed.

Registered after pytest-django where seeded tests are enabled. Its fixtures are used as they are, except two:
``django_db_setup`` makes no test database, and the fixture behind ``db`` and ``transactional_db`` gives each test
a clone first. A test that is marked ``seeded`` has the template with seeds. Any other has the template that is only
migrated: the database that pytest-django would have made.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_seeddb.clones.activation import activate
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.plugin.clashes import uses_the_plugin
from pytest_seeddb.plugin.django.clones import AtomicClones, Base
from pytest_seeddb.plugin.factories import counting_on
from pytest_seeddb.plugin.markers import NAME, wish_of
from pytest_seeddb.plugin.run import DATABASE, ELSEWHERE, LENT, RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pytest_seeddb.clones.database import SeededDatabase
    from pytest_seeddb.clones.worker import Worker
    from pytest_seeddb.plan.plan import Plan
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.templates import Template

_CLASSES: Final = pytest.StashKey[dict[type, "SeededDatabase"]]()
"""The databases that the tests of Django's classes share, by class."""

ATOMIC: Final = pytest.StashKey[bool]()
"""Kept with a test that Django rolls back."""

_COMMITS: Final = {"transactional_db", "live_server", "django_db_reset_sequences"}
_NEEDLESS: Final = {
    "reuse_db": "--reuse-db",
    "create_db": "--create-db",
    "nomigrations": "--no-migrations",
}


def pytest_report_header(config: pytest.Config) -> str | None:
    """Name the options that have nothing to do any more."""
    given = [text for name, text in _NEEDLESS.items() if config.getoption(name, default=False)]
    if not given or config.get_verbosity() < 0:
        return None
    are = "is" if len(given) == 1 else "are"
    return f"seeddb: {', '.join(given)} {are} not needed: databases come from a template that follows the migrations"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note for each test whether its database comes from elsewhere than ``seeded_db``.

    The tests of a Django class share one, and tests that Django rolls back have one that stays connected.
    """
    for item in items:
        if item.config.stash[RUN].settings_of(item).migrations != "django":
            continue
        item.stash[ATOMIC] = is_atomic(item)
        item.stash[ELSEWHERE] = item.stash[ATOMIC] or is_django_unittest(item)


@pytest.fixture(scope="session")
def _seeddb_around_builds(django_db_blocker: Any) -> Callable[[], AbstractContextManager[object]]:  # noqa: ANN401 - pytest-django's
    """A build may reach the database whichever test asked for it."""
    unblock: Callable[[], AbstractContextManager[object]] = django_db_blocker.unblock
    return unblock


@pytest.fixture(scope="session")
def django_db_setup(
    request: pytest.FixtureRequest,
    django_test_environment: None,  # noqa: ARG001 - asked for because pytest-django's own does
    django_db_blocker: Any,  # noqa: ANN401 - as above
    django_db_modify_db_settings: None,  # noqa: ARG001 - as above
    _seeddb_base: Base,
) -> Iterator[None]:
    """Point Django at a clone of the migrated template; databases that are not PostgreSQL's are made as ever.

    What a conftest's own ``django_db_setup`` writes into it, every unmarked test finds.
    """
    with (
        django_db_blocker.unblock(),
        _other_vendors(request),
        _seeddb_base.activate(),
        _settling(request.session),
        django_db_blocker.block(),
    ):
        yield


@pytest.fixture(scope="session")
def _seeddb_base(seeddb_plan: Plan, _seeddb_worker: Worker) -> Iterator[Base]:
    base = Base(_seeddb_worker, seeddb_plan.without_seeds)
    yield base
    base.close()


@contextmanager
def _other_vendors(request: pytest.FixtureRequest) -> Iterator[None]:
    """Test databases of other vendors, by Django."""
    from django.db import connections
    from django.test.utils import setup_databases, teardown_databases

    from pytest_seeddb.application.django import is_postgres

    aliases = [alias for alias in connections.settings if not is_postgres(alias)]
    verbosity = request.config.option.verbose
    with pytest.MonkeyPatch.context() as patch:
        for test in (connections.settings[alias]["TEST"] for alias in aliases):
            # Else Django makes the default database first, on which the others depend unless they say otherwise.
            dependencies = [alias for alias in test.get("DEPENDENCIES", []) if alias in aliases]
            patch.setitem(test, "DEPENDENCIES", dependencies)
        made = aliases and setup_databases(verbosity, interactive=False, aliases=aliases, serialized_aliases=set())
    try:
        yield
    finally:
        teardown_databases(made, verbosity)


@contextmanager
def _settling(session: pytest.Session) -> Iterator[None]:
    """After a test that commits nothing is flushed: its clone is settled, and a class's clone is put back.

    Sequences are not set to 1 before it either: they stay where the template left them.
    """
    from django.test import TransactionTestCase

    from pytest_seeddb.application.django import is_postgres

    case: Any = TransactionTestCase
    flush, reset_sequences = case._fixture_teardown, case._reset_sequences  # noqa: SLF001 - Django's names

    def settle(self: Any) -> None:  # noqa: ANN401 - a TransactionTestCase
        database = session.stash.get(_CLASSES, {}).get(type(self))
        if database is not None:
            database.reset()
        others = [alias for alias in self._databases_names(include_mirrors=False) if not is_postgres(alias)]
        if others:
            self._databases_names = lambda **_options: others
            flush(self)
            del self._databases_names

    def reset(alias: str) -> None:
        if not is_postgres(alias):
            reset_sequences(alias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(case, "_fixture_teardown", settle)
        patch.setattr(case, "_reset_sequences", staticmethod(reset))
        yield


# -- which tests ---------------------------------------------------------------------------------


def is_django_unittest(node: pytest.Item | pytest.Collector) -> bool:
    """Whether the test, or the class, is a ``SimpleTestCase`` of Django's or below it."""
    from django.test import SimpleTestCase

    cls = getattr(node, "cls", None) or getattr(node, "obj", None)
    return isinstance(cls, type) and issubclass(cls, SimpleTestCase)


def is_atomic(item: pytest.Item) -> bool:
    """Whether Django keeps the test in a transaction and rolls it back, and it wants nothing but that.

    Not a coroutine: its queries run in other threads, outside of the transaction.
    """
    names = set(getattr(item, "fixturenames", ()))
    marker = item.get_closest_marker("django_db")
    if is_django_unittest(item) or not (marker or "db" in names) or names & _COMMITS or uses_the_plugin(item):
        return False
    transaction, reset_sequences, databases = _django_db(*marker.args, **marker.kwargs) if marker else _django_db()
    if transaction or reset_sequences or databases or inspect.iscoroutinefunction(getattr(item, "function", None)):
        return False
    settings = item.config.stash[RUN].settings_of(item)
    if settings.scope != "function" or (wish_of(item).isolation or settings.isolation) != "clone":
        return False
    from django.db import connections

    from pytest_seeddb.application.django import DEFAULT, postgres_aliases

    # One PostgreSQL database, without a pool of connections.
    return postgres_aliases() == (DEFAULT,) and not connections.settings[DEFAULT]["OPTIONS"].get("pool")


def _django_db(
    transaction: object = None,
    reset_sequences: object = None,
    databases: object = None,
    *_more: object,
    **_named: object,
) -> tuple[object, ...]:
    """The first arguments of the marker ``django_db``, which has the same parameters."""
    return transaction, reset_sequences, databases


# -- functions ------------------------------------------------------------------------------------


@pytest.fixture
def _django_db_helper(
    django_db_setup: None,
    _seeddb_django: None,
    _django_db_helper: None,
) -> None:
    """What ``db``, ``transactional_db`` and the marker ``django_db`` lead to, on a clone of the test's own."""


@pytest.fixture
def _seeddb_django(request: pytest.FixtureRequest, _seeddb_base: Base, _seeddb_atomic: AtomicClones) -> Iterator[None]:
    """A clone for a test that uses Django's database and no seeded one."""
    if is_django_unittest(request.node):
        yield
    elif request.node.stash.get(ATOMIC, False):
        with _lent(_seeddb_atomic.clone(_templates(request)[0]), request.node):
            yield
    elif request.node.get_closest_marker(NAME) is not None:
        request.getfixturevalue("seeded_db")
        yield
    else:
        with ExitStack() as stack:
            database = request.node.stash[DATABASE] = stack.enter_context(_open(request))
            yield
            run = request.config.stash[RUN]
            run.unsettled.append((request.node, run.settings_of(request.node), database, stack.pop_all()))


@pytest.fixture(scope="session")
def _seeddb_atomic(
    _seeddb_worker: Worker,
    seeddb_settings: Settings,
    _seeddb_around_builds: Callable[[], AbstractContextManager[object]],
) -> Iterator[AtomicClones]:
    clones = AtomicClones(_seeddb_worker, seeddb_settings, _seeddb_around_builds)
    yield clones
    clones.close()


def _templates(request: pytest.FixtureRequest) -> tuple[Template, dict[str, Template]]:
    """The templates with seeds for a marked test or class, else what Django has between tests."""
    if request.node.get_closest_marker(NAME) is None:
        base: Base = request.getfixturevalue("_seeddb_base")
        return base.templates()
    settings: Settings = request.getfixturevalue("seeddb_settings")
    return request.config.stash[RUN].templates(wish_of(request.node), settings, request)


@contextmanager
def _open(request: pytest.FixtureRequest) -> Iterator[SeededDatabase]:
    settings: Settings = request.getfixturevalue("seeddb_settings")
    worker: Worker = request.getfixturevalue("_seeddb_worker")
    template, beside = _templates(request)
    opened = worker.database(template, env=settings.env, beside=beside)
    with opened as database, activate(settings, database), counting_on(database):
        yield database


@contextmanager
def _lent(
    opened: AbstractContextManager[SeededDatabase], node: pytest.Item | pytest.Collector
) -> Iterator[SeededDatabase]:
    """A database that the run's report tells of, too."""
    with ExitStack() as stack:
        database = node.stash[LENT] = stack.enter_context(opened)
        try:
            yield database
        finally:
            del node.stash[LENT]
        with node.config.stash[RUN].settling(node.nodeid, database):
            stack.close()


@pytest.fixture(autouse=True)
def _seeddb_django_unblocked(request: pytest.FixtureRequest) -> Iterator[None]:
    """A seeded test may use Django's database without asking for ``db``: its commits are real, and its own."""
    item = request.node
    if item.get_closest_marker(NAME) is None:
        yield
        return
    cls = item.getparent(pytest.Class) if is_django_unittest(item) else None
    if cls is not None and (cls.get_closest_marker(NAME) is None or wish_of(item) != wish_of(cls)):
        raise ConfigError(
            "The tests of a Django class share one database, but this test's marker differs from that of its class",
            saw=f"{wish_of(item).shown} on the test",
            source=item.nodeid,
            remedy="mark the class: @pytest.mark.seeded above it",
        )
    with request.getfixturevalue("django_db_blocker").unblock():
        yield


# -- classes --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="class")
def _seeddb_django_class(request: pytest.FixtureRequest) -> Iterator[None]:
    """One clone for a ``TestCase`` class, which keeps it in a transaction, or a ``TransactionTestCase`` class."""
    cls = request.cls
    if cls is None or not is_django_unittest(request.node) or not cls.databases:
        yield
        return
    request.getfixturevalue("django_db_setup")
    with _lent(_open(request), request.node) as database:
        databases = request.session.stash.setdefault(_CLASSES, {})
        databases[cls] = database
        try:
            yield
        finally:
            del databases[cls]
