"""What an error's remedy says helps: each case fails on a real server, and works after the remedy."""

from __future__ import annotations

import psycopg
import pytest

from pytest_seeddb.servers.database_errors import database_error

# What is there before, the statement that fails, words of its remedy, what these words ask for, and the statement then,
# if it is another one.
CASES = {
    "an extension's type": ("", "CREATE TABLE a (v citext)", 'add "citext"', "CREATE EXTENSION citext", ""),
    "an extension's operator class": (
        "",
        "CREATE TABLE a (v int, EXCLUDE USING gist (v WITH =))",
        'add "btree_gist"',
        "CREATE EXTENSION btree_gist",
        "",
    ),
    "an extension's function": ("", "SELECT uuid_generate_v4()", "uuid-ossp", 'CREATE EXTENSION "uuid-ossp"', ""),
    "a role": (
        "",
        "GRANT ALL ON SCHEMA public TO remedied",
        "create the role first",
        "DO $$ BEGIN CREATE ROLE remedied; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        "",
    ),
    "a role that exists": (
        "DO $$ BEGIN CREATE ROLE remedied; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        "CREATE ROLE remedied",
        "Write the statement so that it can run again",
        "",
        "DO $$ BEGIN CREATE ROLE remedied; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    ),
    "an index to drop": (
        "CREATE TABLE a (v int)",
        "ALTER TABLE a DROP CONSTRAINT c",
        "If the statement drops it, write IF EXISTS",
        "",
        "ALTER TABLE a DROP CONSTRAINT IF EXISTS c",
    ),
    "a parameter": ("", "SET no_such = 1", "correct the parameter's name", "", "SET work_mem = '1MB'"),
    "an operator": ("", "SELECT 1 = '{1}'::int[]", "cast one side", "", "SELECT 1::text = '{1}'::int[]::text"),
    "a number of a sequence": (
        "CREATE TABLE a (id serial PRIMARY KEY); INSERT INTO a VALUES (1), (2)",
        "INSERT INTO a DEFAULT VALUES",
        "SELECT setval(pg_get_serial_sequence('table', 'column'), (SELECT max(column) FROM table))",
        "SELECT setval(pg_get_serial_sequence('a', 'id'), (SELECT max(id) FROM a))",
        "",
    ),
    "a row that is there": (
        "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)",
        "INSERT INTO a VALUES (1)",
        "INSERT ... ON CONFLICT DO NOTHING",
        "",
        "INSERT INTO a VALUES (1) ON CONFLICT DO NOTHING",
    ),
    "rows that are not unique": (
        "CREATE TABLE a (v int); INSERT INTO a VALUES (1), (1)",
        "CREATE UNIQUE INDEX ON a (v)",
        "remove the duplicate rows",
        "DELETE FROM a",
        "",
    ),
    "a row that others need": (
        "CREATE TABLE a (v int PRIMARY KEY, w int REFERENCES a); INSERT INTO a VALUES (1, NULL), (2, 1)",
        "DELETE FROM a WHERE v = 1",
        "delete or change the rows that refer to it first",
        "DELETE FROM a WHERE v = 2",
        "",
    ),
    "a row that is missing": (
        "CREATE TABLE a (v int PRIMARY KEY); CREATE TABLE b (v int REFERENCES a)",
        "INSERT INTO b VALUES (1)",
        "create the row it refers to first",
        "INSERT INTO a VALUES (1)",
        "",
    ),
    "a column with nulls": (
        "CREATE TABLE a (v int); INSERT INTO a VALUES (NULL)",
        "ALTER TABLE a ALTER v SET NOT NULL",
        "fill the column",
        "UPDATE a SET v = 1",
        "",
    ),
    "a table that exists": (
        "CREATE TABLE a ()",
        "CREATE TABLE a ()",
        "for example to IF NOT EXISTS",
        "",
        "CREATE TABLE IF NOT EXISTS a ()",
    ),
    "an extension that exists": (
        "",
        "CREATE EXTENSION plpgsql",
        "CREATE EXTENSION IF NOT EXISTS",
        "",
        "CREATE EXTENSION IF NOT EXISTS plpgsql",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_statement_works_after_its_remedy(case, empty_database):
    before, statement, words, cure, afterwards = CASES[case]
    with psycopg.connect(empty_database.conninfo, autocommit=True) as connection:
        try:
            if before:
                connection.execute(before)
            with pytest.raises(psycopg.Error) as raised:
                connection.execute(statement)
            remedies = {task: database_error(raised.value).remedy(task) for task in ("step", "seeder")}
            assert all(words in remedy for remedy in remedies.values()), remedies
            try:
                connection.execute(cure or "SELECT 1")
            except psycopg.errors.FeatureNotSupported:
                return  # this server lacks the extension
            connection.execute(afterwards or statement)
        finally:
            if "remedied" in before + statement:
                connection.execute("DROP OWNED BY remedied; DROP ROLE IF EXISTS remedied")


@pytest.mark.embedded  # which asks for no password: with one, a missing role cannot be told from a wrong password
@pytest.mark.parametrize(
    ("prepare", "words", "cure"),
    [
        ("ALTER ROLE {role} NOLOGIN", "ALTER ROLE ... LOGIN", "ALTER ROLE {role} LOGIN"),
        (
            "REVOKE CONNECT ON DATABASE {name} FROM public",
            "grant the role CONNECT",
            "GRANT CONNECT ON DATABASE {name} TO {role}",
        ),
        (
            "ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            "ALLOW_CONNECTIONS true",
            "ALTER DATABASE {name} ALLOW_CONNECTIONS true",
        ),
        ("ALTER DATABASE {name} CONNECTION LIMIT 0", "CONNECTION LIMIT", "ALTER DATABASE {name} CONNECTION LIMIT 5"),
        ("ALTER ROLE {role} CONNECTION LIMIT 0", "CONNECTION LIMIT", "ALTER ROLE {role} CONNECTION LIMIT 5"),
        ("ALTER ROLE {role} RENAME TO {role}_", "create the role", "ALTER ROLE {role}_ RENAME TO {role}"),
    ],
)
def test_a_connection_works_after_its_remedy(prepare, words, cure, empty_database, server_address):
    from pytest_seeddb.servers.remedies import connection_remedy

    names = {"name": empty_database.database, "role": f"role_of_{empty_database.database}"}
    url = type(empty_database)({**empty_database.params, "user": names["role"]}).conninfo
    with psycopg.connect(server_address.conninfo, autocommit=True) as superuser:
        superuser.execute("CREATE ROLE {role} LOGIN".format(**names))
        try:
            superuser.execute(prepare.format(**names))
            with pytest.raises(psycopg.OperationalError) as raised:
                psycopg.connect(url)
            assert words in connection_remedy(str(raised.value))
            superuser.execute(cure.format(**names))
            psycopg.connect(url).close()
        finally:
            superuser.execute("ALTER DATABASE {name} ALLOW_CONNECTIONS true".format(**names))
            superuser.execute("REVOKE ALL ON DATABASE {name} FROM {role}".format(**names))
            superuser.execute("DROP ROLE {role}".format(**names))
