"""pytest-django's databases come from templates, and are settled instead of flushed.

Registered beside pytest-django where seeded tests are enabled, after it whatever the order in which the
two were loaded. Its fixtures are used as they are, but for two: ``django_db_setup`` makes no test
database, and what stands behind ``db`` and ``transactional_db`` gives each test a clone first. A test
that is marked ``seeded`` has the template with seeds, any other one that which is only migrated: the
database that pytest-django would have made.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.plugin.django.atomic import AtomicClones
from pytest_seeddb.plugin.django.base import Base
from pytest_seeddb.plugin.factories import counting_on
from pytest_seeddb.plugin.markers import NAME, uses_a_fixture, wish_of
from pytest_seeddb.plugin.run import DATABASE, ELSEWHERE, RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pytest_seeddb.clones.database import SeededDatabase
    from pytest_seeddb.clones.worker import Worker
    from pytest_seeddb.plan.plan import Plan
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.templates import Template

_CLASSES: Final = pytest.StashKey[dict[type, "SeededDatabase"]]()
"""The databases of Django's classes, each shared by the tests of one."""

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
    """Say of each test where its database comes from, if not from ``seeded_db``.

    A class of Django's has one for its tests, and a test that Django rolls back one that stays connected.
    """
    for item in items:
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
    django_db_modify_db_settings: None,  # noqa: ARG001 - likewise
    _seeddb_base: Base,
) -> Iterator[None]:
    """Point Django at a clone of the migrated template; databases that are not PostgreSQL's are made as ever.

    What a conftest's own ``django_db_setup`` writes into it, every unmarked test finds.
    """
    with ExitStack() as stack:
        for each in (django_db_blocker.unblock(), _others(request), _seeddb_base.activated()):
            stack.enter_context(each)
        stack.enter_context(_settled_instead_of_flushed(request))
        with django_db_blocker.block():
            yield


@pytest.fixture(scope="session")
def _seeddb_base(seeddb_plan: Plan, _seeddb_worker: Worker) -> Iterator[Base]:
    base = Base(_seeddb_worker, seeddb_plan.without_seeds)
    yield base
    base.close()


@contextmanager
def _others(request: pytest.FixtureRequest) -> Iterator[None]:
    """Test databases of other vendors, by Django."""
    from django.db import connections
    from django.test.utils import setup_databases, teardown_databases

    from pytest_seeddb.application.django import is_postgres

    wanted = [alias for alias in connections.settings if not is_postgres(alias)]
    if not wanted:
        yield
        return
    verbosity = request.config.option.verbose
    with _without_dependencies(wanted):
        made = setup_databases(verbosity=verbosity, interactive=False, aliases=wanted, serialized_aliases=set())
    try:
        yield
    finally:
        teardown_databases(made, verbosity=verbosity)


@contextmanager
def _without_dependencies(aliases: list[str]) -> Iterator[None]:
    """Django would make the default database first, on which the others depend unless they say otherwise."""
    from django.db import connections

    tests = [connections.settings[alias]["TEST"] for alias in aliases]
    before = [dict(each) for each in tests]
    for each in tests:
        each["DEPENDENCIES"] = [alias for alias in each.get("DEPENDENCIES", []) if alias in aliases]
    try:
        yield
    finally:
        for each, was in zip(tests, before, strict=True):
            each.clear()
            each.update(was)


