"""Values that the database or the model gives a column, had before the row is written."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql
from sqlalchemy import Table, bindparam, func, literal_column, select, text, type_coerce

from pytest_seeddb.errors import BulkError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from sqlalchemy import Column, ColumnElement, Connection
    from sqlalchemy.orm import InstanceState, Mapper, Session

    State: TypeAlias = InstanceState[Any]

_DEFAULTS: Final = text("""
SELECT attname, CASE WHEN attidentity <> '' THEN 'nextval(' || quote_literal(pg_get_serial_sequence(:name, attname))
                     || ')' ELSE pg_get_expr(adbin, adrelid) END
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = CAST(:name AS regclass) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
""")
_FIRST: Final = 32
"""How many keys are taken at first for a table of which nobody knows how many rows it gets; then twice as many."""


class Keys:
    """Primary keys for new objects, from the sequences of their tables or from the models' defaults.

    Raises:
        BulkError: An object's class is mapped to something that is no table.

    They are taken for many rows in one query; those of a batch that are left over are gaps in the sequence,
    as after a rollback.
    """

    def __init__(self, session: Session, n: int, model: type | None) -> None:
        self._session = session
        self._n = n
        self._model = model
        self._stock: dict[Column[Any], deque[Any]] = {}
        self._taken: dict[Column[Any], int] = {}
        self._columns: dict[Mapper[Any], tuple[tuple[str, Column[Any], bool], ...]] = {}

    def assign(self, state: State) -> None:
        """Give a new object the primary key that it would get when it is inserted, where it has none."""
        mapper: Mapper[Any] = state.mapper
        if mapper not in self._columns:
            self._columns[mapper] = tuple(self._of(mapper))
        for name, column, from_server in self._columns[mapper]:
            if state.dict.get(name) is None:
                value = self._next(mapper, column) if from_server else python_default(column, {}, None)
                if value is not None:
                    state.dict[name] = value

    def _of(self, mapper: Mapper[Any]) -> list[tuple[str, Column[Any], bool]]:
        _check(mapper)
        found: list[tuple[str, Column[Any], bool]] = []
        primary: tuple[Any, ...] = mapper.primary_key
        for column in primary:
            by_python = column.default is not None and (column.default.is_scalar or column.default.is_callable)
            if by_python or _by_server(column):
                found.append((mapper.get_property_by_column(column).key, column, not by_python))
        return found

    def _next(self, mapper: Mapper[Any], column: Column[Any]) -> Any:  # noqa: ANN401 - a key of any type
        stock = self._stock.setdefault(column, deque())
        if not stock:
            is_root = self._model is not None and issubclass(self._model, mapper.base_mapper.class_)
            count = self._n if is_root else min(self._n, max(_FIRST, self._taken.get(column, 0)))
            self._taken[column] = self._taken.get(column, 0) + count
            connection = self._session.connection(bind_arguments={"mapper": mapper})
            stock.extend(from_server(connection, column, count))
        return stock.popleft() if stock else None


def _check(mapper: Mapper[Any]) -> None:
    for each in mapper.iterate_to_root():
        if not isinstance(each.local_table, Table):
            raise BulkError(
                f"bulk_create cannot load {each.class_.__module__}:{each.class_.__qualname__}",
                saw=f"it is mapped to a {type(each.local_table).__name__}, not to a table",
                remedy="use create_batch",
            )


def _by_server(column: Column[Any]) -> bool:
    if column.default is not None or column.server_default is not None or column.identity is not None:
        return True
    return column is column.table.autoincrement_column


def from_server(connection: Connection, column: Column[Any], count: int) -> list[Any]:
    """Values of a column's default, as many as asked for, in one query; none where it has no default there."""
    expression = _expression(connection, column) if count else None
    if expression is None:
        return []
    rows = func.generate_series(1, bindparam("count", count)).alias("bulk_create")
    return list(connection.scalars(select(type_coerce(expression, column.type)).select_from(rows)))


def _expression(connection: Connection, column: Column[Any]) -> ColumnElement[Any] | None:
    default: Any = column.default
    if default is not None:
        found: ColumnElement[Any] = default.next_value() if default.is_sequence else default.arg
        return found
    rows = connection.execute(_DEFAULTS, {"name": identifier(connection, column.table).as_string(None)})
    expression = next((found for name, found in rows if name == column.name), None)
    return None if expression is None else literal_column(expression, column.type)


def identifier(connection: Connection, table: Any) -> sql.Identifier:  # noqa: ANN401 - sqlalchemy.Table
    """A table's name, quoted, in the schema to which the connection translates its own."""
    schemas: Mapping[str | None, str] = connection.get_execution_options().get("schema_translate_map") or {}
    schema = schemas.get(table.schema, table.schema)
    return sql.Identifier(*(str(part) for part in (schema, table.name) if part))


def python_default(column: Column[Any], parameters: Mapping[str, Any], connection: Connection | None) -> Any:  # noqa: ANN401
    """The value of a column's ``default=``, scalar or callable."""
    default: Any = column.default
    return default.arg(_Context(parameters, connection)) if default.is_callable else default.arg


class _Context:
    """What a context-sensitive default may ask for, as far as it is known before the statement."""

    def __init__(self, parameters: Mapping[str, Any], connection: Connection | None) -> None:
        self.current_parameters = parameters
        self.connection = connection

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> Mapping[str, Any]:  # noqa: ARG002
        return self.current_parameters
