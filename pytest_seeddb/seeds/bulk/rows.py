"""The rows of one table, as SQLAlchemy would insert them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm.persistence import _collect_insert_commands

from pytest_seeddb.errors import BulkError
from pytest_seeddb.seeds.bulk.keys import from_server, python_default

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from sqlalchemy import Column, Connection, Table
    from sqlalchemy.orm import InstanceState, Mapper

    State: TypeAlias = InstanceState[Any]
    Values: TypeAlias = dict[str, Any]


class Rows:
    """Rows for one table, of objects or of an association.

    Attributes:
        table: The table.
        connection: The session's connection for it.
    """

    def __init__(self, table: Table, connection: Connection, call: str) -> None:
        self.table = table
        self.connection = connection
        self._call = call
        self._rows: list[Values] = []
        self._states: list[State] = []

    def add_objects(self, states: Sequence[State]) -> None:
        """Add objects, all of whose keys are known."""
        for state in states:
            _equate(state)
        # What the unit of work itself asks: which attributes count as given, what None means, versions.
        wanted = [(state, state.dict, state.mapper, self.connection) for state in states]
        collected: Any = _collect_insert_commands(self.table, wanted)  # type: ignore[no-untyped-call]  # not public
        for state, _, values, _, _, expressions, *_ in collected:
            for column in expressions:
                raise self._refused(column, "an SQL expression, which COPY cannot evaluate")
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

    def finished(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The columns and the values of each row, as the driver takes them; the objects then know them, too."""
        given = set[str]().union(*self._rows)
        columns = [column for column in self.table.columns if column.key in given]
        for column in columns:
            if column.default is None:
                self._complete(column)
        self._tell(columns)
        processors = [(column.key, self._processor(column)) for column in columns]
        rows = [
            tuple(process(row[name]) if process else row[name] for name, process in processors) for row in self._rows
        ]
        return [column.name for column in columns], rows

    def _add_defaults(self) -> None:
        for column in self.table.columns:
            default: Any = column.default
            if default is None:
                continue
            if default.is_sequence or default.is_clause_element:
                self._complete(column)
                continue
            for row in self._lacking(column):
                row[column.key] = python_default(column, row, self.connection)

    def _complete(self, column: Column[Any]) -> None:
        """Where rows lack a column that they must have, the database says now what it would put there."""
        lacking = self._lacking(column)
        values = from_server(self.connection, column, len(lacking)) or [None] * len(lacking)
        for row, value in zip(lacking, values, strict=True):
            row[column.key] = value

    def _lacking(self, column: Column[Any]) -> list[Values]:
        return [row for row in self._rows if column.key not in row]

    def _tell(self, columns: Sequence[Column[Any]]) -> None:
        names: dict[Mapper[Any], list[tuple[str, str]]] = {}
        for state, row in zip(self._states, self._rows, strict=False):
            if state.mapper not in names:
                names[state.mapper] = list(_attributes(state.mapper, columns))
            for attribute, name in names[state.mapper]:
                state.dict.setdefault(attribute, row[name])

    def _processor(self, column: Column[Any]) -> Callable[[Any], Any] | None:
        dialect = self.connection.dialect
        kind: Any = column.type.dialect_impl(dialect)
        if kind._has_bind_expression:  # noqa: SLF001 - told nowhere else
            raise self._refused(column, f"a {column.type!r}, which SQL has to convert")
        processor: Callable[[Any], Any] | None = kind.bind_processor(dialect)
        return processor

    def _refused(self, column: Column[Any], saw: str) -> BulkError:
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


def _equate(state: State) -> None:
    """Where a table of an inheriting class has a key with another attribute than its base's, give it that value."""
    for mapper in reversed(list(state.mapper.iterate_to_root())):
        for above, below in mapper._inherits_equated_pairs or ():  # noqa: SLF001 - told nowhere else
            names = (state.mapper.get_property_by_column(column).key for column in (above, below))
            one, other = names
            if one != other:
                state.dict[other] = state.dict.get(one)
