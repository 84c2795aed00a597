"""Clones in memory, while templates stay on the disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import psycopg
import pytest
from handmade import Statements
from processes import eventually, processes_of

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.plan.plan import Plan
from pytest_seeddb.servers import guard, memory, storage
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.memory import DISK, PARENT, TABLESPACE, Memory
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.servers.processes import is_locked
from pytest_seeddb.settings.settings import Settings

pytestmark = [
    pytest.mark.long,  # servers are started, killed and waited for
    pytest.mark.skipif(not PARENT.is_dir(), reason="needs a place in memory"),
]

HERE = Path("/")
KEPT = "seeddb_k_20260101000000_12345678_2"
ON_THE_DISK = "CREATE TABLE on_the_disk (a int PRIMARY KEY) TABLESPACE pg_default; INSERT INTO on_the_disk VALUES (1)"
PLAN = Plan("memory", "default", HERE, (Statements("schema", ["CREATE TABLE t AS SELECT 1 AS v"]).stage(),))


def settings(storage="memory"):
    return Settings(root=HERE, storage=storage)


@pytest.fixture
def cache(monkeypatch):
    """A cache directory of the test's own; afterwards nothing in memory is left from it."""
    own = Path(tempfile.mkdtemp(prefix="sdt-", dir=PARENT)).resolve()
    own.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(own))
    yield own
    directories = [guarded(state) for state in own.glob("**/servers/*")]
    assert directories
    stopped(own)
    assert not [directory for directory in directories if directory.exists()]
    shutil.rmtree(own)


def stopped(cache):
    eventually(lambda: not processes_of(cache), 30)


def guarded(state):
    """The directory in memory."""
    return (state / guard.MEMORY).readlink()


def tablespaces(server, pattern="%seeddb%"):
    with Admin(server.address) as admin:
        return dict(
            admin.run(
                "SELECT datname, spcname FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace"
                " WHERE datname LIKE %s",
                [pattern],
            )
        )


def place(clone):
    """The tablespace that a clone has, as its own connections see it."""
    with psycopg.connect(clone.address.conninfo) as connection:
        return connection.execute(
            "SELECT spcname FROM pg_tablespace t JOIN pg_database d ON t.oid = dattablespace"
            " WHERE datname = current_database()"
        ).fetchone()[0]


def write(clone, statements="CREATE TABLE much AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)"):
    with psycopg.connect(clone.address.conninfo, autocommit=True) as connection:
        connection.execute(statements)


def test_clones_are_in_memory_and_what_stays_is_on_the_disk(cache):
    with open_server(settings()) as server, Worker(server) as worker, open_server(settings("disk")) as joined:
        template = worker.template(PLAN)
        leased = worker.take(template)
        assert tablespaces(server) == {template.name: DISK, leased.clone.name: TABLESPACE}
        frozen = worker.freeze(leased)
        with Worker(joined) as other:
            assert other.template(PLAN).name == template.name
            assert place(other.clone(template)) == DISK
            other.clones.discard_all()
            other.keep(other.take(template), "seeddb_k_20260101000000_12345678_1")
        assert place(worker.clone(frozen)) == TABLESPACE
        # Whoever may create tables may name the tablespace that is the default on the disk.
        write(leased.clone, "GRANT CREATE ON SCHEMA public TO pg_monitor; SET ROLE pg_monitor; " + ON_THE_DISK)
        worker.keep(leased, KEPT)
        assert not worker.failures
        state, directory = server.state, guarded(server.state)
        assert directory.stat().st_mode & 0o777 == 0o700
        (version,) = directory.iterdir()
        (version / "99999").mkdir()  # as a crash in CREATE DATABASE leaves it
        (version / "99999" / "1247").write_bytes(bytes(8192))
    stopped(cache)
    assert not directory.exists()
    with open_server(settings("disk")) as server, Worker(server) as worker:
        assert guarded(state) != directory
        assert set(tablespaces(server, "seeddb\\_k%").values()) == {DISK}
        with psycopg.connect(server.address.with_database(KEPT).conninfo) as connection:
            assert connection.execute("SELECT a FROM on_the_disk WHERE a > 0").fetchall() == [(1,)]
        assert not worker.template(PLAN).built


