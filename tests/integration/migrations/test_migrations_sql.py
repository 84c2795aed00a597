"""SQL files run as psql would run them, each in one transaction where that can be."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest

from pytest_seeddb.errors import BuildError, ConfigError
from pytest_seeddb.migrations.sources import stages
from pytest_seeddb.migrations.sql import run_sql_file
from pytest_seeddb.plan.plan import Target
from pytest_seeddb.settings.converters import SqlSpec
from pytest_seeddb.settings.settings import Settings


@pytest.fixture
def started():
    return []


@pytest.fixture
def target(tmp_path, empty_database, started):
    return Target(empty_database, tmp_path, started=started.append)


@pytest.fixture
def run(target):
    def run(text, name="step.sql"):
        path = target.root / name
        path.write_text(text)
        run_sql_file(path, target)

    return run


@pytest.fixture
def ask(target):
    def ask(query):
        with psycopg.connect(target.address.conninfo) as own:
            return own.execute(query).fetchall()

    return ask


def directory(root, **files):
    place = root / "db"
    place.mkdir(exist_ok=True)
    for name, text in files.items():
        (place / name).write_text(text)
    (found,) = stages(Settings(root=root, migrations="db", sources={"migrations": "migrations in seeddb.toml"}))
    return found


def test_files_run_in_natural_order(target, ask, started):
    found = directory(
        target.root,
        **{
            "V10__c.sql": "INSERT INTO t VALUES (10)",
            "V2__b.sql": "INSERT INTO t VALUES (2)",
            "V1__a.sql": "CREATE TABLE t (n int)",
            "R__view.sql": "CREATE VIEW v AS TABLE t",
            "V2__b.down.sql": "DROP TABLE t",
            "notes.txt": "no SQL",
        },
    )
    found.run(target, 0)
    assert ask("TABLE v") == [(2,), (10,)]
    assert [step.name for step in started] == [
        "migration db/V1__a.sql",
        "migration db/V2__b.sql",
        "migration db/V10__c.sql",
        "migration db/R__view.sql",
    ]
    assert [step.name for step in found.steps] == [step.name for step in started]


def test_only_the_steps_that_are_missing_run(target, ask, started):
    found = directory(target.root, **{"1.sql": "broken", "2.sql": "CREATE TABLE second ()"})
    found.run(target, 1)
    assert [step.name for step in started] == ["migration db/2.sql"]
    assert ask("SELECT to_regclass('second')") == [("second",)]


def test_files_of_directories_one_level_down(target, ask):
    for name in ("20260101_init", "20260202_more"):
        (target.root / "db" / name).mkdir(parents=True)
    (target.root / "db/20260101_init/migration.sql").write_text("CREATE TABLE a ()")
    (target.root / "db/20260202_more/migration.sql").write_text("CREATE TABLE b ()")
    directory(target.root).run(target, 0)
    assert ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(2,)]


def test_a_change_of_a_file_changes_its_step_only(target):
    before = directory(target.root, **{"1.sql": "SELECT 1", "2.sql": "SELECT 2"}).steps
    after = directory(target.root, **{"2.sql": "SELECT 3"}).steps
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_directory_without_files_is_refused(target):
    with pytest.raises(ConfigError, match=r"no \*\.sql file") as caught:
        directory(target.root)
    assert "migrations in seeddb.toml" in str(caught.value)


def test_alembics_directory_is_told_apart(target):
    with pytest.raises(ConfigError, match=r"name its alembic\.ini"):
        directory(target.root, **{"env.py": ""})


@pytest.mark.parametrize(
    "marks",
    [
        ("-- migrate:up", "-- migrate:down"),
        ("-- +goose Up", "-- +goose Down"),
        ("-- +migrate Up", "-- +migrate Down"),
        ("-- upgrade --", "-- downgrade --"),
        ("-- migrate: apply", "-- migrate: rollback"),
        ("-- Up Migration", "-- Down Migration"),
    ],
)
def test_only_the_section_that_migrates_upward_runs(marks, run, ask):
    run(f"-- SELECT broken;\n{marks[0]}\nCREATE TABLE t ();\n\n{marks[1]}\nDROP TABLE t;\n")
    assert ask("SELECT to_regclass('t')") == [("t",)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX CONCURRENTLY i ON t (n)",
        "create /* not */ unique index concurrently if not exists i on t (n)",
        "VACUUM t",
        "REINDEX TABLE CONCURRENTLY t",
        "CLUSTER",
        "DO $$ BEGIN INSERT INTO t VALUES (2); COMMIT; END $$",
        "CALL commits()",
        "ALTER TYPE mood ADD VALUE 'sad'; SELECT 'sad'::mood",
        "DO $$ BEGIN ALTER TYPE mood ADD VALUE 'sad'; END $$; SELECT 'sad'::mood",
    ],
)
def test_statements_that_cannot_run_in_a_transaction_run(statement, run, ask):
    run(
        "CREATE TABLE t (n int); CREATE TYPE mood AS ENUM ('happy');"
        "CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;",
        "first.sql",
    )
    run(f"INSERT INTO t VALUES (1);\n{statement};\nINSERT INTO t VALUES (3);")
    rows = ask("SELECT n FROM t WHERE n IN (1, 3) ORDER BY n")
    assert rows == [(1,), (3,)], "each statement ran once"


def test_an_enum_gets_a_value_in_the_files_transaction(run, ask):
    run("CREATE SCHEMA app; CREATE TYPE app.mood AS ENUM ('happy'); CREATE TABLE app.t ();", "first.sql")
    run("SET LOCAL search_path TO app;\nLOCK TABLE t;\nALTER TYPE mood ADD VALUE 'sad';\nCREATE TABLE u ();")
    assert ask("SELECT to_regclass('app.u')") == [("app.u",)]


@pytest.mark.parametrize("mark", ["-- migrate:up transaction:false", "-- +goose NO TRANSACTION\n-- +goose Up"])
def test_a_file_may_ask_for_no_transaction(mark, run, ask):
    with pytest.raises(BuildError):
        run(f"{mark}\nCREATE TABLE t ();\nSELECT broken;\n")
    assert ask("SELECT to_regclass('t')") == [("t",)]


def test_a_failing_file_leaves_nothing(run, ask):
    with pytest.raises(BuildError):
        run("CREATE TABLE t ();\nSELECT broken;\n")
    assert ask("SELECT to_regclass('t')") == [(None,)]


def test_a_file_may_begin_and_commit_by_itself(run, ask):
    run("BEGIN;\nCREATE TABLE t (n int);\nSAVEPOINT s;\nROLLBACK TO s;\nCOMMIT;\nINSERT INTO t VALUES (1);\n")
    assert ask("TABLE t") == [(1,)]


def test_savepoints_alone_need_no_transaction_of_the_files_own(run, ask):
    run("CREATE TABLE t (n int);\nSAVEPOINT s;\nDROP TABLE t;\nROLLBACK TO SAVEPOINT s;\nINSERT INTO t VALUES (1);")
    assert ask("TABLE t") == [(1,)]


def test_a_transaction_that_is_not_ended_is_told(run):
    with pytest.raises(BuildError, match="begins a transaction and does not end it"):
        run("BEGIN;\nCREATE TABLE t ();\n")


def test_data_of_copy_are_loaded(run, ask):
    run(
        "\\restrict abc\nCREATE TABLE t (a int, b text);\nCOPY t (a, b) FROM stdin;\n1\tit's; \\N\n2\t\\N\n\\.\n\n"
        "INSERT INTO t VALUES (3, 'x');\n\\unrestrict abc\n"
    )
    assert ask("SELECT a, b FROM t ORDER BY a") == [(1, "it's; N"), (2, None), (3, "x")]


def test_functions_of_every_quoting(run, ask):
    run(
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 0; SELECT CASE WHEN true THEN 1 END; END;\n"
        "CREATE FUNCTION two() RETURNS int LANGUAGE plpgsql AS $body$ BEGIN RETURN $$2$$; END; $body$;\n"
        'CREATE TABLE "semi;colon" (n int DEFAULT 7 /* ; /* nested ; */ */);\n'
        "INSERT INTO \"semi;colon\" DEFAULT VALUES;\nCOMMENT ON FUNCTION one() IS E'it\\'s; 100%%';\n"
    )
    assert ask('SELECT one(), two(), n FROM "semi;colon"') == [(1, 2, 7)]


def test_settings_of_a_dump_do_not_reach_the_next_file(run, ask):
    run("SELECT pg_catalog.set_config('search_path', '', false); CREATE TABLE public.t ();", "1.sql")
    run("CREATE TABLE u ();", "2.sql")
    assert ask("SELECT to_regclass('public.u')") == [("u",)]


def test_a_failing_statement_is_told_in_full(run):
    with pytest.raises(BuildError) as caught:
        run("CREATE TABLE t ();\n\nSELECT 1,\n\tmissing\nFROM t;\n", "0001.sql")
    text = str(caught.value)
    assert "0001.sql, line 4: the statement failed" in text
    assert 'column "missing" does not exist (SQLSTATE 42703)' in text
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.strip() == "missing")
    assert lines[at + 1].index("^") == lines[at].index("missing")


def test_a_deferred_constraint_that_fails_is_told(run):
    with pytest.raises(BuildError, match="SQLSTATE 23503"):
        run(
            "CREATE TABLE p (id int PRIMARY KEY);"
            "CREATE TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED);"
            "INSERT INTO c VALUES (1);"
        )


def test_bad_data_of_copy_are_told(run):
    with pytest.raises(BuildError, match="SQLSTATE 22P02") as caught:
        run("CREATE TABLE t (n int);\nCOPY t FROM stdin;\n1\nx\n\\.\n")
    assert "COPY t, line 2" in str(caught.value)


@pytest.mark.parametrize("command", ["\\connect other", "\\i other.sql", "\\set x 1", "CREATE DATABASE x;"])
def test_what_is_not_for_this_database_is_refused_before_anything_runs(command, run, ask):
    with pytest.raises(BuildError, match="line 2: "):
        run(f"CREATE TABLE t ();\n{command}\n")
    assert ask("SELECT to_regclass('t')") == [(None,)]


def test_a_file_that_is_not_utf8_is_told(target):
    (target.root / "x.sql").write_bytes(b"SELECT '\xff'")
    with pytest.raises(BuildError, match=r"x\.sql cannot be read"):
        run_sql_file(target.root / "x.sql", target)


def test_a_byte_order_mark_and_an_empty_file_do_no_harm(target, ask):
    (target.root / "x.sql").write_bytes(b"\xef\xbb\xbfCREATE TABLE t ();")
    (target.root / "y.sql").write_text("-- nothing\n")
    run_sql_file(target.root / "x.sql", target)
    run_sql_file(target.root / "y.sql", target)
    assert ask("SELECT to_regclass('t')") == [("t",)]


def test_percent_signs_and_braces_mean_nothing(run, ask):
    run("CREATE TABLE t (x text); INSERT INTO t VALUES ('100%s {a} :b %(c)s');")
    assert ask("TABLE t") == [("100%s {a} :b %(c)s",)]


def test_line_ends_inside_literals_stay(target, ask):
    (target.root / "x.sql").write_bytes(b"CREATE TABLE t (x text);\r\nINSERT INTO t VALUES ('a\r\nb\rc');\r\n")
    run_sql_file(target.root / "x.sql", target)
    assert ask("TABLE t") == [("a\r\nb\rc",)]


@pytest.mark.parametrize("encoding", ["SET client_encoding = 'LATIN1';", "\\encoding latin1", "SET NAMES 'LATIN1';"])
def test_a_file_is_read_in_the_encoding_that_it_sets(encoding, target, ask):
    text = f"{encoding}\nCREATE TABLE t (v text);\nCOPY t FROM stdin;\ncaf\xe9\n\\.\nINSERT INTO t VALUES ('\xfc');\n"
    (target.root / "x.sql").write_bytes(text.encode("latin-1"))
    run_sql_file(target.root / "x.sql", target)
    assert ask("TABLE t") == [("caf\xe9",), ("\xfc",)]


def test_the_data_of_psqls_copy_are_loaded(run, ask):
    run("CREATE TABLE t (a int);\n\\copy t (a) from stdin\n1\n2\n\\.\nINSERT INTO t VALUES (3);\n")
    assert ask("SELECT count(*) FROM t") == [(3,)]


def test_an_included_file_runs_in_the_same_transaction_and_its_errors_name_it(target, run, ask):
    (target.root / "part.sql").write_text("CREATE TABLE u ();\n\nSELECT broken;\n")
    with pytest.raises(BuildError, match=r"part\.sql, line 3: the statement failed") as caught:
        run("CREATE TABLE t ();\n\\ir part.sql\n")
    assert "included by step.sql" in str(caught.value)
    assert ask("SELECT to_regclass('t'), to_regclass('u')") == [(None, None)]


def test_one_file_may_be_the_migrations(target, ask):
    (target.root / "schema.sql").write_text("CREATE TABLE t ();")
    (stage,) = stages(Settings(root=target.root, migrations="schema.sql"))
    stage.run(target, 0)
    assert [step.name for step in stage.steps] == ["migration schema.sql"]
    assert ask("SELECT to_regclass('t')") == [("t",)]


def test_placeholders_of_the_settings_reach_the_statements(target, ask):
    (target.root / "db").mkdir()
    (target.root / "db/V1__a.sql").write_text("CREATE TABLE ${table} (v text DEFAULT '${text}');")
    spec = SqlSpec("db", "flyway", (("table", "t"), ("text", "a ''b''")))
    (stage,) = stages(Settings(root=target.root, migrations=spec))
    stage.run(target, 0)
    assert "a 'b'" in ask("SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef")[0][0].replace("''", "'")
    (other,) = stages(
        Settings(root=target.root, migrations=replace(spec, placeholders=(("table", "u"), ("text", "x"))))
    )
    assert other.steps != stage.steps
    with pytest.raises(ConfigError, match="plain SQL files has no placeholders"):
        stages(Settings(root=target.root, migrations=replace(spec, format="plain")))


def test_the_value_of_a_placeholder_that_is_named_like_a_secret_is_not_shown(target):
    (target.root / "db").mkdir()
    (target.root / "db/V1__a.sql").write_text("SELECT '${db_password}' + broken;")
    spec = SqlSpec("db", "flyway", (("db_password", "s3cret-placeholder"),))
    (stage,) = stages(Settings(root=target.root, migrations=spec))
    with pytest.raises(BuildError) as caught:
        stage.run(target, 0)
    assert "the statement failed" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(stage.steps[0].parts)
    table = {"directory": "db", "formt": "flyway", "placeholders": {"a": "s3cret-placeholder"}}
    with pytest.raises(ConfigError) as refused:
        Settings(root=target.root).replace(migrations=table)
    assert "s3cret" not in str(refused.value)


def test_the_stage_says_which_format_it_took_and_what_it_leaves_out(target):
    stage = directory(target.root, **{"V1__a.sql": "", "U1__a.sql": "", "old.sql": ""})
    assert tuple(note.text for note in stage.notes) == (
        "db: Flyway, recognised, 1 file",
        "not run: db/U1__a.sql: a down migration",
        "not run: db/old.sql: not named as Flyway names migrations",
    )


def test_a_tool_that_asks_for_no_transaction_beside_the_file_gets_it(target, ask):
    (target.root / "db/2020-01-01-000000_a").mkdir(parents=True)
    (target.root / "db/2020-01-01-000000_a/up.sql").write_text("CREATE TABLE t ();\nSELECT broken;")
    before = directory(target.root)
    (target.root / "db/2020-01-01-000000_a/metadata.toml").write_text("run_in_transaction = false")
    after = directory(target.root)
    with pytest.raises(BuildError):
        after.run(target, 0)
    assert ask("SELECT to_regclass('t')") == [("t",)]
    assert before.steps != after.steps
