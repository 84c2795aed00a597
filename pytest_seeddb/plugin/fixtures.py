"""The fixture chain: settings → server → plan → template → clone → fixture.

The session fixtures are small, and made to be overridden in a ``conftest.py``. The per-test ones have the scope that
the settings name. Every pytest run imports this, so it imports nothing heavy.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.plugin.markers import Wish, wish_of
from pytest_seeddb.plugin.package_scope import package_of
from pytest_seeddb.plugin.run import (
    DATABASE,
    DISABLED,
    ISOLATION,
    RUN,
    check_settings,
    is_enabled,
    is_given_a_database,
    is_seeded,
    is_skipped,
)
from pytest_seeddb.plugin.teardown import settle_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import psycopg
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

    from pytest_seeddb.clones.database import SeededDatabase
    from pytest_seeddb.clones.worker import Worker
    from pytest_seeddb.plan.plan import Plan
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.settings.settings import Scope, Settings
    from pytest_seeddb.templates.templates import Template

    DatabaseFactory = Callable[..., AbstractContextManager[SeededDatabase]]


_XDIST_RUN: Final = "PYTEST_XDIST_TESTRUNUID"
"""The variable with the run's id, which all xdist workers have in common."""

# -- the session's chain -------------------------------------------------------------------------


@pytest.fixture(scope="session")
def seeddb_settings(pytestconfig: pytest.Config) -> Settings:
    """The settings of the run. Override it with ``return seeddb_settings.replace(...)``."""
    return pytestconfig.stash[RUN].settings


@pytest.fixture(scope="session")
def seeddb_server(seeddb_settings: Settings, pytestconfig: pytest.Config) -> Iterator[Server]:
    """The running PostgreSQL, for the session."""
    if not is_enabled(pytestconfig):  # for a test that asks for a fixture while it runs
        pytest.skip(DISABLED)
    check_settings(seeddb_settings)
    with pytestconfig.stash[RUN].open_server(seeddb_settings) as server:
        yield server
        pytestconfig.stash[RUN].leave()


@pytest.fixture(scope="session")
def seeddb_plan(seeddb_settings: Settings, pytestconfig: pytest.Config) -> Plan:
    """The plan of the settings' profile."""
    check_settings(seeddb_settings)
    return pytestconfig.stash[RUN].plans.of(seeddb_settings)


@pytest.fixture(scope="session")
def _seeddb_around_builds() -> Callable[[], AbstractContextManager[object]]:
    """What makes a context for each build; another plugin may need one."""
    return nullcontext


@pytest.fixture(scope="session")
def _seeddb_worker(
    seeddb_settings: Settings,
    seeddb_server: Server,
    _seeddb_around_builds: Callable[[], AbstractContextManager[object]],
    pytestconfig: pytest.Config,
) -> Iterator[Worker]:
    from pytest_seeddb.clones.pool import CloneOptions
    from pytest_seeddb.clones.support import build_support, data_opener, dumps_for
    from pytest_seeddb.clones.worker import Worker
    from pytest_seeddb.plugin.terminal import TerminalProgress

    run = pytestconfig.stash[RUN]
    xdist_run = os.environ.get(_XDIST_RUN, "")
    # Tells this run from others: all of xdist's workers have the same, and one of them builds.
    token = (xdist_run or os.urandom(8).hex()) if seeddb_settings.reseed else ""
    xdist_worker: str = getattr(pytestconfig, "workerinput", {}).get("workerid", "master")
    form = seeddb_settings.clone_name.replace("{worker}", xdist_worker)
    support = build_support(TerminalProgress(pytestconfig), _seeddb_around_builds, run.plans)
    worker = Worker(
        seeddb_server,
        token=token,
        run=xdist_run,
        options=CloneOptions(seeddb_settings.reset, form),
        support=replace(support, open_data=data_opener(seeddb_server, seeddb_settings)),
        dumps=dumps_for(seeddb_server, seeddb_settings),
    )
    run.join(worker, seeddb_settings)
    try:
        yield worker
        settle_now(pytestconfig)
    finally:
        worker.finish()