@pytest.mark.parametrize("how", ["lost", "killed", "restarted", "copied"])
def test_a_lost_directory_costs_clones_alone(cache, monkeypatch, how):
    with open_server(settings()) as server, Worker(server) as worker:
        state, directory, template = server.state, guarded(server.state), worker.template(PLAN)
        left = [worker.clone(template) for _ in range(2)]
        for clone in left:
            write(clone)
        worker.admin.clone(template.name, "seeddb_c_0123456789abcdef_1", "FILE_COPY")  # and a checkpoint
        for clone in left:  # in the log on disk, so that the recovery looks for the files
            write(clone, "SET synchronous_commit = on; UPDATE t SET v = 3")
        write(left[0], "SET work_mem = 64; SELECT FROM generate_series(1, 100000) ORDER BY random()")  # in a file
        left_names = {clone.name for clone in left}
        worker.clones._living.clear()  # as a killed process leaves them
        if how in ("lost", "killed"):
            os.kill(guard.postmaster(str(state)), signal.SIGKILL)
            eventually(lambda: not (processes_of(cache, "postgres", "-D")))
            if how == "lost":
                shutil.rmtree(directory)
    stopped(cache)
    assert not directory.exists()
    if how == "restarted":
        record = json.loads((state / guard.RECORD).read_text())
        (state / guard.RECORD).write_text(json.dumps({**record, "boot": "another"}))
    if how == "copied":
        (cache / "pytest-seeddb").rename(cache / "elsewhere")
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "copy"))
        (cache / "copy").mkdir(mode=0o755)
        (cache / "elsewhere").rename(cache / "copy" / "pytest-seeddb")
    with open_server(settings()) as server:
        assert not server.notes
        assert left_names < set(tablespaces(server))
        with Worker(server) as worker:
            assert not worker.template(PLAN).built
            write(clone := worker.clone(template))
            eventually(lambda: not left_names & set(tablespaces(server)))
            assert place(clone) == TABLESPACE
        assert not worker.failures


def test_a_start_removes_what_killed_servers_have_left(cache):
    left, used = (Path(tempfile.mkdtemp(prefix=guard.MEMORY_PREFIX, dir=PARENT)) for _ in range(2))
    (left / "PG_15").mkdir()
    lock = memory._lock(used)
    with open_server(settings()):
        assert used.exists()
    os.close(lock)
    assert not left.exists()
    used.rmdir()


def test_clones_are_on_the_disk_where_there_is_no_room_and_that_is_said_once(cache, monkeypatch):
    with open_server(settings()) as server, Worker(server) as worker:
        template = worker.template(PLAN)
        leased = worker.take(template)
        write(leased.clone, ON_THE_DISK)  # PostgreSQL refuses to copy it there
        frozen = worker.freeze(leased)
        leased.release()
        with monkeypatch.context() as patch:
            patch.setattr(Memory, "_free", lambda *_: 4 * 16 * 2**20)
            assert [place(worker.clone(template)) for _ in range(2)] == [DISK] * 2
            assert place(worker.clone(frozen)) == TABLESPACE
        assert worker.failures == ["clones are made on the disk: memory has no room for them"]
        clone = Admin.clone

        def full(admin, *args):
            if args[-1] == TABLESPACE:
                raise psycopg.errors.DiskFull("No space left on device")
            clone(admin, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Admin, "clone", full)
            assert place(worker.clone(template)) == DISK
        assert worker.failures[1:] == [
            "clones are made on the disk: PostgreSQL could not make one in memory (DiskFull)"
        ]
        shutil.rmtree(guarded(server.state))
        assert place(worker.clone(template)) == DISK
        assert "was removed" in worker.failures[2]
    stopped(cache)
    measured = []

    def probe(directory):
        measured.extend(is_locked(lock) for lock in cache.glob(f"pytest-seeddb/servers/*/{guard.START}"))
        return 0.001 if directory == PARENT else 1

    monkeypatch.setattr(storage, "_probe", probe)
    monkeypatch.setattr(storage, "_is_same_device", lambda _: False)
    monkeypatch.setattr(storage, "_ends_with_the_session", lambda _: False)
    with open_server(settings("auto")) as server, Worker(server) as worker:
        assert place(worker.clone(worker.template(PLAN))) == TABLESPACE
    assert measured == [True, True]


def test_a_server_of_an_earlier_version_gets_the_tablespace(cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(memory, "lacks_tablespace", lambda *_: False)
        with open_server(settings()) as server, Worker(server) as worker:
            assert place(worker.clone(worker.template(PLAN))) == DISK
            (line,) = worker.failures
            assert "was started without a tablespace in memory; its next start makes one" in line
    stopped(cache)
    with open_server(settings()) as server, Worker(server) as worker:
        assert not server.notes
        assert not worker.template(PLAN).built
        assert place(worker.clone(worker.template(PLAN))) == TABLESPACE
