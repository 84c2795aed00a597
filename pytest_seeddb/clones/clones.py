"""Clones: a database of its own for each test, from a template, in milliseconds."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING

from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.naming import clone_name
from pytest_seeddb.templates.registry import drop_oldest_kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.clones.disposal import Disposal
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.admin import Admin
    from pytest_seeddb.templates.templates import Template


@dataclass(frozen=True)
class Clone:
    """A database made from a template, leased to one test at a time."""

    name: str
    address: Address
    template: Template


class Clones:
    """The clones of one lease.

    Lifetime: a clone lives until `discard`, or until its worker is gone and the next run sweeps.
    """

    def __init__(self, admin: Admin, lease: str, disposal: Disposal) -> None:
        self.made = 0
        self.seconds = 0.0
        self._admin = admin
        self._lease = lease
        self._disposal = disposal
        self._numbers = count(1)
        self._counting = threading.Lock()
        self._living: dict[str, Clone] = {}

    def make(self, template: Template, admin: Admin | None = None) -> Clone:
        """A new clone of the template, made through ``admin`` where another thread makes it.

        Raises:
            ServerError: The server refused it; there is no new database then.
        """
        name = clone_name(self._lease, next(self._numbers))
        started = perf_counter()
        with server_errors("The clone for a test could not be made", self._admin.address):
            template.carried.clone(admin or self._admin, template.name, name, template.record.strategy)
        with self._counting:
            self.made += 1
            self.seconds += perf_counter() - started
        clone = self._living[name] = Clone(name, self._admin.address.with_database(name), template)
        return clone

    def discard(self, clone: Clone) -> None:
        """Give the clone up; it is dropped off the caller's path, whoever is still connected."""
        self._living.pop(clone.name, None)
        self._disposal.drop(clone.name)

    @contextmanager
    def lent(self, template: Template) -> Iterator[Clone]:
        """A new clone of the template for a block."""
        clone = self.make(template)
        try:
            yield clone
        finally:
            self.discard(clone)

    def keep(self, clone: Clone, name: str) -> None:
        """Let the clone stay on the server under another name, after this lease and after this run."""
        with server_errors("The database of a failed test could not be kept", self._admin.address):
            self._admin.refuse_connections(clone.name)
            self._admin.evict(clone.name)
            self._admin.rename(clone.name, name)
            self._admin.admit_connections(name)
        self._living.pop(clone.name, None)
        self._disposal.do(drop_oldest_kept)

    def discard_all(self) -> None:
        """Give up every clone that nobody gave up."""
        for clone in tuple(self._living.values()):
            self.discard(clone)

    def renew(self, clone: Clone) -> None:
        """Put the seeded state back under the clone's own name. Every connection to it is ended.

        What was there before is renamed away first, so that only two renames and one clone are
        waited for, not the drop.
        """
        with server_errors("The clone of a test could not be reset", self._admin.address):
            fresh = self.make(clone.template)
            away = clone_name(self._lease, next(self._numbers))
            self._admin.refuse_connections(clone.name)
            self._admin.evict(clone.name)
            self._admin.rename(clone.name, away)
            self._disposal.drop(away)
            self._admin.rename(fresh.name, clone.name)
            del self._living[fresh.name]
