"""What of a plain dump reaches psql."""

from __future__ import annotations

import pytest

from pytest_seeddb.dumps.script import Script, Unfit, rules_for_copies, rules_for_dumps


def passed(text, rules=None):
    script = Script(rules_for_dumps(18) if rules is None else rules)
    return b"".join(script.filter(text.encode().splitlines(keepends=True))).decode(), script


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1;\n",
        "SELECT\n1\n;\n",
        "SET default_tablespace = '';\nSELECT 1;\n",
        "COPY t (a) FROM stdin;\n\\connect x\n'\n$$\n-- GRANT\nGRANT ALL ON t TO x;\n\\.\nSELECT 1;\n",
        "SELECT 'GRANT ALL ON t TO x;\n\\connect x\n';\n",
        "SELECT E'it\\'s\n\\\\connect x; ''';\n",
        "SELECT type'x' AS e'y', 1e1, 'C:\\dir';\nSELECT 1;\n",
        'CREATE TABLE "a;\n\\! x" (v int);\n',
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $_x$\nGRANT ALL ON t TO x;\n\\q $$ ' $_x$;\n",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC\n SELECT 1;\n SELECT 2;\nEND;\n",
        "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT ';');\n",
        "/* GRANT /* ALL; */ \\connect x ' */ SELECT 1;\n",
        "SELECT 1; -- GRANT ' ALL ON t TO x; \\connect y\nSELECT 2;\n",
        "SELECT a$1$b FROM t; SELECT $1$ GRANT; $1$;\n".replace("$1$", "$q$"),
        "ALTER TABLE t ADD CHECK (a <> 'x OWNER TO y;');\n",
        "ALTER TABLE t RENAME COLUMN a TO owner;\n",
        "CREATE USER MAPPING FOR x SERVER y;\n",
        "CREATE TABLE grants (v int); INSERT INTO grants VALUES (1);\n",
        "\\set x 1\n\\if :x\nSELECT :x \\gset\n\\endif\n",
        "SELECT 1",
        "CREATE TABLE t (v int)",
        "COPY a (v) FROM stdin; COPY b (v) FROM stdin;\n1\n\\.\n'2\n\\.\nSELECT 1;\n",
    ],
)
def test_text_that_is_to_be_run_passes_as_it_is(text):
    found, script = passed(text)
    assert found == text
    assert not script.left_out


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ALTER TABLE ONLY public.t OWNER TO somebody;\n", "owners"),
        ('ALTER FUNCTION public."f ;"(a int,\n b text) OWNER TO "some ""body";\n', "owners"),
        ("SET SESSION AUTHORIZATION 'x';\n", "owners"),
        ("GRANT SELECT(a), INSERT(b) ON TABLE t TO x WITH GRANT OPTION;\n", "privileges"),
        ("revoke all on schema public from PUBLIC;\n", "privileges"),
        ("ALTER DEFAULT PRIVILEGES FOR ROLE x IN SCHEMA s GRANT ALL ON TABLES TO y;\n", "privileges"),
        ("CREATE USER x;\n", "roles"),
        ("ALTER ROLE x SET search_path = 'a;b';\n", "roles"),
        ("DROP DATABASE IF EXISTS x;\n", "databases"),
        ("CREATE DATABASE x WITH TEMPLATE = template0 ENCODING = 'UTF8';\n", "databases"),
        ("COMMENT ON DATABASE x IS 'y';\n", "databases"),
        ("CREATE TABLESPACE x LOCATION '/x';\n", "tablespaces"),
        ("SET default_tablespace = fast;\n", "tablespaces"),
        ("CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p;\n", "subscriptions"),
        ("COMMENT ON EXTENSION plpgsql IS 'PL/pgSQL';\n", "what is there"),
        ("\\connect shop\n", "\\connect"),
        ("\\c -\n", "\\connect"),
        ("\\connect -reuse-previous=on \"dbname='shop'\"\n", "\\connect"),
    ],
)
def test_what_belongs_to_the_server_is_left_out_and_lines_keep_their_numbers(text, kind):
    found, script = passed(f"SELECT 1;{text}SELECT 2;\n")
    assert found == "SELECT 1;" + "\n" * text.count("\n") + "SELECT 2;\n"
    assert script.left_out == {kind: 1}


def test_a_copy_of_our_own_keeps_all_but_what_the_server_does_not_know():
    text = "SET transaction_timeout = 0;\nALTER TABLE t OWNER TO x;\nGRANT ALL ON t TO x;\n"
    assert passed(text, rules_for_copies(17))[0] == text
    assert passed(text, rules_for_copies(16))[0] == "\n" + text.partition("\n")[2]


def test_a_schema_that_is_there_is_made_only_if_it_is_not():
    assert passed("CREATE SCHEMA public;\n")[0] == "CREATE SCHEMA IF NOT EXISTS public;\n"
    assert passed("CREATE SCHEMA public2;\n")[0] == "CREATE SCHEMA public2;\n"


