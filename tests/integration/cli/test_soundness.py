"""Unsound seeds are caught and named, with the rows that differ; sound ones are not accused."""

from __future__ import annotations

import uuid

import psycopg
import pytest

from pytest_seeddb.cli.verify import prove
from pytest_seeddb.errors import BuildError
from pytest_seeddb.settings.settings import load_settings
from pytest_seeddb.templates.contents import describe_difference, read_contents
from pytest_seeddb.templates.scratch import Scratch

SCHEMA = """
CREATE TABLE shop (id serial PRIMARY KEY, name text UNIQUE, at text, password text);
CREATE TABLE item (name text);
"""
HEAD = """
import datetime, random, time, uuid
from sqlalchemy import text
from pytest_seeddb import seeder

INSERT = text("INSERT INTO shop (name, at, password) VALUES (:name, :at, 'pa55-' || :at) ON CONFLICT DO NOTHING")
ITEM = text("INSERT INTO item VALUES (:name)")
NAMES = {f"name {number}" for number in range(12)}

@seeder(idempotent=True)
def sound(session):
    for number in range(3):
        session.execute(INSERT, {"name": f"shop {number}", "at": str(random.random())})
"""
# Each has a table of its own: only the first step after which a table differs is to blame.
WORD = str.maketrans({" ": "_", "'": "_"})
UNSOUND = {
    "the clock": "[time.time()]",
    "a clock of seconds": "[datetime.datetime.now().replace(microsecond=0)]",
    "the server's clock": "session.scalars(text('SELECT now()::text'))",
    "the order of a set": "NAMES",
    "the identity of an object": "[id(session)]",
    "the server's random numbers": "session.scalars(text('SELECT random()::text'))",
    "a uuid of the server's": "session.scalars(text('SELECT gen_random_uuid()::text'))",
    "uuid4": "[uuid.uuid4()]",
}


def unsound(name, values):
    table = name.translate(WORD)
    insert = f"session.execute(text('INSERT INTO {table} VALUES (:v)'), {{'v': str(each)}})"
    return seeder(name, f"for each in {values}: {insert}")


SECOND_TIME = {
    "claims and repeats itself": ('session.execute(ITEM, {"name": "again"})', True),
    "claims and fails": ("session.execute(text(\"INSERT INTO shop (name) VALUES ('twice')\"))", True),
    "claims nothing": ('session.execute(ITEM, {"name": "once"})', False),
    "claims and is": ('session.execute(INSERT, {"name": "same", "at": "0"})', True),
    "random numbers that are seeded": ('session.execute(ITEM, {"name": str(random.random())})', False),
}


class Project:
    """Seeders, and what was found out about them."""

    def __init__(self, path, server):
        self.path = path
        self.server = server
        self.package = f"shop_{uuid.uuid4().hex[:8]}"  # other tests import packages as well
        (path / ".git").mkdir()
        self.write("db/001.sql", SCHEMA)
        self.write(f"{self.package}/__init__.py", "")
        self.write("seeddb.toml", f'migrations = "db"\nseeds = ["{self.package}.seeds"]\n')

    def write(self, name, text):
        (self.path / name).parent.mkdir(exist_ok=True)
        (self.path / name).write_text(text)

    def prove(self, *seeders, ignore=()):
        self.write(f"{self.package}/seeds.py", HEAD + "\n".join(seeders))
        with Scratch(self.server.address) as scratch:
            settings = load_settings(self.path, environ={}).replace(verify={"ignore": list(ignore)})
            result = prove(settings, scratch, scratch)
        return result, {each.step.rpartition(":")[2]: each for each in result.seeders}


@pytest.fixture
def project(tmp_path, embedded_server):
    return Project(tmp_path, embedded_server)


def seeder(name, body, options=""):
    return f'\n@seeder(name="{name}", after=[sound]{options})\ndef {name.translate(WORD)}(session):\n    {body}\n'


@pytest.fixture(scope="module")
def all_of_them(tmp_path_factory, embedded_server):
    tables = [f"CREATE TABLE {name.translate(WORD)} (name text);" for name in UNSOUND]
    second = [seeder(name, body, ", idempotent=True" if claims else "") for name, (body, claims) in SECOND_TIME.items()]
    project = Project(tmp_path_factory.mktemp("project"), embedded_server)
    project.write("db/002.sql", "\n".join(tables))
    return project.prove(*second, *(unsound(*each) for each in UNSOUND.items()))


@pytest.mark.slow
def test_sound_seeds_are_found_sound_with_rows_by_table_and_seconds_and_nothing_is_left(project, databases):
    before = databases()
    result, seeders = project.prove()
    assert result.is_sound
    assert seeders["sound"].rows == {"shop": 3}
    assert seeders["sound"].seconds > 0
    assert seeders["sound"].again == "same"
    assert databases() == before


def test_a_sound_seeder_beside_others_is_not_accused(all_of_them):
    result, seeders = all_of_them
    assert not result.is_sound
    for name in ("sound", "claims and is", "random numbers that are seeded"):
        assert seeders[name].unlike == ()
        assert seeders[name].is_sound


def test_the_first_of_what_comes_out_otherwise_is_named_with_rows(all_of_them):
    _, seeders = all_of_them
    (difference,) = seeders[next(iter(UNSOUND))].unlike
    assert difference.table == next(iter(UNSOUND)).translate(WORD)
    assert difference.lines[0].startswith("- ")


