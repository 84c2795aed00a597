"""Builders and workers that are killed, stopped, or many: real processes on a real server."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import uuid
from collections import Counter
from itertools import count

import psycopg
import pytest
from builders import Processes, plan_from
from processes import eventually

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.servers.naming import lock_key

ROUNDS = int(os.environ.get("SEEDDB_TEST_ROUNDS", "20"))
QUERY = "SELECT id, name FROM shop ORDER BY id"
ROWS = [(number, f"shop {number}") for number in range(1, 401)]
MIGRATIONS = ["CREATE TABLE shop (id serial PRIMARY KEY, name text)", "CREATE INDEX ON shop (name)"]
SEEDS = [
    f"INSERT INTO shop (name) SELECT 'shop ' || n FROM generate_series({first}, {first + 99}) n"
    for first in range(1, 401, 100)
]
_numbers = count(1)


@pytest.fixture(scope="module")
def processes(embedded_server):
    processes = Processes(embedded_server)
    yield processes
    processes.close()


class Scene:
    """One plan of this test's own, processes that ask for it, and what is on the server."""

    def __init__(self, server, processes, place):
        self.server = server
        self.processes = processes
        self.place = place
        self.log = place / "log"
        self.children = []
        self.stages = self.new_stages()

    def new_stages(self, seeds=SEEDS, first=None):
        own = first or f"SELECT '{uuid.uuid4()}'"
        return [["migration", [own, *MIGRATIONS]], ["seed", list(seeds)]]

    def start(self, **job):
        told = self.place / f"told-{next(_numbers)}"
        plain = {"told": str(told), "root": str(self.place), "name": "killed", "log": str(self.log), "query": QUERY}
        child = self.processes.start(**{**plain, "stages": self.stages, **job})
        self.children.append(child)
        return child

    def ran(self):
        return Counter(self.log.read_text().splitlines()) if self.log.exists() else Counter()

    def rows(self, worker):
        clone = worker.clones.make(worker.template(plan_from(self.place, "killed", self.stages, self.log)))
        with psycopg.connect(clone.address.conninfo) as connection:
            return connection.execute(QUERY).fetchall()

    def ask(self, statement):
        with psycopg.connect(self.server.address.conninfo, autocommit=True) as connection:
            return connection.execute(statement).fetchall()

    def private(self):
        """Databases that are no templates: builds and clones."""
        return {name for (name,) in self.ask("SELECT datname FROM pg_database WHERE datname ~ '^seeddb_[bc]_'")}

    def locks(self):
        return self.ask("SELECT pid, objid FROM pg_locks WHERE locktype = 'advisory'")

    def others(self):
        """Server processes of anybody's but ours."""
        return self.ask(
            "SELECT pid, query FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    def is_clean_after_a_run(self):
        """After the next run's sweep nothing is left: no build, no clone, no lock."""
        eventually(lambda: not self.others())  # the server notices a dead client when it has done its statement
        with Worker(self.server) as worker:
            pass
        assert worker.failures == []
        assert self.private() == set()
        eventually(lambda: not self.locks())

    def end(self):
        for child in self.children:
            child.kill()
            child.kill(signal.SIGCONT)
            child.ended()
        # The server notices a dead client when it has done its statement.
        self.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")


@pytest.fixture
def scene(embedded_server, processes, tmp_path):
    scene = Scene(embedded_server, processes, tmp_path)
    yield scene
    scene.end()
    eventually(lambda: not scene.others())
    Worker(embedded_server).close()


# -- killed builders -----------------------------------------------------------------------------


def test_a_builder_killed_at_any_moment_harms_nobody_and_leaves_nothing(scene):
    choice = random.Random(uuid.uuid4().int)
    started = time.perf_counter()
    scene.start().said("ready")
    duration = time.perf_counter() - started
    killed = 0
    for _ in range(ROUNDS):
        scene.stages = scene.new_stages()
        builder = scene.start()
        time.sleep(choice.uniform(0, duration))
        killed += not any(line.startswith("template") for line in builder.lines())
        builder.kill()
        with Worker(scene.server) as worker:
            assert scene.rows(worker) == ROWS
        scene.is_clean_after_a_run()
    assert killed > ROUNDS / 4, "most rounds must hit a build"


# In the order of a build: two databases made (the second a clone of the first's template), each filled,
# vacuumed and published. With fsync off no way of cloning is tried out.
DEATHS = [
    ("create", 1, "before"),
    ("create", 1, "after"),
    ("fill", 1, "after"),
    ("cheapest_strategy", 1, "before"),
    ("publish", 1, "before"),
    ("publish", 1, "after"),
    ("clone", 1, "before"),
    ("clone", 1, "after"),
    ("fill", 2, "before"),
    ("finish", 2, "after"),
    ("publish", 2, "before"),
    ("publish", 2, "after"),
]


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: "-".join(map(str, death)))
def test_a_builder_killed_between_two_steps_harms_nobody_and_leaves_nothing(scene, death):
    builder = scene.start(die=death)
    builder.ended()
    assert not any(line.startswith(("template", "failed")) for line in builder.lines())
    done_before = death[:2] == ("publish", 2) and death[2] == "after"
    before = scene.ran()
    with Worker(scene.server) as worker:
        assert scene.rows(worker) == ROWS
    assert (scene.ran() == before) == done_before, "what was published is used, what was not is not"
    scene.is_clean_after_a_run()