def test_the_head_tells_the_versions():
    head = "-- Dumped from database version 17.2 (Debian)\n-- Dumped by pg_dump version 18.1\n"
    assert passed(head + "SELECT 1;\n")[1].versions == {"from database": "17.2", "by pg_dump": "18.1"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\\i x\n", 1),
        ("SELECT 1;\n\\include_relative x\n", 2),
        ("SELECT 1 \\g out.txt\n", 1),
        ("SELECT 1 \\g |sh\n", 1),
        ("\\echo a \\\\ \\! x\n", 1),
        ("\\copy t from program 'x'\n", 1),
        ("\\if true \\\\ \\c x\n", 1),
        ("\\quit\n", 1),
        ("COPY t (a) FROM stdin; \\! x\n1\n\\.\n", 1),
        ("COPY (SELECT 1 FROM stdin) TO STDOUT;\n\\! x\n", 2),
        ("\\copy (SELECT ' from stdin') to program 'x'\n", 1),
        ("\\echo ' \\copy t from stdin'\n\\! x\n", 1),
    ],
)
def test_what_reaches_outside_is_named_with_its_line(text, line):
    with pytest.raises(Unfit, match="reaches outside the dump") as caught:
        passed(text)
    assert caught.value.line == line


def test_another_key_does_not_end_a_restriction():
    with pytest.raises(Unfit, match=r"where .restrict allows none"):
        passed("\\restrict a\n\\unrestrict b\n")


HIDDEN = "COPY t (v) FROM stdin;\n\\endif\n\\! x\n\\.\n"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (f"\\if false\n{HIDDEN}", 2, "inside of .if"),
        (f"\\if true\n\\else\n\\if true\n\\endif\nSELECT 1;\n{HIDDEN}", 6, "inside of .if"),
        ("\\if false\n\\copy t from stdin\n\\! x\n\\.\n\\endif\n", 2, "inside of .if"),
        ("\\set x '\\''\nSELECT :x '; \n\\! x\n--'\n", 2, "may hold quotes"),
        ("\\set x $$\nSELECT :x;\nCOPY t FROM stdin;\n\\! x\n\\.\n", 4, "may hold quotes"),
        ("SELECT '''' AS x \\gset\nSELECT :x ';\n\\! x\n", 2, "may hold quotes"),
    ],
)
def test_what_psql_reads_otherwise_hides_nothing(text, line, what):
    with pytest.raises(Unfit, match=what) as caught:
        passed(text)
    assert caught.value.line == line


def test_a_variable_that_psql_quotes_hides_nothing():
    text = (
        "\\set x 'it''s'\nSELECT 1 AS n \\gset\nSELECT :'x', E'a\\nb', '12'::text;\nCOPY t (v) FROM stdin;\n\\N\n\\.\n"
    )
    assert passed(text)[0] == text


def test_a_condition_that_is_over_hides_nothing():
    text = "\\if true\nSELECT 1;\n\\endif\nCOPY t (v) FROM stdin;\n1\n\\.\n"
    assert passed(text)[0] == text


CLEAN = (
    "SET client_encoding = 'UTF8';\n",
    "ALTER TABLE ONLY public.line DROP CONSTRAINT line_invoice_fkey;\n",
    "ALTER TABLE public.line ALTER COLUMN id DROP DEFAULT;\n",
    "DROP TRIGGER t ON public.line;\n",
    "CREATE OR REPLACE VIEW public.v AS\nSELECT\n    NULL::integer AS n;\n",
    "DROP VIEW public.v;\n",
    "DROP FUNCTION public.f(a integer);\n",
    "DROP EXTENSION pg_trgm;\n",
    "DROP SCHEMA public;\n",
    "DROP TYPE public.t CASCADE;\n",
    "SELECT pg_catalog.lo_unlink('16400');\n",
)


def test_the_drops_of_a_clean_dump_are_left_out_since_a_new_database_has_nothing():
    text = "CREATE TABLE t (v int);\nDROP TABLE t;\n"
    found, script = passed("".join(CLEAN) + text)
    assert found == CLEAN[0] + "\n" * (sum(part.count("\n") for part in CLEAN) - 1) + text
    assert script.left_out == {"drops": len(CLEAN) - 1}


@pytest.mark.parametrize("text", ["DROP SCHEMA public CASCADE;\n", "DROP OWNED BY x;\n", "ALTER TABLE t ADD v int;\n"])
def test_other_statements_at_the_head_are_run(text):
    assert passed(text)[0] == text


def test_an_exact_copy_keeps_its_drops():
    assert passed("DROP TABLE t;\n", rules_for_copies(18))[0] == "DROP TABLE t;\n"
