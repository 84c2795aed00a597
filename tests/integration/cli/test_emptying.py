"""Emptying a database: all that was made in it goes, what was granted on it stays."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import psycopg
import pytest
from separate import separate_server

from pytest_seeddb.cli.emptying import _OBJECTS, empty
from pytest_seeddb.errors import ServerError
from pytest_seeddb.plan.plan import Progress

EVERYTHING = [
    "CREATE EXTENSION IF NOT EXISTS plpgsql",
    "CREATE TYPE mood AS ENUM ('a')",
    "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    "CREATE TYPE spot AS (x int)",
    "CREATE TYPE span AS RANGE (subtype = int)",
    'CREATE TABLE "Odd ""name" (id serial PRIMARY KEY, m mood, p positive)',
    "CREATE TABLE parted (day int) PARTITION BY RANGE (day)",
    "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (9)",
    "CREATE VIEW seen AS SELECT 1 AS one",
    "CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one",
    "CREATE SEQUENCE free",
    "CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2'",
    "CREATE PROCEDURE nothing() LANGUAGE sql AS ''",
    "CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int)",
    "CREATE OPERATOR @@@ (FUNCTION = twice, RIGHTARG = int)",
    'CREATE COLLATION plain FROM "C"',
    "CREATE TEXT SEARCH CONFIGURATION words (COPY = simple)",
    "CREATE TEXT SEARCH DICTIONARY stems (TEMPLATE = simple)",
    # Of functions that every database has, so that nothing else goes with them.
    "CREATE PUBLICATION all_tables FOR ALL TABLES",
    'CREATE PUBLICATION "of One" FOR TABLE "Odd ""name"',
    "CREATE OPERATOR <+> (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int)",
    "CREATE OPERATOR FAMILY kin USING hash",
    "CREATE OPERATOR CLASS alone FOR TYPE int USING hash AS FUNCTION 1 hashint4(int)",
    "CREATE CAST (int AS bit varying) WITH INOUT",
    "CREATE CONVERSION latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "CREATE FOREIGN DATA WRAPPER nowhere",
    'CREATE SERVER "far off" FOREIGN DATA WRAPPER nowhere',
    'CREATE USER MAPPING FOR CURRENT_USER SERVER "far off"',
    "CREATE ACCESS METHOD pile TYPE TABLE HANDLER heap_tableam_handler",
    "CREATE TRANSFORM FOR int LANGUAGE plpgsql (FROM SQL WITH FUNCTION prsd_lextype(internal))",
    "CREATE TEXT SEARCH TEMPLATE plain_words (LEXIZE = dsimple_lexize, INIT = dsimple_init)",
    "CREATE TEXT SEARCH PARSER p (START=prsd_start, GETTOKEN=prsd_nexttoken, END=prsd_end, LEXTYPES=prsd_lextype)",
    "CREATE LANGUAGE own_words HANDLER plpgsql_call_handler",
    'CREATE STATISTICS together ON id, m FROM "Odd ""name"',
    "CREATE SCHEMA other",
    'CREATE TABLE other.t (id int REFERENCES "Odd ""name")',
    "SELECT lo_create(0)",
    "GRANT USAGE ON SCHEMA public TO PUBLIC",
    "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'",
    "CREATE EVENT TRIGGER keeps_all ON sql_drop EXECUTE FUNCTION refuse()",
]
LEFT = """
SELECT (SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace),
       (SELECT count(*) FROM pg_proc WHERE oid >= 16384), (SELECT count(*) FROM pg_type WHERE oid >= 16384),
       (SELECT count(*) FROM pg_operator WHERE oid >= 16384), (SELECT count(*) FROM pg_collation WHERE oid >= 16384),
       (SELECT count(*) FROM pg_ts_config WHERE oid >= 16384), (SELECT count(*) FROM pg_largeobject_metadata),
       (SELECT count(*) FROM pg_namespace WHERE oid >= 16384)
