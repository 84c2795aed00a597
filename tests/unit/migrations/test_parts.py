"""Which part of an SQL file runs, and which marks are refused."""

from __future__ import annotations

import re

import pytest

from pytest_seeddb.errors import BuildError
from pytest_seeddb.migrations.script import SEED, Reading, read_script, script_parts


@pytest.fixture
def read(tmp_path):
    def read(text, reading=Reading()):  # noqa: B008 - frozen
        path = tmp_path / "1.sql"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        statements, has_transaction = read_script(path, tmp_path, reading)
        return [(statement.piece.text.decode(), statement.line) for statement in statements], has_transaction

    return read


UP = [
    ("-- migrate:up\nA;\n-- migrate:down\nB;", 2),
    ("-- +goose Up\n-- +goose StatementBegin\nA;\n-- +goose StatementEnd\n-- +goose Down\nB;", 3),
    ("-- +migrate Up\nA;\n\n-- +migrate Down\nB;", 2),
    ("-- upgrade --\nA;\n-- downgrade --\nB;", 2),
    ("-- first\n-- depends:\n\n-- migrate: apply\nA;\n-- migrate: rollback\nB;", 5),
    ("A;\n---- create above / drop below ----\nB;", 1),
    ("-- Up Migration\n\nA;\n\n-- Down Migration\nB;", 3),
    ("---- up migration\nA;\n--   DOWN MIGRATION\nB;", 2),
    ("--liquibase formatted sql\n--changeset me:1\nA;\n--rollback B;\n--changeset me:2 dbms:mysql\nC;", 3),
    ('--liquibase formatted sql\n--changeset "a b":"1 2" dbms:mysql,postgresql\nA;\n/* liquibase rollback\nB;\n*/', 3),
    ("--liquibase formatted sql\n--changeset me:1 dbms:!oracle context:test\nA;\n--changeset x:2 ignore:true\nB;", 3),
    ("--liquibase formatted sql\n--changeset John Doe:1\nA;\n--changeset John Doe: 2 dbms:h2\nB;", 3),
    ('--liquibase formatted sql\n--changeset a b: "1 2"\n--rollback\n--rollback ;\n/* liquibase rollback\nB;*/\nA;', 7),
    ("-- The customers\n/* migrate:up\n*/\n-- migrate:up\nA;", 5),
    ("A;\n-- Rollback:\n-- DROP TABLE a;\n", 1),
    ("A;\n-- DOWN\n", 1),
    ("-- undo what 3 did\nA;", 2),
    ("-- Down payments of the customers\nA;", 2),
    ("/* rollback */ /* of */ A;", 1),
]


@pytest.mark.parametrize(("text", "line"), UP)
def test_only_the_way_there_is_read(text, line, read):
    assert [(found.split("*/ ")[-1], at) for found, at in read(text)[0]] == [("A", line)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A;\n-- DOWN\nB;", 2),
        ("A;\n--//@UNDO\nB;", 2),
        ("-- +micrate Up\nA;\n-- +micrate Down\nB;", 3),
        ("-- rambler up\nA;\n-- rambler down\nB;", 3),
        ("A;\n\n-- ==== ROLLBACK ====\n\nB;", 3),
        ("A;\n/* roll back */\nB;", 2),
        ("A;\n-- migrate:undo\nB;", 2),
        ("--- !Ups\nA;\n--- !Downs\nB;", 3),
        ("-- forward\nA;\n-- backward\nB;", 3),
        ("A;\n-- To undo:\nB;", 2),
        ("A;\n---- drop below ----\nB;", 2),
        ("A;\n-- Rollback plan\nB;", 2),
        ("-- migrate: up\nA;\n-- migrate: down\nB;", 3),
        ("A;\n/*\n * DOWN\n */\nB;", 2),
        ("-- Up: the table\nA;\n-- Down: its name\nB;", 3),
    ],
)
def test_a_mark_that_nobody_knows_is_refused_with_its_line(text, line, read):
    with pytest.raises(
        BuildError, match=rf"1\.sql, line {line}: this comment looks like the start of a down migration"
    ):
        read(text)


CREATE = "CREATE TABLE t (old int);\n"


