"""What a test pays for a seeded state, by what it changes, beside the other ways to get one.

    pip install pytest-postgresql        # without it, its column is left out
    python benchmarks/isolation.py [--tables 60] [--big-rows 20000] [--rounds 60] [--json FILE] [--server URL]

Every way does the same tests: get a database in the seeded state, connect, do the work, close, give the
database back. The floor connects to a database that nobody cleans up. All ways and all tests in turn, in
one run, with drops going on beside them as in a real one. Prints medians in milliseconds and, as
ratios, the floor's of the same test. Then the same with each way by itself, test after test.

The peers: pytest-postgresql's janitor in its template mode; the statements that pgtestdb issues
(CREATE DATABASE ... TEMPLATE, DROP DATABASE); TRUNCATE of all tables and the seeds anew, by COPY.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from pytest_seeddb import plan_of
from pytest_seeddb.config import Found, load_settings
from pytest_seeddb.database import seeded_database
from pytest_seeddb.servers import open_server
from pytest_seeddb.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_seeddb import Server, Template
    from pytest_seeddb.address import Address

    Way = Callable[[], contextlib.AbstractContextManager[Address]]

ROWS = 300
TESTS = {
    "read": ["SELECT count(*) FROM t1"],
    "insert into 3 tables": [f"INSERT INTO t{n} (name) VALUES ('new')" for n in (1, 2, 3)],
    "update, 300 rows": ["UPDATE t4 SET name = 'changed' WHERE id = 7"],
    "update, big table": ["UPDATE big SET name = 'changed' WHERE id = 7"],
    "change the schema": ["CREATE TABLE extra (v int)"],
}
_numbers = count(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=60)
    parser.add_argument("--big-rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--server", default="auto")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        write_project(Path(place), parsed.tables, parsed.big_rows)
        settings = load_settings(Path(place), options={"server": Found(parsed.server, "--server")})
        with open_server(settings) as server, Worker(server) as ours, Worker(server, reset="clone") as cloning:
            template = ours.template(plan_of(settings))
            cloning.template(plan_of(settings))
            size = template.record.size / 2**20
            print(f"PostgreSQL {server.version}, {server.kind}; {parsed.tables} tables, {size:.0f} MB")
            ways = dict(all_ways(server, template, ours, cloning, parsed.tables))
            times = measured(ways, parsed.rounds)
            together = back_to_back(ways, parsed.rounds)
    print("\nin turn with all others: what a test waits for")
    report(times)
    print("\nback to back: what a suite of such tests takes, each; spares have no time to be made")
    report(together)
    if parsed.json:
        parsed.json.write_text(json.dumps({"in turn": times, "back to back": together}, indent=1))


def write_project(place: Path, tables: int, big_rows: int) -> None:
    (place / "pyproject.toml").write_text('[project]\nname = "bench"\n[tool.seeddb]\nmigrations = "db"\n')
    (place / ".git").mkdir()
    (place / "db").mkdir()
    made = [
        f"CREATE TABLE t{n} (id serial PRIMARY KEY, name text);"
        f"INSERT INTO t{n} (name) SELECT 'row ' || g FROM generate_series(1, {ROWS}) g;"
        for n in range(tables)
    ]
    big = (
        "CREATE TABLE big (id serial PRIMARY KEY, name text, filler text);"
        f"INSERT INTO big (name, filler) SELECT 'n', repeat('x', 500) FROM generate_series(1, {big_rows}) g;"
    )
    (place / "db" / "001.sql").write_text("\n".join([*made, big]))


def all_ways(
    server: Server, template: Template, ours: Worker, cloning: Worker, tables: int
) -> Iterator[tuple[str, Way]]:
    source = ours.clones.make(template).address  # peers cannot clone what nobody may connect to by name alone
    scratch = ours.clones.make(template).address
    yield "floor", lambda: contextlib.nullcontext(scratch)
    yield "auto", lambda: given(ours, template, "clone")
    yield "reset=clone", lambda: given(cloning, template, "clone")
    yield "rollback", lambda: given(ours, template, "rollback")
    yield "readonly", lambda: given(ours, template, "readonly")
    yield "pgtestdb's SQL", lambda: pgtestdb(server.address, source.database)
    with contextlib.suppress(ImportError):
        from pytest_postgresql.janitor import DatabaseJanitor

        yield "pytest-postgresql", lambda: janitor(DatabaseJanitor, server, source.database)
    truncated = ours.clones.make(template).address
    yield "TRUNCATE + COPY", lambda: truncating(truncated, read_all(source, tables))


@contextlib.contextmanager
def given(worker: Worker, template: Template, isolation: str) -> Iterator[Address]:
    with seeded_database(worker, template, isolation, ()) as database:
        yield database.address


@contextlib.contextmanager
def pgtestdb(maintenance: Address, source: str) -> Iterator[Address]:
    name = f"bench_p_{next(_numbers)}"
    with psycopg.connect(maintenance.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} WITH TEMPLATE {}").format(*map(sql.Identifier, (name, source))))
        try:
            yield maintenance.with_database(name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def janitor(kind: Any, server: Server, source: str) -> Iterator[Address]:
    params, name = server.address.params, f"bench_j_{next(_numbers)}"
    with kind(
        user=params.get("user", "postgres"),
        host=params.get("host", ""),
        port=params.get("port", "5432"),
        dbname=name,
        template_dbname=source,
        password=params.get("password"),
    ):
        yield server.address.with_database(name)


_copies: dict[str, bytes] = {}


def read_all(source: Address, tables: int) -> dict[str, bytes]:
    if not _copies:
        with psycopg.connect(source.conninfo) as connection:
            for table in [*(f"t{n}" for n in range(tables)), "big"]:
                with connection.cursor().copy(f"COPY {table} TO STDOUT (FORMAT BINARY)") as copy:  # type: ignore[arg-type]
                    _copies[table] = b"".join(bytes(part) for part in copy)
    return _copies


@contextlib.contextmanager
def truncating(address: Address, rows: dict[str, bytes]) -> Iterator[Address]:
    yield address
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {', '.join(rows)} CASCADE; DROP TABLE IF EXISTS extra")  # type: ignore[arg-type]
        for table, data in rows.items():
            with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:  # type: ignore[arg-type]
                copy.write(data)


def measured(ways: dict[str, Way], rounds: int) -> dict[str, dict[str, float]]:
    times: dict[str, dict[str, list[float]]] = {way: {test: [] for test in TESTS} for way in ways}
    for number in range(rounds + 3):  # three to warm up
        for test, statements in TESTS.items():
            for way, get in ways.items():
                if way == "readonly" and test != "read":
                    continue
                started = perf_counter()
                with get() as address:
                    work(address, statements, way)
                if number >= 3:
                    times[way][test].append(1000 * (perf_counter() - started))
                if way == "floor" and test == "change the schema":
                    work(address, ["DROP TABLE extra"], way)
    return {
        way: {test: round(statistics.median(values), 2) for test, values in by_test.items() if values}
        for way, by_test in times.items()
    }


def back_to_back(ways: dict[str, Way], rounds: int) -> dict[str, dict[str, float]]:
    means: dict[str, dict[str, float]] = {way: {} for way in ways}
    for test, statements in TESTS.items():
        for way, get in ways.items():
            if (way == "readonly" and test != "read") or (way == "floor" and test == "change the schema"):
                continue
            started = perf_counter()
            for _ in range(rounds):
                with get() as address:
                    work(address, statements, way)
            means[way][test] = round(1000 * (perf_counter() - started) / rounds, 2)
    means["floor"]["change the schema"] = means["floor"]["read"]
    return means


def work(address: Address, statements: list[str], way: str) -> None:
    # With rollback a test's own connections may only read: its fixtures write, in one transaction.
    options = f"{address.params.get('options', '')} -c default_transaction_read_only=off" if way == "rollback" else None
    connection = psycopg.connect(
        address.conninfo, autocommit=way != "rollback", **({"options": options} if options else {})
    )
    for statement in statements:
        connection.execute(statement)  # type: ignore[arg-type]
    connection.close()


def report(times: dict[str, dict[str, float]]) -> None:
    print("".join([f"{'':<20}", *(f"{test:>23}" for test in TESTS)]))
    for way, by_test in times.items():
        cells = (f"{by_test[t]:9.1f} ms {by_test[t] / times['floor'][t]:6.1f} x" if t in by_test else "" for t in TESTS)
        print("".join([f"{way:<20}", *(f"{cell:>23}" for cell in cells)]))


if __name__ == "__main__":
    main()
