from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from attacks import PASSING, times
from poor import as_user, clock, in_a_world_of_its_own, poor_server, server_on_small_disk
from processes import STRANGER

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts something in a namespace of its own, as root")

FILLING = """
    import os
    import pytest
    import psycopg

    @pytest.fixture(autouse=True)
    def as_seeded(seeded_db):
        with seeded_db.connect() as connection:
            assert connection.execute("SELECT count(*) FROM item").fetchone() == (400,), "WRONG STATE"

    @pytest.mark.parametrize("number", range(3))
    def test_fills_the_disk(seeded_db, number):
        with pytest.raises(psycopg.Error) as caught, seeded_db.connect() as connection:
            connection.execute("DELETE FROM item")
            connection.commit()
            connection.execute("CREATE TABLE big AS SELECT repeat('x', 2000) FROM generate_series(1, 100000)")
        print(caught.value)

    @pytest.mark.parametrize("number", range(3))
    def test_after(seeded_db, number):
        pass
"""
HUGE_SEEDS = """
    from sqlalchemy import text
    from pytest_seeddb import seeder

    @seeder(tier="demo")
    def shops(session, items: int = 10):
        session.execute(text("CREATE TABLE big AS SELECT repeat('x', 2000) FROM generate_series(1, 100000)"))
"""


def told_by(run):
    found = re.search(r"^((?:Server|Build|Clone)Error: .*\n(?:  .*\n)+)", run, re.MULTILINE)
    assert found, run
    return found[1]


# -- full disks -----------------------------------------------------------------------------------


@needs_root
def test_a_disk_that_fills_up_in_a_build_is_named_and_the_next_build_works(site, tried):
    with server_on_small_disk("120m") as server:
        site.write("attacked/seeds.py", HUGE_SEEDS)
        told = told_by(site.run(f"--seed-db-server={server.url()}", code=1))
        assert told.startswith("BuildError: The seeder attacked.seeds:shops failed\n")
        assert re.search("No space left on device|could not extend file", told)
        assert "(SQLSTATE 53100)" in told
        assert "  do:   free space on the server's disk\n" in told
        site.write("attacked/seeds.py", GOOD_SEEDS)
        site.passes(f"--seed-db-server={server.url()}")
        assert server.half_made() == []
    tried("a disk of a server that is full in a build")


@needs_root
def test_a_disk_that_fills_up_in_a_test_spoils_no_later_test(site, tried):
    with server_on_small_disk("120m") as server:
        site.write("test_it.py", FILLING)
        run = site.run(f"--seed-db-server={server.url()}")
        assert "6 passed" in run
        assert server.half_made() == []
    tried("a disk of a server that a test fills", 3)


@needs_root
@pytest.mark.parametrize("size", ["12m", "40m", "60m"])
def test_a_full_cache_directory_is_named(site, size, tried):
    mount = f"mount -t tmpfs -o size={size},mode=755 none '{site.cache}'"
    with in_a_world_of_its_own(site, mount) as run:
        code, told = run()
        if code:
            # Where a checkpoint finds the disk full, the server names the cause in its log alone: on that disk.
            assert re.search("No space left on device|checkpoint request failed", told), told
            assert re.search("do:   free (some )?space on the", told), told
            assert "Traceback" not in told
        else:
            assert f"{PASSING} passed" in told
    site.is_quiet()
    site.passes()
    tried(f"an embedded server in {size}")