@pytest.mark.parametrize(
    "comment",
    [
        "-- DOWN: remove the table",
        "-- Undo: drop table t",
        "-- Rollback users table",
        "-- users: down",
        "-- v1 down",
        "-- To rollback, run:",
        "-- How to rollback",
        "-- Reverting",
        "-- rollback (uncomment to run)",
        "-- SECTION: rollback script (run manually)",
        "-- down sql in case of rollback",
        "/*\n * Rolling back 3\n */",
    ],
)
def test_a_comment_that_announces_the_removal_of_what_the_file_made_is_refused(comment, read):
    removals = [
        "DROP TABLE IF EXISTS t CASCADE;",
        "BEGIN;\nALTER TABLE u DROP COLUMN old;\nCOMMIT;",
        'DELETE FROM "t";',
    ]
    for removal in removals:
        with pytest.raises(BuildError, match=r"line 2: this comment looks like the start of a down migration"):
            read(f"{CREATE}{comment}\n{removal}")
        assert read(f"{CREATE}{removal}\n{comment}\n{CREATE}"), "it is no tail"
    with pytest.raises(BuildError, match="line 1: this comment"):
        read(f"{CREATE[:-1]} -- DOWN\nDROP TABLE t;")


@pytest.mark.parametrize(
    "text",
    [
        f"{CREATE}-- roll back the discount\nUPDATE t SET old = 1;",
        f"{CREATE}-- Undo the mistake of 003\nDROP TABLE other;",
        "-- Undo what 003 made\nDROP TABLE t;",
        f"{CREATE}-- rollback: DROP TABLE t;\nALTER TABLE t DROP COLUMN old;",
        f"/*\n * To roll back, run 3.down.sql\n */\n{CREATE}",
        f"{CREATE}-- it rolls back if it fails, and then stops\nDROP TABLE t;",
        f"{CREATE[:-1]} -- rollback\nINSERT INTO t VALUES (1);",
    ],
)
def test_other_comments_about_ways_back_are_fine(text, read):
    assert read(text)[0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("-- migrate:down\nB;", "marks a down migration, but no up migration"),
        ("-- Down Migration\nB;", "marks a down migration, but no up migration"),
        ("-- migrate:up\nA;\n-- +goose Down\nB;", "the marks of several migration tools"),
        ("-- +goose ENVSUB ON\n-- +goose Up\nA;", "line 1: only goose itself can run this file"),
        ("A;\nSELECT {{ .x }};\n---- create above / drop below ----\n", "line 2: only tern itself can run this file"),
        ("--liquibase formatted sql\n--changeset a:1 endDelimiter:/\nA/", "line 2: only Liquibase itself"),
        ("--liquibase formatted sql\n--changeset a:1\n--preconditions onFail:MARK_RAN\nA;", "line 3: only Liquibase"),
        ("--liquibase formatted sql\n--changeset me\nA;", "line 2: the changeset has no author and id"),
        ("--liquibase formatted sql\n-- changeset for t\nA;", "line 2: the changeset has no author and id"),
        ("--liquibase formatted sql\nB;\n--changeset a:1\nA;", "line 2: this statement would not run"),
        ("--liquibase formatted sql\n\nA;", "line 3: this statement would not run"),
        ("-- x\nB;\n-- migrate:up\nA;", "line 2: this statement would not run"),
        ("B\n(1);\n-- +goose Up\nA;\n-- +goose Down", "line 1: this statement would not run"),
        ("\\connect other\n", r"line 1: \\connect connects to another database"),
        ("A;\n\\c - other\n", r"line 2: \\c connects to another database"),
        ("A;\nCREATE DATABASE x;", "line 2: CREATE DATABASE affects the whole server"),
        ("DROP DATABASE IF EXISTS x;", "line 1: DROP DATABASE affects the whole server"),
        ("A;\nalter /* all */ system SET work_mem = '7MB';", "line 2: ALTER SYSTEM affects the whole server"),
        ("CREATE TABLESPACE x LOCATION '/x';", "line 1: CREATE TABLESPACE affects the whole server"),
        ("ALTER DATABASE x RENAME TO y;", "line 1: ALTER DATABASE names a database"),
        ('GRANT CONNECT, TEMP ON DATABASE "x" TO y;', r"line 1: GRANT \.\.\. ON DATABASE names a database"),
        ("REVOKE ALL ON DATABASE x FROM PUBLIC;", r"line 1: REVOKE \.\.\. ON DATABASE names a database"),
        ("COMMENT ON DATABASE x IS 'y';", r"line 1: COMMENT \.\.\. ON DATABASE names a database"),
        ("SECURITY LABEL FOR l ON DATABASE x IS 'y';", r"line 1: SECURITY LABEL \.\.\. ON DATABASE names a database"),
        ("ALTER ROLE r IN DATABASE x SET a.b = 'c';", r"line 1: ALTER ROLE \.\.\. IN DATABASE names a database"),
        ("\\! rm x", r"line 1: \\! is a psql command"),
        ("\\set x 1", r"line 1: \\set is a psql command"),
        ("\\set AUTOCOMMIT off", r"line 1: \\set is a psql command"),
        ("\\echo 'a\\n' \\! x", r"line 1: \\echo is a psql command"),
        ("\\q\nA;", r"line 1: \\q is a psql command"),
        ("\\set ON_ERROR_STOP off", r"line 1: \\set is a psql command"),
        ("SELECT 1 \\gset", r"line 1: \\gset is a psql command"),
        ("\\echo a \\\\ \\! x", r"line 1: \\echo is a psql command"),
        ("\\ir gone.sql", "line 1: the file to include does not exist"),
        ("\\i 1.sql", "includes a file that includes this one"),
        (b"SELECT '\xff';", "cannot be read"),
        ("SELECT 1;".encode("utf-16"), "cannot be read"),
        (b"SET client_encoding = 'SJIS';\nSELECT '\x95\x5c';", "an encoding that is not followed"),
    ],
)
def test_what_cannot_run_is_refused_by_name(text, what, read):
    with pytest.raises(BuildError, match=what):
        read(text)


