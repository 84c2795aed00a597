"""What a test changed, row by row: plain data that compares with what a test expects, and says where it differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from pytest_seeddb.errors import SeedDbError, names_a_secret
from pytest_seeddb.settings.converters import did_you_mean

Row: TypeAlias = dict[str, Any]
"""A row's values by column, as psycopg reads them."""

KINDS: Final = {"inserted": "+", "updated": "~", "deleted": "-"}
_BEYOND: Final = "more changed than rows: the schema, large objects, roles, settings or rows of a shared clone"
_SHOWN: Final = 5
"""Rows of one kind that are printed."""
_VALUE: Final = 60
"""Characters of a value that are printed."""


class Diff(dict[str, dict[str, Any]]):
    """The rows that a test inserted, updated and deleted, by table and kind. Prints as a list.

    A dictionary: ``{"orders": {"inserted": [{"id": 1, ...}], "deleted": [...], "updated": [{"old": {...}, "new":
    {...}}]}}``, with the tables and kinds that have rows. Of a table that is too large to be read by itself it has the
    numbers of rows in place of the rows.

    It is equal to plain data with the same tables, the same kinds and as many rows. Of a row only the columns count
    that the expectation names: the same ones in each row of a list. The order of rows does not count. A number stands
    for that many rows of any kind. A type stands for any value of that type, a function for each value for which it is
    true. It is equal to ``{}`` only if nothing but sequences changed.

    Attributes:
        beyond_rows: Whether more than rows changed, see `Changes.beyond_rows`. Such a diff equals no plain data, unless
            it was asked for by ``tables``.
        columns: The columns that count, of every table that there is.

    Raises:
        SeedDbError: On a comparison: the expectation has a table, a kind or a column that does not exist, or the rows
            of a table that were not read.
    """

    def __init__(
        self,
        rows: Mapping[str, dict[str, Any]],
        *,
        columns: Mapping[str, Sequence[str]] | None = None,
        beyond_rows: bool = False,
        whole: bool = False,
    ) -> None:
        super().__init__(rows)
        self.columns = dict(columns or {})
        self.beyond_rows = beyond_rows
        self._whole = whole

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Diff):
            return self.beyond_rows == other.beyond_rows and self.to_dict() == other.to_dict()
        return not self.differences(other) if isinstance(other, Mapping) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __bool__(self) -> bool:
        return bool(len(self) or self.beyond_rows)

    def joined(self, others: Mapping[str, Diff]) -> Diff:
        """These and those of further databases, with their aliases in front of the tables."""
        rows, columns = self.to_dict(), dict(self.columns)
        for alias, other in others.items():
            rows |= {f"{alias}: {table}": kinds for table, kinds in other.items()}
            columns |= {f"{alias}: {table}": names for table, names in other.columns.items()}
        beyond_rows = self.beyond_rows or any(other.beyond_rows for other in others.values())
        return Diff(rows, columns=columns, beyond_rows=beyond_rows, whole=self._whole)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The same as plain dictionaries and lists, with all columns that count."""
        return {table: dict(kinds) for table, kinds in self.items()}

    def __str__(self) -> str:
        lines = [] if self else ["no row was changed"]
        for table, kinds in self.items():
            lines.append(table)
            for kind, sign in KINDS.items():
                rows = kinds.get(kind, [])
                if isinstance(rows, int):
                    lines.append(f"  {sign} {rows} rows, which were not read: the table is large")
                    continue
                lines += [f"  {sign} {_text(row)}" for row in rows[:_SHOWN]]
                if len(rows) > _SHOWN:
                    lines.append(f"  {sign} and {len(rows) - _SHOWN} more")
        return "\n".join([*lines, *([_BEYOND] if self.beyond_rows else [])])

    def differences(self, expected: Mapping[str, Any]) -> list[str]:
        """What differs from plain data, one line each; nothing where they are equal.

        Raises:
            SeedDbError: As the comparison does.
        """
        expected = {table.removeprefix("public."): kinds for table, kinds in expected.items()}
        for table, kinds in expected.items():
            check(table, self.columns, "table")
            for kind in kinds:
                check(kind, KINDS, "kind of change")
        lines = [_BEYOND] if self.beyond_rows else []
        for table in {**self, **expected}:
            for kind in KINDS:
                rows = self.get(table, {}).get(kind, [])
                lines += self._differences(table, kind, rows, expected.get(table, {}).get(kind, []))
        return lines

    def _differences(self, table: str, kind: str, rows: Any, expected: Any) -> list[str]:  # noqa: ANN401 - numbers, too
        title = f"{table}, {kind}"
        if isinstance(rows, int) and not isinstance(expected, int) and expected:
            raise SeedDbError(
                f"The rows of {table} were not read, and cannot be compared",
                saw=f"{rows} rows {kind} in a large table",
                source="the comparison with seeded_db.diff()",
                remedy=f"ask for them: seeded_db.diff(tables=[{table!r}])",
            )
        if isinstance(rows, int) or isinstance(expected, int):
            numbers = [value if isinstance(value, int) else len(value) for value in (rows, expected)]
            return [] if numbers[0] == numbers[1] else [f"{title}: {numbers[0]} rows, expected were {numbers[1]}"]
        found, wanted = ([_flat(row, kind) for row in side] for side in (rows, expected))
        self._check_columns(table, kind, wanted)
        pairs = _pairs(found, wanted, whole=self._whole)
        missing = [row for place, row in enumerate(wanted) if place not in pairs]
        others = [row for place, row in enumerate(found) if place not in pairs.values()]
        lines = []
        for row in missing:
            lines.append(f"{title}: no row has {_text(row)}")
            if others:
                close = max(others, key=lambda other: sum(_matches(other, row, name) for name in row))
                told = [f"{name}={_value(close, name)}" for name in row if not _matches(close, row, name)]
                lines.append(f"  the closest one has {', '.join(told) or 'further columns'}")
        unexpected = others[: max(len(others) - len(missing), 0)] if missing else others
        return [*lines, *(f"{title}: not expected {_text(row)}" for row in unexpected)]

    def _check_columns(self, table: str, kind: str, rows: list[Row]) -> None:
        for row in rows:
            for name in row:
                check(name.partition(" ")[2] if kind == "updated" else name, self.columns[table], f"column of {table}")
            if row.keys() != rows[0].keys():
                raise SeedDbError(
                    f"The rows {kind} that are expected of {table} do not name the same columns",
                    saw=f"{', '.join(rows[0])}; {', '.join(row)}",
                    source="the comparison with seeded_db.diff()",
                    remedy="name the same columns in each row of a list",
                )


def explain(left: object, right: object) -> list[str] | None:
    """What a failed comparison of a diff with plain data shows; ``None`` for any other comparison."""
    found, expected = (left, right) if isinstance(left, Diff) else (right, left)
    if not isinstance(found, Diff) or not isinstance(expected, Mapping) or isinstance(expected, Diff):
        return None
    title = "the rows that the test changed are not the expected ones"
    return [title, *found.differences(expected), "", "all that it changed:", *str(found).splitlines()]


def check(name: str, known: Iterable[str], thing: str) -> None:
    """Raise `SeedDbError` unless there is a thing of that name."""
    if name not in known:
        raise SeedDbError(
            f"There is no {thing} {name!r}",
            source="seeded_db.diff(), or what it is compared with",
            remedy=did_you_mean(name, known) or "see what seeded_db.diff() prints",
        )


def _flat(row: Mapping[str, Any], kind: str) -> Row:
    """A row's values by column; of an updated row, those of its two states."""
    if kind != "updated":
        return dict(row)
    for state in row:
        check(state, ("old", "new"), "state of an updated row")
    return {f"{state} {column}": value for state, values in row.items() for column, value in values.items()}


