"""Promise 3: nothing is touched that is not ours, however much it looks like it."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import attacks
import decoys
import psycopg
import pytest
from attacks import times
from processes import eventually

from pytest_seeddb.servers import guard

BREAKS = """
    from sqlalchemy import text
    from pytest_seeddb import seeder

    @seeder
    def shops(session, items: int = 10):
        session.execute(text("DROP TABLE item, shop"))
        raise RuntimeError("in the midst of it")
"""


@pytest.fixture
def chosen():
    """Random choices, and what they began with: printed where the test fails."""
    seed = secrets.randbits(32)
    print(f"random seed {seed}")
    return random.Random(seed)


def state_of(site):
    (state,) = [each for each in (site.cache / "pytest-seeddb" / "servers").iterdir() if (each / "users.lock").exists()]
    return state


def orphans(site, connection):
    """Databases that a killed run leaves behind."""
    process = site.start("-k", "inserts or breaks", stdout=subprocess.DEVNULL)
    asked = "SELECT datname FROM pg_database WHERE datname LIKE 'seeddb\\_c\\_%' AND datconnlimit = 99540401"
    eventually(lambda: connection.execute(asked).fetchall() or process.poll() is not None, 60)
    process.kill()
    process.wait()


CLEANERS = {
    "a run": lambda site: site.passes(),
    "a run with workers": lambda site: site.passes("-n", "2"),
    "a build anew": lambda site: site.passes("--seed-db-reseed"),
    "a dry prune": lambda site: site.command("prune", "--all", "--dry-run"),
    "prune": lambda site: site.command("prune"),
    "prune by age": lambda site: site.command("prune", "--older-than", "0d"),
    "prune by size": lambda site: site.command("prune", "--budget", "1MB"),
    "prune of kept ones": lambda site: site.command("prune", "--kept", "--json"),
    "a dump": lambda site: site.command("dump", "-o", "old.sql"),
    "verify": lambda site: site.command("verify"),
    "status": lambda site: site.command("status", "--json"),
    "an export": lambda site: site.command("build", "--export", "template.dump"),
    "server stop": lambda site: site.command("server", "stop", code=1),  # there is no container engine
    "prune of everything": lambda site: site.command("prune", "--all"),
}


def test_no_database_of_others_is_touched_by_anything_that_cleans_up(site, chosen, tried):
    site.passes()
    with decoys.held_server(site) as conninfo, psycopg.connect(conninfo, autocommit=True) as admin:
        databases = decoys.DecoyDatabases(conninfo, chosen)
        databases.make_roles()
        space = site.place / "space"
        space.mkdir(mode=0o700)
        found = state_of(site).joinpath("data").stat()
        os.chown(space, found.st_uid, found.st_gid)
        databases.make_tablespace(space)
        databases.make(times(40, least=8))
        with psycopg.connect(conninfo, dbname="customers") as other:
            other.execute("INSERT INTO public.shop VALUES (2)")  # stays open, in a transaction
            before = databases.standing()
            names = [*chosen.sample(sorted(CLEANERS), times(len(CLEANERS), least=3)), "prune of everything"]
            for name in names:
                if "prune" in name or chosen.random() < 0.5:
                    orphans(site, admin)
                CLEANERS[name](site)
                assert databases.standing() == before, (name, names)
                tried("clean-up among decoys")
            site.write("attacked/seeds.py", BREAKS)
            assert "in the midst of it" in site.run("-x", code=1)
            site.command("build", code=1)
            site.command("prune", "--all")
            assert databases.standing() == before
            other.rollback()
            assert other.execute("SELECT count(*) FROM public.shop").fetchone() == (1,)
        left = {name for (name,) in admin.execute("SELECT datname FROM pg_database")}
        assert left == {*databases.names, "postgres", "template0", "template1"}
        tried("a decoy database", len(databases.names))


def test_no_file_and_no_process_of_others_is_touched(site, chosen, tried):
    site.passes()
    site.is_quiet()
    state = state_of(site)
    files = decoys.DecoyFiles(site)
    files.make([state])
    with decoys.decoy_processes() as processes:
        before = files.standing()
        for turn in range(times(4, least=1)):
            # What a machine that went down leaves behind: the number may be anybody's by now.
            (state / "data" / "postmaster.pid").write_text(f"{processes[0].pid}\n{state / 'data'}\n")
            files.linked_from(state)
            record = decoys.record_of(state)
            record["socket"] = str(chosen.choice([files.elsewhere, site.temporary / "seeddb-0badcafe01"]))
            (state / "server.json").write_text(json.dumps(record))
            names = ["a run", chosen.choice(["a dump", "an export"]), chosen.choice(sorted(CLEANERS))]
            names += ["a run", "prune of everything"]
            for name in names:
                CLEANERS[name](site)
                site.is_quiet()
                assert files.standing() == before, (turn, name)
                tried("clean-up among decoys")
            site.passes()
            site.is_quiet()


HOLDING = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print(1, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("noted", ["in the lock", "in postmaster.pid"])
def test_a_guard_signals_no_process_that_took_the_number_of_the_server(site, tried, noted):
    site.passes()
    site.is_quiet()
    state = state_of(site)
    line = [sys.executable, "-c", HOLDING, state / guard.SERVER]
    with (
        decoys.decoy_processes() as processes,
        subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as left,
    ):
        left.stdout.readline()
        number = processes[0].pid
        (state / guard.SERVER).write_text(f"{number if noted == 'in the lock' else 0}\n\n")
        (state / "data" / "postmaster.pid").write_text(f"{number}\n{state / 'data'}\n")
        lock = os.open(state / guard.GUARD, os.O_RDWR)
        started = subprocess.Popen([sys.executable, "-I", "-S", guard.__file__, state, str(lock)], pass_fds=[lock])
        os.close(lock)
        eventually(lambda: "guard.lock" in str([*map(os.path.realpath, Path(f"/proc/{started.pid}/fd").iterdir())]))
        with pytest.raises(subprocess.TimeoutExpired):
            started.wait(2)
        assert [each.poll() for each in processes] == [None] * 4
        left.stdin.close()
        assert started.wait(30) == 0
    site.passes()
    tried("a recycled process number")


def test_what_a_stopped_run_uses_stays_and_it_goes_on_afterwards(site, chosen, tried):
    site.write("test_it.py", WAITS)
    for _ in range(times(3)):
        process = site.start("-s", "-k", "waits")
        name = _told(process, "CLONE").split()[1]
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            for command in chosen.sample([("prune", "--all"), ("prune", "--budget", "1MB"), ("build", "--reseed")], 2):
                site.command(*command)
            site.run("-k", "passes")
            assert name in site.databases()
            assert site.ask(f"SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '{name}'") == [(True,)]
        finally:
            os.killpg(process.pid, signal.SIGCONT)
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 0, told
        tried("a run that was stopped")


WAITS = """
    import time
    def test_waits(seeded_connection, seeded_db):
        print("CLONE", seeded_db.name, flush=True)
        time.sleep(0.5)
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (40,)
        seeded_connection.commit()
        time.sleep(0.5)
        assert seeded_db.connect().execute("SELECT count(*) FROM item").fetchone() == (400,)

    def test_passes(seeded_connection):
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (40,)
"""


def _told(process, word):
    line = ""
    while word not in line:
        line = process.stdout.readline()
        assert line
    return line[line.index(word) :]


LOOKS = """
    import subprocess, sys
    import pytest

    @pytest.mark.parametrize("number", range(4))
    def test_is_looked_at(seeded_db, seeded_connection, number):
        for _ in range(2):
            line = [sys.executable, "look.py", seeded_db.conninfo]
            looker = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
            assert looker.stdout.readline()