@pytest.mark.slow
@pytest.mark.parametrize("cause", UNSOUND)
def test_what_comes_out_otherwise_each_time_is_caught_and_named(all_of_them, cause):
    _, seeders = all_of_them
    assert [each.table for each in seeders[cause].unlike] == [cause.translate(WORD)]
    assert not seeders[cause].is_sound


def test_the_same_rows_in_another_order_are_told_as_that(all_of_them):
    _, seeders = all_of_them
    assert seeders["the order of a set"].unlike[0].lines == ("the same rows in another order",)


def test_a_seeder_that_claims_to_be_idempotent_and_is_not_is_caught_with_the_rows(all_of_them):
    _, seeders = all_of_them
    found = seeders["claims and repeats itself"]
    assert (found.again, found.is_sound) == ("other rows", False)
    assert found.changed[0].lines == ('+ {"name": "again"}',)


def test_one_that_fails_the_second_time_is_caught_with_its_error(all_of_them):
    _, seeders = all_of_them
    found = seeders["claims and fails"]
    assert (found.again, found.is_sound) == ("error", False)
    assert "duplicate key" in found.error


def test_one_that_claims_nothing_may_make_other_rows_the_second_time_and_it_is_told(all_of_them):
    _, seeders = all_of_them
    found = seeders["claims nothing"]
    assert (found.again, found.is_sound) == ("other rows", True)


@pytest.mark.slow
def test_a_migration_that_makes_other_rows_each_time_is_named(project):
    project.write("db/002.sql", "INSERT INTO item SELECT now()::text;")
    result, seeders = project.prove()
    assert not result.is_sound
    assert [each for each in seeders if "002.sql" in each]


KEYS = """
CREATE TABLE person (id uuid PRIMARY KEY, name text, password text, code varchar(40), made_at timestamptz);
CREATE TABLE visit (id uuid PRIMARY KEY, person_id uuid REFERENCES person);
"""
PEOPLE = """
    salt = uuid.uuid4().hex
    people = [uuid.uuid4() for number in range(4)]
    for number, key in enumerate(people):
        session.execute(text("INSERT INTO person VALUES (:key, :name, :password, :code, now())"), {
            "key": key, "name": f"person {number}", "code": str(uuid.uuid4()),
            "password": f"pbkdf2_sha256$600000${salt}$k0zX+7/m=",
        })
"""
VISITS = """
    people = session.scalars(text("SELECT id FROM person ORDER BY name")).all()
    for _ in range(12):
        session.execute(text("INSERT INTO visit VALUES (:key, :person)"), {"key": uuid.uuid4(), "person": %s})
"""
MAY_DIFFER = ("type:uuid", "type:hash", "*.made_at", "person.surname")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whose", "ignore", "unlike"),
    [
        ("people[0]", MAY_DIFFER, []),
        ("people[uuid.uuid4().int % 4]", MAY_DIFFER, [["visit"]]),
        ("people[0]", ("visit.*", "*.made_at", "type:text"), [["person"]]),
    ],
    ids=["sound", "another row", "keys are compared"],
)
def test_what_may_differ_is_not_compared_but_for_the_row_a_key_refers_to(project, whose, ignore, unlike):
    project.write("db/002.sql", KEYS)
    result, seeders = project.prove(seeder("people", PEOPLE), seeder("visits", VISITS % whose), ignore=ignore)
    assert [[each.table for each in one.unlike] for one in seeders.values() if one.unlike] == unlike
    assert result.is_sound == (not unlike)
    if ignore == MAY_DIFFER:
        keys = ("person.id", "person.code", "visit.id", "visit.person_id")
        assert result.ignored["type:uuid"] == keys
        assert list(result.ignored.values())[1:] == [("person.password",), ("person.made_at",), ()]
    if whose != "people[0]":
        assert all(
            '"person_id": "row ' in line and '"id"' not in line for line in seeders["visits"].unlike[0].lines[:2]
        )


@pytest.mark.slow
def test_a_seed_that_fails_is_an_error_and_nothing_is_left(project, databases):
    before = databases()
    with pytest.raises(BuildError, match="division by zero"):
        project.prove(seeder("broken", "1 / 0"))
    assert databases() == before


def test_values_of_columns_that_are_called_like_a_secret_are_not_shown(embedded_server):
    with Scratch(embedded_server.address) as scratch:
        one = scratch.empty()
        with psycopg.connect(one.conninfo) as connection:
            connection.execute(SCHEMA)
        other = scratch.copy(one)
        with psycopg.connect(other.conninfo) as connection:
            connection.execute("INSERT INTO shop (name, password) VALUES ('x', 'hidden')")
        assert read_contents(one)["item"] == read_contents(other)["item"]
        lines = describe_difference("shop", one, other)
    assert lines == ('+ {"id": 1, "name": "x", "at": null, "password": "***"}',)


def test_where_only_a_value_that_is_not_shown_differs_the_lines_say_so(embedded_server):
    with Scratch(embedded_server.address) as scratch:
        one, other = scratch.empty(), scratch.empty()
        for address, password in ((one, "first"), (other, "second")):
            with psycopg.connect(address.conninfo) as connection:
                connection.execute(SCHEMA)
                connection.execute("INSERT INTO shop (name, password) VALUES ('x', %s)", [password])
        lines = describe_difference("shop", one, other)
    assert lines[-1] == "what differs is in columns whose values are not shown"
    assert not any("first" in line or "second" in line for line in lines)