def test_what_a_builder_published_before_it_was_killed_is_not_built_again(scene):
    scene.start(die=("fill", 2, "before")).ended()
    with Worker(scene.server) as worker:
        assert scene.rows(worker) == ROWS
    migrations = [times for line, times in scene.ran().items() if line.startswith("migration")]
    assert migrations == [1] * 3


@pytest.mark.parametrize("run", ["", "the same run"])
def test_a_waiting_process_takes_over_when_the_builder_is_killed(scene, run):
    scene.stages = scene.new_stages([*SEEDS, "SELECT pg_sleep(0.5)"])
    builder = scene.start(run=run)
    eventually(lambda: any("pg_sleep" in line for line in scene.ran()))
    waiting = scene.start(run=run, clones=1)
    eventually(lambda: scene.ask("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
    builder.kill()
    assert json.loads(waiting.said("clone").split(" ", 1)[1]) == list(map(list, ROWS))
    assert waiting.said("template")[0] == "1"
    ran = scene.ran()
    assert [ran[f"seed {number}\t{text}"] for number, text in enumerate(scene.stages[1][1])] == [2] * 5
    waiting.said("closed")
    scene.is_clean_after_a_run()


# -- killed and living workers -------------------------------------------------------------------


def test_the_next_run_drops_the_clones_of_a_killed_worker(scene):
    holder = scene.start(clones=3, stay=True)
    holder.said("ready")
    assert len(scene.private()) == 3
    holder.kill()
    holder.ended()
    scene.is_clean_after_a_run()


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_nobody_touches_the_clones_of_a_living_worker(scene, state):
    holder = scene.start(clones=2, stay=True)
    holder.said("ready")
    if state == "stopped":
        os.kill(holder.pid, signal.SIGSTOP)
    before = scene.private()
    assert len(before) == 2
    Worker(scene.server).close()
    assert scene.private() == before


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_nobody_touches_the_build_of_a_living_worker(scene, state):
    scene.stages = scene.new_stages([*SEEDS, "SELECT pg_sleep(30)"])
    builder = scene.start()
    eventually(lambda: any("pg_sleep" in line for line in scene.ran()))
    if state == "stopped":
        os.kill(builder.pid, signal.SIGSTOP)
    before = scene.private()
    assert len(before) == 1
    Worker(scene.server).close()
    assert scene.private() == before
    assert builder.alive()


def test_workers_that_sweep_at_once_do_not_disturb_each_other(scene):
    dead = [scene.start(clones=2, stay=True) for _ in range(3)]
    for each in dead:
        each.said("ready")
        each.kill()
        each.ended()
    sweepers = [scene.start() for _ in range(6)]
    for each in sweepers:
        each.said("closed")
    eventually(lambda: not scene.others())
    assert scene.private() == set()


# -- many at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["", "the same run"])
def test_eight_processes_that_ask_at_once_share_one_build(scene, run):
    children = [scene.start(run=run, clones=1) for _ in range(8)]
    found = [json.loads(child.said("clone").split(" ", 1)[1]) for child in children]
    for child in children:
        child.said("closed")
    assert found == [list(map(list, ROWS))] * 8
    assert set(scene.ran().values()) == {1}
    assert sorted(child.said("template")[0] for child in children) == ["0"] * 7 + ["1"]
    scene.is_clean_after_a_run()


def test_plans_with_a_common_prefix_build_it_once_and_do_not_wait_for_each_other_in_a_circle(scene):
    first = f"SELECT '{uuid.uuid4()}'"
    common = scene.new_stages(first=first)[0]
    plans = [
        [common],
        [common, ["seed", SEEDS]],
        [common, ["seed", SEEDS], ["demo", [*SEEDS]]],
        [common, ["seed", SEEDS[:1]]],
        [common, ["seed", SEEDS[:1]], ["demo", ["SELECT 1"]]],
    ]
    children = [scene.start(stages=stages, name="plan") for stages in plans * 2]
    for child in children:
        child.said("closed")
    ran = scene.ran()
    assert {times for line, times in ran.items() if line.startswith("migration")} == {1}
    assert sum(ran.values()) == len(common[1]) + len(SEEDS) + len(SEEDS) + 1 + 1
    scene.is_clean_after_a_run()


def test_a_killed_holder_of_a_template_does_not_keep_it_from_being_pruned(scene):
    holder = scene.start(stay=True)
    holder.said("ready")
    name = holder.said("template").split(" ")[1]
    with Worker(scene.server) as worker:
        assert not worker.admin.try_lock(lock_key("use", name))
        holder.kill()
        holder.ended()
        eventually(lambda: worker.admin.try_lock(lock_key("use", name)))
