"""New objects become rows, by one ``COPY`` for each table, and persistent members of their session."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from sqlalchemy.orm import make_transient_to_detached

from pytest_seeddb.errors import BulkError
from pytest_seeddb.seeds.bulk.graph import Keyring, explore
from pytest_seeddb.seeds.bulk.keys import identifier
from pytest_seeddb.seeds.bulk.rows import Rows
from pytest_seeddb.servers.database_errors import describe_failure, failure_remedy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import TypeAlias

    from sqlalchemy import Connection, Table
    from sqlalchemy.orm import InstanceState, Mapper, Session

    from pytest_seeddb.seeds.bulk.building import Batch
    from pytest_seeddb.seeds.bulk.graph import Reference

    State: TypeAlias = InstanceState[Any]


def load(session: Session, batch: Batch) -> None:
    """Write what a batch has built, and the new objects that this leads to, to the session's transaction.

    What is pending in the session is flushed first: these objects may refer to it.

    Raises:
        BulkError: They cannot be written this way, or the database refused them.
    """
    session.flush()
    built = batch.take()
    states, references = explore(built)
    with_keys = set(built)
    for state in states:
        if state not in with_keys:
            batch.keys.assign(state)
    if states:
        _Loading(session, states, batch.call).run(references)


class _Loading:
    def __init__(self, session: Session, states: list[State], call: str) -> None:
        self._session = session
        self._states = states
        self._call = call

    def run(self, references: list[Reference]) -> None:
        keyring = Keyring(references)
        self._tell("before_insert")
        tables = {table: self._rows(table) for table in self._tables()}
        for table, association in keyring.associations.items():
            if table not in tables:  # it may have a class of its own
                tables[table] = Rows(table, self._connection(association.mapper), self._call)
            tables[table].add_plain(dict(row) for row in association.rows)
        for table in self._in_order(tables):
            self._copy(tables[table])
        self._attach()
        self._tell("after_insert")
        keyring.tell_the_others()

    def _tables(self) -> list[Any]:
        return list(dict.fromkeys(table for state in self._states for table in state.mapper.tables))

    def _rows(self, table: Table) -> Rows:
        states = [state for state in self._states if table in state.mapper.tables]
        rows = Rows(table, self._connection(states[0].mapper), self._call)
        rows.add_objects(states)
        return rows

    def _connection(self, mapper: Mapper[Any]) -> Connection:
        return self._session.connection(bind_arguments={"mapper": mapper})

    def _tell(self, event: str) -> None:
        for state in self._states:
            listeners = getattr(state.mapper.dispatch, event)
            if listeners:
                listeners(state.mapper, self._connection(state.mapper), state)

    def _in_order(self, tables: dict[Any, Rows]) -> Iterator[Any]:
        """Tables that others refer to come first; a table's rows may refer to each other."""
        graph: TopologicalSorter[Any] = TopologicalSorter()
        for table, rows in tables.items():
            graph.add(table, *(each for each in rows.refers_to() if each is not table and each in tables))
        try:
            yield from graph.static_order()
        except CycleError as error:
            names = " -> ".join(table.fullname for table in reversed(error.args[1]))
            raise BulkError(
                f"{self._call} cannot tell which table to load first",
                saw=f"their rows refer to each other: {names}",
                remedy="leave one side empty in the factory and set it afterwards, or use create_batch",
            ) from None

    def _copy(self, rows: Rows) -> None:
        columns, values = rows.finished()
        if not values:
            return
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(identifier(rows.connection, rows.table), names)
        try:
            _copy(rows.connection.connection.dbapi_connection, statement, values, self._call)
        except psycopg.Error as error:
            raise self._refused(rows.table, error) from error

    def _refused(self, table: Table, error: psycopg.Error) -> BulkError:
        return BulkError(
            f"{self._call} failed in the table {table.fullname}",
            saw=describe_failure(error),
            remedy=(failure_remedy(error, "bulk") or "correct the factory") + ". Nothing was written; roll back the "
            "session's transaction",
        )

    def _attach(self) -> None:
        objects = [state.obj() for state in self._states]
        for each in objects:
            make_transient_to_detached(each)
        self._session.add_all(objects)


def _copy(connection: Any, statement: sql.Composed, rows: Iterable[Sequence[object]], call: str) -> None:  # noqa: ANN401
    """Run a COPY on the driver's connection, also on an asynchronous one inside of ``run_sync``."""
    driver = getattr(connection, "driver_connection", connection)
    if isinstance(driver, psycopg.Connection):
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    elif isinstance(driver, psycopg.AsyncConnection):
        connection.run_async(lambda raw: _copy_async(raw, statement, rows))
    else:
        raise BulkError(
            f"{call} needs psycopg 3 to load rows",
            saw=f"a connection of {type(driver).__module__.partition('.')[0]}",
            remedy="call it in a seeder or a seeded test, whose sessions use psycopg, or give the factory a "
            "session on an engine of postgresql+psycopg://",
        )


async def _copy_async(
    connection: psycopg.AsyncConnection[Any], statement: sql.Composed, rows: Iterable[Sequence[object]]
) -> None:
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            await copy.write_row(row)