"""
# What needs no other object, and only superusers make it or give away.
OF_SUPERUSERS = (
    "CREATE PUBLICATION all", "CREATE OPERATOR <", "CREATE OPERATOR FAMILY", "CREATE CAST", "CREATE CONVERSION",
    "CREATE FOREIGN DATA", "CREATE SERVER", "CREATE ACCESS", "CREATE TRANSFORM", "CREATE TEXT SEARCH TEMPLATE",
    "CREATE TEXT SEARCH PARSER", "CREATE LANGUAGE",
)  # fmt: skip
CATALOGS = """
SELECT relname FROM pg_class JOIN pg_attribute a ON attrelid = pg_class.oid AND attname = 'oid'
WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared ORDER BY 1
"""


def made(connection):
    """By catalog, whatever the server's PostgreSQL has for catalogs, the objects that ``initdb`` did not make."""
    catalogs = [name for (name,) in connection.execute(CATALOGS)]
    objects = {name: connection.execute(f"SELECT oid FROM {name} WHERE oid >= 16384").fetchall() for name in catalogs}
    return {name: oids for name, oids in objects.items() if oids}


@pytest.fixture
def connection(empty_database):
    with psycopg.connect(empty_database.conninfo, autocommit=True) as connection:
        for statement in EVERYTHING:
            connection.execute(statement)
        yield connection


def test_nothing_that_was_made_is_left_and_grants_on_public_are(connection):
    before = connection.execute("SELECT nspacl::text FROM pg_namespace WHERE nspname = 'public'").fetchone()
    assert 0 not in connection.execute(LEFT).fetchone()
    kinds = {*made(connection)}
    assert kinds >= {catalog for catalog, _ in _OBJECTS} - {"pg_extension"}
    empty(connection, 5, Progress())
    assert made(connection) == {}
    assert connection.execute("SELECT nspacl::text FROM pg_namespace WHERE nspname = 'public'").fetchone() == before
    for statement in EVERYTHING:  # and all of it can be made again
        connection.execute(statement)


# -- while others use it ---------------------------------------------------------------------------


HOLDS = {
    "has read a table": "SELECT * FROM other.t",
    "writes to a partition": "INSERT INTO parted VALUES (1)",
    "has drawn a number": "SELECT nextval('free')",
    "has read a materialized view": "SELECT * FROM kept",
    "has read a view of no table": "SELECT * FROM seen",
    "makes a table in a schema": "CREATE TABLE other.own (id int)",
    "has locked a table": 'LOCK TABLE "Odd ""name"',
}


@contextmanager
def transaction(address, statement):
    with psycopg.connect(address.conninfo, application_name="the shop") as other:
        other.execute(statement)
        yield other.info.backend_pid


def refusal(connection, lock_timeout=0.3):
    before, started = connection.execute(LEFT).fetchone(), time.monotonic()
    with pytest.raises(ServerError) as caught:
        empty(connection, lock_timeout, Progress())
    assert lock_timeout <= time.monotonic() - started < lock_timeout + 2
    assert connection.execute(LEFT).fetchone() == before
    return caught.value


@pytest.mark.parametrize("statement", HOLDS.values(), ids=HOLDS)
def test_a_session_that_holds_a_lock_stops_it_and_is_named_and_nothing_is_dropped(
    connection, empty_database, statement
):
    with transaction(empty_database, statement) as pid:
        error = refusal(connection)
        assert f"pid {pid}, role postgres, application the shop" in error.saw
        assert "idle in transaction" in error.saw
        assert f"SELECT pg_terminate_backend({pid})" in error.remedy
    empty(connection, 5, Progress())
    assert connection.execute(LEFT).fetchone() == (0,) * 8


def test_a_view_is_locked_only_by_its_name_and_still_stops_it(connection, empty_database):
    connection.execute("CREATE VIEW of_other AS SELECT * FROM other.t")
    with transaction(empty_database, "SELECT * FROM of_other"):
        assert "of_other" in refusal(connection).saw


