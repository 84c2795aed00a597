"""The database that Django has between tests: what is written there, the tests that follow find."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_seeddb.application.django import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.application.django import DjangoRedirection
    from pytest_seeddb.clones.pool import Leased
    from pytest_seeddb.clones.worker import Worker
    from pytest_seeddb.plan.plan import Plan
    from pytest_seeddb.templates.templates import Template


class Base:
    """A clone of the migrated template for each of Django's databases, for fixtures wider than a test.

    A conftest's own ``django_db_setup`` loads its fixtures there, and a fixture of a module its rows. As
    long as nobody writes, tests start from the template itself; else from a copy of what was written.

    Lifetime: the session.
    """

    def __init__(self, worker: Worker, plan: Plan) -> None:
        self._worker = worker
        self._templates = {DEFAULT: worker.template(plan)}
        self._templates |= {alias: worker.template(each.without_seeds) for alias, each in worker.siblings(plan).items()}
        self._leased = {alias: worker.take(template) for alias, template in self._templates.items()}
        self._redirection: DjangoRedirection | None = None

    @contextmanager
    def activated(self) -> Iterator[None]:
        """Point Django at it."""
        from pytest_seeddb.application.django import redirect_django

        addresses = {alias: leased.clone.address for alias, leased in self._leased.items()}
        with redirect_django(addresses) as self._redirection:
            yield

    def templates(self) -> tuple[Template, dict[str, Template]]:
        """What the next test starts from: the default database's template, and those of the others."""
        if self._redirection is not None and self._redirection.was_used():
            for alias, leased in self._leased.items():
                self._look(alias, leased)
        beside = {alias: each for alias, each in self._templates.items() if alias != DEFAULT}
        return self._templates[DEFAULT], beside

    def _look(self, alias: str, leased: Leased) -> None:
        if leased.observer is None or leased.changes():
            self._templates[alias] = self._worker.frozen_copy(leased)

    def close(self) -> None:
        """Give the clones up."""
        for leased in self._leased.values():
            self._worker.pool.give_back(leased)
