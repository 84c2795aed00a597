"""New objects become rows, by one ``COPY`` for each table, and persistent members of their session."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.orm.persistence import _collect_insert_commands

from pytest_seeddb.errors import BulkError
from pytest_seeddb.seeds.bulk_keys import Keyring, explore, identifier, python_default, server_defaults
from pytest_seeddb.servers.database_errors import describe_failure, failure_remedy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from sqlalchemy import Column, Connection, Table
    from sqlalchemy.orm import InstanceState, Mapper, Session

    from pytest_seeddb.seeds.bulk_keys import Keys, Reference

    State: TypeAlias = InstanceState[Any]
    Values: TypeAlias = dict[str, Any]


def load(session: Session, built: Sequence[State], keys: Keys, call: str) -> None:
    """Write the objects built, which have keys, and the new ones that they lead to; raises `BulkError`.

    What is pending in the session is flushed first: these objects may refer to it.
    """
    session.flush()
    states, references = explore(built)
    with_keys = set(built)
    for state in states:
        if state not in with_keys:
            keys.assign(state)
    if states:
        _Loading(session, states, call).run(references)


class _Loading:
    def __init__(self, session: Session, states: list[State], call: str) -> None:
        self._session = session
        self._states = states
        self._call = call

    def run(self, references: list[Reference]) -> None:
        keyring = Keyring(references)
        self._dispatch("before_insert")
        tables: dict[Any, _Rows] = {}
        own: dict[Any, None] = dict.fromkeys(table for state in self._states for table in state.mapper.tables)
        for table in own:
            states = [state for state in self._states if table in state.mapper.tables]
            tables[table] = _Rows(table, self._connection(states[0].mapper), self._call)
            tables[table].add_objects(states)
        for table, association in keyring.associations.items():
            if table not in tables:  # it may have a class of its own
                tables[table] = _Rows(table, self._connection(association.mapper), self._call)
            tables[table].add_plain(dict(row) for row in association.rows)
        for rows in self._in_order(tables):
            try:
                rows.copy()
            except psycopg.Error as error:
                raise BulkError(
                    f"{self._call} failed in the table {rows.table.fullname}",
                    saw=describe_failure(error),
                    remedy=(failure_remedy(error, "bulk") or "correct the factory")
                    + ". Nothing was written; roll back the session's transaction",
                ) from error
        objects = [state.obj() for state in self._states]
        for instance in objects:
            make_transient_to_detached(instance)
        self._session.add_all(objects)
        self._dispatch("after_insert")
        keyring.complete_others()

    def _connection(self, mapper: Mapper[Any]) -> Connection:
        return self._session.connection(bind_arguments={"mapper": mapper})

    def _dispatch(self, event: str) -> None:
        for state in self._states:
            listeners = getattr(state.mapper.dispatch, event)
            if listeners:
                listeners(state.mapper, self._connection(state.mapper), state)

    def _in_order(self, tables: dict[Any, _Rows]) -> list[_Rows]:
        """Tables that others refer to come first; a table's rows may refer to each other."""
        graph: TopologicalSorter[Any] = TopologicalSorter()
        for table, rows in tables.items():
            graph.add(table, *(other for other in rows.refers_to() if other is not table and other in tables))
        try:
            return [tables[table] for table in graph.static_order()]
        except CycleError as error:
            names = " -> ".join(table.fullname for table in reversed(error.args[1]))
            raise BulkError(
                f"{self._call} cannot tell which table to load first",
                saw=f"their rows refer to each other: {names}",
                remedy="leave one side empty in the factory and set it afterwards, or use create_batch",
            ) from None


