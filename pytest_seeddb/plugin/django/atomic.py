"""Clones for tests that Django rolls back: one stays connected from test to test, as without this plugin.

Most tests of a Django project commit nothing. Each has the clone to itself, in a transaction that Django
rolls back, so that settling it would look for what is not there. The server is asked whether it is so:
whether nothing was committed, and nobody else connected. In doubt, and now and then because of the dead
rows that a rollback leaves, the clone is settled like any other.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.django import KeptRedirection
from pytest_seeddb.clones.activation import activated
from pytest_seeddb.plugin.factories import counting_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pytest_seeddb.clones.pool import Leased
    from pytest_seeddb.clones.worker import Worker
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.templates import Template

_TESTS: Final = 64
"""How many tests a clone serves before it is settled: each may have left dead rows."""


@dataclass
class _Held:
    leased: Leased
    redirection: KeptRedirection
    tests: int = field(default=0)


class AtomicClones:
    """The clones that are held, one for each template at most.

    Lifetime: until `close`.

    Args:
        worker: Makes and drops them.
        settings: Name what else is pointed at them.
        unblocked: Makes a context in which Django may connect.
    """

    def __init__(
        self, worker: Worker, settings: Settings, unblocked: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._worker = worker
        self._unblocked = unblocked
        self._settings = settings
        self._held: dict[str, _Held] = {}

    @contextmanager
    def clone(self, template: Template) -> Iterator[None]:
        """A clone in the seeded state for one test, with Django's connection to it open."""
        held = self._held.pop(template.name, None) or self._new(template)
        database = self._worker.database_on(held.leased, self._settings.env)
        as_it_was = False
        try:
            with held.redirection.on() as redirection:
                if not held.tests and held.leased.observer is not None:
                    with self._unblocked():
                        held.leased.observer.watch(held.redirection.connect())
                database.before_reset(redirection.close_connections)
                with activated(self._settings, database, nullcontext()), counting_on(database):
                    yield
                database.close_connections()
                as_it_was = self._is_as_it_was(held)
        finally:
            if as_it_was:
                self._held[template.name] = held
            else:
                self._give_back(held)

    def _new(self, template: Template) -> _Held:
        leased = self._worker.take(template)
        return _Held(leased, KeptRedirection(leased.clone.address))

    def _is_as_it_was(self, held: _Held) -> bool:
        held.tests += 1
        backend = held.redirection.backend()
        if held.leased.observer is None or not backend or held.tests >= _TESTS:
            return False
        return self._worker.pool.is_as_watched(held.leased, backend)

    def _give_back(self, held: _Held) -> None:
        held.redirection.close()
        self._worker.pool.give_back(held.leased)

    def close(self) -> None:
        """Settle what is held."""
        while self._held:
            self._give_back(self._held.popitem()[1])
