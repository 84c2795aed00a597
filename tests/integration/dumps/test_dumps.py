"""What `seeddb dump` writes, what a plan does with it, and what `seeddb verify --dump` says of it."""

from __future__ import annotations

import gzip
import re
import time
import uuid
from contextlib import ExitStack
from dataclasses import replace

import psycopg
import pytest
from dumping import ODD, contents, restored, run, text_of
from handmade import Heard
from workloads import ROWS, SCHEMA

from pytest_seeddb.cli.apply import apply
from pytest_seeddb.cli.applying import Wish
from pytest_seeddb.cli.build import build
from pytest_seeddb.cli.dump import Request, dump
from pytest_seeddb.cli.verify import verify_dump
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.dumps.formats import recognize
from pytest_seeddb.dumps.writing import stable_lines
from pytest_seeddb.errors import BuildError, ConfigError, ServerError
from pytest_seeddb.plan.plan import Progress
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.settings.settings import load_settings

TABLE = """
[tool.seeddb]
name = "dumped"
migrations = "db"
seeds = ["seeds/*.sql"]
"""


# Templates are found by what made them, whoever made them.
OWN = uuid.uuid4()


class Project:
    """A project of SQL files."""

    def __init__(self, root, own):
        self.root = root
        (root / ".git").mkdir()
        self.table()
        self.write("db/001.sql", f"CREATE TABLE shop (id serial PRIMARY KEY, name text); -- {own}")
        self.write(
            "db/002.sql", "CREATE TABLE visit (at int, shop_id int REFERENCES shop); CREATE INDEX ON visit (at);"
        )
        self.write("seeds/shops.sql", "INSERT INTO shop (name) SELECT 'shop ' || n FROM generate_series(1, 3) n;")

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def table(self, more=""):
        self.write("pyproject.toml", TABLE + more)

    @property
    def settings(self):
        return load_settings(self.root)

    def dump(self, name="seed-db.sql", **more):
        return dump(self.settings, Request(self.root / name, **more), Progress()).path

    def build(self):
        heard = Heard()
        build(self.settings, heard)
        return heard.steps

    def apply(self, address):
        heard = Heard()
        apply(self.settings, Wish(address.url), heard, lambda todo: None)
        return heard.steps

    def verify(self):
        return verify_dump(self.settings, Progress())


@pytest.fixture
def project(tmp_path):
    """A project; one that is not changed has the same template in all tests."""
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project", OWN)


@pytest.fixture
def fresh(tmp_path):
    """A project of which nothing was built yet."""
    (tmp_path / "fresh").mkdir()
    return Project(tmp_path / "fresh", uuid.uuid4())


@pytest.fixture
def rich(project):
    """The same with one of everything."""
    project.write("db/002.sql", ";\n".join([*(each for each in ODD if "DEFAULT AS IDENTITY" not in each), *SCHEMA]))
    project.write("db/002.sql", ";\n".join([*ODD, *SCHEMA]) + ";")
    project.write("seeds/shops.sql", ";\n".join([*ROWS, "UPDATE parent SET spent = 1 WHERE id < 9"]) + ";")
    return project


@pytest.fixture
def clone(server):
    """A clone of a project's template, as it is now."""
    with ExitStack() as workers:

        def made(project):
            worker = workers.enter_context(Worker(server))
            return worker.clones.make(worker.template(plan_of(project.settings))).address

        yield made


def rows(address, statement):
    with psycopg.connect(address.conninfo) as connection:
        return connection.execute(statement).fetchall()