@pytest.fixture(scope="session")
def seeddb_template(_seeddb_worker: Worker, seeddb_plan: Plan, pytestconfig: pytest.Config) -> Template:
    """The template of the plan, built unless there is one."""
    return pytestconfig.stash[RUN].note_template(_seeddb_worker.template(seeddb_plan))


@pytest.fixture(scope="session")
def seeded_db_factory(
    seeddb_settings: Settings, _seeddb_worker: Worker, seeddb_plan: Plan, pytestconfig: pytest.Config
) -> DatabaseFactory:
    """What makes seeded databases for any scope.

    ``with seeded_db_factory("minimal", stores=2) as database: ...``

    Takes a profile, ``isolation=`` and seed parameters, as the marker does. The database lives as
    long as the block.
    """
    from pytest_seeddb.clones.activation import activate
    from pytest_seeddb.plugin.outside import OUTSIDE

    @contextmanager
    def factory(
        profile: str | None = None, *, isolation: str = "clone", **parameters: object
    ) -> Iterator[SeededDatabase]:
        try:
            plan = pytestconfig.stash[RUN].plan(Wish(profile, None, parameters), seeddb_settings, seeddb_plan)
        except SeedDbError as error:
            source = error.source.replace("the marker: seeded(", "the call: seeded_db_factory(")
            raise error.with_source(source) from None
        template, beside = _seeddb_worker.template(plan), _seeddb_worker.beside(plan)
        askers = pytestconfig.stash.get(OUTSIDE, None)
        with (
            _seeddb_worker.database(template, isolation, seeddb_settings.env, beside) as database,
            askers.block() if askers else nullcontext(),
        ):
            database.activation = partial(activate, seeddb_settings)
            yield database

    return factory


# -- per test, or per scope of the settings ------------------------------------------------------


def _scope(fixture_name: str, config: pytest.Config) -> Scope:
    """The scope in the settings; pytest asks once, when it registers the fixtures."""
    del fixture_name
    run = config.stash[RUN]
    return (run.registering or run.settings).scope


@pytest.fixture(scope=_scope)
def seeded_db(
    request: pytest.FixtureRequest, seeddb_settings: Settings, _seeddb_worker: Worker
) -> Iterator[SeededDatabase]:
    """A private database, migrated and seeded. The application's engines and variables point at it."""
    from pytest_seeddb.clones.activation import activate
    from pytest_seeddb.plugin.factories import factories_on

    wish = wish_of(_place(request))
    run = request.config.stash[RUN]
    template, beside = run.templates(wish, seeddb_settings, request)
    isolation = request.node.stash[ISOLATION] = wish.isolation or seeddb_settings.isolation
    with ExitStack() as stack:
        database = stack.enter_context(_seeddb_worker.database(template, isolation, seeddb_settings.env, beside))
        with activate(seeddb_settings, database), factories_on(database, request):
            request.node.stash[DATABASE] = database
            database.activation = partial(activate, seeddb_settings)
            yield database
        run.unsettled.append((request.node, _table(request), database, stack.pop_all()))


def _table(request: pytest.FixtureRequest) -> Settings:
    """The settings of the test's table, also where the scope is the session."""
    return request.config.stash[RUN].settings_of(request._pyfuncitem)  # noqa: SLF001 - pytest shows the test nowhere else


def _place(request: pytest.FixtureRequest) -> pytest.Item | pytest.Collector:
    """The test, or what shares a database with it; for pytest itself a plugin's package is the session."""
    place: pytest.Item | pytest.Collector = request.node
    if request.scope == "package":
        place = package_of(request._pyfuncitem) or place  # noqa: SLF001 - pytest shows the test nowhere else
    return place