"""
LOOK = """
    import sys, psycopg
    mine = psycopg.connect(sys.argv[1], dbname="customers", autocommit=True)
    theirs = psycopg.connect(sys.argv[1], application_name="psql")
    theirs.execute("SELECT * FROM shop FOR SHARE")
    print(1, flush=True)
    try:
        while True:
            theirs.execute("SELECT pg_sleep(0.1)")
    except psycopg.Error as error:
        mine.execute("INSERT INTO ended VALUES (%s)", [error.sqlstate or "none"])
"""
ENDED = "SELECT count(*) FROM ended"


def test_other_tools_on_a_clone_are_ended_there_and_nowhere_else(site, tried):
    site.passes()
    site.write("test_it.py", LOOKS)
    site.write("look.py", LOOK)
    with decoys.held_server(site) as conninfo:
        with psycopg.connect(conninfo, autocommit=True) as admin:
            admin.execute("CREATE DATABASE customers")
        with psycopg.connect(conninfo, dbname="customers", autocommit=True) as other:
            other.execute("CREATE TABLE ended (state text)")
            for turn in range(times(3)):
                site.run("--seed-db-reset", "auto" if turn % 2 else "clone")
                eventually(lambda turn=turn: other.execute(ENDED).fetchone() == (8 * (turn + 1),), 30)
                tried("another tool on a clone", 8)
            states = {state for (state,) in other.execute("SELECT state FROM ended")}
            assert states <= {"57P01", "none"}  # ended by an administrator, and by nothing else


def test_a_kept_database_that_somebody_looks_at_stays_however_many_come_after_it(site, tried):
    site.write(
        "test_it.py",
        "import pytest\n@pytest.mark.parametrize('n', range(22))\ndef test_x(seeded_db, n): assert n < 0\n",
    )
    first = "def test_x(seeded_db): assert 0"
    site.write("test_first.py", first)
    site.run("test_first.py", code=1)
    with decoys.held_server(site) as conninfo:
        (name,) = site.databases(r"seeddb\_k\_%")
        with psycopg.connect(conninfo, dbname=name) as looker:
            looker.execute("SELECT 1")
            site.run("test_it.py", code=1)
            assert looker.execute("SELECT count(*) FROM shop").fetchone() == (40,)
            assert name in site.databases(r"seeddb\_k\_%")
        site.run("test_first.py", code=1)
        eventually(lambda: name not in site.databases(r"seeddb\_k\_%"), 30)
        assert len(site.databases(r"seeddb\_k\_%")) == 20
    tried("a kept database in use")


WICKED = (
    '"; DROP DATABASE customers; --', "'; DROP DATABASE customers; --", "%s %(x)s %% {} {0}", "x" * 200, "é" * 200,
    "🦆" * 100, "a\nb\tc\r", "\u2028\u202e\u0000x",
    "$$ $tag$", "\\'; --", "seeddb_t_x", "../../../etc", "-rf", "*", "[x]",
    "(SELECT 1)", "\x1b[31mred", "0", "NULL", "\u017feeddb", "I\u0307",
)  # fmt: skip


def test_wicked_names_of_plans_profiles_and_values_do_nothing_but_name(site, chosen, tried):
    site.write(
        "attacked/seeds.py",
        attacks.SEEDS.replace("items: int = 10)", "items: int = 10, word: str = 'x')"),
    )
    with decoys.held_server(site) as conninfo, psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("CREATE DATABASE customers")
        databases = decoys.DecoyDatabases(conninfo, chosen)
        databases.names.append("customers")
        before = databases.standing()
        for _ in range(times(10)):
            plan, profile, value = chosen.choices(WICKED, k=3)
            name, key, word = (json.dumps(each, ensure_ascii=False) for each in (plan, profile, value))
            site.table(f"name = {name}\nprofile = {key}\n[tool.seeddb.profiles.{key}]\nword = {word}")
            marked = f"import pytest\nW = {value!r}\n@pytest.mark.seeded(word=W + 'x')\ndef test_w(seeded_db): pass\n"
            site.write("test_w.py", marked)
            print(repr(plan), repr(profile), repr(value))
            told = site.run()
            assert f"{attacks.PASSING + 1} passed" in told
            for command in (("explain",), ("status",), ("status", "--json"), ("explain", "--diff")):
                site.command(*command)
            ours = [name for name in site.databases() if name.startswith("seeddb_")]
            assert all(len(name.encode()) <= 63 for name in ours)
            assert databases.standing() == before
            tried("wicked names")


def test_plans_whose_names_are_one_when_shortened_have_templates_of_their_own(site, tried):
    long = "a plan with a very long name, of which the end "
    seen = {}
    for number in range(times(3, least=2)):
        site.table(f"name = {json.dumps(long + str(number))}")
        site.write("attacked/seeds.py", attacks.SEEDS.replace("40) n", f"{40 + number}) n"))
        site.write(
            "test_it.py",
            f"""
            def test_it(seeded_connection):
                assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == ({40 + number},)
        """,
        )
        assert "1 passed" in site.run()
        seen[number] = set(site.databases(r"seeddb\_t\_%"))
        assert all(seen[before] <= seen[number] for before in range(number))
        tried("a plan whose short name is another's")
    assert {name[:27] for name in seen[max(seen)]} == {"seeddb_t_a_plan_with_a_very"}
    assert len(seen[max(seen)]) > len(seen[0])
