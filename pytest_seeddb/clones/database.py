"""What a test holds in its hands: its own seeded database."""

from __future__ import annotations

import datetime as dt
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_seeddb.application.environment import url_variables
from pytest_seeddb.clones.changes import report_now
from pytest_seeddb.clones.shared import writing
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.naming import kept_name
from pytest_seeddb.settings.converters import did_you_mean
from pytest_seeddb.settings.settings import ISOLATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import psycopg

    from pytest_seeddb.clones.changes import Changes, TableChange
    from pytest_seeddb.clones.pool import Leased
    from pytest_seeddb.clones.settle import Settlement
    from pytest_seeddb.clones.worker import Worker
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.templates.templates import Template


@dataclass(frozen=True)
class _Ways:
    """What a seeded database asks of whoever made it."""

    go_back: Callable[[], object]
    changes: Callable[[], Changes]


class SeededDatabase:
    """A migrated and seeded database that no other test sees.

    Lifetime: that of the scope in the settings, a test by default. Afterwards every connection to it
    is ended, and it is put back for another test or dropped. With ``isolation="rollback"`` or
    ``"readonly"`` it is shared with other tests of the worker, and a write from a connection of one's
    own is an error.

    Attributes:
        name: The database's name.
        isolation: ``clone``, ``rollback`` or ``readonly``.
        template: What it was made from.
        settlement: What became of it after the test; ``None`` before, and where it was kept or is shared.
        lasts: Whether its server outlives the run, so that it can be kept for somebody to look at.
        beside: A Django project's further databases, by alias, each a clone of its own.
    """

    def __init__(
        self,
        address: Address,
        template: Template,
        isolation: str,
        env: tuple[str, ...],
        ways: _Ways,
    ) -> None:
        self.name = address.database
        self.address = address
        self.template = template
        self.isolation = isolation
        self._env = env
        self.kept_as = ""
        self.lasts = True
        self.settlement: Settlement | None = None
        self.beside: Mapping[str, SeededDatabase] = {}
        self._ways = ways
        self._before_reset: list[Callable[[], None]] = []
        self._reporters: list[Callable[[], tuple[TableChange, ...]]] = []
        self._connections: list[psycopg.Connection[Any]] = []

    @property
    def url(self) -> str:
        """``postgresql://...``, as SQLAlchemy and libpq read it."""
        return self.address.url

    @property
    def conninfo(self) -> str:
        """The libpq string."""
        return self.address.conninfo

    @property
    def address_for_writing(self) -> Address:
        """Where the test's own framework connects; with ``rollback`` only that, and the fixtures, may write."""
        return writing(self.address) if self.isolation == "rollback" else self.address

    @property
    def env(self) -> dict[str, str]:
        """What a child process needs: ``DATABASE_URL``, the settings' ``env``, ``PGHOST`` and its fellows."""
        return {**url_variables(("DATABASE_URL", *self._env), self.address), **self.address.environment()}

    def connect(self, **parameters: Any) -> psycopg.Connection[Any]:
        """Another connection to it; closed at the end if the test leaves it open.

        Args:
            parameters: As `psycopg.connect` takes them.
        """
        import psycopg

        connection = psycopg.connect(self.conninfo, **parameters)
        self._connections.append(connection)
        return connection

    def reset(self) -> None:
        """Put the seeded state back, as if the test began anew.

        The URL stays. ``seeded_session`` and ``seeded_engine`` go on with new connections; objects
        of the session are detached. Other connections (``seeded_connection``, those of `connect`)
        are ended under ``clone``: take new ones with `connect`.
        """
        for prepare in reversed(self._before_reset):  # a session before its engine
            prepare()
        self.close_connections()
        self._ways.go_back()
        for each in self.beside.values():
            each.reset()

    def changes(self) -> Changes:
        """What has been written so far, table by table, from the server's own counters. Prints as a short table.

        Needs about a millisecond and changes nothing. What a transaction wrote counts once it has
        ended, rolled back or not. With ``rollback`` it is what the fixtures' transaction wrote so far,
        with ``readonly`` nothing.

        Raises:
            SeedDbError: It cannot be told: with ``--seed-db-reset=clone``, and with ``rollback`` where
                ``seeded_async_engine`` is in use or the transaction has failed.
        """
        for connection in self._connections:
            report_now(connection)
        told = [row for report in self._reporters for row in report()]
        changes = self._ways.changes()
        return replace(changes, tables=(*changes.tables, *told)) if told else changes

    def keep(self) -> Address:
        """Let it stay on the server after the test, under another name; at most 20 do, whichever run they are from.

        Returns:
            Where it will be then. Only a ``clone`` can be kept: what others wrote is rolled back.
        """
        if not self.kept_as:
            moment = dt.datetime.now(dt.UTC).strftime("%Y%m%d%H%M%S")
            self.kept_as = kept_name(moment, self.name)
        return self.address.with_database(self.kept_as)

    def before_changes(self, report: Callable[[], tuple[TableChange, ...]]) -> None:
        """Have ``report`` called before each look at the changes: it adds what the server cannot know yet."""
        self._reporters.append(report)

    def before_reset(self, prepare: Callable[[], None]) -> None:
        """Have ``prepare`` called before each `reset`, the latest first, to give up connections and cached rows."""
        self._before_reset.append(prepare)

    def close_connections(self) -> None:
        """Close what `connect` opened and the test left open."""
        while self._connections:
            self._connections.pop().close()


