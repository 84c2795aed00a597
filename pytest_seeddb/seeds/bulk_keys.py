"""The keys of new objects before their rows are written: their own, and those of what they refer to."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql
from sqlalchemy import Table, bindparam, func, inspect, literal_column, select, text, type_coerce
from sqlalchemy.orm import RelationshipDirection
from sqlalchemy.orm.collections import collection_adapter

from pytest_seeddb.errors import BulkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from sqlalchemy import Column, ColumnElement, Connection
    from sqlalchemy.orm import InstanceState, Mapper, RelationshipProperty, Session

    State: TypeAlias = InstanceState[Any]
    Relation: TypeAlias = RelationshipProperty[Any]

_DEFAULTS: Final = text("""
SELECT attname, CASE WHEN attidentity <> '' THEN 'nextval(' || quote_literal(pg_get_serial_sequence(:name, attname))
                     || ')' ELSE pg_get_expr(adbin, adrelid) END
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = CAST(:name AS regclass) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
""")
_FIRST: Final = 32  # how many keys are taken at first for a table whose number of rows is not known; then twice as many
_UNLOADED: Final = frozenset({"dynamic", "write_only"})  # relationships whose collection is never in the object itself


class Keys:
    """Primary keys for new objects, from the sequences of their tables or from the models' defaults, many at once."""

    def __init__(self, session: Session, n: int, model: type | None) -> None:
        self._session = session
        self._n = n
        self._model = model
        self._stock: dict[Column[Any], deque[Any]] = {}
        self._taken: dict[Column[Any], int] = {}
        self._columns: dict[Mapper[Any], tuple[tuple[str, Column[Any], bool], ...]] = {}

    def assign(self, state: State) -> None:
        """Give a new object the primary key that an insert would, where it has none; raises `BulkError`."""
        mapper: Mapper[Any] = state.mapper
        if mapper not in self._columns:
            self._columns[mapper] = tuple(self._key_columns(mapper))
        for name, column, from_server in self._columns[mapper]:
            if state.dict.get(name) is None:
                value = self._next(mapper, column) if from_server else python_default(column, {}, None)
                if value is not None:
                    state.dict[name] = value

    def _key_columns(self, mapper: Mapper[Any]) -> Iterator[tuple[str, Column[Any], bool]]:
        """The attributes and columns of the primary key that get values, and whether the server gives them."""
        for base in mapper.iterate_to_root():
            if not isinstance(base.local_table, Table):
                raise BulkError(
                    f"bulk_create cannot load {base.class_.__module__}:{base.class_.__qualname__}",
                    saw=f"it is mapped to a {type(base.local_table).__name__}, not to a table",
                    remedy="use create_batch",
                )
        primary: tuple[Any, ...] = mapper.primary_key
        for column in primary:
            by_python = column.default is not None and (column.default.is_scalar or column.default.is_callable)
            given = (column.default, column.server_default, column.identity)
            is_automatic = column is column.table.autoincrement_column
            if by_python or is_automatic or any(default is not None for default in given):
                yield mapper.get_property_by_column(column).key, column, not by_python

    def _next(self, mapper: Mapper[Any], column: Column[Any]) -> Any:  # noqa: ANN401 - a key of any type
        stock = self._stock.setdefault(column, deque())
        if not stock:
            is_root = self._model is not None and issubclass(self._model, mapper.base_mapper.class_)
            count = self._n if is_root else min(self._n, max(_FIRST, self._taken.get(column, 0)))
            self._taken[column] = self._taken.get(column, 0) + count
            connection = self._session.connection(bind_arguments={"mapper": mapper})
            stock.extend(server_defaults(connection, column, count))
        return stock.popleft() if stock else None


def server_defaults(connection: Connection, column: Column[Any], count: int) -> list[Any]:
    """Values of a column's default, as many as asked for, in one query; none where it has no default there."""
    if not count:
        return []
    default: Any = column.default
    expression: ColumnElement[Any]
    if default is not None:
        expression = default.next_value() if default.is_sequence else default.arg
    else:
        rows = connection.execute(_DEFAULTS, {"name": identifier(connection, column.table).as_string(None)})
        source = next((source for name, source in rows if name == column.name), None)
        if source is None:
            return []
        expression = literal_column(source, column.type)
    series = func.generate_series(1, bindparam("count", count)).alias("bulk_create")
    return list(connection.scalars(select(type_coerce(expression, column.type)).select_from(series)))


def identifier(connection: Connection, table: Any) -> sql.Identifier:  # noqa: ANN401 - sqlalchemy.Table
    """A table's name, quoted, in the schema to which the connection translates its own."""
    schemas: Mapping[str | None, str] = connection.get_execution_options().get("schema_translate_map") or {}
    schema = schemas.get(table.schema, table.schema)
    return sql.Identifier(*(str(part) for part in (schema, table.name) if part))


