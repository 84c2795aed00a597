"""Settle a clone after its test: keep it as it is, rewind it, or discard it.

Rewinding puts back the rows of a few tables, and their physical order with them. Triggers, rules and
foreign keys are off meanwhile (``session_replication_role = replica``). Rows that are newer than the
lease are deleted. Where then rows of the template are missing, the table is emptied, vacuumed so that
it starts from its first page again, and reloaded in the template's order. The vacuum is not optional:
without it new rows would stand elsewhere than in a fresh clone, and a test that reads without an order
would see it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Final, Literal

import psycopg
from psycopg import sql

from pytest_seeddb.clones.changes import TableChange
from pytest_seeddb.clones.observer import Discard, TableCounts
from pytest_seeddb.clones.shape import places
from pytest_seeddb.templates.contents import SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.clones.changes import OpenConnection
    from pytest_seeddb.clones.observer import Observer
    from pytest_seeddb.clones.shape import Table

Verdict = Literal["keep", "rewind", "discard"]

_WEIGHT: Final = 0.2
"""How much the latest measurement counts against the earlier ones."""
_STATEMENT: Final = 0.00015
_ROW: Final = 0.000002
_RELOAD: Final = 0.001
"""Seconds for one table, one row and one reload, as measured with PostgreSQL 15 and 18 on two cores. Only
their proportions matter: what rewinding really took corrects the estimate."""
# With few dead rows VACUUM would leave the indexes alone, and with them the places that the rows had.
_VACUUM: Final = sql.SQL("VACUUM (TRUNCATE, INDEX_CLEANUP ON) {}")
_OTHER_SIZES: Final = """
SELECT o FROM unnest(%s::oid[], %s::bigint[]) AS given (o, pages)
WHERE pg_relation_size(o) <> pages * current_setting('block_size')::bigint
"""
_SKIPPED: Final = 32
"""Pages up to which VACUUM skips no all-visible page: SKIP_PAGES_THRESHOLD in PostgreSQL's vacuumlazy.c.