@pytest.fixture(autouse=True, scope=_scope)
def _seeddb_activation(request: pytest.FixtureRequest) -> None:
    """Give marked tests their database before their own fixtures run, although they ask for none."""
    if is_enabled(request.config) and _has_seeded(request):
        request.getfixturevalue("seeded_db")


@pytest.fixture(autouse=True)
def _seeddb_draws(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let what a seeded test draws depend on the test alone. Runs after `_seeddb_activation`, as in the alphabet."""
    if not is_enabled(request.config) or not is_seeded(request.node):
        yield
        return
    from pytest_seeddb.plugin.factories import own_draws

    settings: Settings = request.getfixturevalue("seeddb_settings")
    with own_draws(request, settings.random_seed):
        yield


def _has_seeded(request: pytest.FixtureRequest) -> bool:
    place = _place(request)
    if isinstance(place, pytest.Item):
        return is_given_a_database(place)
    kind, table, run = type(place), _table(request), request.config.stash[RUN]
    within = package_of if request.scope == "package" else lambda item: item.getparent(kind)
    items = (item for item in request.session.items if within(item) is place and run.settings_of(item) is table)
    return any(is_given_a_database(item) and not is_skipped(item) for item in items)


@pytest.fixture(scope=_scope)
def seeded_url(seeded_db: SeededDatabase) -> str:
    """The database's URL, ``postgresql://...``."""
    return seeded_db.url


@pytest.fixture(scope=_scope)
def seeded_engine(seeded_db: SeededDatabase) -> Iterator[Engine]:
    """A SQLAlchemy engine on the database (psycopg 3); its pool is emptied at the end."""
    from pytest_seeddb.clones.engines import open_engine

    with open_engine(seeded_db) as engine:
        yield engine


@pytest.fixture(scope=_scope)
def seeded_connection(seeded_db: SeededDatabase, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    """A psycopg connection to the database, closed at the end.

    With ``isolation="rollback"`` it is the one of ``seeded_session`` and ``seeded_engine``.
    """
    if seeded_db.isolation == "rollback":
        from pytest_seeddb.clones.engines import driver_connection

        yield driver_connection(request.getfixturevalue("seeded_engine"))
    else:
        from pytest_seeddb.servers.database_errors import server_errors

        with server_errors("The connection for a test could not be made", seeded_db.own_address):
            connection = seeded_db.connect()
        yield connection


@pytest.fixture(scope=_scope)
def seeded_session(seeded_engine: Engine, seeded_db: SeededDatabase, seeddb_settings: Settings) -> Iterator[Session]:
    """A SQLAlchemy session on the database; its commits are real unless the isolation is ``rollback``.

    Its class is the application's own, where the settings name it; see the setting ``session``.
    """
    from pytest_seeddb.application.sessions import new_session

    with new_session(seeddb_settings, seeded_engine) as session:
        seeded_db.before_reset(session.close)
        yield session


@pytest.fixture(scope=_scope)
def seeded_async_engine(seeded_db: SeededDatabase) -> Iterator[AsyncEngine]:
    """An async SQLAlchemy engine on the database (psycopg 3), for whichever event loop runs the test."""
    from pytest_seeddb.clones.engines import open_async_engine

    with open_async_engine(seeded_db) as engine:
        yield engine


@pytest.fixture(scope=_scope)
def seeded_async_session(
    seeded_async_engine: AsyncEngine, seeded_db: SeededDatabase, seeddb_settings: Settings
) -> Iterator[AsyncSession]:
    """An async SQLAlchemy session on the database, with ``expire_on_commit=False`` unless the application's says more.

    Its class is the application's own, as that of ``seeded_session``.
    """
    from pytest_seeddb.application.sessions import new_async_session

    session = new_async_session(seeddb_settings, seeded_async_engine)
    # Closing it would need the event loop; its connection is ended with the engine's.
    seeded_db.before_reset(session.sync_session.expunge_all)
    yield session
    session.sync_session.expunge_all()