def python_default(column: Column[Any], parameters: Mapping[str, Any], connection: Connection | None) -> Any:  # noqa: ANN401
    """The value of a column's ``default=``, scalar or callable."""
    default: Any = column.default
    if not default.is_callable:
        return default.arg
    # What a context-sensitive default may ask for, as far as it is known before the statement.
    context = SimpleNamespace(current_parameters=parameters, connection=connection)
    context.get_current_parameters = lambda isolate_multiinsert_groups=True: parameters  # noqa: ARG005 - SQLAlchemy's
    return default.arg(context)


@dataclass(frozen=True, eq=False)
class Reference:
    """One object that another one refers to, by a relationship of the latter."""

    owner: State
    relation: Relation
    target: State


def explore(states: Iterable[State]) -> tuple[list[State], list[Reference]]:
    """The new objects among those given and all that they lead to, as the session's cascade would; and how they do."""
    new = dict.fromkeys(state for state in states if state.transient)
    waiting = deque(new)
    references: list[Reference] = []
    while waiting:
        state = waiting.popleft()
        for relation in state.mapper.relationships:
            if relation.viewonly:
                continue
            for value in _targets(state, relation):
                target = inspect(value)
                references.append(Reference(state, relation, target))
                if target.transient and target not in new and "save-update" in relation.cascade:
                    new[target] = None
                    waiting.append(target)
    return list(new), references


def _targets(state: State, relation: Relation) -> Sequence[Any]:
    """What a relationship of an object holds; nothing is loaded for it."""
    if relation.lazy in _UNLOADED:
        return tuple(state.attrs[relation.key].history.added or ())
    value = state.dict.get(relation.key)
    if value is None:
        return ()
    return tuple(collection_adapter(value)) if relation.uselist else (value,)


@dataclass(frozen=True)
class Association:
    """The rows of an association table, each once, and the mapper of a class that it associates."""

    mapper: Mapper[Any]
    rows: dict[tuple[tuple[str, Any], ...], None] = field(default_factory=dict)


class Keyring:
    """The foreign keys of new objects, and the rows that associate them, by table."""

    def __init__(self, references: list[Reference]) -> None:
        self.associations: dict[Table, Association] = {}
        self._later: list[tuple[State, str, Any]] = []
        self._pairs: dict[tuple[Any, ...], tuple[tuple[str, str], ...]] = {}
        many = RelationshipDirection.MANYTOMANY
        left = [reference for reference in references if reference.relation.direction is not many]
        before = len(left) + 1
        while len(left) < before:  # a key that is made of another's key waits for that
            before = len(left)
            left = [reference for reference in left if not self._copy(reference)]
        for reference in references:
            if reference.relation.direction is many:
                self._associate(reference)

    def complete_others(self) -> None:
        """Set the keys of objects that were in the database before; the session writes them."""
        for state, name, value in self._later:
            setattr(state.obj(), name, value)

    def _copy(self, reference: Reference) -> bool:
        """Copy a key from object to object; whether it is all there."""
        relation, source, target = reference.relation, reference.target, reference.owner
        if relation.direction is RelationshipDirection.ONETOMANY:
            source, target = target, source
        key = (relation, source.mapper, target.mapper)
        if key not in self._pairs:
            self._pairs[key] = tuple(
                (source.mapper.get_property_by_column(one).key, target.mapper.get_property_by_column(other).key)
                for one, other in relation.synchronize_pairs
            )
        is_complete = True
        for from_name, to_name in self._pairs[key]:
            value = _value_of(source, from_name)
            is_complete = is_complete and value is not None
            if target.transient:
                target.dict[to_name] = value
            elif is_complete:
                self._later.append((target, to_name, value))
        return is_complete

    def _associate(self, reference: Reference) -> None:
        relation = reference.relation
        sides = (
            (reference.owner, relation.synchronize_pairs),
            (reference.target, relation.secondary_synchronize_pairs or ()),
        )
        row: dict[str, Any] = {
            str(column.key): _value_of(state, state.mapper.get_property_by_column(own).key)
            for state, pairs in sides
            for own, column in pairs
        }
        table: Any = relation.secondary
        # Both ends of a relationship tell of the same row, in different order.
        association = self.associations.setdefault(table, Association(relation.parent))
        association.rows[tuple(sorted(row.items()))] = None


def _value_of(state: State, name: str) -> Any:  # noqa: ANN401 - a column's value
    """An attribute of a new object as it is, of an older one also if it has to be read first."""
    value = state.dict.get(name)
    return getattr(state.obj(), name) if value is None and state.key is not None else value
