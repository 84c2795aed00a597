"""The clones that Django's tests share: one that Django has between tests, and one that stays connected."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.django import DEFAULT, KeptRedirection, redirect_django
from pytest_seeddb.clones.activation import activate
from pytest_seeddb.plugin.factories import counting_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pytest_seeddb.application.django import DjangoRedirection
    from pytest_seeddb.application.roles import Roles
    from pytest_seeddb.clones.database import SeededDatabase
    from pytest_seeddb.clones.pool import Leased
    from pytest_seeddb.clones.worker import Worker
    from pytest_seeddb.plan.plan import Plan
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.templates import Template

_ATTEMPTS: Final = 3
"""How often a clone is tried to which another client connects while Django does."""
_TESTS: Final = 64
"""How many tests a connected clone serves before it is settled: each may have left dead rows."""


class Base:
    """A clone of the migrated template for each of Django's databases, for fixtures wider than a test.

    A conftest's own ``django_db_setup`` loads its fixtures there, and a fixture of a module its rows. Tests start from
    the template itself as long as nothing is written, and else from a copy of what was written.

    Lifetime: the session.
    """

    def __init__(self, worker: Worker, plan: Plan) -> None:
        self._worker = worker
        plans = {DEFAULT: plan, **{alias: plan.without_seeds for alias, plan in worker.siblings(plan).items()}}
        self._templates = {alias: worker.template(plan) for alias, plan in plans.items()}
        self._leased = {alias: worker.take(template) for alias, template in self._templates.items()}
        self._redirection: DjangoRedirection | None = None

    @contextmanager
    def activate(self) -> Iterator[None]:
        """Point Django at it."""
        addresses = {alias: leased.clone.address for alias, leased in self._leased.items()}
        with addresses[DEFAULT].alone(), redirect_django(addresses) as self._redirection:
            yield

    def templates(self) -> tuple[Template, dict[str, Template]]:
        """What the next test starts from: the default database's template, and those of the others."""
        if self._redirection is not None and self._redirection.was_used():
            for alias, leased in self._leased.items():
                if leased.observer is None or leased.changes({}):
                    self._templates[alias] = self._worker.freeze(leased)
        beside = {**self._templates}
        return beside.pop(DEFAULT), beside

    def close(self) -> None:
        """Give the clones up."""
        for leased in self._leased.values():
            self._worker.give_back(leased)


@dataclass
class _Connected:
    leased: Leased
    redirection: KeptRedirection
    roles: Roles
    tests: int = 0
    backend: int = 0
    """The process number of its connection, once that is watched; 0 where it is not."""


class AtomicClones:
    """Clones for tests that Django rolls back: one for each template stays connected, as without this plugin.

    Most tests of a Django project commit nothing. Each has the clone to itself, in a transaction that Django
    rolls back, so that settling would find nothing to do. Before the next test the server is asked whether nothing was
    committed and nobody else is connected. In doubt, and now and then because of the dead rows that a rollback leaves,
    the clone is settled like any other.

    Lifetime: until `close`.
    """

    def __init__(
        self, worker: Worker, settings: Settings, unblocked: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._unblocked = unblocked
        """Makes a context in which Django may connect."""
        self._connected: dict[str, _Connected] = {}

    @contextmanager
    def clone(self, template: Template) -> Iterator[SeededDatabase]:
        """A clone in the seeded state for one test, with Django's connection to it open."""
        started = perf_counter()
        connected = self._connected.pop(template.name, None)
        if connected is not None and not self._worker.is_as_watched(connected.leased, connected.backend):
            self._give_back(connected)
            connected = None
        connected = connected or self._connect(template)
        database = self._worker.database_on(connected.leased, self._settings.env)
        database.roles = connected.roles
        database.seconds = perf_counter() - started
        is_watched, connected.backend = bool(connected.backend), 0
        given_away: bool = True
        try:
            with connected.redirection.on() as redirection:
                database.before_reset(redirection.close_connections)
                database.before_changes(redirection.ask)
                with activate(self._settings, database, nullcontext()), counting_on(database):
                    yield database
                database.close_connections()
                connected.tests += 1
                given_away = database.given_away
                if is_watched and not given_away and connected.tests < _TESTS:
                    connected.backend = connected.redirection.backend()
        finally:
            if connected.backend:
                self._connected[template.name] = connected
            else:
                self._give_back(connected, given_away=given_away)

    def _connect(self, template: Template) -> _Connected:
        """A clone with Django's connection; watched unless others connect to every clone, too."""
        for attempt in range(_ATTEMPTS):
            leased = self._worker.take(template)
            roles = self._worker.database_on(leased, ()).application_roles(self._settings)
            connected = _Connected(leased, KeptRedirection(leased.clone.address, roles), roles)
            if leased.observer is None:
                break
            with connected.redirection.on(), self._unblocked():
                backend = connected.redirection.connect()
            if leased.observer.watch(backend):
                connected.backend = backend
                break
            if attempt + 1 < _ATTEMPTS:
                self._give_back(connected)
        return connected

    def _give_back(self, connected: _Connected, *, given_away: bool = False) -> None:
        connected.redirection.close()
        self._worker.give_back(connected.leased, given_away=given_away)

    def close(self) -> None:
        """Settle the clones that are connected."""
        while self._connected:
            self._give_back(self._connected.popitem()[1])