@pytest.mark.parametrize(
    ("tool", "mark"), [("dbmate", "migrate:up"), ("goose", r"\+goose Up"), ("sql-migrate", r"\+migrate Up")]
)
def test_a_file_without_marks_is_refused_where_its_tool_refuses_it(tool, mark, read):
    with pytest.raises(BuildError, match=rf"1\.sql has no -- {mark}"):
        read("-- x\nA;", Reading(tool))
    assert read("-- nothing yet", Reading(tool))[0] == []
    assert read("A;", Reading("tern"))[0] == [("A", 1)]


def test_a_file_that_a_migration_includes_needs_no_marks(read, tmp_path):
    (tmp_path / "2.sql").write_text("A;")
    assert read("-- migrate:up\n\\i 2.sql\n-- migrate:down\nB;", Reading("dbmate"))[0] == [("A", 1)]


def test_a_liquibase_file_may_have_no_changeset_yet(read):
    assert read("--liquibase formatted sql\n", Reading("liquibase", {})) == ([], True)


@pytest.mark.parametrize("text", ["-- up\nA;\n-- down\nB;", "A;\n-- Undo\nB;", "A;\n/* rollback */\nB;"])
def test_a_seed_has_no_way_back(text, read):
    assert [found.removeprefix("/* rollback */\n") for found, _ in read(text, SEED)[0]] == ["A", "B"]


@pytest.mark.parametrize(
    "text",
    [
        "CREATE ROLE r; ALTER ROLE r SET search_path = a; GRANT r TO s; COMMENT ON ROLE r IS 'ON DATABASE x'",
        "GRANT SELECT ON TABLE database_sizes TO r; COMMENT ON TABLE t IS 'a'; CREATE TABLE system (tablespace int)",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET a.b = 1', current_database()); END $$",
    ],
)
def test_statements_about_roles_and_about_the_database_being_built_run(text, read):
    assert [statement for statement, _ in read(text)[0]] == re.split("; (?!END)", text)


def test_advice_for_another_database_leads_nowhere_else(read):
    for text in ("\\c other", "CREATE DATABASE other;", "ALTER DATABASE other SET a.b = 1;"):
        with pytest.raises(BuildError) as caught:
            read(text)
        assert "psql" not in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "\\set ON_ERROR_STOP on\nA;",
        "\\set ON_ERROR_STOP\n\\set QUIET 1\n\\set VERBOSITY terse\nA;",
        "\\echo hello\n\\qecho x\n\\timing on\n\\pset pager off\n\\x\n\\t\n\\a\nA;",
        "\\restrict k\nA;\n\\unrestrict k",
        "A \\g\n",
        "\\echo 'it''s done\\n'\n\\pset null '\\\\N'\n\\f '\\t'\nA;",
        "\\encoding\n\\d t\n\\dt\n\\dt+ public.*\n\\l\nA;\n\\q\n",
        "\\set AUTOCOMMIT on\n\\set ON_ERROR_ROLLBACK interactive\nA;",
    ],
)
def test_commands_that_only_change_what_psql_shows_do_nothing(text, read):
    assert [found for found, _ in read(text)[0]] == ["A"]