@contextmanager
def _settled_instead_of_flushed(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test that commits nothing is flushed: its clone is settled, and a class's clone is put back.

    Sequences are not set to 1 before it either: they stand where the template left them.
    """
    from django.test import TransactionTestCase

    from pytest_seeddb.application.django import is_postgres

    flush, reset_sequences = TransactionTestCase._fixture_teardown, TransactionTestCase._reset_sequences  # noqa: SLF001 - Django names them so

    def settle(self: Any) -> None:  # noqa: ANN401 - a TransactionTestCase
        database = _of_class(request.session, type(self))
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

    TransactionTestCase._fixture_teardown = settle  # noqa: SLF001 - likewise
    TransactionTestCase._reset_sequences = staticmethod(reset)  # noqa: SLF001 - likewise
    try:
        yield
    finally:
        TransactionTestCase._fixture_teardown = flush  # noqa: SLF001 - likewise
        TransactionTestCase._reset_sequences = staticmethod(reset_sequences)  # noqa: SLF001 - likewise


def _of_class(session: pytest.Session, cls: type) -> SeededDatabase | None:
    return session.stash.get(_CLASSES, {}).get(cls)


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
    if is_django_unittest(item) or not (marker or "db" in names) or names & _COMMITS or uses_a_fixture(names):
        return False
    transaction, reset_sequences, databases, *_ = django_db(*marker.args, **marker.kwargs) if marker else django_db()
    function = getattr(item, "function", None)
    plain = not (transaction or reset_sequences or databases or inspect.iscoroutinefunction(function))
    wish = wish_of(item)
    settings = item.config.stash[RUN].settings
    return plain and settings.scope == "function" and (wish.isolation or settings.isolation) == "clone" and _is_alone()


def django_db(
    transaction: bool = False,
    reset_sequences: bool = False,
    databases: object = None,
    *more: object,
    **others: object,
) -> tuple[object, ...]:
    """The arguments of the marker, by position."""
    return transaction, reset_sequences, databases, *more, *others


def _is_alone() -> bool:
    """Whether the project has one PostgreSQL database, without a pool of connections."""
    from django.db import connections

    from pytest_seeddb.application.django import DEFAULT, postgres_aliases

    return postgres_aliases() == (DEFAULT,) and not connections.settings[DEFAULT]["OPTIONS"].get("pool")


# -- functions ------------------------------------------------------------------------------------


@pytest.fixture
def _django_db_helper(
    django_db_setup: None,
    _seeddb_django: None,
    _django_db_helper: None,
) -> None:
    """What ``db``, ``transactional_db`` and the marker ``django_db`` lead to, on a clone of the test's own."""


@pytest.fixture
def _seeddb_django(
    request: pytest.FixtureRequest,
    seeddb_settings: Settings,
    _seeddb_base: Base,
    _seeddb_worker: Worker,
    _seeddb_atomic: AtomicClones,
) -> Iterator[None]:
    """A clone for a test that uses Django's database and no seeded one."""
    if is_django_unittest(request.node):
        yield
    elif request.node.stash.get(ATOMIC, False):
        with _seeddb_atomic.clone(_template_of(request, seeddb_settings, _seeddb_base)):
            yield
    elif request.node.get_closest_marker(NAME) is not None:
        request.getfixturevalue("seeded_db")
        yield
    else:
        with ExitStack() as stack:
            database = stack.enter_context(_migrated(seeddb_settings, _seeddb_worker, _seeddb_base))
            request.node.stash[DATABASE] = database
            yield
            request.config.stash[RUN].unsettled.append((request.node, database, stack.pop_all()))


def _template_of(request: pytest.FixtureRequest, settings: Settings, base: Base) -> Template:
    if request.node.get_closest_marker(NAME) is None:
        return base.templates()[0]
    return request.config.stash[RUN].templates(wish_of(request.node), settings, request)[0]


@pytest.fixture(scope="session")
def _seeddb_atomic(
    _seeddb_worker: Worker,
    seeddb_settings: Settings,
    _seeddb_around_builds: Callable[[], AbstractContextManager[object]],
) -> Iterator[AtomicClones]:
    clones = AtomicClones(_seeddb_worker, seeddb_settings, _seeddb_around_builds)
    yield clones
    clones.close()


def _migrated(settings: Settings, worker: Worker, base: Base) -> AbstractContextManager[SeededDatabase]:
    return _opened(settings, worker, *base.templates())


@contextmanager
def _opened(
    settings: Settings, worker: Worker, template: Template, beside: dict[str, Template]
) -> Iterator[SeededDatabase]:
    from pytest_seeddb.clones.activation import activated

    opened = worker.database(template, env=settings.env, beside=beside)
    with opened as database, activated(settings, database), counting_on(database):
        yield database


@pytest.fixture(autouse=True)
def _seeddb_django_unblocked(request: pytest.FixtureRequest) -> Iterator[None]:
    """A seeded test may use Django's database without asking for ``db``: its commits are real, and its own."""
    if request.node.get_closest_marker(NAME) is None:
        yield
        return
    _check(request.node)
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
    with _database_of_class(request) as database:
        known = request.session.stash.setdefault(_CLASSES, {})
        known[cls] = database
        try:
            yield
        finally:
            del known[cls]


def _database_of_class(request: pytest.FixtureRequest) -> AbstractContextManager[SeededDatabase]:
    settings: Settings = request.getfixturevalue("seeddb_settings")
    worker: Worker = request.getfixturevalue("_seeddb_worker")
    if request.node.get_closest_marker(NAME) is None:
        return _migrated(settings, worker, request.getfixturevalue("_seeddb_base"))
    return _opened(settings, worker, *request.config.stash[RUN].templates(wish_of(request.node), settings, request))


def _check(item: pytest.Item) -> None:
    """See that a seeded method of one of Django's classes has the class's own database.

    Raises:
        ConfigError: It is marked otherwise than its class.
    """
    cls = item.getparent(pytest.Class)
    if cls is None or not is_django_unittest(item) or item.get_closest_marker(NAME) is None:
        return
    if cls.get_closest_marker(NAME) is None or wish_of(item) != wish_of(cls):
        raise ConfigError(
            "The tests of a class of Django's share one database, and this one is marked otherwise than its class",
            saw=f"{wish_of(item).shown} on the test",
            source=item.nodeid,
            remedy="mark the class: @pytest.mark.seeded above it",
        )
