"""A worker whose clone goes from workload to workload, and a way to compare two databases."""

from __future__ import annotations

import contextlib
import threading

import psycopg

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.servers.admin import Admin

_LISTED = (
    "SELECT relname, relkind::text FROM pg_class"
    " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S', 'm') ORDER BY relname"
)
_CATALOGS = (
    "SELECT relname FROM pg_class"
    " WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared AND relname <> 'pg_class'"
)
# What every database has from the beginning is only counted: nobody can change it without writing it anew.
_ROWS = (
    "SELECT '{0}', c::text FROM {0} c"
    " WHERE age(xmin) <= (SELECT age(datfrozenxid) FROM pg_database WHERE datname = 'template0')"
    " UNION ALL SELECT '{0}', count(*) || ' rows' FROM {0}"
)
# Of the catalogs that all databases share, what they say of this one.
_OWN = (
    "SELECT 'pg_db_role_setting', s.setconfig::text FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase"
    " WHERE datname = current_database() UNION ALL"
    " SELECT 'pg_database', concat_ws(' ', datacl, shobj_description(oid, 'pg_database')) FROM pg_database"
    " WHERE datname = current_database()"
)
# Without what VACUUM notes of ages and visibility.
_CLASS = (
    "SELECT 'pg_class', c::text FROM (SELECT relname, reltype, relkind, relpersistence, relacl, reloptions, relnatts,"
    " relchecks, relhasindex, relhasrules, relhastriggers, relrowsecurity, relforcerowsecurity, relpartbound,"
    " CASE WHEN relkind = 'r' THEN (relpages, reltuples)::text END"
    " FROM pg_class WHERE relnamespace <> 'pg_toast'::regnamespace) c"
)


class Bench:
    """One worker whose clone goes from workload to workload, and the state that it must come back to."""

    def __init__(self, worker, template):
        self.worker = worker
        self.pool = worker.pool
        self.template = template
        fresh = worker.clones.make(template)
        self.seeded = state(fresh.address)
        worker.clones.discard(fresh)
        self.verdicts = {}

    def settled(self, work):
        """Let ``work`` change a clone; settle it; compare it with the seeded state unless it is discarded."""
        leased = self.pool.take(self.template)
        try:
            work(leased.clone.address)
        finally:
            found = self.pool.give_back(leased)
        self.verdicts[found.verdict] = self.verdicts.get(found.verdict, 0) + 1
        if found.verdict != "discard":
            assert_same(state(leased.clone.address), self.seeded, found)
        return found

    def settled_like_a_fresh_one(self, workload):
        """Settle after a workload, which must come to the same as on a clone that nobody has used."""

        def work(address):
            fresh = self.worker.clones.make(self.template)
            self._wait_for_jobs()
            run(address, workload)
            run(fresh.address, workload)
            used, unused = state(address, catalogs=False), state(fresh.address, catalogs=False)
            self.worker.clones.discard(fresh)
            assert_same(used, unused, "the same work on a used clone and on a fresh one")

        return self.settled(work)

    def _wait_for_jobs(self):
        """What runs beside may keep the server from reusing the space of dead rows, here and not there."""
        done = threading.Event()
        self.worker._disposal.do(lambda admin: done.set())
        assert done.wait(30)


def assert_same(one, other, about):
    found = differences(one, other)
    assert not found, f"{about}: {found}"


@contextlib.contextmanager
def passing_bench(server, plan):
    """A bench whose template is dropped at the end."""
    with Worker(server) as worker:
        template = worker.template(plan)
        yield Bench(worker, template)
    with Admin(server.address) as admin:
        admin.drop(template.name)


def run(address, workload):
    """Run (connection, statement) pairs over a few connections; errors are part of it. Who is left is closed."""
    connections = {}
    try:
        for number, statement in workload:
            if number not in connections:
                connections[number] = connect(address)
            with contextlib.suppress(psycopg.Error):
                if statement.startswith("COPY"):
                    with connections[number].cursor().copy(statement) as copy:
                        list(copy)
                else:
                    connections[number].execute(statement)
    finally:
        for each in connections.values():
            each.close()


def connect(address):
    """A connection that gives up soon where another one's lock is in its way."""
    options = "-c lock_timeout=20ms -c statement_timeout=5s"
    return psycopg.connect(address.conninfo, autocommit=True, options=options)


def state(address, *, catalogs=True):
    """All rows as a plain SELECT shows them, sequences, and what the catalogs say."""
    with psycopg.connect(address.conninfo) as connection:
        connection.execute("SET row_security = off")
        found = {}
        for name, kind in connection.execute(_LISTED).fetchall():
            columns = "(last_value, is_called)" if kind == "S" else "each"
            found[name] = connection.execute(f"SELECT {columns}::text FROM {name} each").fetchall()
        if catalogs:
            queries = [_CLASS, _OWN, *(_ROWS.format(name) for (name,) in connection.execute(_CATALOGS).fetchall())]
            for catalog, row in connection.execute(" UNION ALL ".join(queries) + " ORDER BY 1, 2"):
                found.setdefault(catalog, []).append(row)
        return found


def differences(one, other):
    """What is not the same in two states, shortened."""
    names = sorted({*one, *other})
    return {name: _shortened(one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def _shortened(one, other):
    """From the first row on that is not the same."""
    if one is None or other is None:
        return str(one)[:300], str(other)[:300]
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return (
        f"{len(one)} and {len(other)} rows, from {same}",
        str(one[same : same + 3])[:300],
        str(other[same : same + 3])[:300],
    )
