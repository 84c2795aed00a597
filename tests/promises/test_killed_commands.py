"""Commands that write files or databases of the user's, killed: what was there is whole, and the next one works."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
import uuid

import killing
import psycopg
import pytest
from attacks import times
from killing import strike
from processes import eventually
from separate import separate_server
from striking import Attack, struck

from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.settings.settings import load_settings
from pytest_seeddb.templates.exports import Tail

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def site():
    with killing.mortal_site() as site:
        site.write("db/004_many.sql", "CREATE TABLE many AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n;")
        yield site


@pytest.fixture(scope="module")
def server():
    with separate_server() as start:
        yield start()


def run(address, statement):
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def foreign(server):
    """A database of the user's, on a server of his own."""
    address = server.with_database(f"foreign_{uuid.uuid4().hex[:12]}")
    run(server, f'CREATE DATABASE "{address.database}"')
    return address


class OfFiles(Attack):
    """A command that writes the file over and over."""

    def __init__(self, site, path, arguments):
        self.path = path
        super().__init__(site, arguments, kind="seeddb")
        site.seeddb(*arguments)
        self.peace = {**site.peace, "project": site.standing()["project"]}
        assert len(self.peace["project"]) > len(site.peace["project"])
        self.content = path.read_bytes() if path.suffix == ".sql" else b""

    def sees_all_well(self):
        self.is_whole()
        self.site.seeddb(*self.arguments)
        self.is_whole()
        super().sees_all_well()

    def is_whole(self):
        if self.path.suffix == ".sql":
            assert self.path.read_bytes() == self.content
            return
        if self.path.suffix == ".export":
            Tail.read(self.path)
        program = find_program(load_settings(self.site.project), "pg_restore").path
        subprocess.run([program, "-f", "/dev/null", self.path], check=True)

    def while_it_writes(self, seconds=0.1):
        """Strike once its unfinished file is there."""

        def strikes(run):
            while not run.is_over:
                places = (self.site.project, self.site.temporary)
                if any(each for place in places for each in place.glob(".*.part")):
                    break
            time.sleep(self.choice.uniform(0, seconds))
            alone = not self.struck or self.choice.random() < 0.5  # only then is something left for the next one
            victims = {"pytest": [run.pid]} if alone else self.site.victims(run)
            kind = self.choice.choice(sorted(victims))
            return f"{kind} as it wrote" if not run.is_over and strike(victims[kind]) else "nobody"

        return strikes


COMMANDS = {
    "plain.sql": ["dump", "-o", "plain.sql"],
    "custom.dump": ["dump", "-o", "custom.dump"],
    "directory.dir": ["dump", "-o", "directory.dir"],
    "template.export": ["build", "--export", "template.export"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_stays_whole_and_nothing_stays_beside_it(site, tried, name):
    attack = OfFiles(site, site.project / name, COMMANDS[name])
    struck(attack, attack.while_it_writes(), 6, tried, f"killed while it wrote {name}")
    remove(attack.path)


def test_a_dump_in_order_leaves_no_copy_of_the_database_behind(site, foreign, tried):
    run(foreign, "CREATE TABLE many (n int PRIMARY KEY, t text)")
    run(foreign, "INSERT INTO many SELECT n, md5(n::text) FROM generate_series(1, 50000) n")
    line = ["dump", "--url", foreign.url, "--in-order", "-o", "foreign.sql"]
    attack = OfFiles(site, site.project / "foreign.sql", line)
    struck(attack, attack.while_it_writes(0.5), 8, tried, "killed while it dumped a database in order")
    remove(attack.path)


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_an_applied_database_is_finished_by_the_next_one(site, server, tried):
    choice_of = Attack(site)
    database = None

    def fresh():
        nonlocal database
        database = server.with_database(f"applied_{next(_numbers)}")
        run(server, f'CREATE DATABASE "{database.database}"')
        return ["apply", "--url", database.url, "--tier", "demo"]

    started = time.monotonic()
    site.seeddb(*fresh())
    span, killed = time.monotonic() - started, 0
    for attempt in range(times(20, least=3) + 20):
        if attempt >= times(20, least=3) and killed:
            break  # a moment may come after the end: of few tries, all
        line = fresh()
        process = site.begin(*line, kind="seeddb")
        moment = choice_of.choice.uniform(0, span)
        time.sleep(moment)
        killed += not process.is_over and hit(server, database, process, choice_of.choice)
        process.ended()
        told = site.seeddb(*line)
        found = run(database, "SELECT (SELECT count(*) FROM shop), (SELECT count(*) FROM item), count(*) FROM many")
        assert found == [(40, 400, 20000)], (choice_of.seed, moment, told)
        assert "up to date" in site.seeddb(*line)
        run(server, f'DROP DATABASE "{database.database}"')
    tried("killed as it was applied: the process or its backends", killed)
    assert killed


def hit(server, database, process, choice):
    """Strike the process or one of its backends; after the latter its server recovers as from a crash."""
    query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database.database}'"
    backends = [pid for (pid,) in run(server, query)] if choice.random() < 0.4 else []
    found = strike([choice.choice(backends or [process.pid])])
    process.ended()
    eventually(lambda: answers(server))
    return found


def answers(server):
    try:
        return run(server, "SELECT 1")
    except psycopg.OperationalError:
        return []