class _Rows:
    """Rows for one table, of objects or of an association, as SQLAlchemy would insert them."""

    def __init__(self, table: Table, connection: Connection, call: str) -> None:
        self.table = table
        self._connection = connection
        self._call = call
        self._rows: list[Values] = []
        self._states: list[State] = []

    def add_objects(self, states: Sequence[State]) -> None:
        """Add objects, all of whose keys are known."""
        for state in states:
            # Where a table of an inheriting class has a key with another attribute than its base's, it has that value.
            for mapper in reversed(list(state.mapper.iterate_to_root())):
                for columns in mapper._inherits_equated_pairs or ():  # noqa: SLF001 - told nowhere else
                    above, below = (state.mapper.get_property_by_column(column).key for column in columns)
                    if above != below:
                        state.dict[below] = state.dict.get(above)
        # What the unit of work itself asks: which attributes count as given, what None means, versions.
        wanted = [(state, state.dict, state.mapper, self._connection) for state in states]
        collected: Any = _collect_insert_commands(self.table, wanted)  # type: ignore[no-untyped-call]  # not public
        for state, _, values, _, _, expressions, *_ in collected:
            for column in expressions:
                raise self._refusal(column, "an SQL expression, which COPY cannot evaluate")
            self._rows.append(values)
            self._states.append(state)
        self._add_defaults()

    def add_plain(self, rows: Iterable[Values]) -> None:
        """Add rows that no object stands for."""
        self._rows += rows
        self._add_defaults()

    def refers_to(self) -> Iterator[Table]:
        """The tables to whose rows any of these rows refers."""
        for constraint in self.table.foreign_key_constraints:
            names = [column.key for column in constraint.columns]
            if any(all(row.get(name) is not None for name in names) for row in self._rows):
                yield constraint.referred_table

    def copy(self) -> None:
        """Write the rows, after the objects were told the values that they lack."""
        given = set[str]().union(*self._rows)
        columns = [column for column in self.table.columns if column.key in given]
        for column in columns:
            if column.default is None:
                self._complete(column)
        attributes: dict[Mapper[Any], list[tuple[str, str]]] = {}
        for state, row in zip(self._states, self._rows, strict=False):
            if state.mapper not in attributes:
                attributes[state.mapper] = list(_attributes(state.mapper, columns))
            for attribute, name in attributes[state.mapper]:
                state.dict.setdefault(attribute, row[name])
        processors = [(column.key, self._processor(column)) for column in columns]
        rows = [
            tuple(process(row[name]) if process else row[name] for name, process in processors) for row in self._rows
        ]
        if rows:
            names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
            table = identifier(self._connection, self.table)
            _copy(self._connection, sql.SQL("COPY {} ({}) FROM STDIN").format(table, names), rows, self._call)

    def _add_defaults(self) -> None:
        for column in self.table.columns:
            default: Any = column.default
            if default is None:
                continue
            if default.is_sequence or default.is_clause_element:
                self._complete(column)
                continue
            for row in self._rows_without(column):
                row[column.key] = python_default(column, row, self._connection)

    def _complete(self, column: Column[Any]) -> None:
        """Where rows lack a column that they must have, the database says now what it would put there."""
        lacking = self._rows_without(column)
        values = server_defaults(self._connection, column, len(lacking)) or [None] * len(lacking)
        for row, value in zip(lacking, values, strict=True):
            row[column.key] = value

    def _rows_without(self, column: Column[Any]) -> list[Values]:
        return [row for row in self._rows if column.key not in row]

    def _processor(self, column: Column[Any]) -> Callable[[Any], Any] | None:
        dialect = self._connection.dialect
        kind: Any = column.type.dialect_impl(dialect)
        if kind._has_bind_expression:  # noqa: SLF001 - told nowhere else
            raise self._refusal(column, f"a {column.type!r}, which SQL has to convert")
        processor: Callable[[Any], Any] | None = kind.bind_processor(dialect)
        return processor

    def _refusal(self, column: Column[Any], saw: str) -> BulkError:
        return BulkError(
            f"{self._call} cannot load the column {self.table.fullname}.{column.name}",
            saw=saw,
            remedy="give it a plain value, or use create_batch",
        )


def _attributes(mapper: Mapper[Any], columns: Iterable[Column[Any]]) -> Iterator[tuple[str, str]]:
    """The names of the attributes for columns, and the columns' own; some columns have no attribute."""
    for column in columns:
        try:
            yield mapper.get_property_by_column(column).key, column.key
        except InvalidRequestError:
            continue


def _copy(connection: Connection, statement: sql.Composed, rows: Iterable[Sequence[object]], call: str) -> None:
    """Run a COPY on the driver's connection, also on an asynchronous one inside of ``run_sync``."""
    outer: Any = connection.connection.dbapi_connection
    driver = getattr(outer, "driver_connection", outer)
    if isinstance(driver, psycopg.Connection):
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    elif isinstance(driver, psycopg.AsyncConnection):

        async def write(raw: psycopg.AsyncConnection[Any]) -> None:
            async with raw.cursor() as cursor, cursor.copy(statement) as copy:
                for row in rows:
                    await copy.write_row(row)

        outer.run_async(write)
    else:
        raise BulkError(
            f"{call} needs psycopg 3 to load rows",
            saw=f"a connection of {type(driver).__module__.partition('.')[0]}",
            remedy="call it in a seeder or a seeded test, whose sessions use psycopg, or give the factory a "
            "session on an engine of postgresql+psycopg://",
        )