# -- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "compression"),
    [
        ("seed-db.sql", "plain", ""),
        ("seed-db.sql.gz", "plain", "gzip"),
        ("seed-db.dump", "custom", ""),
        ("seed-db.tar", "tar", ""),
        ("seed-db.dir", "directory", ""),
    ],
)
def test_the_name_tells_the_format_and_the_dump_restores(project, empty_database, name, kind, compression):
    path = project.dump(name)
    found = recognize(path, source="")
    assert (found.kind, found.compression) == (kind, compression)
    assert (found.origin.plan, found.origin.profile, found.origin.tier) == ("dumped", "default", "essential")
    restored(path, empty_database)
    assert rows(empty_database, "SELECT id, name FROM shop") == [(1, "shop 1"), (2, "shop 2"), (3, "shop 3")]
    assert [each.name for each in path.parent.iterdir() if each.name.startswith(".seed")] == []


@pytest.mark.long  # several builds
def test_two_dumps_of_two_builds_are_the_same_byte_for_byte(rich):
    first = rich.dump().read_bytes()
    build(replace(rich.settings, reseed=True), Progress())
    assert rich.dump("again.sql").read_bytes() == first
    packed = rich.dump("packed.sql.gz").read_bytes()
    assert gzip.decompress(packed) == first
    assert packed[4:8] == bytes(4), "no time in the head of the gzip format"


def test_rows_stand_in_the_order_of_their_keys_wherever_they_lay(project):
    project.write("seeds/shops.sql", "INSERT INTO shop VALUES (3, 'c'), (1, 'a'), (2, 'b');")
    assert "1\ta\n2\tb\n3\tc\n" in project.dump().read_text()


def test_a_plain_dump_names_no_day_and_no_minor_version_and_needs_no_new_psql(project, server):
    text = project.dump().read_text()
    assert "restrict" not in text
    assert f"-- Dumped from database version {server.major}\n" in text
    # A digest may hold the year's digits; a date has something other than a digit and letter before it.
    assert not re.search(rf"\b{time.gmtime().tm_year}\b", text)
    assert server.version not in text


@pytest.mark.slow
def test_a_plain_dump_works_with_psql_alone(rich, empty_database, clone, tmp_path):
    path = rich.dump()
    psql = find_program(rich.settings, "psql").path
    run(psql, empty_database, "-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-f", path)
    with psycopg.connect(empty_database.conninfo) as connection:
        connection.execute("DROP SCHEMA seeddb CASCADE")
    original = clone(rich)
    assert contents(empty_database) == contents(original)
    unordered = (sorted(text_of(each, tmp_path / "text").splitlines()) for each in (empty_database, original))
    assert next(unordered) == next(unordered)


def test_a_dump_says_which_steps_it_holds_and_not_when(project, empty_database):
    restored(project.dump(), empty_database)
    found = rows(empty_database, "SELECT name, finished, applied_at FROM seeddb.seeddb_step ORDER BY name")
    assert found == [
        (name, True, None) for name in ("migration db/001.sql", "migration db/002.sql", "seed seeds/shops.sql")
    ]


def test_the_settings_own_dump_is_where_it_goes_by_default(project):
    project.table('dump = "own.sql"')
    found = dump(project.settings, Request(from_scratch=True), Progress())
    assert found.path == project.root / "own.sql"
    assert "shop 3" in found.path.read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("seed-db.txt", "does not say which format"),
        ("no/such/seed-db.sql", "there is no directory"),
        ("db", "this directory exists and is not a dump; nothing in it was changed"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_touched(project, name, message):
    with pytest.raises(ConfigError, match=message):
        project.dump(name)
    assert sorted(each.name for each in (project.root / "db").iterdir()) == ["001.sql", "002.sql"]


def test_no_file_at_all_is_a_question(project):
    with pytest.raises(ConfigError, match="The dump needs an output file"):
        dump(project.settings, Request(), Progress())


@pytest.mark.slow
def test_a_failed_dump_leaves_the_old_one_and_nothing_beside_it(project, monkeypatch, tmp_path):
    path = project.dump()
    before = path.read_bytes()
    broken = tmp_path / "pg_dump"
    broken.write_text(
        "#!/bin/sh\ncase $1 in --version) echo 'pg_dump (PostgreSQL) 99.0';; *) echo half >&2; exit 1; esac\n"
    )
    broken.chmod(0o755)
    monkeypatch.setattr("pytest_seeddb.cli.dump.find_program", lambda *_, **__: _Program(broken))
    with pytest.raises(ServerError, match="pg_dump could not dump the database"):
        project.dump()
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir() if each.name.endswith(".part")] == []


