"""factory_boy in seeded tests: a session on the test's database, sequences after its rows, reproducible draws."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_seeddb.plugin.run import ENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session

    from pytest_seeddb.clones.database import SeededDatabase

_PLAIN: Final = "seeded_session"
_ASYNC: Final = "seeded_async_session"
_ROOM: Final = pytest.StashKey["_Room"]()  # kept with the test, or with the scope that shares a database


@contextmanager
def factories_on(database: SeededDatabase, request: pytest.FixtureRequest) -> Iterator[None]:
    """For as long as the database is there, factories write to it, and count on from the template's rows.

    They write through ``seeded_session``, made when it is first needed; through ``seeded_async_session`` in a test that
    uses only that, and inside of ``run_sync``. Another thread has a session of its own. A factory keeps a session that
    is bound to this database itself; if the test uses neither fixture, also an application's that leads to it. Only the
    factory and the test commit.
    """
    from pytest_seeddb.seeds.factories import Source, redirect_factories

    room = request.node.stash[_ROOM] = _Room(database, request)
    source = Source(room.session, room.another, room.kept)
    with counting_on(database), redirect_factories(source):
        database.before_reset(room.close)
        try:
            yield
        finally:
            room.close()


@contextmanager
def counting_on(database: SeededDatabase) -> Iterator[None]:
    """For as long as the database is there, factories' sequences count on from the template's rows."""
    from pytest_seeddb.seeds.counters import sequences_from

    with sequences_from(database.template.record.numbering.after()) as counters:
        database.before_reset(counters.start_again)
        yield


@contextmanager
def own_draws(request: pytest.FixtureRequest, random_seed: int) -> Iterator[None]:
    """For one test, its node id decides what random generators draw; pytest-randomly's seed where that sets one."""
    from pytest_seeddb.seeds.randomness import own_iterators, own_randomness, seed_for

    for node in reversed(request.node.listchain()):
        if _ROOM in node.stash:
            node.stash[_ROOM].enter(request)
    with own_iterators():
        if request.config.getoption("randomly_reset_seed", default=False):
            yield
            return
        with own_randomness(seed_for(random_seed, request.node.nodeid)):
            yield


class _Room:
    """The sessions of the tests that share a database."""

    def __init__(self, database: SeededDatabase, request: pytest.FixtureRequest) -> None:
        self._database = database
        self._request = request
        self._known: dict[str, Any] = {}
        self._others: list[Session] = []

    def enter(self, request: pytest.FixtureRequest) -> None:
        """Another test uses it now."""
        self._request = request

    def session(self) -> Session | None:
        name = self._wanted()
        if name not in self._known:
            if self._request.node.stash.get(ENDING, False):
                return None  # pytest makes no more fixtures
            given = self._request.getfixturevalue(name)
            given = getattr(given, "sync_session", given)
            self._known[name] = given if hasattr(given, "flush") else self.another()  # a project's own of that name
        session: Session = self._known[name]
        return session

    def _wanted(self) -> str:
        used = {_PLAIN, _ASYNC}.intersection(self._request.fixturenames)
        if len(used) < 2:  # noqa: PLR2004 - both
            return next(iter(used), _PLAIN)
        from sqlalchemy.util import concurrency

        return _ASYNC if concurrency.in_greenlet() else _PLAIN

    def another(self) -> Session:
        from pytest_seeddb.application.sessions import new_session

        settings, engine = map(self._request.getfixturevalue, ("seeddb_settings", "seeded_engine"))
        self._others.append(new_session(settings, engine))
        return self._others[-1]

    def kept(self, wired: Callable[[], Any], model: object) -> Any:  # noqa: ANN401 - whatever the user wired
        from pytest_seeddb.application.redirection import bound_session, is_redirected

        bound = bound_session(wired, model)
        if bound is None:
            return None
        session, engine = bound
        database = self._database
        # Wired for this test, and not once for the application: to an engine of the fixtures, or one on their URL.
        if engine.dialect in database.dialects:
            return session
        if database.isolation == "rollback":
            return None
        if engine.url.database == database.own_address.database:
            return session
        if {_PLAIN, _ASYNC}.intersection(self._request.fixturenames):
            return None
        return session if is_redirected(engine, database.own_address) else None

    def close(self) -> None:
        for session in self._others:
            session.close()
