"""Fixtures for all tests: a cache directory of their own, and a real server."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import threading
import time
from itertools import count
from pathlib import Path

import majors
import psycopg
import pytest
from psycopg import sql

from pytest_seeddb.fingerprint import recording
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import load_settings

_numbers = count(1)

# pytester forgets what is first imported inside of a test, and half of it stays.
if os.environ.get("TESTS_SERVER") == "container":
    import docker  # noqa: F401 - as above
    import testcontainers.core.docker_client  # noqa: F401 - as above

# Whoever is started in the background of a shell ignores Ctrl-C, and so do its children, to which
# tests send it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The share of the slow tests that run, drawn with a seed that is printed; the same on all workers.
DRAWN = float(os.environ.get("TESTS_DRAW", "1"))
SEED = os.environ.setdefault("TESTS_DRAW_SEED", str(random.randrange(2**32)))


def pytest_report_header():
    """Which of the slow tests run."""
    return f"slow tests: {DRAWN:.0%} drawn, TESTS_DRAW_SEED={SEED}" if DRAWN < 1 else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leave out those that are not drawn."""
    out = [
        item
        for item in items
        if item.get_closest_marker("slow") or item.get_closest_marker("long")
        if random.Random(f"{SEED} {item.nodeid}").random() >= DRAWN
    ]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in set(out)]


@pytest.fixture(scope="session", autouse=True)
def cache_home():
    """An empty cache directory in place of the user's, for this process and its children.

    Not below pytest's own temporary directory: that is closed to other accounts, and root's server
    runs as one; and its path is too long for some to read.
    """
    place = Path(tempfile.mkdtemp(prefix="sdt-", dir=_roomy()))
    place.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place))
        wanted, server = os.environ.get("TESTS_POSTGRES"), os.environ.get("TESTS_SERVER")
        for variable in [each for each in os.environ if each.startswith(("SEEDDB_", "PG"))]:
            patch.delenv(variable)
        # Hundreds of subprocesses: without bytecode each would compile its libraries anew.
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        # It makes pytest tell every error twice, which tests that count them do not expect.
        patch.delenv("CI", raising=False)
        if wanted:
            patch.setenv("SEEDDB_POSTGRES", wanted)
            if found := majors.directories().get(int(wanted)):
                patch.setenv("SEEDDB_BINARIES", str(found))
        if server:
            patch.setenv("SEEDDB_SERVER", server)
            patch.setenv("SEEDDB_TMPFS", "6g")  # all tests' templates in one
        yield place
    _remove(place)


def _roomy():
    """Memory where there is plenty: databases come and go by the hundred here."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and not os.statvfs(memory).f_flag & os.ST_NOEXEC
    return memory if usable and shutil.disk_usage(memory).free > 4 * 2**30 else Path("/var/tmp")


def _remove(place):
    """The guards stop their servers when the last user is gone, which is now: wait for them."""
    deadline = time.monotonic() + 20
    while list(place.glob("*/servers/*/data/postmaster.pid")) and time.monotonic() < deadline:
        time.sleep(0.01)
    while place.exists():
        try:
            shutil.rmtree(place)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@pytest.fixture(autouse=True)
def recordings_of_a_test():
    """A process records for its life, for each project: hundreds of them would slow down each opening of a file."""
    recordings, ongoing = recording._recordings, recording._ongoing.copy()
    yield
    recording._recordings = recordings
    recording._ongoing.clear()
    recording._ongoing.update(ongoing)


@pytest.fixture(scope="session")
def embedded_server(cache_home):
    """One server for the session, embedded unless TESTS_SERVER names another kind.

    A machine that cannot have it fails here, it does not skip.
    """
    with open_server(load_settings(cache_home)) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def held_server(request):
    """Where all tests' servers are one container, it runs from the first test on: another would have no templates."""
    if os.environ.get("TESTS_SERVER") == "container":
        request.getfixturevalue("embedded_server")


@pytest.fixture(scope="session")
def server_address(embedded_server):
    """The maintenance database of a running server, as a superuser."""
    return embedded_server.address


@pytest.fixture
def empty_database(server_address):
    """A fresh database, dropped afterwards."""
    name = f"empty_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    yield server_address.with_database(name)
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))