def _matches(found: Row, wanted: Row, name: str) -> bool:
    """Whether a value is the one that is expected, of the type, or one for which the function is true."""
    value, expected = found.get(name), wanted[name]
    if isinstance(expected, type):
        return isinstance(value, expected)
    return bool(expected(value) if callable(expected) else expected == value)


def _pairs(found: list[Row], wanted: list[Row], *, whole: bool) -> dict[int, int]:
    """The place of the row found, by that of the row expected, for as many as possible.

    Types and functions may match several rows, so that the first row that fits is not always the right one: this is
    Kuhn's algorithm for a maximum matching in a bipartite graph.
    """
    fits = [
        [
            place
            for place, row in enumerate(found)
            if (not whole or row.keys() == expected.keys()) and all(_matches(row, expected, name) for name in expected)
        ]
        for expected in wanted
    ]
    taken: dict[int, int] = {}

    def take(place: int, tried: set[int]) -> bool:
        free = [other for other in fits[place] if other not in taken]
        for other in free[:1] or fits[place]:
            if other not in tried:
                tried.add(other)
                if other not in taken or take(taken[other], tried):
                    taken[other] = place
                    return True
        return False

    for place in range(len(wanted)):
        take(place, set())
    return {place: other for other, place in taken.items()}


def _value(row: Mapping[str, Any], name: str) -> str:
    text = "***" if names_a_secret(name) else repr(row.get(name))
    return text if len(text) <= _VALUE else f"{text[: _VALUE - 3]}..."


def _text(row: Mapping[str, Any]) -> str:
    """A row in one line; of one that was updated, its key and what changed."""
    if row.keys() != {"old", "new"}:
        return ", ".join(f"{name}={_value(row, name)}" for name in row)
    old, new = row["old"], row["new"]
    first = [f"{name}={_value(old, name)}" for name in [*old][:1] if old[name] == new.get(name)]
    changed = [name for name in {**old, **new} if name not in old or name not in new or old[name] != new[name]]
    return ", ".join([*first, *(f"{name}={_value(old, name)} -> {_value(new, name)}" for name in changed)])
