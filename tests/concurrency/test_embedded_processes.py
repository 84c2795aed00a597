from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest
from processes import (
    AS_STRANGER,
    CAN_BE_STRANGER,
    STRANGER,
    eventually,
    guards,
    killed,
    postmasters,
    private_cache,
    processes_of,
)

from pytest_seeddb.servers import embedded, guard
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Settings

IS_ROOT = os.geteuid() == 0
PROJECT = Path(__file__).resolve().parents[2]

ACCOUNTS = ["ours", "ordinary"] if CAN_BE_STRANGER else ["ours"]

OPEN = """
import sys
from pathlib import Path
from pytest_seeddb.settings.settings import Settings
from pytest_seeddb.servers.opening import open_server
with open_server(Settings(root=Path("/"), postgres=int(sys.argv[1]) or None)) as server:
    print(server.address.conninfo, flush=True)
    sys.stdin.readline()
"""


def state_of(cache):
    (found,) = (cache / "pytest-seeddb" / "servers").iterdir()
    return found


def is_held(path):
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def run(conninfo, statement):
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


class User:
    """A process that has the server open until it is told to go."""

    def __init__(self, cache, *, account="ours", major=0, **options):
        command = [*(AS_STRANGER if account == "ordinary" else []), sys.executable, "-c", OPEN, str(major)]
        environ = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(PROJECT), "HOME": "/nonexistent"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=environ, text=True, **pipes, **options)

    def conninfo(self):
        found = self.process.stdout.readline().strip()
        assert found, self.process.communicate()[1]
        return found

    def leaves(self):
        _, told = self.process.communicate("\n", timeout=20)
        assert (self.process.returncode, told) == (0, "")

    def dies(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def primed():
    with private_cache() as made:
        first = User(made)
        run(first.conninfo(), "CREATE DATABASE made_in_the_first_run")
        first.leaves()
        eventually(lambda: not processes_of(made))
        yield made


@pytest.fixture
def empty_cache():
    with private_cache() as made:
        yield made


@pytest.fixture
def cache(primed, empty_cache):
    subprocess.run(["cp", "-a", f"{primed}/.", str(empty_cache)], check=True)
    return empty_cache


@pytest.mark.parametrize("major", [0, 18], ids=["installed", "wheel"])
@pytest.mark.parametrize("account", ACCOUNTS)
def test_as_any_account_with_any_binaries_a_second_run_finds_what_the_first_made(account, major):
    with private_cache(STRANGER if account == "ordinary" else None) as cache:
        first = User(cache, account=account, major=major)
        run(first.conninfo(), "CREATE DATABASE made_in_the_first_run")
        first.leaves()
        eventually(lambda: not postmasters(cache))
        second = User(cache, account=account, major=major)
        assert ("made_in_the_first_run",) in run(second.conninfo(), "SELECT datname FROM pg_database")
        second.leaves()


def test_the_server_ends_within_a_second_after_its_last_user_was_killed(cache):
    user = User(cache)
    conninfo = user.conninfo()
    (pid,) = postmasters(cache)
    user.dies()
    began = time.monotonic()
    eventually(lambda: not postmasters(cache))
    assert time.monotonic() - began < 2
    assert pid not in processes_of(cache)
    eventually(lambda: not Path(psycopg.conninfo.conninfo_to_dict(conninfo)["host"]).exists())


def test_the_server_stays_for_the_other_user_when_one_is_killed(cache):
    one, other = User(cache), User(cache)
    one.conninfo()
    conninfo = other.conninfo()
    one.dies()
    time.sleep(0.3)
    assert run(conninfo, "SELECT 1") == [(1,)]
    other.leaves()


def test_ten_processes_at_once_get_one_server_and_one_data_directory(empty_cache):
    users = [User(empty_cache) for _ in range(10)]
    reached = {user.conninfo() for user in users}
    assert len(reached) == 1
    assert len(postmasters(empty_cache)) == 1
    assert len(guards(empty_cache)) == 1
    for user in users[:5]:
        user.dies()
    assert run(reached.pop(), "SELECT 1") == [(1,)]
    for user in users[5:]:
        user.leaves()


def test_a_killed_guard_is_replaced_by_the_next_user(cache):
    first = User(cache)
    first.conninfo()
    (killed_guard,) = [killed(pid) for pid in guards(cache)]
    eventually(lambda: not guards(cache))
    second = User(cache)
    second.conninfo()
    (restored,) = guards(cache)
    assert restored != killed_guard
    first.leaves()
    second.leaves()


def test_a_user_that_leaves_after_the_guard_was_killed_leaves_nothing_running(cache):
    user = User(cache)
    user.conninfo()
    [killed(pid) for pid in guards(cache)]
    eventually(lambda: not guards(cache))
    user.leaves()
    eventually(lambda: not postmasters(cache), 2)


def test_the_server_stops_although_its_directory_was_removed(cache):
    user = User(cache)
    host = Path(psycopg.conninfo.conninfo_to_dict(user.conninfo())["host"])
    shutil.rmtree(cache / "pytest-seeddb")
    user.leaves()
    eventually(lambda: not postmasters(cache) and not guards(cache), 5)
    assert not host.exists()
    assert not (cache / "pytest-seeddb").exists(), "the guard must not make anew what was removed"


def test_a_server_without_guard_and_users_is_joined_and_then_stopped(cache):
    first = User(cache)
    first.conninfo()
    [killed(pid) for pid in guards(cache)]
    first.dies()
    (pid,) = postmasters(cache)
    second = User(cache)
    assert ("made_in_the_first_run",) in run(second.conninfo(), "SELECT datname FROM pg_database")
    assert postmasters(cache) == [pid]
    second.leaves()


def test_a_killed_postmaster_is_restarted_for_the_next_user_with_its_data(cache):
    first = User(cache)
    conninfo = first.conninfo()
    run(conninfo, "CREATE DATABASE made_before_the_kill")
    (pid,) = [killed(each) for each in postmasters(cache)]
    second = User(cache)
    restarted = second.conninfo()
    assert ("made_before_the_kill",) in run(restarted, "SELECT datname FROM pg_database")
    assert postmasters(cache) != [pid]
    assert not Path(psycopg.conninfo.conninfo_to_dict(conninfo)["host"]).exists()
    second.leaves()
    first.leaves()


@pytest.mark.parametrize("times", [1, 2])
def test_a_postmaster_killed_before_it_is_ready_costs_no_data(cache, times):
    data = state_of(cache) / guard.DATA
    before = data.stat().st_ino
    with (state_of(cache) / guard.SERVER).open() as server:
        seen = {0, guard.read_note(server.fileno())[0]}
        user = User(cache)
        for _ in range(times):
            eventually(lambda: guard.read_note(server.fileno())[0] not in seen)
            seen.add(killed(guard.read_note(server.fileno())[0]))
    assert ("made_in_the_first_run",) in run(user.conninfo(), "SELECT datname FROM pg_database")
    assert data.stat().st_ino == before
    user.leaves()


def test_everything_killed_at_once_is_mended_by_the_next_user(cache):
    first = User(cache)
    run(first.conninfo(), "CREATE DATABASE made_before_the_kill")
    [killed(pid) for pid in (*guards(cache), *postmasters(cache))]
    first.dies()
    second = User(cache)
    assert ("made_before_the_kill",) in run(second.conninfo(), "SELECT datname FROM pg_database")
    second.leaves()


def test_a_killed_initdb_leaves_nothing_and_the_next_user_starts_anew(empty_cache):
    first = User(empty_cache)
    eventually(lambda: processes_of(empty_cache, "bin/initdb"))
    [killed(pid) for pid in processes_of(empty_cache, "bin/initdb")]
    assert "initdb failed" in first.process.communicate()[1]
    assert not (state_of(empty_cache) / guard.DATA).exists()
    second = User(empty_cache)
    assert run(second.conninfo(), "SELECT 1") == [(1,)]
    assert list(state_of(empty_cache).glob(".*.part")) == []
    second.leaves()


@pytest.mark.parametrize("milliseconds", [60, 150, 300, 500, 800])
def test_a_first_user_killed_at_any_moment_does_not_hinder_the_second(empty_cache, milliseconds):
    first = User(empty_cache)
    time.sleep(milliseconds / 1000)
    first.dies()
    second = User(empty_cache)
    assert run(second.conninfo(), "SELECT 1") == [(1,)]
    assert len(postmasters(empty_cache)) == 1
    second.leaves()


def test_users_that_come_and_go_at_random_never_see_an_error(cache):
    failures = []

    def visits():
        try:
            for pause in (0, 0.05, 0.01, 0.1):
                user = User(cache)
                assert run(user.conninfo(), "SELECT 1") == [(1,)]
                user.leaves()
                time.sleep(pause)
        except Exception as error:  # noqa: BLE001  # carried to the main thread
            failures.append(error)

    threads = [threading.Thread(target=visits) for _ in range(3)]
    [each.start() for each in threads]
    [each.join() for each in threads]
    assert failures == []


def test_threads_of_one_process_share_the_server(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    barrier, reached = threading.Barrier(4), []

    def opens():
        with open_server(Settings(root=Path("/"))) as server:
            reached.append(server.address.conninfo)
            barrier.wait(20)

    threads = [threading.Thread(target=opens) for _ in range(4)]
    [each.start() for each in threads]
    [each.join() for each in threads]
    assert len(reached) == 4
    assert len(set(reached)) == 1


def test_an_interrupt_from_the_terminal_does_not_reach_the_server_of_another_user(cache):
    first = User(cache, process_group=0)
    second = User(cache)
    first.conninfo()
    conninfo = second.conninfo()
    os.killpg(first.process.pid, signal.SIGINT)
    first.process.communicate()
    time.sleep(0.2)
    assert run(conninfo, "SELECT 1") == [(1,)]
    second.leaves()


def test_a_command_that_a_user_leaves_running_does_not_keep_the_server(cache):
    code = OPEN.replace("    sys.stdin", "    import subprocess; subprocess.Popen(['sleep', '3'])\n    sys.stdin")
    environ = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(PROJECT)}
    subprocess.run(
        [sys.executable, "-c", code, "0"], env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True
    )
    eventually(lambda: not postmasters(cache), 2)


def test_a_server_stops_although_it_ignores_the_polite_signals(cache, monkeypatch):
    first = User(cache)
    first.conninfo()
    (pid,) = postmasters(cache)
    [killed(each) for each in guards(cache)]
    first.dies()
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(
        guard, "_SIGNALS", tuple((number, 0.1) for number, _ in guard._SIGNALS[:2]) + guard._SIGNALS[2:]
    )
    with (state_of(cache) / guard.SERVER).open("r+") as server:
        assert guard.stop(str(state_of(cache)), server.fileno())
    assert postmasters(cache) == []


def test_whoever_gets_the_servers_lock_knows_that_no_process_uses_the_data(cache):
    user = User(cache)
    conninfo = user.conninfo()
    lock = state_of(cache) / guard.SERVER
    assert is_held(lock)
    with psycopg.connect(conninfo) as connection:
        backend = connection.info.backend_pid
        [killed(pid) for pid in guards(cache)]
        os.kill(backend, signal.SIGSTOP)
        [killed(pid) for pid in postmasters(cache)]
        time.sleep(0.1)
        assert is_held(lock), "a backend that outlives the postmaster still counts"
        os.kill(backend, signal.SIGCONT)
        eventually(lambda: not is_held(lock))
    user.leaves()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells which processes these are")
@pytest.mark.parametrize("user", ["lives", "dies"])
def test_a_backend_that_does_not_notice_its_postmasters_end_does_not_keep_the_next_user_waiting(cache, user):
    """As one that waits for a checkpoint: for a minute."""
    first = User(cache)
    conninfo = first.conninfo()
    with psycopg.connect(conninfo) as connection:
        os.kill(connection.info.backend_pid, signal.SIGSTOP)
        [killed(pid) for pid in postmasters(cache)]
        if user == "dies":
            first.dies()
        started = time.monotonic()
        second = User(cache)
        assert ("made_in_the_first_run",) in run(second.conninfo(), "SELECT datname FROM pg_database")
        assert time.monotonic() - started < embedded.JOIN_PATIENCE_SECONDS
        second.leaves()
        if user == "lives":
            first.leaves()


DISKS = ["tmpfs"] if IS_ROOT and shutil.which("unshare") else []


@pytest.mark.parametrize("disk", [*DISKS, "limit"])
def test_a_full_disk_is_named_and_nothing_half_made_is_left(empty_cache, disk):
    """A file-size limit ends a write in the middle as a full disk does, and needs no privileges."""
    script = {
        "tmpfs": 'mount -t tmpfs -o size=12m none "$XDG_CACHE_HOME"; "$@"; find "$XDG_CACHE_HOME" -name ".*.part"',
        "limit": 'ulimit -f 200; "$@"; find "$XDG_CACHE_HOME" -name ".*.part"',
    }[disk]
    alone = ["unshare", "--mount"] if disk == "tmpfs" else []
    done = subprocess.run(
        [*alone, "sh", "-c", script, "sh", sys.executable, "-c", OPEN, "0"],
        env={**os.environ, "XDG_CACHE_HOME": str(empty_cache), "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "initdb failed" in done.stderr
    assert "free some space on the disk of" in done.stderr
    assert done.stdout == ""