def test_a_limit_of_file_sizes_is_named(site, tried):
    limit = [sys.executable, "-c", LIMITED]
    code, told = finished(site, limit)
    assert code == 1
    assert "free some space on the disk of" in told_by(told)
    site.passes()
    tried("a run with a limit of file sizes")


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
os.execv(sys.argv[1], sys.argv[1:])
"""


def finished(site, prefix):
    line = [*prefix, sys.executable, "-m", "pytest", "-q", "--seed-db", "-p", "no:cacheprovider", "-p", "no:randomly"]
    line += ["-p", "no:asyncio", "-p", "no:django"]
    done = subprocess.run(line, cwd=site.project, env=site.environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@needs_root
def test_a_full_temporary_directory_does_not_matter(site, tried):
    fill = f"mount -t tmpfs -o size=64k none '{site.temporary}' && head -c 60k /dev/zero > '{site.temporary}/full'"
    with in_a_world_of_its_own(site, fill) as run:
        code, told = run()
    assert code == 0, told
    assert f"{PASSING} passed" in told
    tried("a run with a full TMPDIR")


# -- the cache directory --------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("why", ["no right", "read-only"])
def test_a_cache_directory_that_cannot_be_written_to(site, why, tried):
    """The embedded server cannot be had there; one that runs already needs no cache directory."""
    site.cache.chmod(0o555)
    mount = f"mount --bind -o ro '{site.cache}' '{site.cache}' && mount -o remount,bind,ro '{site.cache}'"
    with in_a_world_of_its_own(site, mount if why == "read-only" else "true", user=STRANGER) as run:
        code, told = run()
        error = told_by(told)
        assert code == 1
        assert error.startswith(
            f"ServerError: The embedded server cannot keep its data in {site.cache}/pytest-seeddb\n"
        )
        assert "  from: the user's cache directory\n" in error
        assert "  do:   set XDG_CACHE_HOME to a directory of yours that can be written to\n" in error
        with poor_server() as server:
            code, told = run(f"--seed-db-server={server.url()}")
            assert (code, "rror" in told) == (0, False), told
            assert server.half_made() == []
    assert list(site.cache.iterdir()) == []
    tried(f"a cache directory that cannot be written to: {why}", 2)


@pytest.mark.parametrize(
    "name", ["with spaces and 'quotes' and \"more\" $HOME %s {x} \\ ü", "/".join(["x" * 49] * 4)], ids=["odd", "long"]
)
def test_a_cache_directory_of_any_name(site, name, tried):
    place = site.cache / name
    place.mkdir(parents=True)
    site.environment["XDG_CACHE_HOME"] = str(place)
    for workers in (0, 2):
        site.passes("-n", workers)
    assert len(list(place.glob("pytest-seeddb/servers/*/data"))) == 1
    tried("a run with an odd or a long cache directory", 2)


@needs_root
def test_a_cache_directory_that_two_users_share_belongs_to_the_first(site, tried):
    site.cache.chmod(0o777)
    with as_user(site, STRANGER) as first:
        code, told = first()
        assert code == 0, told
    site.is_quiet()
    with as_user(site, 1) as second:
        code, told = second()
        assert code == 1
        assert told_by(told) == (
            f"ServerError: The embedded server cannot keep its data in {site.cache}/pytest-seeddb\n"
            f"  saw:  it is not a directory of user 1; it belongs to user {STRANGER}\n"
            "  from: the user's cache directory\n"
            "  do:   set XDG_CACHE_HOME to a directory of yours that can be written to\n"
        )
    with as_user(site, STRANGER) as first:
        code, told = first("-v")
        assert code == 0, told
        assert "built in" not in told
    site.is_quiet()
    tried("two users of one cache directory", 3)


# -- shared memory --------------------------------------------------------------------------------


@needs_root
def test_no_shared_memory_directory(site, tried):
    """Also where the data directory was made while there was one, and the other way round."""
    hidden = "mount -t tmpfs -o ro,size=4k,mode=000 none /dev/shm"
    with in_a_world_of_its_own(site, hidden) as run:
        code, told = run()
        assert (code, "rror" in told) == (0, False), told
    site.is_quiet()
    site.passes()
    site.is_quiet()
    shutil.rmtree(site.cache / "pytest-seeddb")
    site.passes()
    site.is_quiet()
    with in_a_world_of_its_own(site, hidden) as run:
        code, told = run("-v")
        assert (code, "rror" in told) == (0, False), told
    site.is_quiet()
    tried("a run without /dev/shm", 2)


# -- the clock ------------------------------------------------------------------------------------

GOOD_SEEDS = """
    import os
    from sqlalchemy import text
    from pytest_seeddb import seeder

    @seeder
    def shops(session):
        stamp = os.environ.get("STAMP", "shop")
        rows = "SELECT :stamp || ' ' || n FROM generate_series(1, 40) n"
        session.execute(text("INSERT INTO shop (name) " + rows), {"stamp": stamp})

    @seeder(tier="demo", after=[shops])
    def items(session, items: int = 10):
        session.execute(
            text("INSERT INTO item (shop_id, price) SELECT id, n FROM shop, generate_series(1, :items) n"),
            {"items": items},
        )
"""
STAMPED = """
    import os

    def test_it(seeded_connection):
        found = seeded_connection.execute("SELECT DISTINCT split_part(name, ' ', 1) FROM shop").fetchall()
        assert found == [(os.environ["WANTED"],)]
"""


@pytest.fixture(scope="module")
def running():
    with poor_server() as server:
        yield server


@pytest.mark.parametrize("days", [-400, 400])
def test_a_build_that_was_asked_for_is_used_by_the_next_run_whatever_the_clock_says(site, running, days, tried):
    site.write("attacked/seeds.py", GOOD_SEEDS)
    site.write("test_it.py", STAMPED)
    url = f"--seed-db-server={running.url()}"
    site.environment |= {"STAMP": "first", "WANTED": "first"}
    site.run(url, "--seed-db-reseed")
    site.environment |= {"STAMP": "second", "WANTED": "second"}
    with clock(site, days):
        site.run(url, "--seed-db-reseed")
        site.run(url)
    run = site.run(url, "-v")
    assert "reused" in run
    site.environment |= {"STAMP": "third", "WANTED": "third"}
    site.run(url, "--seed-db-reseed")
    with clock(site, days):
        assert "reused" in site.run(url, "-v")
    assert running.half_made() == []
    tried(f"a run with the clock {days} days off", 3)


@pytest.mark.parametrize("days", [-400, 400])
def test_the_databases_that_a_run_says_it_kept_are_there(site, running, days, tried):
    number = 12
    tests = (
        f"import pytest\n\n@pytest.mark.parametrize('n', range({number}))\ndef test_it(seeded_db, n):\n    assert 0\n"
    )
    site.write("test_it.py", tests)
    url = f"--seed-db-server={running.url()}"
    for off in (0, days, 0):
        with clock(site, off):
            run = site.run(url, code=1)
        kept = set(re.findall(r"seeddb shell (seeddb_k_\S+)", run))
        assert len(kept) == number
        assert kept <= set(running.databases())
        assert len(running.databases("seeddb_k_")) <= 20
    tried(f"a database that is kept with the clock {days} days off", 3 * number)


@pytest.mark.parametrize("days", [-400, 400])
def test_an_embedded_server_of_another_day(site, days, tried):
    site.passes()
    for off in (days, 0)[: times(2, least=2)]:
        with clock(site, off):
            run = site.passes("-n", "2")
            assert "built in" not in run
    tried(f"a run of an embedded server with the clock {days} days off")
