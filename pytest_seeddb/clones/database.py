"""The seeded database as a test sees it."""

from __future__ import annotations

import datetime as dt
from contextlib import nullcontext
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import psycopg

from pytest_seeddb.application.flushing import ask
from pytest_seeddb.application.offspring import Offspring
from pytest_seeddb.application.roles import Roles
from pytest_seeddb.application.surroundings import url_variables
from pytest_seeddb.clones.changes import Changes
from pytest_seeddb.clones.counting import BUDGET
from pytest_seeddb.clones.observer import Discard
from pytest_seeddb.clones.rows import Wish
from pytest_seeddb.clones.shared import writing
from pytest_seeddb.errors import ConfigError, SeedDbError
from pytest_seeddb.servers.naming import kept_name
from pytest_seeddb.settings.converters import did_you_mean
from pytest_seeddb.settings.settings import ISOLATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy.engine.interfaces import Dialect

    from pytest_seeddb.application.flushing import Told
    from pytest_seeddb.application.roles import Role
    from pytest_seeddb.clones.diff import Diff
    from pytest_seeddb.clones.pool import Clone
    from pytest_seeddb.clones.settle import Settlement
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings


_PATIENCE: Final = 2.0
"""Seconds in which `SeededDatabase.diff` finds out which tables were written to; else it compares all."""


def check_isolation(name: str) -> None:
    """Raise `ConfigError` unless there is such an isolation."""
    if name not in ISOLATIONS:
        raise ConfigError(
            f"There is no isolation {name!r}",
            saw=f"isolation={name!r}",
            source="the call of seeded_db_factory",
            remedy=f"{did_you_mean(name, ISOLATIONS)} Allowed are {', '.join(ISOLATIONS)}".strip(),
        )


class View(NamedTuple):
    """What tells the changes of a clone, and the rows behind them."""

    changes: Callable[[Told, float], Changes]
    diff: Callable[[Changes, Wish, psycopg.Connection[Any] | None], Diff]


