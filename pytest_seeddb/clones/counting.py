"""Count what was committed in a clone while connections to it may still be open.

The server's counters are exact once all backends have told them what they wrote: each does when it ends, when it has
been idle for ten seconds, and when it is asked to. Our own are asked (`pytest_seeddb.application.flushing`).
If another one may still hold something back, the transaction numbers may show that nobody wrote anything.
Else the contents show what was changed at least: rows that are newer than the seeded ones, and rows that are missing.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from pytest_seeddb.clones.changes import Changes, OpenConnection, TableChange
from pytest_seeddb.errors import SeedDbError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pytest_seeddb.application.flushing import Told
    from pytest_seeddb.clones.looks import Counters
    from pytest_seeddb.clones.observer import Connection, Observed

    Written = dict[int, tuple[int, int, int]]

# Who is connected, and whether he has told all. Who is only being let in has nothing to tell. The first column is the
# first transaction number that nobody on the server has used: no row is written without one.
_CONNECTED: Final = """
SELECT pg_snapshot_xmax(pg_current_snapshot())::xid::text, application, state, query, has_told, is_writing
FROM (SELECT) AS always LEFT JOIN (
    SELECT coalesce(application_name, '') AS application, coalesce(state, 'unknown') AS state,
        CASE WHEN pid = ANY(%(told)s) AND state = 'idle' THEN '' ELSE coalesce(query, '') END AS query,
        pid = ANY(%(told)s) OR (state = 'idle' AND clock_timestamp() - state_change > '15 s') IS TRUE AS has_told,
        backend_xid IS NOT NULL AS is_writing
    FROM pg_stat_get_activity(NULL)
    WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
      AND backend_type IS DISTINCT FROM 'autovacuum worker') AS connected ON true
