"""What new objects refer to, and the keys that these references come to."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect
from sqlalchemy.orm import RelationshipDirection
from sqlalchemy.orm.collections import collection_adapter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import TypeAlias

    from sqlalchemy import Table
    from sqlalchemy.orm import InstanceState, Mapper, RelationshipProperty

    State: TypeAlias = InstanceState[Any]
    Relation: TypeAlias = RelationshipProperty[Any]

_UNLOADED: Final = frozenset({"dynamic", "write_only"})
"""Relationships whose collection is never in the object itself."""


@dataclass(frozen=True, eq=False)
class Reference:
    """One object that another one refers to, by a relationship of the latter."""

    owner: State
    relation: Relation
    target: State


def explore(states: Iterable[State]) -> tuple[list[State], list[Reference]]:
    """The new objects among those given and all that they lead to, as the session's cascade would; and how they do."""
    found = dict.fromkeys(state for state in states if state.transient)
    waiting = deque(found)
    met: list[Reference] = []
    while waiting:
        for each in references(waiting.popleft()):
            met.append(each)
            if each.target.transient and each.target not in found and "save-update" in each.relation.cascade:
                found[each.target] = None
                waiting.append(each.target)
    return list(found), met


def references(state: State) -> Iterator[Reference]:
    """What the relationships of an object hold; nothing is loaded for it."""
    for relation in state.mapper.relationships:
        if not relation.viewonly:
            for target in _targets(state, relation):
                yield Reference(state, relation, inspect(target))


def _targets(state: State, relation: Relation) -> Sequence[Any]:
    if relation.lazy in _UNLOADED:
        return tuple(state.attrs[relation.key].history.added or ())
    value = state.dict.get(relation.key)
    if value is None:
        return ()
    return tuple(collection_adapter(value)) if relation.uselist else (value,)


@dataclass(frozen=True)
class Association:
    """The rows of an association table, each once.

    Attributes:
        mapper: Of a class that the table associates.
        rows: Their columns with values, by the column's name.
    """

    mapper: Mapper[Any]
    rows: dict[tuple[tuple[str, Any], ...], None] = field(default_factory=dict)


class Keyring:
    """The foreign keys of new objects.

    Attributes:
        associations: By table.
    """

    def __init__(self, found: list[Reference]) -> None:
        self.associations: dict[Table, Association] = {}
        self._later: list[tuple[State, str, Any]] = []
        self._pairs: dict[tuple[Any, ...], tuple[tuple[str, str], ...]] = {}
        self._settle([each for each in found if each.relation.direction is not RelationshipDirection.MANYTOMANY])
        for each in found:
            if each.relation.direction is RelationshipDirection.MANYTOMANY:
                self._associate(each)

    def tell_the_others(self) -> None:
        """Set the keys of objects that were in the database before; the session writes them."""
        for state, name, value in self._later:
            setattr(state.obj(), name, value)

    def _settle(self, found: list[Reference]) -> None:
        """Copy keys from object to object: one that is made of another's key waits for that."""
        left = [each for each in found if not self._copied(each)]
        if len(left) < len(found):
            self._settle(left)

    def _copied(self, reference: Reference) -> bool:
        source, target = reference.target, reference.owner
        if reference.relation.direction is RelationshipDirection.ONETOMANY:
            source, target = target, source
        copied = True
        for from_name, to_name in self._names(reference.relation, source.mapper, target.mapper):
            value = value_of(source, from_name)
            copied = copied and value is not None
            if target.transient:
                target.dict[to_name] = value
            elif copied:
                self._later.append((target, to_name, value))
        return copied

    def _names(self, relation: Relation, source: Mapper[Any], target: Mapper[Any]) -> tuple[tuple[str, str], ...]:
        key = (relation, source, target)
        if key not in self._pairs:
            self._pairs[key] = tuple(
                (source.get_property_by_column(one).key, target.get_property_by_column(other).key)
                for one, other in relation.synchronize_pairs
            )
        return self._pairs[key]

    def _associate(self, reference: Reference) -> None:
        relation = reference.relation
        sides = (
            (reference.owner, relation.synchronize_pairs),
            (reference.target, relation.secondary_synchronize_pairs or ()),
        )
        row: dict[str, Any] = {
            str(column.key): value_of(state, state.mapper.get_property_by_column(own).key)
            for state, pairs in sides
            for own, column in pairs
        }
        table: Any = relation.secondary
        # Both ends of a relationship tell of the same row, in different order.
        association = self.associations.setdefault(table, Association(relation.parent))
        association.rows[tuple(sorted(row.items()))] = None


def value_of(state: State, name: str) -> Any:  # noqa: ANN401 - a column's value
    """An attribute of a new object as it is, of an older one also if it has to be read first."""
    value = state.dict.get(name)
    return getattr(state.obj(), name) if value is None and state.key is not None else value