class _Program:
    version = "99.0"

    def __init__(self, path):
        self.path = path
        self.command = [str(path)]


def test_a_directory_is_replaced_as_a_whole(project):
    path = project.dump("seed-db.dir")
    (path / "left-over").touch()
    project.dump("seed-db.dir")
    assert not (path / "left-over").exists()
    assert (path / "toc.dat").exists()


# -- of another database --------------------------------------------------------------------------


def test_another_database_is_only_read(project, empty_database):
    with psycopg.connect(empty_database.conninfo, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
        connection.execute("INSERT INTO t VALUES (2, 2), (1, 1); UPDATE t SET v = 3 WHERE id = 2")
    text = project.dump(url=empty_database.url).read_text()
    assert "1\t1\n2\t3\n" in text
    assert "seeddb" not in text
    assert rows(empty_database, "SELECT nspname FROM pg_namespace WHERE nspname = 'seeddb'") == []
    assert project.dump(url=empty_database.url).read_text() == text


def test_rows_of_another_database_stand_in_order_if_that_is_asked_for(project, empty_database):
    statement = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (3, 3), (1, 1), (2, 2)"
    with psycopg.connect(empty_database.conninfo, autocommit=True) as connection:
        connection.execute(statement)
    assert "3\t3\n1\t1\n2\t2\n" in project.dump(url=empty_database.url).read_text()
    assert "1\t1\n2\t2\n3\t3\n" in project.dump(url=empty_database.url, in_order=True).read_text()


def test_what_comes_from_somebody_elses_server_is_guarded_by_a_key_that_its_text_decides(project, empty_database):
    with psycopg.connect(empty_database.conninfo, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (v int)")
    first = project.dump(url=empty_database.url).read_text().splitlines()
    if not any(line.startswith("\\restrict ") for line in first):
        pytest.skip("this pg_dump is older than \\restrict")
    with psycopg.connect(empty_database.conninfo, autocommit=True) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    second = project.dump(url=empty_database.url).read_text().splitlines()
    keys = [next(line.split()[1] for line in each if line.startswith("\\restrict ")) for each in (first, second)]
    assert keys[0] != keys[1]
    assert f"\\unrestrict {keys[1]}" in second


def test_a_password_is_neither_shown_nor_in_the_list_of_processes(project, server, monkeypatch, tmp_path):
    word = server.address.params.get("password", "s3cr3t-word")
    url = Address({**server.address.params, "password": word, "dbname": "no_such_database"}).url
    with pytest.raises(ServerError) as caught:
        project.dump(url=url)
    assert word not in str(caught.value)
    spy = tmp_path / "bin" / "pg_dump"
    spy.parent.mkdir()
    real = find_program(project.settings, "pg_dump", wanted=server.major).path
    spy.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/arguments\necho "$PGPASSWORD" >> {tmp_path}/password\nexec {real} "$@"\n'
    )
    spy.chmod(0o755)
    monkeypatch.setattr("pytest_seeddb.cli.dump.find_program", lambda *_, **__: _Program(spy))
    found = dump(
        project.settings, Request(project.root / "a.sql", url=url.replace("no_such_database", "postgres")), Progress()
    )
    assert word not in str(found) + (tmp_path / "arguments").read_text()
    assert word in (tmp_path / "password").read_text()


# -- a plan with a dump ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seed-db.sql", pytest.param("seed-db.dump", marks=pytest.mark.long)])
def test_a_plan_with_a_dump_runs_only_what_the_dump_does_not_hold(fresh, clone, name):
    before = rows(clone(fresh), "SELECT * FROM shop")
    fresh.dump(name)
    fresh.table(f'dump = "{name}"')
    assert fresh.build() == [f"dump {name}"]
    assert rows(clone(fresh), "SELECT * FROM shop") == before
    fresh.write("db/003.sql", "ALTER TABLE shop ADD town text;")
    fresh.write("seeds/visits.sql", "INSERT INTO visit VALUES (1, 1);")
    assert fresh.build() == ["migration db/003.sql", "seed seeds/visits.sql"]
    assert rows(clone(fresh), "SELECT count(*), count(DISTINCT shop_id) FROM shop, visit") == [(3, 1)]


@pytest.mark.long  # several builds
def test_another_dump_is_another_template_and_its_layer_is_kept(fresh):
    fresh.dump()
    fresh.table('dump = "seed-db.sql"')
    fresh.build()
    fresh.write("seed-db.sql", (fresh.root / "seed-db.sql").read_text() + "INSERT INTO public.shop VALUES (9, 'x');")
    assert fresh.build() == ["dump seed-db.sql"]
    fresh.write("seeds/more.sql", "SELECT 1;")
    assert fresh.build() == ["seed seeds/more.sql"]


def test_two_dumps_are_the_same_byte_for_byte(project):
    assert project.dump("one.sql").read_bytes() == project.dump("other.sql").read_bytes()


@pytest.mark.slow
def test_the_dump_of_a_plan_with_a_dump_is_that_dump(project):
    first = project.dump().read_bytes()
    project.table('dump = "seed-db.sql"')
    assert project.dump("again.sql").read_bytes() == first


@pytest.mark.long  # several builds
def test_a_dump_that_others_made_is_the_beginning_and_all_migrations_and_seeds_follow(fresh, clone):
    fresh.write("legacy.sql", "CREATE TABLE legacy (id int);\nINSERT INTO legacy VALUES (1);\n")
    fresh.table('dump = "legacy.sql"')
    assert fresh.build() == [
        "dump legacy.sql",
        "migration db/001.sql",
        "migration db/002.sql",
        "seed seeds/shops.sql",
    ]
    assert rows(clone(fresh), "SELECT count(*) FROM legacy, shop") == [(3,)]


@pytest.mark.slow
def test_a_dump_is_enough_for_a_plan(fresh, clone):
    fresh.write("legacy.sql", f"CREATE TABLE legacy (id int); -- {uuid.uuid4()}\n")
    fresh.write("pyproject.toml", '[tool.seeddb]\nname = "dumped"\ndump = "legacy.sql"\n')
    assert fresh.build() == ["dump legacy.sql"]


@pytest.mark.slow
def test_extensions_that_the_dump_has_are_no_error(fresh):
    fresh.write("legacy.sql", "CREATE EXTENSION pg_trgm;\n" + f"-- {uuid.uuid4()}\n")
    fresh.table('dump = "legacy.sql"\nextensions = ["pg_trgm"]')
    assert fresh.build()[:2] == ["dump legacy.sql", "extension pg_trgm"]


def test_a_dump_of_one_profile_is_not_taken_for_another(project):
    project.dump()
    project.table('dump = "seed-db.sql"\n[tool.seeddb.profiles.minimal]\n')
    own, other = (plan_of(project.settings, profile) for profile in (None, "minimal"))
    assert own.steps[0].name == "dump seed-db.sql"
    assert [step.name for step in other.steps] == [
        "migration db/001.sql",
        "migration db/002.sql",
        "seed seeds/shops.sql",
    ]


def test_a_dump_that_fails_is_named_and_leaves_nothing_on_the_server(project, databases):
    before = databases()
    project.write("legacy.sql", "CREATE TABLE t (id int);\nBROKEN;\n")
    project.table('dump = "legacy.sql"')
    with pytest.raises(BuildError, match=r"legacy\.sql, line 2: the statement failed"):
        project.build()
    assert databases() == before


def test_a_wrong_dump_is_an_error_of_the_settings(project):
    project.table('dump = "no-such.sql"')
    with pytest.raises(ConfigError, match=r"There is no dump no-such\.sql"):
        project.build()
    project.write("empty.sql", "")
    project.table('dump = "empty.sql"')
    with pytest.raises(ConfigError, match=r"empty\.sql is not a PostgreSQL dump"):
        project.build()


def test_apply_restores_the_dump_into_an_empty_database_and_only_there(project, empty_database):
    project.dump()
    project.table('dump = "seed-db.sql"')
    project.write("db/003.sql", "ALTER TABLE shop ADD town text;")
    assert project.apply(empty_database) == ["dump seed-db.sql", "migration db/003.sql"]
    assert project.apply(empty_database) == []
    with (project.root / "seed-db.sql").open("a") as stream:
        stream.write("INSERT INTO public.shop VALUES (99, 'x');\n")
    assert project.apply(empty_database) == []
    assert rows(empty_database, "SELECT count(*), count(town) FROM shop") == [(3, 0)]


# -- verify ---------------------------------------------------------------------------------------


@pytest.fixture
def dumped(project):
    project.dump()
    project.table('dump = "seed-db.sql"')
    return project


def edited(project, old, new):
    path = project.root / "seed-db.sql"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_fresh_dump_is_good(dumped):
    found = dumped.verify()
    assert not found.stale
    assert (found.migrations, found.lacks, found.differences, found.profile) == (2, (), (), "default")


def test_migrations_that_the_dump_lacks_are_named(dumped):
    dumped.write("db/003.sql", "ALTER TABLE shop ADD town text;")
    found = dumped.verify()
    assert found.stale
    assert found.lacks == ("migration db/003.sql",)


def test_a_migration_that_was_edited_afterwards_is_named(dumped):
    dumped.write("db/002.sql", "CREATE TABLE visit (at bigint);")
    found = dumped.verify()
    assert found.stale
    assert found.changed == ("migration db/002.sql",)


@pytest.mark.slow
def test_another_schema_is_shown_line_by_line_and_what_is_not_run_is_counted(dumped):
    edited(dumped, "    id integer NOT NULL,\n    name text\n", "    id integer NOT NULL,\n    name varchar(9)\n")
    edited(dumped, "CREATE TABLE public.visit (", "GRANT ALL ON SCHEMA public TO x;\nCREATE TABLE public.visit (")
    found = dumped.verify()
    assert found.stale
    difference = ("TABLE public.shop", ("- name character varying(9)", "+ name text"))
    assert [(each.name, each.lines) for each in found.differences] == [difference]
    assert found.left_out == {"privileges": 1}


@pytest.mark.long  # several builds
def test_migrations_by_a_command_are_compared_by_their_schema(project):
    line = 'migrations = {command = "psql -X -q -f db/001.sql", inputs = ["db/001.sql"]}'
    project.write("pyproject.toml", f'[tool.seeddb]\nname = "dumped"\n{line}\n')
    project.dump()
    project.write("db/001.sql", "CREATE TABLE IF NOT EXISTS shop (id bigint, name text);")
    project.write("pyproject.toml", f'[tool.seeddb]\nname = "dumped"\n{line}\ndump = "seed-db.sql"\n')
    found = project.verify()
    assert found.stale
    assert "TABLE public.shop" in [each.name for each in found.differences]


@pytest.mark.parametrize("table", ["", 'dump = "seed-db.sql"'])
def test_there_must_be_something_to_verify(project, table):
    project.write("seed-db.sql", "SELECT 1;")
    project.write("pyproject.toml", f'[tool.seeddb]\nseeds = ["seeds/*.sql"]\n{table}')
    with pytest.raises(ConfigError, match="There is no dump to verify"):
        project.verify()


def test_settled_text_keeps_data_that_looks_like_the_head():
    lines = [b"\\restrict a\n", b"\n", b"SELECT 1;\n", b"\\restrict a\n", b"-- Dumped by pg_dump version 15.1\n"]
    assert list(stable_lines(lines)) == lines[2:]
