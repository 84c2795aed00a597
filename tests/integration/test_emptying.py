"""Emptying a database: all that was made in it goes, what was granted on it stays."""

from __future__ import annotations

import psycopg
import pytest

from pytest_seeddb.cli.applying import empty

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
    "CREATE SCHEMA other",
    'CREATE TABLE other.t (id int REFERENCES "Odd ""name")',
    "SELECT lo_create(0)",
    "GRANT USAGE ON SCHEMA public TO PUBLIC",
]
LEFT = """
SELECT (SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace),
       (SELECT count(*) FROM pg_proc WHERE oid >= 16384), (SELECT count(*) FROM pg_type WHERE oid >= 16384),
       (SELECT count(*) FROM pg_operator WHERE oid >= 16384), (SELECT count(*) FROM pg_collation WHERE oid >= 16384),
       (SELECT count(*) FROM pg_ts_config WHERE oid >= 16384), (SELECT count(*) FROM pg_largeobject_metadata),
       (SELECT count(*) FROM pg_namespace WHERE oid >= 16384)
"""


@pytest.fixture
def connection(empty_database):
    with psycopg.connect(empty_database.conninfo, autocommit=True) as connection:
        for statement in EVERYTHING:
            connection.execute(statement)
        yield connection


def test_nothing_that_was_made_is_left_and_grants_on_public_are(connection):
    before = connection.execute("SELECT nspacl::text FROM pg_namespace WHERE nspname = 'public'").fetchone()
    assert 0 not in connection.execute(LEFT).fetchone()
    empty(connection)
    assert connection.execute(LEFT).fetchone() == (0,) * 8
    assert connection.execute("SELECT nspacl::text FROM pg_namespace WHERE nspname = 'public'").fetchone() == before
    for statement in EVERYTHING:  # and all of it can be made again
        connection.execute(statement)


def test_what_cannot_be_dropped_stops_it_and_nothing_is_dropped(connection, empty_database):
    before = connection.execute(LEFT).fetchone()
    with psycopg.connect(empty_database.conninfo) as other:
        other.execute('LOCK TABLE "Odd ""name"')
        connection.execute("SET statement_timeout = '200ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            empty(connection)
    assert connection.execute(LEFT).fetchone() == before