class SeededDatabase:
    """A migrated and seeded database that no other test sees.

    Lifetime: that of the scope in the settings, a test by default. Afterwards every connection to it
    is ended, and it is put back for another test or dropped. With ``isolation="rollback"`` or
    ``"readonly"`` it is shared with other tests of the worker, and a write from a connection of one's
    own is an error.

    Attributes:
        isolation: ``clone``, ``rollback`` or ``readonly``.
        template: What it was made from.
        seconds: How long it took to get it.
        settlement: What became of it after the test; ``None`` before, and where it was kept or is shared.
        was_read: Whether the test knows its address.
        own_address: Its address, for what is closed when it goes.
        roles: Those of the application's connections; the owner's where it is not activated.
        activation: Points the application at it, for a block.
        lasts: Whether its server outlives the run, so that it can be kept for somebody to look at.
        beside: A Django project's further databases, by alias, each a clone of its own.
        dialects: Those of the fixtures' engines; each engine has its own, and shares it with its variants.
    """

    def __init__(
        self,
        clone: Clone,
        isolation: str,
        env: tuple[str, ...],
        *,
        go_back: Callable[[], object],
        view: View,
        look_up_roles: Callable[[str], Mapping[str, Role]],
    ) -> None:
        self.own_address = clone.address
        self._offspring = Offspring()
        self.was_read = False
        self.template = clone.template
        self.isolation = isolation
        self._env = env
        self.kept_as = ""
        self.lasts = True
        self.seconds = 0.0
        self.settlement: Settlement | None = None
        self.activation: Callable[[SeededDatabase], AbstractContextManager[None]] = lambda _database: nullcontext()
        self.roles = Roles()
        self.beside: Mapping[str, SeededDatabase] = {}
        self.dialects: list[Dialect] = []
        self._go_back = go_back
        self._look, self._compare = view
        self._look_up_roles = look_up_roles
        self._before_reset: list[Callable[[], None]] = []
        self._askers: list[Callable[[], Told]] = []
        self._uncommitted: Callable[[], Changes] = Changes
        self._transaction: psycopg.Connection[Any] | None = None
        self._connections: list[psycopg.Connection[Any]] = []

    @property
    def address(self) -> Address:
        """Where it is. Whoever has read it, or what follows from it, finds nothing there once the test is over."""
        self.was_read = True
        return self.own_address

    @property
    def given_away(self) -> bool:
        """Whether its address was read, or may be known to a child process or a thread that can outlive the test.

        A connection that was opened here gives nothing away, as it ends with the test.
        """
        return self.was_read or bool(self._offspring)

    @property
    def name(self) -> str:
        """The database's name."""
        return self.address.database

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
        return writing(self.own_address) if self.isolation == "rollback" else self.own_address

    @property
    def env(self) -> dict[str, str]:
        """What a child process needs: ``DATABASE_URL``, the settings' ``env``, ``PGHOST`` and its fellows."""
        own = url_variables(("DATABASE_URL",), self.address)
        return {**own, **url_variables(self._env, self.address, self.roles), **self.address.environment()}

    def application_roles(self, settings: Settings) -> Roles:
        """What gives the application's connections their roles."""
        if settings.role != self.roles.wanted:
            known = self._look_up_roles(settings.role)
            self.roles = Roles(settings.role, f"`role`, {settings.source('role')}", known)
        return self.roles

    def connect(self, **parameters: Any) -> psycopg.Connection[Any]:
        """Another connection to it; closed at the end if the test leaves it open.

        Args:
            parameters: As `psycopg.connect` takes them.
        """
        connection = self.own_address.connect(**parameters)
        self._connections.append(connection)
        return connection

    def activate(self) -> AbstractContextManager[None]:
        """Inside the block, the application's ``engines``, the variables ``env`` and Django lead to this database.

        For databases of ``seeded_db_factory``; that of a test is active from the start. What was opened
        inside is closed at the end. Blocks may be nested: the innermost counts.
        """
        return self.activation(self)

    def reset(self) -> None:
        """Put the seeded state back, as if the test began anew.

        The URL stays. ``seeded_session`` and ``seeded_engine`` go on with new connections; objects
        of the session are detached. Other connections (``seeded_connection``, those of `connect`)
        are ended under ``clone``: take new ones with `connect`.
        """
        for prepare in reversed(self._before_reset):  # a session before its engine
            prepare()
        self.close_connections()
        self._go_back()
        for database in self.beside.values():
            database.reset()

    def changes(self) -> Changes:
        """What was committed before the call, by any connection, table by table. Prints as a short table.

        False only where it is certain that nothing was written. A connection that the plugin did not open, and that
        is still open, may hold back what it wrote: then `Changes.not_known` names it, and the numbers of rows are
        the least that was written. So it does where a connection is inside a transaction that has written something,
        as Django's is in its tests.

        Needs a few milliseconds and changes nothing. What a transaction wrote counts once it has ended, rolled back
        or not. With ``rollback`` what the fixtures' transaction wrote so far counts, too. What other connections
        wrote with ``rollback`` or ``readonly`` is not counted by tables: then `Changes.beyond_rows` is true.

        A Django project's further databases count as well; their tables have the alias in front.

        Raises:
            SeedDbError: It cannot be told: with ``--seed-db-reset=clone``, and with ``rollback`` where
                ``seeded_async_engine`` is in use or the transaction has failed.
        """
        deadline = monotonic() + BUDGET
        told = self._ask()
        return self._changes(told, deadline).joined(
            other._look(told, deadline).of(alias)  # noqa: SLF001 - such a database, too
            for alias, other in self.beside.items()
        )

    def diff(
        self,
        *,
        tables: Sequence[str] | None = None,
        ignore: Sequence[str] = (),
        columns: Literal["named", "all"] = "named",
    ) -> Diff:
        """The rows that were inserted, updated and deleted, compared with the template. Compares with plain data.

        Exact, whoever wrote them and however often: what was put back as it was is no change. Reads only tables that
        were written to, and the template's rows of those from which rows are gone. With ``rollback`` it shows what the
        fixtures' transaction wrote. See `Diff` for how it compares and prints. `changes` tells of sequences and the
        rest. A partition is a table of its own.

        Args:
            tables: These alone, however large. Else a table above 8 MB tells the number of its rows only.
            ignore: Columns that do not count, as ``table.column`` with ``*`` for any text.
            columns: ``"all"`` lets only whole rows be equal to those of an expectation.

        Raises:
            SeedDbError: It cannot be told: a transaction that has written is open, there is no such table, or as
                `changes` says.
        """
        wish = Wish(None if tables is None else tuple(tables), tuple(ignore), columns == "all")
        told = self._ask()
        diff = self._diff(told, wish)
        return diff.joined({alias: other._diff(told, wish) for alias, other in self.beside.items()})  # noqa: SLF001

    def _diff(self, told: Told, wish: Wish) -> Diff:
        try:
            return self._compare(self._changes(told, monotonic() + _PATIENCE), wish, self._transaction)
        except (psycopg.Error, Discard) as error:
            raise SeedDbError(
                "The rows that the test changed cannot be read",
                saw=str(error).splitlines()[0],
                source=f"the database {self.own_address.database}",
                remedy="see whether the test ended all connections, locked a table or stopped the server",
            ) from error

    def _ask(self) -> Told:
        """What connections have yet to tell the server."""
        told: Told = {}
        for connection in self._connections:
            told |= ask(connection)
        for asker in self._askers:
            told |= asker()
        return told

    def _changes(self, told: Told, deadline: float) -> Changes:
        uncommitted = self._uncommitted()
        return self._look(told, deadline).joined([uncommitted])

    def keep(self) -> Address:
        """Let it stay on the server after the test, under another name; at most 20 do, whichever run they are from.

        Returns:
            Where it will be then. Only a ``clone`` can be kept: what others wrote is rolled back.
        """
        if not self.kept_as:
            moment = dt.datetime.now(dt.UTC).strftime("%Y%m%d%H%M%S")
            self.kept_as = kept_name(moment, self.own_address.database)
        return self.own_address.with_database(self.kept_as)

    def before_changes(self, asker: Callable[[], Told]) -> None:
        """Have ``asker`` called before each look at the changes: it makes connections tell what they wrote."""
        self._askers.append(asker)

    def count_uncommitted(
        self, changes: Callable[[], Changes], connection: psycopg.Connection[Any] | None = None
    ) -> None:
        """Have the ``changes`` that a transaction made so far count, and its rows be read on its ``connection``."""
        self._uncommitted, self._transaction = changes, connection

    def before_reset(self, prepare: Callable[[], None]) -> None:
        """Have ``prepare`` called before each `reset`, the latest first, to give up connections and cached rows."""
        self._before_reset.append(prepare)

    def close_connections(self) -> None:
        """Close what `connect` opened and the test left open."""
        while self._connections:
            self._connections.pop().close()