def test_a_session_with_temporary_tables_and_nothing_else_does_not_stop_it(connection, empty_database):
    with transaction(empty_database, "CREATE TEMPORARY TABLE own (id int); INSERT INTO own VALUES (1)"):
        empty(connection, 0, Progress())
        assert connection.execute("SELECT to_regclass('other.t'), to_regclass('kept')").fetchone() == (None, None)


def test_it_waits_until_the_others_are_done_and_says_once_for_whom(connection, empty_database):
    class Told(Progress):
        reasons = ()

        def waiting(self, why):
            self.reasons = (*self.reasons, why)

    progress = Told()
    with psycopg.connect(empty_database.conninfo) as other:
        other.execute("SELECT * FROM other.t")
        pid, timer = other.info.backend_pid, threading.Timer(0.5, other.rollback)
        timer.start()
        empty(connection, 10, progress)
        timer.join()
    assert connection.execute(LEFT).fetchone() == (0,) * 8
    (reason,) = progress.reasons
    assert f"pid {pid}" in reason
    assert "other.t" in reason


@pytest.mark.slow
def test_nobody_waits_behind_it(connection, empty_database):
    slowest, ended = 0.0, threading.Event()

    def use():
        nonlocal slowest
        with psycopg.connect(empty_database.conninfo, autocommit=True) as visitor:
            while not ended.is_set():
                started = time.monotonic()
                visitor.execute("SELECT * FROM other.t; SELECT nextval('free'); SELECT * FROM kept")
                slowest = max(slowest, time.monotonic() - started)
                time.sleep(0.005)

    visitor = threading.Thread(target=use)
    visitor.start()
    try:
        with transaction(empty_database, "SELECT * FROM kept; SELECT nextval('free')"):
            refusal(connection, 1.5)
    finally:
        ended.set()
        visitor.join()
    assert slowest < 1


@pytest.mark.slow
def test_a_prepared_transaction_is_named_with_the_statement_that_ends_it():
    with separate_server() as start:
        server = start(lambda data: (data / "postgresql.auto.conf").write_text("max_prepared_transactions = 5\n"))
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute("CREATE TABLE t (id int)")
            connection.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'it''s open'")
            with pytest.raises(ServerError) as caught:
                empty(connection, 0, Progress())
            assert (
                'the prepared transaction "it\'s open", in a transaction for 0 s, holds locks on t' in caught.value.saw
            )
            assert "ROLLBACK PREPARED 'it''s open'" in caught.value.remedy
            connection.execute("ROLLBACK PREPARED 'it''s open'")
            empty(connection, 5, Progress())


def test_an_extension_that_stays_may_be_in_use(connection, empty_database):
    connection.execute("CREATE TABLE lookup (id int); ALTER EXTENSION plpgsql ADD TABLE lookup")
    with transaction(empty_database, "SELECT * FROM lookup"):
        empty(connection, 0, Progress())
    assert connection.execute("SELECT to_regclass('lookup')").fetchone() == ("lookup",)
    connection.execute("ALTER EXTENSION plpgsql DROP TABLE lookup")


def test_a_role_that_may_not_drop_what_belongs_to_others_leaves_it_and_empties_the_rest(connection, empty_database):
    connection.execute("DROP ROLE IF EXISTS emptier; CREATE ROLE emptier LOGIN PASSWORD 'in'")
    empty(connection, 5, Progress())
    kept = [statement for statement in EVERYTHING if statement.startswith(OF_SUPERUSERS)]
    for statement in kept:
        connection.execute(statement)
    connection.execute("GRANT CREATE ON SCHEMA public TO emptier")
    before = made(connection)
    role = empty_database.having(user="emptier", password="in")
    with psycopg.connect(role.conninfo, autocommit=True) as limited:
        limited.execute("CREATE TABLE mine (id int)")
        empty(limited, 5, Progress())
    assert made(connection) == before
    connection.execute("REVOKE CREATE ON SCHEMA public FROM emptier; DROP ROLE emptier")
