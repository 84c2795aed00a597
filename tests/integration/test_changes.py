"""What `seeded_db.changes` tells where it is not a clone of one's own, and where it cannot tell."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from handmade import Statements
from sqlalchemy import text

from pytest_seeddb.clones.changes import Changes, TableChange
from pytest_seeddb.clones.engines import open_async_engine, open_engine
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.errors import SeedDbError

SCHEMA = [
    "CREATE TABLE t (id serial, v int)",
    "INSERT INTO t (v) VALUES (1), (2)",
    "CREATE SCHEMA s",
    "CREATE TABLE s.u (v int)",
]


@pytest.fixture
def template(worker, make_plan):
    return worker.template(make_plan(Statements("schema", SCHEMA)))


def test_under_rollback_the_transactions_own_rows_are_told_and_those_of_savepoints_that_were_rolled_back(
    worker, template
):
    with worker.database(template, "rollback") as database, open_engine(database) as engine:
        assert database.changes() == Changes()
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO t (v) VALUES (3), (4)"))
            connection.execute(text("INSERT INTO s.u VALUES (5)"))
        changes = database.changes()
        assert changes.tables == (TableChange("s.u", 1, 0, 0), TableChange("t", 2, 0, 0))
        assert [name.rpartition(".")[2] for name in changes.sequences] == ["t_id_seq"]
        database.reset()
        assert database.changes() == Changes()


def test_under_rollback_a_failed_transaction_is_an_error_that_says_to_roll_back(worker, template):
    with worker.database(template, "rollback") as database, open_engine(database) as engine:
        with engine.connect() as connection:
            with pytest.raises(Exception, match="division by zero"):
                connection.execute(text("SELECT 1 / 0"))
            with pytest.raises(SeedDbError, match="roll back first"):
                database.changes()
        assert database.changes() == Changes()


def test_under_rollback_with_an_async_engine_it_is_an_error_that_says_why(worker, template):
    async def write(engine):
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO t (v) VALUES (3)"))

    with worker.database(template, "rollback") as database, open_async_engine(database) as engine:
        asyncio.run(write(engine))
        with pytest.raises(SeedDbError, match="belongs to the event loop"):
            database.changes()


def test_under_readonly_there_are_none(worker, template):
    with worker.database(template, "readonly") as database:
        with database.connect() as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO t (v) VALUES (1)")
        assert database.changes() == Changes()


def test_with_reset_clone_it_is_an_error_that_says_so(embedded_server, make_plan):
    with Worker(embedded_server, reset="clone") as worker:
        template = worker.template(make_plan(Statements("schema", SCHEMA)))
        with (
            worker.database(template) as database,
            pytest.raises(SeedDbError, match='choose reset = "auto"'),
        ):
            database.changes()
