"""What `seeded_db.diff` tells of rows: exact whatever wrote them, and an error where it cannot be."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from decimal import Decimal

import psycopg
import pytest
from attacks import times
from handmade import Statements
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.range import Range
from random_schemas import schemas, workloads
from settling import passing_bench, run
from sqlalchemy import text
from writers import WAYS, writers

from pytest_seeddb.clones import rows as rows_module
from pytest_seeddb.clones.engines import open_async_engine, open_engine
from pytest_seeddb.clones.pool import CloneOptions
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.errors import SeedDbError

SCHEMA = [
    "CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL, price numeric(10, 2), at timestamptz DEFAULT now())",
    "INSERT INTO item SELECT n, 'item ' || n, n FROM generate_series(1, 5) n",
    "CREATE TABLE line (a int NOT NULL, b int NOT NULL, v text, UNIQUE (a, b))",
    "INSERT INTO line VALUES (1, 1, 'x'), (1, 2, 'y')",
    "CREATE TABLE note (v text)",
    "INSERT INTO note VALUES ('twice'), ('twice'), ('once')",
    'CREATE SCHEMA "Odd"',
    'CREATE TABLE "Odd"."Ta ble" ("Ke y" int PRIMARY KEY, "user" text)',
    "CREATE TABLE kinds (id int PRIMARY KEY, a int[], j jsonb, b bytea, r int4range, double int)",
    "ALTER TABLE kinds DROP double, ADD double int GENERATED ALWAYS AS (id * 2) STORED",
    "CREATE TABLE part (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
    "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
    "CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
    "INSERT INTO part VALUES (1, '2026-01-05')",
    "CREATE TABLE parent (id int PRIMARY KEY)",
    "CREATE TABLE child (more text) INHERITS (parent)",
    "INSERT INTO child VALUES (1, 'of the child')",
]


@pytest.fixture
def template(worker, make_plan):
    return worker.template(make_plan(Statements("schema", SCHEMA)))


@pytest.fixture
def database(worker, template):
    with worker.database(template) as database:
        yield database


def write(database, *statements):
    with database.connect(autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


NOTHING = (
    ["SELECT 1"],
    ["UPDATE item SET price = 9 WHERE id = 1", "UPDATE item SET price = 1 WHERE id = 1"],
    ["DELETE FROM note WHERE v = 'once'", "INSERT INTO note VALUES ('once')"],
    ["BEGIN", "DELETE FROM item", "ROLLBACK"],
    ["INSERT INTO line VALUES (2, 2, 'z')", "DELETE FROM line WHERE a = 2"],
    ["SELECT nextval('s')"],
)


def test_what_was_put_back_is_no_change(worker, make_plan):
    template = worker.template(make_plan(Statements("schema", [*SCHEMA, "CREATE SEQUENCE s"])))
    for statements in NOTHING:
        with worker.database(template) as database:
            write(database, *statements)
            assert database.diff() == {}, statements
            assert str(database.diff()) == "no row was changed"


CHANGES = {
    "insert": (
        ["INSERT INTO item VALUES (9, 'new', 1.5)"],
        {"item": {"inserted": [{"id": 9, "name": "new", "price": Decimal("1.50"), "at": dt.datetime}]}},
    ),
    "several updates": (
        ["UPDATE item SET price = price + 1 WHERE id < 3", "UPDATE item SET price = price + 1 WHERE id = 2"],
        {
            "item": {
                "updated": [
                    {"old": {"id": 1, "price": 1}, "new": {"id": 1, "price": 2}},
                    {"old": {"id": 2, "price": 2}, "new": {"id": 2, "price": 4}},
                ]
            }
        },
    ),
    "a key of two": (
        ["UPDATE line SET v = 'Y' WHERE b = 2"],
        {"line": {"updated": [{"old": {"a": 1, "b": 2, "v": "y"}, "new": {"v": "Y"}}]}},
    ),
    "another key": (
        ["UPDATE item SET id = 100 WHERE id = 1"],
        {"item": {"deleted": [{"id": 1}], "inserted": [{"id": 100}]}},
    ),
    "no key": (
        ["UPDATE note SET v = 'thrice' WHERE ctid = '(0,1)'", "DELETE FROM note WHERE v = 'once'"],
        {"note": {"deleted": [{"v": "twice"}, {"v": "once"}], "inserted": [{"v": "thrice"}]}},
    ),
    "delete and insert": (
        ["DELETE FROM item WHERE id = 3", "INSERT INTO item VALUES (3, 'another', 3)"],
        {"item": {"updated": [{"old": {"name": "item 3"}, "new": {"name": "another"}}]}},
    ),
    "names with quotes": (
        ['INSERT INTO "Odd"."Ta ble" VALUES (1, NULL)'],
        {"Odd.Ta ble": {"inserted": [{"Ke y": 1, "user": None}]}},
    ),
    "kinds of values": (
        ["INSERT INTO kinds VALUES (1, '{1,NULL}', '{\"a\": [1, null]}', '\\x00ff', '[1,5)')"],
        {
            "kinds": {
                "inserted": [
                    {"id": 1, "a": [1, None], "j": {"a": [1, None]}, "b": b"\x00\xff", "r": Range(1, 5), "double": 2}
                ]
            }
        },
    ),
    "another partition": (
        ["UPDATE part SET at = '2026-02-05'"],
        {
            "part_1": {"deleted": [{"id": 1, "at": dt.date(2026, 1, 5)}]},
            "part_2": {"inserted": [{"id": 1, "at": dt.date(2026, 2, 5)}]},
        },
    ),
    "a child's row": (
        ["UPDATE parent SET id = 2", "INSERT INTO parent VALUES (7)"],
        {
            "child": {"deleted": [{"id": 1, "more": "of the child"}], "inserted": [{"id": 2, "more": "of the child"}]},
            "parent": {"inserted": [{"id": 7}]},
        },
    ),
}


@pytest.mark.parametrize(("statements", "expected"), CHANGES.values(), ids=CHANGES)
def test_rows_are_told_by_table_and_kind(database, statements, expected):
    write(database, *statements)
    assert database.diff() == expected


BEYOND = {
    "truncate": (["TRUNCATE note"], {"note": {"deleted": [{"v": "twice"}, {"v": "twice"}, {"v": "once"}]}}),
    "truncate and fill": (
        ["TRUNCATE note", "INSERT INTO note VALUES ('a'), ('twice'), ('once')"],
        {"note": {"deleted": [{"v": "twice"}], "inserted": [{"v": "a"}]}},
    ),
    "a table more": (["CREATE TABLE extra AS SELECT 1 AS v"], {"extra": {"inserted": [{"v": 1}]}}),
    "a table less": (["DROP TABLE line"], {"line": {"deleted": [{"a": 1, "b": 1}, {"a": 1, "b": 2}]}}),
    "written anew": (["VACUUM FULL item"], {}),
    "an index": (["CREATE INDEX ON item (name)"], {}),
}


@pytest.mark.parametrize(("statements", "expected"), BEYOND.values(), ids=BEYOND)
def test_a_change_of_the_schema_shows_its_rows_and_is_never_equal_to_them_alone(database, statements, expected):
    write(database, *statements)
    found = database.diff()
    assert found.beyond_rows
    assert found != expected
    assert found.differences(expected) == found.differences(expected)[:1]
    if expected:
        assert database.diff(tables=list(expected)) == expected


def test_columns_that_do_not_count_are_left_out(database):
    write(database, "UPDATE item SET at = now() WHERE id = 1", "UPDATE item SET at = now(), price = 0 WHERE id = 2")
    found = database.diff(ignore=["*.at", "item.name"])
    assert found.to_dict() == {
        "item": {"updated": [{"old": {"id": 2, "price": Decimal("2.00")}, "new": {"id": 2, "price": Decimal("0.00")}}]}
    }
    assert database.diff(ignore=["item.*"]) == {}
    with pytest.raises(SeedDbError, match="no column of item 'at'"):
        assert found == {"item": {"updated": [{"new": {"at": 1}}]}}


def test_whole_rows_and_tables_can_be_asked_for(database):
    write(database, "INSERT INTO note VALUES ('new')", "DELETE FROM line WHERE b = 2")
    assert database.diff(columns="all") == {
        "note": {"inserted": [{"v": "new"}]},
        "line": {"deleted": [{"a": 1, "b": 2, "v": "y"}]},
    }
    assert database.diff(columns="all") != {"note": {"inserted": [{"v": "new"}]}, "line": {"deleted": [{"a": 1}]}}
    assert database.diff(tables=["public.note"]) == {"note": {"inserted": [{}]}}
    assert database.diff(tables=["item"]) == {}
    with pytest.raises(SeedDbError, match=r"(?s)no table 'notes'.*Did you mean 'note'"):
        database.diff(tables=["notes"])


def test_a_large_table_tells_numbers_unless_it_is_asked_for(database, monkeypatch):
    monkeypatch.setattr(rows_module, "LARGE", 1000)
    write(database, "DELETE FROM item WHERE id < 3")
    assert database.diff().to_dict() == {"item": {"deleted": 2}}
    assert "2 rows, which were not read" in str(database.diff())
    assert database.diff(tables=["item"]) == {"item": {"deleted": [{"id": 1}, {"id": 2}]}}


@pytest.mark.parametrize("way", WAYS)
def test_rows_count_whoever_committed_them_and_stays_connected(worker, template, way):
    with worker.database(template) as database, writers(database) as all_ways:
        all_ways.work(way, ["UPDATE item SET price = 0 WHERE id = 4", "INSERT INTO note VALUES ('n')"], "pooled")
        assert database.diff() == {
            "item": {"updated": [{"old": {"id": 4, "price": 4}, "new": {"price": 0}}]},
            "note": {"inserted": [{"v": "n"}]},
        }


def test_an_open_transaction_that_wrote_is_an_error_that_names_it(database):
    with psycopg.connect(database.conninfo, application_name="the shop") as connection:
        connection.execute("INSERT INTO note VALUES ('n')")
        with pytest.raises(SeedDbError, match=r"transaction that has written is open(?s:.)*the shop \(idle in trans"):
            database.diff()
        connection.rollback()
        assert database.diff() == {}


def test_it_changes_nothing_and_can_be_asked_again(worker, template):
    for _ in range(2):
        with worker.database(template) as database:
            for number in (1, 2):
                write(database, f"DELETE FROM item WHERE id = {number}")
                assert database.diff() == {"item": {"deleted": number}}
            database.reset()
            assert database.diff() == {}
    assert database.settlement.verdict in {"keep", "rewind", "discard"}
    with worker.database(template) as database:
        assert not database.changes()


def test_a_rewound_clone_tells_the_next_tests_rows_alone(worker, template):
    for number in (3, 4, 5):
        with worker.database(template) as database:
            write(database, f"UPDATE item SET price = 0 WHERE id = {number}", f"INSERT INTO note VALUES ('{number}')")
            assert database.diff() == {
                "item": {"updated": [{"old": {"id": number, "price": number}, "new": {"price": 0}}]},
                "note": {"inserted": [{"v": str(number)}]},
            }
        assert database.settlement.verdict == "rewind"


def test_under_rollback_the_fixtures_transaction_counts(worker, template):
    with worker.database(template, "rollback") as database, open_engine(database) as engine:
        assert database.diff() == {}
        with engine.begin() as connection:
            connection.execute(text("UPDATE item SET price = 0 WHERE id = 4"))
            connection.execute(text("INSERT INTO note VALUES ('n')"))
        assert database.diff() == {
            "item": {"updated": [{"old": {"id": 4, "price": 4}, "new": {"price": 0}}]},
            "note": {"inserted": [{"v": "n"}]},
        }
        database.reset()
        assert database.diff() == {}
    with worker.database(template, "rollback") as database, open_engine(database) as engine:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM note"))
        assert database.diff() == {"note": {"deleted": 3}}


def test_where_it_cannot_be_told_it_is_an_error(worker, template, embedded_server):
    async def work(engine):
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO note VALUES ('n')"))

    with worker.database(template, "rollback") as database, open_async_engine(database) as engine:
        asyncio.run(work(engine))
        with pytest.raises(SeedDbError, match="belongs to the event loop"):
            database.diff()
    with worker.database(template, "readonly") as database:
        assert database.diff() == {}
    with (
        Worker(embedded_server, options=CloneOptions(reset="clone")) as other,
        other.database(template) as database,
        pytest.raises(SeedDbError, match="not inspected before the test"),
    ):
        database.diff()


ALL_TABLES = """
SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'r' AND relpersistence <> 't' AND nspname NOT IN ('pg_catalog', 'information_schema')
"""


def naive(address, other):
    """All rows of two databases that only one of them has, by table, as texts."""
    sides = []
    for place in (address, other):
        with psycopg.connect(place.conninfo, row_factory=dict_row) as connection:
            connection.execute("SET row_security = off")
            names = connection.execute(ALL_TABLES).fetchall()
            tables = {}
            for row in names:
                identifier = sql.Identifier(row["nspname"], row["relname"])
                rows = connection.execute(sql.SQL("SELECT * FROM ONLY {}").format(identifier)).fetchall()
                schema = row["nspname"]
                name = row["relname"] if schema == "public" else f"{schema}.{row['relname']}"
                tables[name] = Counter(map(repr, rows))
            sides.append(tables)
    here, there = sides
    names = {name for name in {*here, *there} if here.get(name) != there.get(name)}
    none = Counter()
    return {
        name: (there.get(name, none) - here.get(name, none), here.get(name, none) - there.get(name, none))
        for name in names
    }


def by_sides(diff):
    """A diff in the same form."""
    found = {}
    for name, kinds in diff.items():
        pairs = kinds.get("updated", [])
        old = Counter(map(repr, [*kinds.get("deleted", []), *(pair["old"] for pair in pairs)]))
        new = Counter(map(repr, [*kinds.get("inserted", []), *(pair["new"] for pair in pairs)]))
        found[name] = (old, new)
    return found


@pytest.mark.long
def test_random_workloads_come_to_what_a_full_comparison_finds(embedded_server, make_plan):
    compared = Counter()

    @settings(
        max_examples=times(100),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(data=st.data(), schema=schemas())
    def check(data, schema):
        plan = make_plan(Statements("schema", schema.statements, layered=False))
        with passing_bench(embedded_server, plan) as bench:
            for _ in range(10):
                workload = data.draw(workloads(schema))
                with (
                    bench.worker.database(bench.template) as database,
                    bench.worker._clones.lent(bench.template) as fresh,
                ):
                    run(database.own_address, workload)
                    found = database.diff()
                    assert by_sides(found) == naive(database.own_address, fresh.address), workload
                    compared[bool(found)] += 1

    check()
    assert compared[True] > 3 * times(100), compared
