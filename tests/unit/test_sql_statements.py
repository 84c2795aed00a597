"""A script is taken apart where psql takes it apart."""

from __future__ import annotations

import pytest

from pytest_seeddb.migrations.sql_statements import statements


def texts(script):
    return [each.text for each in statements(script)]


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
        ("SELECT $a$ $$;$b$; $a$; SELECT 2", ["SELECT $a$ $$;$b$; $a$", "SELECT 2"]),
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
    found = list(statements(script))
    assert [each.line_in(script) for each in found] == [2, 5]
    assert all(script[each.offset :].startswith(each.text) for each in found)


def test_words_are_those_outside_of_quotes_and_comments():
    (found,) = statements("create /* table */ index concurrently \"table\" on t ('vacuum')")
    assert found.words == ("CREATE", "INDEX", "CONCURRENTLY", "ON", "T")
    assert found.starts("CREATE", "INDEX")


def test_data_of_copy_end_at_their_mark():
    script = "COPY t (a) FROM stdin;\n1\n;'\n\\.\nSELECT 2;\n"
    copy, after = statements(script)
    assert copy.data == "1\n;'\n"
    assert after.text == "SELECT 2"
    assert after.line_in(script) == 5


def test_copy_to_and_from_a_file_have_no_data():
    assert [each.data for each in statements("COPY t TO STDOUT; COPY t FROM '/x'; SELECT 1")] == [None] * 3


@pytest.mark.parametrize("script", ["\\connect shop\nSELECT 1", "SELECT 1;\n  \\i x.sql\nSELECT 2", "SELECT 1 \\gexec"])
def test_commands_of_psql_are_told_apart(script):
    assert any(each.is_meta and each.text.startswith("\\") for each in statements(script))


def test_a_long_script_takes_no_long_time():
    script = "INSERT INTO t VALUES (1, 'it''s a longer text; really');\n" * 20_000
    assert sum(1 for _ in statements(script)) == 20_000
