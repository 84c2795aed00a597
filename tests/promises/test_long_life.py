"""Months of runs in minutes: what a server and its users hold on to does not grow."""

from __future__ import annotations

import os
import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import attacks
import pytest
from ageing import counted, measured, remains, segments, shared_memory
from attacks import times
from builders import plan_from
from processes import eventually, guards, killed, postmasters, private_cache

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.servers.guard import postmaster
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import load_settings

STAGES = [
    [
        "migration",
        [
            "CREATE TABLE shop (id serial PRIMARY KEY, name text)",
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 12345', current_database()); END $$",
            "DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO pg_monitor', current_database()); END $$",
        ],
    ],
    ["seed", ["INSERT INTO shop (name) SELECT 'shop ' || n FROM generate_series(1, 100) n"]],
]
READS = "SELECT count(*) FROM shop"
INSERTS = "INSERT INTO shop (name) VALUES ('a new one')"
UPDATES = "UPDATE shop SET name = 'another'"
ALTERS = "CREATE TABLE extra (v int)"
KILOBYTE, MEGABYTE = 2**10, 2**20
CLONES = 3
"""How many clones a session has at the most."""

GROWTH = {
    "bytes of catalogs": 64 * KILOBYTE,
    "dead rows in catalogs": 500 + 4 * CLONES,
    "files": 4,
    "bytes of files": MEGABYTE,
    "bytes of write-ahead log": 64 * MEGABYTE,
    "bytes of shared memory": MEGABYTE,
    "bytes of the server's own memory": MEGABYTE,
}
"""How much more there may be at the end than after the first sessions, however many they are."""


@pytest.fixture
def site(cache_home, monkeypatch):
    with private_cache(within=cache_home) as place:
        made = attacks.Site(place)
        monkeypatch.setenv("XDG_CACHE_HOME", str(made.cache))
        yield made
        made.is_quiet()


def session(server, place, choice):
    """What a run of a few tests does on the server."""
    with Worker(server) as worker:
        template = worker.template(plan_from(place, "aged", STAGES))
        for _ in range(CLONES):
            isolation = choice.choice(["clone", "clone", "clone", "rollback", "readonly"])
            with worker.database(template, isolation) as database, database.connect() as connection:
                assert connection.execute(READS).fetchone() == (100,)
                assert connection.execute("SHOW work_mem").fetchone() == ("12345kB",)
                if isolation == "clone":
                    connection.execute(choice.choice([READS, INSERTS, UPDATES, ALTERS, ALTERS]))
                    connection.commit()
    assert worker.failures == []


def grown(before, after):
    return {what: after[what] - before[what] for what in GROWTH if after[what] - before[what] > GROWTH[what]}


def test_two_thousand_sessions_leave_a_server_as_they_found_it(site, tried):
    """One user stays, so the server does, too; runs come and go beside him, two at a time."""
    number, seed = times(2000, 300), uuid.uuid4().int
    settings, threads = load_settings(site.project), threading.active_count()
    with open_server(settings) as server:
        (state,) = (site.cache / "pytest-seeddb/servers").iterdir()
        pids = {"the server": postmaster(state), "the guard": guards(site.cache)[0], "its user": os.getpid()}

        def sessions(first, last):
            def one(which):
                with open_server(settings) as joined:
                    session(joined, site.place, random.Random(seed + which))

            with ThreadPoolExecutor(2) as pool:
                list(pool.map(one, range(first, last)))
            eventually(lambda: counted(server, state, {})["backends"] == 0)
            return counted(server, state, pids), measured(server, state, pids["the server"])

        site.passes()
        session(server, site.place, random.Random(seed))
        counts, sizes = sessions(0, number // 10)
        pytests = times(30, 2)
        for part in range(pytests):
            site.passes()
            begin, end = (number // 10 + (number - number // 10) * each // pytests for each in (part, part + 1))
            later, larger = sessions(begin, end)
        assert later == counts, seed
        assert grown(sizes, larger) == {}, (seed, sizes, larger)
        assert threading.active_count() == threads, threading.enumerate()
    tried("a session on one server", number)
    tried("a run of pytest on it", pytests + 1)


def test_a_server_that_starts_and_stops_for_years_leaves_nothing_of_itself(site, tried):
    """Now and then it is killed in the middle of a session, as when memory is short."""
    number, seed = times(150, 15), uuid.uuid4().int
    choice, settings = random.Random(seed), load_settings(site.project)
    shared, segments_made, kills, found = set(), set(), 0, []
    for which in range(number):
        with open_server(settings) as server:
            (state,) = (site.cache / "pytest-seeddb/servers").iterdir()
            session(server, site.place, choice)
            pid = postmaster(state)
            shared |= shared_memory(pid)
            segments_made |= segments(pid)
            if which % 5 == 3:
                kills += bool(killed(pid))
        eventually(lambda: not postmasters(site.cache), 30)
        if which % 5 == 0:
            site.is_quiet()
            found.append(remains(state))
    site.is_quiet()
    with open_server(settings):
        pass  # clears up after one that was killed
    site.is_quiet()
    assert found[1:] == found[1:2] * (len(found) - 1), seed
    assert [each for each in shared if each.exists()] == []
    assert segments_made
    assert segments() & segments_made == set()
    assert site.standing()["sockets"] == []
    tried("a server started and stopped", number)
    tried("of these, killed", kills)