Where it skips pages, it estimates the number of rows, and the estimate differs a little each time.
"""
_EXPECTED: Final = """
UPDATE pg_class SET reltuples = tuples FROM unnest(%s::oid[], %s::float4[]) AS given (o, tuples)
WHERE oid = o AND reltuples <> tuples
"""


@dataclass(frozen=True)
class Settlement:
    """What became of a clone after a test.

    Attributes:
        verdict: ``keep``, ``rewind`` or ``discard``.
        reason: Why, for the report.
        wrote: The rows that were written, table by table, where that is known.
        left: Connections that the test left open.
        seconds: How long it took to find out and to do; a discarded clone's drop comes later.
    """

    verdict: Verdict
    reason: str
    wrote: tuple[TableChange, ...] = ()
    left: tuple[OpenConnection, ...] = ()
    seconds: float = 0.0


@dataclass
class Costs:
    """What rewinding and cloning really take, learned while it is done."""

    clone: float = 0.0
    """Seconds for a clone, 0 where none was timed."""
    factor: float = 1.0
    """What a rewind took, as a multiple of its rough estimate."""
    _dearer: Iterator[int] = field(default_factory=partial(count, 1), repr=False)

    def learn_clone(self, seconds: float) -> None:
        """Learn from a new clone."""
        self.clone = seconds if not self.clone else (1 - _WEIGHT) * self.clone + _WEIGHT * seconds

    def learn_rewind(self, estimate: float, seconds: float) -> None:
        """Learn from a rewind."""
        if estimate:
            self.factor = (1 - _WEIGHT) * self.factor + _WEIGHT * seconds / estimate

    def prefer_clone(self, estimate: float) -> bool:
        """Whether a new clone is cheaper. Now and then the dearer one is tried, so that the estimate stays honest."""
        return 0 < self.clone < estimate * self.factor and next(self._dearer) % 20 != 0


def settle(observer: Observer, costs: Costs) -> Settlement:
    """Keep or rewind the clone, so that it equals a fresh one. In doubt, or after a server error, discard it."""
    started = perf_counter()
    observer.left, observer.wrote = (), ()
    verdict: Verdict = "discard"
    try:
        verdict, reason = _keep_or_rewind(observer, costs)
    except Discard as decision:
        reason = str(decision)
    except psycopg.Error as error:
        reason = f"the server refused to look or to rewind: {str(error).splitlines()[0]}"
    return Settlement(verdict, reason, observer.wrote, observer.left, perf_counter() - started)


def _keep_or_rewind(observer: Observer, costs: Costs) -> tuple[Verdict, str]:
    seeded = observer.seeded.counters
    now, look = observer.wait_until_alone("a connection was left inside a transaction, or does not end")
    observer.resting = now
    if now.beyond_rows(seeded):
        raise Discard("roles, settings of the database, replication slots or the server's counters changed")
    suspects = observer.sequences.suspects(look.fetched)
    if now.tuples == seeded.tuples and not observer.sequences.differences(suspects):
        if suspects:
            observer.start_over(now)
        return "keep", "nothing was written"
    counts, shape = observer.difference(), observer.shape
    observer.wrote = tuple(
        TableChange(shape.tables[oid].label, rows.inserted, rows.updated, rows.deleted)
        for oid, rows in counts.items()
        if oid in shape.tables
    )
    if observer.is_more_than(counts, now):
        raise Discard("more than rows of tables was written: the schema or large objects")
    owners = (shape.owners[oid] for oid in counts)
    rewind = Rewind(observer, {owner: counts.get(owner, TableCounts()) for owner in owners})
    if rewind.written and not observer.superuser:  # so triggers and foreign keys cannot be kept quiet
        raise Discard("rows were written, and our role is no superuser")
    estimate = rewind.seconds
    if costs.prefer_clone(estimate):
        raise Discard("a new clone is cheaper than putting the rows back")
    started = perf_counter()
    if rewind.written:
        rewind.run()
    observer.sequences.restore(suspects)
    observer.start_over(now)
    costs.learn_rewind(estimate, perf_counter() - started)
    return "rewind", "rows were put back" if rewind.written else "sequences were set back"


@dataclass(frozen=True)
class Rewind:
    """What is to be undone in one clone: how many rows were written, by table."""

    observer: Observer
    written: dict[int, TableCounts]

    @property
    def seconds(self) -> float:
        """A rough estimate of what it takes."""
        seconds = 0.0
        for oid, counts in self.written.items():
            seconds += _STATEMENT + _ROW * counts.total
            if counts.updated or counts.deleted:
                seconds += _RELOAD + _ROW * self.observer.shape.tables[oid].tuples
        return seconds

    def run(self) -> None:
        """Undo it. After `Discard` (it cannot be done exactly) or `psycopg.Error`, the clone is in no defined state."""
        clone = self.observer.connection
        spoilt: list[Table] = []
        tables = [self.observer.shape.tables[oid] for oid in self.written]
        if firing := [table.label for table in tables if table.fires]:
            raise Discard(f"{', '.join(firing)} has triggers or rules that fire always")
        touched = [table for table in tables if self.written[table.oid].updated or self.written[table.oid].deleted]
        known = self.observer.shape.rows_of(touched) if touched else {}
        if unknown := [table.label for table in touched if table.oid not in known]:
            raise Discard(f"rows of {', '.join(unknown)} were updated or deleted")
        # The rows that are newer than the lease, in one transaction.
        deleted = clone.execute(sql.SQL(";").join(map(self._deletion, tables)), prepare=False)
        for table in tables:
            # An update of a template's row makes a new version, which was deleted as new: then one is missing.
            if table in touched:
                query = sql.SQL("SELECT count(*) FROM ONLY {}").format(table.identifier)
                if clone.execute(query).fetchall()[0][0] != known[table.oid].number:
                    spoilt.append(table)
            # Where there were inserts only, `live` says how many there must have been to delete.
            elif deleted.rowcount != self.written[table.oid].live:
                raise Discard(f"new rows of {table.label} stand among the template's")
            deleted.nextset()
        for table in spoilt:
            self._reload(table)
        self._shrink(tables)
        if any(table.pages > _SKIPPED for table in tables):
            clone.execute(_EXPECTED, [[table.oid for table in tables], [table.tuples for table in tables]])

    def _deletion(self, table: Table) -> sql.Composed:
        # In a big table new rows stand at its end, where it is looked for them; that all were found is checked.
        first = table.pages - 1 if table.pages > SMALL else 0
        return sql.SQL("DELETE FROM ONLY {} WHERE ctid >= {}::tid AND age(xmin) <= age({}::xid)").format(
            table.identifier, sql.Literal(f"({first},0)"), sql.Literal(self.observer.seeded.newest)
        )

    def _shrink(self, tables: list[Table]) -> None:
        """Vacuum, and see that each table is as long as the template's: a longer one takes its next rows elsewhere."""
        # VACUUM leaves a few empty pages if they are less than a sixteenth of the table. A small one is written anew.
        for attempt in (1, 2):
            self.observer.connection.execute(_VACUUM.format(sql.SQL(", ").join(table.identifier for table in tables)))
            sizes = [[table.oid for table in tables], [table.pages for table in tables]]
            others = {oid for (oid,) in self.observer.connection.execute(_OTHER_SIZES, sizes)}
            tables = [table for table in tables if table.oid in others]
            if not tables:
                return
            if hopeless := [table.label for table in tables if attempt > 1 or table.pages > SMALL]:
                raise Discard(f"{', '.join(hopeless)} did not shrink to the template's size")
            for table in tables:
                self._reload(table)

    def _reload(self, table: Table) -> None:
        """Empty a table to its first page, and fill it with the template's rows."""
        rows, clone = self.observer.shape.rows_of([table]).get(table.oid), self.observer.connection
        if rows is None:
            raise Discard(f"{table.label} is to be written anew, and its rows are not known")
        clone.execute(sql.SQL("DELETE FROM ONLY {}").format(table.identifier))
        clone.execute(_VACUUM.format(table.identifier))
        if clone.execute("SELECT pg_relation_size(%s::oid)", [table.oid]).fetchall()[0][0]:
            raise Discard(f"{table.label} could not be emptied to its first page")
        cursor = clone.cursor()
        with cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(table.identifier)) as copy:
            copy.write(rows.data)
        if cursor.rowcount != rows.number:
            raise Discard(f"{table.label} took {cursor.rowcount} of {rows.number} rows")
        # A template whose table has gaps takes its next row there; a reloaded one has none.
        if places(clone, table) != rows.places:
            self.observer.shape.give_up(table)
            raise Discard(f"rows of {table.label} do not come to stand where they stood")