"""
# To read what another transaction has locked for itself would be to wait for it.
_READABLE: Final = """
SELECT o FROM unnest(%s::oid[], %s::text[]) AS given (o, name)
WHERE to_regclass(name) = o AND NOT EXISTS (
    SELECT FROM pg_locks WHERE relation = o AND mode = 'AccessExclusiveLock'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
_HASTE: Final = "BEGIN; SET LOCAL lock_timeout = '5ms'; SET LOCAL statement_timeout = '15ms'"
_HASTY: Final = 0.015
"""The same in seconds."""
_CATALOG: Final = sql.SQL("SELECT 0, count(*), count(*) FILTER (WHERE age(xmin) <= age({}::xid)) FROM pg_class")
_POLL: Final = 0.0005
_ENDING: Final = 0.004
"""Seconds after which a connection is open, and not just ending,"""
_LOOKS: Final = 4
"""and as many looks: if our own backend waits long for a processor, so does one that is ending."""
_PATIENCE: Final = 0.02
BUDGET: Final = 0.045
"""Seconds from the call of `changes` after which nobody is waited for, and no contents are read: what is not known by
then is said to be so."""
_PAGES: Final = 300
"""Pages up to which ANALYZE has read a whole table, so that its number of rows is exact."""
_ALL_PAGES: Final = 2000
"""Pages of all tables whose contents are read: less than ten milliseconds."""


def read_changes(observed: Observed, told: Told, deadline: float, is_shared: Callable[[], bool]) -> Changes:
    """What was committed since the test has the clone; after the ``deadline`` nothing is read that may take long.

    ``told`` is what connections that were asked have yet to tell the server. ``is_shared`` says whether anybody else
    may have changed what belongs to the whole server.

    Raises:
        SeedDbError: The server does not answer.
    """
    try:
        return _read(observed, told, deadline, is_shared)
    except psycopg.Error as error:
        raise SeedDbError(
            "The changes of the test cannot be read",
            saw=str(error).splitlines()[0],
            source=f"the plugin's own connection to {observed.connection.info.dbname}",
            remedy="see whether the test ended all connections, or stopped the server",
        ) from error


def _read(observed: Observed, told: Told, deadline: float, is_shared: Callable[[], bool]) -> Changes:
    since, tables = observed.since, observed.shape.tables
    newest, others = _connections(observed, told, deadline)
    connected = tuple(other for other, *_ in others)
    # The number is another where a transaction that wrote has ended.
    is_another = newest != since.newest
    silent = tuple(other for other, has_told, writes in others if not has_told and (writes or is_another))
    # Else nobody has locked anything.
    is_hasty = any(other.state != "idle" for other in connected)
    now, counts = _counters(observed), observed.difference() if tables else {}
    # Somebody may tell the server something between the two.
    while connected and tables and (again := _counters(observed)) != now:
        if time.monotonic() > deadline:
            silent = connected
            break
        now, counts = again, observed.difference()
    beyond_rows = now.is_altered(since.counters) or observed.is_more_than(counts, now)
    written = {oid: (rows.inserted, rows.updated, rows.deleted) for oid, rows in counts.items()}
    for unflushed in told.values():
        for oid, more in unflushed.items():
            inserted, updated, deleted = written.get(oid, (0, 0, 0))
            written[oid] = (inserted + more[0], updated + more[1], deleted + more[2])
            beyond_rows = beyond_rows or oid not in observed.shape.owners
    sequences: tuple[str, ...] = ()
    all_were_read = False
    with suppress(psycopg.errors.QueryCanceled), _in_haste(observed) if is_hasty else observed.reading():
        sequences, all_were_read = _moved_sequences(observed)
    if not all_were_read:
        silent = silent or tuple(other for other in connected if other.state != "idle")
    if silent and time.monotonic() < deadline:
        with suppress(psycopg.Error), _in_haste(observed, deadline - time.monotonic()):
            changed_schema = _add_contents(observed, written, is_hasty=is_hasty)
            beyond_rows = beyond_rows or changed_schema
    # As settling does, take it for the test's where nobody else is there. Else it was not by this database's clients if
    # they have told all, and committed nothing.
    is_other_server = now.globals_mark != since.counters.globals_mark
    is_others = is_other_server and is_shared()
    committed = now.committed != since.counters.committed or not all(has_told for _, has_told, _ in others)
    return Changes(
        tables=tuple(
            TableChange(tables[oid].label, *rows, is_exact=not silent) for oid, rows in written.items() if oid in tables
        ),
        sequences=sequences,
        beyond_rows=beyond_rows or (is_other_server and not is_others),
        connections=connected,
        not_known=silent,
        server_not_known=is_others and committed,
    )


def _counters(observed: Observed) -> Counters:
    with observed.reading():
        return observed.sequences.counters()


def _connections(
    observed: Observed, told: Told, deadline: float
) -> tuple[str, list[tuple[OpenConnection, bool, bool]]]:
    """The next transaction number; and who is connected, whether he has told all, and is in a transaction that writes.

    One that is just ending is waited for, unless the number is still that of the unwritten clone.
    """
    started, looks, unwritten = time.monotonic(), 0, observed.since.newest
    while True:
        with observed.reading():
            rows = observed.connection.execute(_CONNECTED, {"told": list(told)}).fetchall()
        waited, looks = time.monotonic() - started, looks + 1
        is_ending = waited < _ENDING or (looks < _LOOKS and waited < _PATIENCE and time.monotonic() < deadline)
        if not is_ending or rows[0][0] == unwritten or all(row[-2] in {True, None} for row in rows):
            others = [
                (OpenConnection(*row), has_told, writes) for _, *row, has_told, writes in rows if has_told is not None
            ]
            return str(rows[0][0]), others
        time.sleep(_POLL)


@contextmanager
def _in_haste(observed: Observed, seconds: float = _HASTY) -> Iterator[None]:
    """A transaction in which nothing waits long for a lock, and no statement takes long, or longer than ``seconds``.

    It has nothing to undo, and with a ROLLBACK psycopg would give up what it has prepared.
    """
    connection = observed.connection
    try:
        limit = f"; SET LOCAL statement_timeout = {max(1, round(1000 * seconds))}" if seconds < _HASTY else ""
        connection.execute(f"{_HASTE}{limit}".encode(), prepare=False)
        yield
    finally:
        with suppress(psycopg.errors.QueryCanceled):  # where the processor is busy, even this may take too long
            connection.execute("COMMIT" if observed.commits else "ROLLBACK", prepare=False)
        if connection.info.transaction_status == TransactionStatus.INERROR:
            connection.execute("ROLLBACK", prepare=False)


def _readable(connection: Connection, names: dict[int, str]) -> list[int]:
    """Those that still have their names, and that can be read without waiting."""
    return [oid for (oid,) in connection.execute(_READABLE, [list(names), list(names.values())])]


def _moved_sequences(observed: Observed) -> tuple[tuple[str, ...], bool]:
    """Those that moved, and whether all were read: some may be gone, or another transaction may have locked them."""
    connection = observed.connection
    is_inside = connection.info.transaction_status == TransactionStatus.INTRANS
    with suppress(psycopg.Error), connection.transaction() if is_inside else nullcontext():
        return tuple(observed.sequences.moves()), True
    with suppress(psycopg.Error), connection.transaction():
        return tuple(observed.sequences.moves(_readable(connection, observed.sequences.names))), False
    return (), False


def _add_contents(observed: Observed, written: Written, *, is_hasty: bool) -> bool:
    """Add what the contents show of rows that no counter has, at least; whether the schema was changed."""
    connection, newest = observed.connection, observed.since.newest
    tables, pages = {}, 0
    for table in sorted(observed.shape.tables.values(), key=lambda table: table.pages):
        pages += table.pages
        if table.pages <= _PAGES and pages <= _ALL_PAGES and table.tuples >= 0:
            tables[table.oid] = table
    oids: Collection[int] = tables
    if is_hasty:
        oids = _readable(connection, {oid: table.identifier.as_string(connection) for oid, table in tables.items()})
    count = sql.SQL("SELECT {}, count(*), count(*) FILTER (WHERE age(xmin) <= age({}::xid)) FROM ONLY {}")
    parts = [count.format(sql.Literal(oid), sql.Literal(newest), tables[oid].identifier) for oid in oids]
    query = sql.SQL(" UNION ALL ").join([_CATALOG.format(sql.Literal(newest)), *parts])
    (_, _, changed_schema), *rows = sorted(connection.execute(query, prepare=False))
    for oid, number, new in rows:
        inserted, updated, deleted = written.get(oid, (0, 0, 0))
        # An update makes a new row and an old one missing. What the counters have explains some of both.
        more = max(0, new - inserted - updated)
        gone = max(0, round(tables[oid].tuples) - (number - new) - updated - deleted)
        both = min(more, gone)
        if more or gone:
            written[oid] = (inserted + more - both, updated + both, deleted + gone - both)
    return bool(changed_schema)
