"""A dump of any format and origin becomes the database that it is of, or nothing, with a word on why."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shutil
import uuid

import psycopg
import pytest
from dumping import contents, fill, pg_dump, restored, text_of
from psycopg import sql

from pytest_seeddb.dumps.formats import recognize
from pytest_seeddb.errors import BuildError, ConfigError, SeedDbError

PLAIN = """\
--
-- PostgreSQL database dump
--
SET statement_timeout = 0;
CREATE TABLE public.t (id int PRIMARY KEY, a text);
COPY public.t (id, a) FROM stdin;
1\tone
2\ttwo
\\.


--
-- PostgreSQL database dump complete
--

"""


@pytest.fixture(scope="module")
def rich(server_address):
    """A database with one of everything."""
    name = f"rich_{os.getpid()}"
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    fill(server_address.with_database(name))
    yield server_address.with_database(name)
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def rich_text(rich, tmp_path_factory):
    return text_of(rich, tmp_path_factory.mktemp("rich") / "text")


@pytest.fixture
def write(tmp_path):
    def written(text, name="seed-db.sql"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


@pytest.fixture
def query(empty_database):
    def rows(statement):
        with psycopg.connect(empty_database.conninfo) as connection:
            return connection.execute(statement).fetchall()

    return rows


def refused(path, address, kind=BuildError):
    with pytest.raises(kind) as caught:
        restored(path, address)
    return str(caught.value)


# -- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ((), "plain"),
        (("--inserts", "--rows-per-insert=3"), "plain"),
        (("--create", "--clean", "--if-exists"), "plain"),
        (("-Fc",), "custom"),
        (("-Fd",), "directory"),
        (("-Ft",), "tar"),
    ],
    ids=str,
)
def test_a_dump_of_any_format_restores_the_same_database(rich, rich_text, empty_database, tmp_path, options, kind):
    path = pg_dump(rich, tmp_path / "seed-db", *options)
    assert recognize(path, source="").kind == kind
    restored(path, empty_database)
    assert text_of(empty_database, tmp_path / "after") == rich_text
    if not options:
        assert contents(empty_database) == contents(rich)


@pytest.mark.parametrize("options", [["--clean"], ["--clean", "--create"], ["--clean", "--if-exists"]])
def test_a_dump_that_drops_everything_first_restores_the_same_database(
    rich, rich_text, empty_database, tmp_path, options
):
    with psycopg.connect(rich.conninfo, autocommit=True) as connection:
        # A view that depends on its own rows' type: pg_dump drops it by way of an empty one.
        connection.execute("CREATE TABLE circle (n int); CREATE VIEW round AS SELECT * FROM circle")
        connection.execute("CREATE FUNCTION through(round) RETURNS int LANGUAGE sql AS 'SELECT $1.n'")
        connection.execute("CREATE OR REPLACE VIEW round AS SELECT n FROM circle c WHERE through(ROW(c.n)::round) > 0")
        try:
            path = pg_dump(rich, tmp_path / "seed-db.sql", *options)
        finally:
            connection.execute("DROP TABLE circle CASCADE")
    restored(path, empty_database)
    with psycopg.connect(empty_database.conninfo, autocommit=True) as connection:
        connection.execute("DROP TABLE circle CASCADE")
    assert text_of(empty_database, tmp_path / "after") == rich_text


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open], ids=["gzip", "bzip2", "xz"])
def test_a_compressed_plain_dump_is_told_by_its_bytes_and_not_by_its_name(empty_database, tmp_path, query, opener):
    with opener(tmp_path / "seed-db.sql", "wb") as stream:
        stream.write(PLAIN.encode())
    restored(tmp_path / "seed-db.sql", empty_database)
    assert query("SELECT * FROM t") == [(1, "one"), (2, "two")]


def test_a_byte_order_mark_and_line_ends_of_windows_do_no_harm(empty_database, write, query):
    path = write("")
    path.write_bytes(b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode())
    restored(path, empty_database)
    assert query("SELECT * FROM t") == [(1, "one"), (2, "two")]


# -- what belongs to the server -------------------------------------------------------------------


def test_roles_that_are_not_there_are_no_matter_and_none_is_made(empty_database, write, query):
    role = f"nobody_{uuid.uuid4().hex}"
    more = f"""
        CREATE ROLE {role} LOGIN PASSWORD 'x';
        ALTER TABLE public.t OWNER TO {role};
        GRANT SELECT ON TABLE public.t TO {role};
        REVOKE ALL ON TABLE public.t
            FROM {role};
        ALTER DEFAULT PRIVILEGES FOR ROLE {role} GRANT SELECT ON TABLES TO {role};
        SET SESSION AUTHORIZATION {role};
    """
    found = restored(write(PLAIN + more), empty_database)
    assert found.left_out == {"roles": 1, "owners": 2, "privileges": 3}
    assert query(f"SELECT count(*) FROM pg_roles WHERE rolname = '{role}'") == [(0,)]
    assert query("SELECT pg_get_userbyid(relowner) = current_user FROM pg_class WHERE relname = 't'") == [(True,)]


@pytest.mark.parametrize("options", [(), ("-Fc",)], ids=str)
def test_a_dump_of_another_roles_tables_restores_as_ours(rich, empty_database, tmp_path, query, options):
    role = sql.Identifier(f"former_{uuid.uuid4().hex}")
    table = sql.SQL("CREATE TABLE former (v int); ALTER TABLE former OWNER TO {0}; GRANT ALL ON parent TO {0}")
    with psycopg.connect(rich.conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {}").format(role))
        try:
            connection.execute(table.format(role))
            path = pg_dump(rich, tmp_path / "seed-db", *options)
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))
    restored(path, empty_database)
    assert query("SELECT pg_get_userbyid(relowner) = current_user FROM pg_class WHERE relname = 'former'") == [(True,)]


def test_a_dump_with_its_database_is_restored_into_ours_and_no_other(rich, empty_database, tmp_path, query):
    before = query("SELECT datname FROM pg_database ORDER BY 1")
    path = pg_dump(rich, tmp_path / "seed-db.sql", "--create")
    assert "\\connect" in path.read_text()
    found = restored(path, empty_database)
    assert found.left_out["\\connect"] == 1
    assert found.left_out["databases"] >= 1
    assert query("SELECT datname FROM pg_database ORDER BY 1") == before
    assert query("SELECT count(*) FROM parent") == [(18,)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{PLAIN}\n\\connect one\nSELECT 1;\n\\c two\n", "it holds several databases"),
        ("--\n-- PostgreSQL database cluster dump\n--\nCREATE ROLE x;\n", "it is a dump of a whole server"),
    ],
)
def test_a_dump_of_several_databases_is_refused(empty_database, write, query, text, message):
    assert message in refused(write(text), empty_database)
    assert query("SELECT count(*) FROM pg_roles WHERE rolname = 'x'") == [(0,)]


def test_what_a_new_database_has_already_is_no_error(empty_database, write):
    restored(write("CREATE SCHEMA public;\nCOMMENT ON EXTENSION plpgsql IS 'x';\n" + PLAIN), empty_database)


def test_settings_that_only_newer_servers_have_are_left_out_and_no_others(empty_database, embedded_server, write):
    found = restored(write("SET transaction_timeout = 0;\n" + PLAIN), empty_database)
    assert found.left_out == ({"newer settings": 1} if embedded_server.major < 17 else {})


def test_statistics_of_the_other_server_are_left_out(empty_database, write):
    text = "SELECT * FROM pg_catalog.pg_restore_relation_stats(\n\t'version', '180000'::integer\n);\n"
    assert restored(write(PLAIN + text), empty_database).left_out == {"statistics": 1}


def test_another_setting_that_the_server_does_not_have_is_an_error(empty_database, write):
    assert 'unrecognized configuration parameter "no_such_timeout"' in refused(
        write("SET no_such_timeout = 0;\n" + PLAIN), empty_database
    )


def test_a_subscription_to_the_server_that_the_dump_is_from_is_not_made(empty_database, write, query):
    text = "CREATE SUBSCRIPTION s CONNECTION 'host=prod' PUBLICATION p WITH (connect = false, slot_name = 's');\n"
    assert restored(write(PLAIN + text), empty_database).left_out == {"subscriptions": 1}
    assert query("SELECT count(*) FROM pg_subscription") == [(0,)]


# -- commands of psql's ---------------------------------------------------------------------------


def test_commands_of_psqls_that_stay_inside_the_dump_work(empty_database, write, query):
    text = (
        "\\set who 'it''s'\n\\echo hello\nSELECT 3 AS n \\gset\n\\if true\n"
        "INSERT INTO t VALUES (:n, :'who');\n\\else\nDROP TABLE t;\n\\endif\n"
        "\\copy t from stdin\n4\tfour\n\\.\nSELECT 'INSERT INTO t VALUES (5, ''five'')' \\gexec\n"
    )
    restored(write(PLAIN + text), empty_database)
    assert query("SELECT id, a FROM t WHERE id > 2 ORDER BY id") == [(3, "it's"), (4, "four"), (5, "five")]


@pytest.mark.parametrize(
    "command",
    ["\\i more.sql", "\\copy t from 'rows.txt'"],
)
def test_commands_that_reach_outside_of_the_dump_are_refused(empty_database, write, command):
    error = refused(write(f"{PLAIN}{command}\n"), empty_database)
    assert f"seed-db.sql, line {PLAIN.count(chr(10)) + 1}: " in error
    assert "reaches outside the dump" in error


def test_a_command_where_the_dump_itself_allows_none_is_refused(empty_database, write):
    text = PLAIN.replace("SET statement", "\\restrict Key\nSET statement") + "\\echo x\n\\unrestrict Key\n"
    assert "where \\restrict allows none" in refused(write(text), empty_database)


def test_a_restricted_dump_restores_whatever_psql_there_is(empty_database, write, query):
    text = PLAIN.replace("SET statement", "\\restrict Key\nSET statement") + "\\unrestrict Key\n"
    restored(write(text), empty_database)
    assert query("SELECT count(*) FROM t") == [(2,)]


# -- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["2\ttwo\n", "\\.\n", "FROM stdin;\n"])
def test_a_plain_dump_that_was_cut_is_not_half_restored(empty_database, write, end):
    cut = PLAIN[: PLAIN.index(end) + len(end)]
    assert "ends too early" in refused(write(cut), empty_database)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'a;\n",
        "CREATE TABLE t (v int);\nCOPY t FROM stdin;\n1\n",
        "SELECT $x$ a;\n$y$\n",
        "/* a\n",
        'SELECT 1 AS "a\n',
    ],
)
def test_an_open_end_is_an_error(empty_database, write, text):
    assert "ends too early" in refused(write(text), empty_database)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file of 0 bytes"),
        (b" \n\n", "an empty file of 3 bytes"),
        (PLAIN.encode("utf-16"), "text in UTF-16"),
        (b"PK\x03\x04" + b"\0" * 600, "binary data"),
        (gzip.compress(PLAIN.encode())[:-9], "Compressed file ended"),
        (gzip.compress(b"PGDMP\x01\x0e\x00"), "an archive of pg_dump inside of gzip"),
        (b"\x28\xb5\x2f\xfd....", "zstd"),
        (b"other.txt".ljust(257, b"\0") + b"ustar" + b"\0" * 250, "a tar archive that does not begin with toc.dat"),
    ],
    # gzip writes the time into what it makes: as names these would differ between xdist's workers.
    ids=["empty", "blank", "UTF-16", "zip", "cut gzip", "archive in gzip", "zstd", "tar"],
)
def test_what_is_no_dump_is_refused_before_anything_is_built(tmp_path, content, message):
    path = tmp_path / "seed-db.sql"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(message)):
        recognize(path, source="the test")


def test_a_file_of_comments_is_empty(empty_database, write):
    assert "it is empty" in refused(write("-- nothing\n"), empty_database)


def test_a_directory_that_is_no_dump_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"a directory without toc\.dat"):
        recognize(tmp_path, source="the test")


def test_a_compressed_dump_that_is_damaged_further_on_is_named(empty_database, tmp_path):
    path = tmp_path / "seed-db.sql.gz"
    rows = "".join(f"SELECT '{uuid.uuid4()}';\n" for _ in range(4_000))
    path.write_bytes(gzip.compress(rows.encode())[:-20_000])
    assert "The dump seed-db.sql.gz is damaged" in refused(path, empty_database)


@pytest.mark.parametrize("options", [("-Fc",), ("-Ft",), ("-Fd",)], ids=str)
def test_an_archive_that_was_cut_is_named(rich, empty_database, tmp_path, options):
    path = pg_dump(rich, tmp_path / "seed-db", *options)
    cut = path / "toc.dat" if path.is_dir() else path
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    assert "The dump seed-db is damaged" in refused(path, empty_database)


def test_a_directory_that_lacks_a_file_is_named(rich, empty_database, tmp_path):
    path = pg_dump(rich, tmp_path / "seed-db", "-Fd")
    max(path.glob("*.dat.gz"), key=lambda each: each.stat().st_size).unlink()
    assert "The dump seed-db is damaged" in refused(path, empty_database)


def test_an_archive_that_is_newer_than_every_pg_restore_here_is_named_with_its_version(rich, empty_database, tmp_path):
    path = pg_dump(rich, tmp_path / "seed-db", "-Fc")
    data = bytearray(path.read_bytes())
    data[6] = 99
    path.write_bytes(data)
    error = refused(path, empty_database, SeedDbError)
    assert "unsupported version (1.99)" in error or "There is no pg_restore of version 18 or newer" in error


# -- errors ---------------------------------------------------------------------------------------


def test_a_failing_statement_is_named_with_line_statement_and_the_versions(empty_database, write):
    head = "-- Dumped from database version 99.1\n-- Dumped by pg_dump version 99.2\n"
    error = refused(write(head + "CREATE TABLE t (\n    a no_such_type\n);\n"), empty_database)
    for text in ("seed-db.sql, line 3: the statement failed", 'type "no_such_type" does not exist', "42704"):
        assert text in error
    assert "dumped from database 99.1 by pg_dump 99.2" in error
    assert "from: seed-db.sql:3, the test" in error


def test_a_row_that_does_not_fit_is_named_with_its_line_in_the_file(empty_database, write):
    text = PLAIN.replace("2\ttwo", "x\ttwo")
    error = refused(write(text), empty_database)
    assert f"seed-db.sql, line {text[: text.index('x' + chr(9))].count(chr(10)) + 1}: the statement failed" in error
    assert 'COPY t, line 2, column id: "x"' in error


def test_what_depends_on_the_missing_role_is_an_error_that_says_so(empty_database, write):
    text = f"{PLAIN}CREATE POLICY p ON public.t TO no_such_role;\n"
    error = refused(write(text), empty_database)
    assert 'role "no_such_role" does not exist' in error
    assert "create the role first, in a statement that can run again" in error
    statement = (
        error.partition("again: ")[2].partition(". Write")[0].replace("CREATE ROLE ...", "CREATE ROLE no_such_role")
    )
    with psycopg.connect(empty_database.conninfo, autocommit=True) as connection:
        connection.execute("DROP TABLE t")
        restored(write(f"{statement};\n{text}"), empty_database)
        connection.execute("DROP POLICY p ON t; DROP ROLE no_such_role")


def test_a_missing_extension_is_named(empty_database, write):
    error = refused(write(f"CREATE EXTENSION no_such_extension;\n{PLAIN}"), empty_database)
    assert "no_such_extension" in error
    assert "use a server that has the extension" in error


def test_a_failing_statement_in_an_archive_is_shown(rich, empty_database, tmp_path):
    path = pg_dump(rich, tmp_path / "seed-db", "-Fc")
    with psycopg.connect(empty_database.conninfo) as connection:
        connection.execute("CREATE TABLE parent (v int)")
    error = refused(path, empty_database)
    assert "seed-db: the statement failed" in error
    assert "CREATE TABLE public.parent" in error


def test_no_program_survives_a_failed_restore(empty_database, write, query):
    refused(write("SELECT 1;\nBROKEN;\n" + "SELECT 2;\n" * 20_000), empty_database)
    statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert query(statement) == [(0,)]


def test_client_programs_are_needed_and_the_error_says_where_they_were_sought(
    empty_database, write, monkeypatch, tmp_path
):
    from pytest_seeddb.servers import binaries, programs

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binaries, "_PATTERNS", ())
    monkeypatch.setattr(binaries, "WHEEL", "no-such-wheel")
    monkeypatch.setattr(programs, "_offered", {})  # a server in a container would lend its own
    error = refused(write(PLAIN), empty_database, SeedDbError)
    assert "There is no psql on this machine" in error
    assert "restoring seed-db.sql" in error
    assert shutil.which("psql") is None