@contextmanager
def seeded_database(
    worker: Worker,
    template: Template,
    isolation: str,
    env: tuple[str, ...],
    beside: Mapping[str, Template] | None = None,
) -> Iterator[SeededDatabase]:
    """A seeded database for a block.

    Args:
        worker: Who makes and drops it.
        template: What it is made from.
        isolation: ``clone``, ``rollback`` or ``readonly``.
        env: Names of environment variables for `SeededDatabase.env`.
        beside: What a Django project's further databases are made from, by alias.

    Raises:
        ConfigError: There is no such isolation.
        ServerError: The server refused the clone.
    """
    if isolation not in ISOLATIONS:
        raise ConfigError(
            f"There is no isolation {isolation!r}",
            saw=f"isolation={isolation!r}",
            source="the call of seeded_db_factory",
            remedy=f"{did_you_mean(isolation, ISOLATIONS)} Allowed are {', '.join(ISOLATIONS)}".strip(),
        )
    opened = _cloned if isolation == "clone" else _shared
    with ExitStack() as stack:
        database = stack.enter_context(opened(worker, template, isolation, env))
        database.beside = {
            alias: stack.enter_context(opened(worker, each, isolation, ())) for alias, each in (beside or {}).items()
        }
        yield database


def database_on(worker: Worker, leased: Leased, isolation: str, env: tuple[str, ...]) -> SeededDatabase:
    """A private clone as a test sees it; it lives as long as the lease."""
    ways = _Ways(lambda: worker.pool.renew(leased), leased.changes)
    database = SeededDatabase(leased.clone.address, leased.clone.template, isolation, env, ways)
    database.lasts = not worker.server.is_ephemeral
    return database


@contextmanager
def _cloned(worker: Worker, template: Template, isolation: str, env: tuple[str, ...]) -> Iterator[SeededDatabase]:
    leased = worker.take(template)
    database = database_on(worker, leased, isolation, env)
    try:
        yield database
    finally:
        database.close_connections()
        if database.kept_as:
            worker.keep(leased, database.kept_as)
        else:
            database.settlement = worker.pool.give_back(leased)


@contextmanager
def _shared(worker: Worker, template: Template, isolation: str, env: tuple[str, ...]) -> Iterator[SeededDatabase]:
    import psycopg

    shared = worker.shared(template)
    ways = _Ways(shared.restore_sequences, shared.changes)
    with server_errors("The clone that tests share could not be made", worker.server.address):
        address = shared.take().address
    database = SeededDatabase(address, template, isolation, env, ways)
    try:
        yield database
    finally:
        database.close_connections()
        with suppress(psycopg.Error):  # given up all the same: a server that cannot be asked leaves doubt, and no more
            shared.settle(rolled_back=isolation == "rollback")
