"""A script is taken apart where psql takes it apart."""

from __future__ import annotations

import pytest

from pytest_seeddb.dumps.lexer import statements


def texts(script):
    return [statement.text.decode() for statement in statements(script.encode())]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", []),
        (" ;; \n -- nothing; here\n /* or ; here */ ;", []),
        ("SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT 'a;b', 'it''s;'; SELECT 2", ["SELECT 'a;b', 'it''s;'", "SELECT 2"]),
        (r"SELECT 'c:\'; SELECT 2", [r"SELECT 'c:\'", "SELECT 2"]),
        (r"SELECT E'it\'s;', e'\\'; SELECT 2", [r"SELECT E'it\'s;', e'\\'", "SELECT 2"]),
        (r"SELECT U&'\0061;' , B'1', x'f;'; SELECT 2", [r"SELECT U&'\0061;' , B'1', x'f;'", "SELECT 2"]),
        ('SELECT ";""; ", U&"d;"; SELECT 2', ['SELECT ";""; ", U&"d;"', "SELECT 2"]),
        ("SELECT $$a;b$$; SELECT 2", ["SELECT $$a;b$$", "SELECT 2"]),
        ("SELECT $A$ $$;$a$; $A$; SELECT 2", ["SELECT $A$ $$;$a$; $A$", "SELECT 2"]),
        ("SELECT a$b$c; SELECT d$b$", ["SELECT a$b$c", "SELECT d$b$"]),
        ("PREPARE p AS SELECT $1; SELECT $2", ["PREPARE p AS SELECT $1", "SELECT $2"]),
        ("SELECT 1 -- it's; \n; SELECT 2", ["SELECT 1 -- it's;", "SELECT 2"]),
        ("SELECT /* a /* b; */ ; */ 1; SELECT 2", ["SELECT /* a /* b; */ ; */ 1", "SELECT 2"]),
        ("SELECT 4-/* ' */-2; SELECT 2", ["SELECT 4-/* ' */-2", "SELECT 2"]),
        (
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3",
            ["CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "SELECT 3"],
        ),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END; SELECT 3",
            [
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END",
                "SELECT 3",
            ],
        ),
        (
            "create or replace procedure p() begin atomic insert into t values (1); end; BEGIN; SELECT 1; END;",
            ["create or replace procedure p() begin atomic insert into t values (1); end", "BEGIN", "SELECT 1", "END"],
        ),
        ("BEGIN; SELECT 1; COMMIT", ["BEGIN", "SELECT 1", "COMMIT"]),
        ("SELECT 'straße;', ünï$x$; SELECT 2", ["SELECT 'straße;', ünï$x$", "SELECT 2"]),
        ("SELECT 'never closed; SELECT 2", ["SELECT 'never closed; SELECT 2"]),
        ("SELECT $x$ never closed; SELECT 2", ["SELECT $x$ never closed; SELECT 2"]),
        ("SELECT 1 /* never closed; SELECT 2", ["SELECT 1 /* never closed; SELECT 2"]),
        ("SELECT 1\r\n;\r\nSELECT 2;\r\n", ["SELECT 1", "SELECT 2"]),
    ],
)
def test_a_semicolon_ends_a_statement_only_where_it_does_for_psql(script, expected):
    assert texts(script) == expected


def test_each_statement_knows_its_place():
    script = "-- first\nSELECT 1;\n\n/* why\n */ SELECT\n 2;"
    assert [statement.line for statement in statements(script.encode())] == [2, 5]


def test_words_are_those_outside_of_quotes_and_comments():
    (statement,) = statements(b"create /* table */ index concurrently \"table\" on t ('vacuum')")
    assert statement.words == ("CREATE", "INDEX", "CONCURRENTLY", "ON", "T")


def test_data_of_copy_end_at_their_mark():
    copy, after = statements(b"COPY t (a) FROM stdin;\n1\n;'\n\\.\nSELECT 2;\n")
    assert copy.data == b"1\n;'\n"
    assert after.text == b"SELECT 2"
    assert after.line == 5


def test_copies_on_one_line_read_their_data_in_turn():
    script = b"COPY t (a) FROM stdin; COPY u FROM stdin; SELECT 1;\n1\n\\.\n2\n\\.\nSELECT 2"
    assert [statement.data for statement in statements(script)] == [b"1\n", b"2\n", None, None]


def test_copy_to_and_from_a_file_have_no_data():
    script = b"COPY t TO STDOUT; COPY t FROM '/x'; COPY (SELECT 1 FROM stdin) TO STDOUT; SELECT 1"
    assert [statement.data for statement in statements(script)] == [None] * 4


@pytest.mark.parametrize("script", ["\\connect shop\nSELECT 1", "SELECT 1;\n  \\i x.sql\nSELECT 2", "SELECT 1 \\gexec"])
def test_commands_of_psql_are_told_apart(script):
    assert any(
        statement.kind == "command" and statement.text.startswith(b"\\") for statement in statements(script.encode())
    )


def test_a_long_script_takes_no_long_time():
    script = b"INSERT INTO t VALUES (1, 'it''s a longer text; really');\n" * 20_000
    assert len(statements(script)) == 20_000