@pytest.mark.parametrize(
    "text",
    [
        b"SET client_encoding = 'LATIN1';\nSELECT '\xe9';",
        b"set session client_encoding to latin1;\nSELECT '\xe9';",
        b"SET NAMES 'LATIN1';\nSELECT '\xe9';",
    ],
)
def test_an_encoding_that_the_file_sets_is_followed(text, tmp_path):
    (tmp_path / "1.sql").write_bytes(text)
    statements, _ = read_script(tmp_path / "1.sql", tmp_path, Reading())
    assert statements[1].piece.text == b"SELECT '\xe9'"


def test_an_encoding_of_psql_becomes_a_statement(read):
    assert read("\\encoding LATIN1\nA;")[0] == [("SET client_encoding = 'LATIN1'", 1), ("A", 2)]


@pytest.mark.parametrize(
    "mark",
    [
        "-- migrate:up transaction:false",
        "-- +goose NO TRANSACTION\n-- +goose Up",
        "-- +migrate Up notransaction",
        "-- no-transaction",
        "-- atlas:txmode none",
        "-- transactional: false",
        "---- tern: disable-tx ----",
        "--liquibase formatted sql\n--changeset a:1 runInTransaction:false",
    ],
)
def test_a_file_may_ask_for_no_transaction(mark, read):
    assert read(f"{mark}\nA;")[1] is False
    assert read("A;")[1] is True


def test_placeholders_get_their_values_or_are_refused_by_name(read):
    values = Reading("flyway", {"Owner": "shop", "flyway:defaultSchema": "public"})
    assert read("A ${owner}, ${flyway:defaultSchema} $${}$$;", values)[0] == [("A shop, public $${}$$", 1)]
    with pytest.raises(BuildError, match=r"1\.sql, line 2: the placeholder \$\{table\} has no value"):
        read("A;\nB ${table};", values)
    assert read("A ${owner};")[0] == [("A ${owner}", 1)], "the format has none"


def test_included_files_are_read_in_place_and_count(tmp_path):
    (tmp_path / "sql/deep").mkdir(parents=True)
    (tmp_path / "sql/1.sql").write_text("A;\n\\ir deep/2.sql;\nE;\n")
    (tmp_path / "sql/deep/2.sql").write_text("B;\n\\i sql/3.sql\n\\include_relative 'a b.sql'\n")
    (tmp_path / "sql/3.sql").write_text("C;")
    (tmp_path / "sql/deep/a b.sql").write_text("D;")
    statements, _ = read_script(tmp_path / "sql/1.sql", tmp_path, Reading())
    assert [(s.piece.text, s.file, s.line) for s in statements] == [
        (b"A", "sql/1.sql", 1),
        (b"B", "sql/deep/2.sql", 1),
        (b"C", "sql/3.sql", 1),
        (b"D", "sql/deep/a b.sql", 1),
        (b"E", "sql/1.sql", 3),
    ]
    parts = script_parts(tmp_path / "sql/1.sql", tmp_path, Reading(), source="")
    assert sorted(part.name for part in parts) == ["sql/1.sql", "sql/3.sql", "sql/deep/2.sql", "sql/deep/a b.sql"]


def test_a_file_counts_for_itself_alone_unless_it_includes_others_or_uses_placeholders(tmp_path):
    (tmp_path / "1.sql").write_text("SELECT '${owner}'")
    (alone,) = script_parts(tmp_path / "1.sql", tmp_path, Reading("dbmate"), source="")
    values = {"owner": "a", "other": "b"}
    file, placeholder = script_parts(tmp_path / "1.sql", tmp_path, Reading("flyway", values), source="")
    assert (file, placeholder.name) == (alone, "placeholder owner")
    secret = script_parts(tmp_path / "1.sql", tmp_path, Reading("flyway", {"owner_password": "x"}), source="")
    assert secret == (alone,)
