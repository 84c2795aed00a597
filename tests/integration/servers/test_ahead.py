"""The embedded server is started on a thread, and taken over by the fixture that needs it."""

import threading
from pathlib import Path

import psycopg
import pytest

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers import binaries, guard, libpq, opening
from pytest_seeddb.servers.opening import make_data, open_server, start_ahead
from pytest_seeddb.servers.processes import is_locked
from pytest_seeddb.settings.settings import Settings

pytestmark = pytest.mark.embedded

SETTINGS = Settings(root=Path("/"))


@pytest.fixture
def opened(monkeypatch):
    """How often a server was opened, and let go."""
    counts = {"opened": 0, "gone": 0}

    class Counting:
        def __init__(self, settings):
            counts["opened"] += 1
            self.inner = open_server(settings)

        def __enter__(self):
            return self.inner.__enter__()

        def __exit__(self, *error):
            counts["gone"] += 1
            return self.inner.__exit__(*error)

    monkeypatch.setattr(opening, "open_server", Counting)
    return counts


def test_the_server_that_was_started_is_taken_over_once_and_no_thread_stays(embedded_server, opened):
    ahead = start_ahead(SETTINGS)
    with ahead.open(SETTINGS) as server:
        assert server.address == embedded_server.address
        assert opened == {"opened": 1, "gone": 0}
        assert "seeddb-ahead" not in {thread.name for thread in threading.enumerate()}
        with psycopg.connect(server.address.conninfo) as connection:
            assert connection.execute("SELECT 1").fetchall() == [(1,)]
        assert is_locked(server.state / guard.SERVER)
    assert opened == {"opened": 1, "gone": 1}
    with ahead.open(SETTINGS) as server:
        assert server.address == embedded_server.address
    ahead.close()
    assert opened == {"opened": 2, "gone": 2}


def test_one_that_nobody_takes_over_is_let_go_and_other_settings_have_their_own(embedded_server, opened):
    start_ahead(SETTINGS).close()
    assert opened == {"opened": 1, "gone": 1}
    other = SETTINGS.replace(server=embedded_server.address.url)
    ahead = start_ahead(SETTINGS)
    with ahead.open(other) as server:
        assert server.kind == "external"
        assert opened == {"opened": 3, "gone": 2}


def test_settings_that_come_second_let_nobody_elses_server_go(embedded_server, opened):
    other = SETTINGS.replace(server=embedded_server.address.url)
    ahead = start_ahead(SETTINGS)
    with ahead.open(SETTINGS) as first:
        assert opened == {"opened": 1, "gone": 0}
        with ahead.open(other) as second:
            assert (first.kind, second.kind) == ("embedded", "external")
            assert opened == {"opened": 2, "gone": 0}
        assert is_locked(first.state / guard.SERVER)
        assert opened == {"opened": 2, "gone": 1}


def test_its_error_is_raised_where_the_server_is_needed(embedded_server, monkeypatch):
    calls = []

    def refuse(settings):
        calls.append(settings)
        raise ServerError("it does not start")

    monkeypatch.setattr(opening, "open_server", refuse)
    ahead = start_ahead(SETTINGS)
    with pytest.raises(ServerError, match="it does not start"), ahead.open(SETTINGS):
        pass
    ahead.close()
    assert calls == [SETTINGS]


def test_no_thread_opens_a_server_where_no_binaries_fit(opened, monkeypatch):
    def find_none(settings):
        raise ServerError("no binaries")

    monkeypatch.setattr(binaries, "choose", find_none)
    start_ahead(SETTINGS).close()
    assert opened == {"opened": 0, "gone": 0}


def test_nothing_is_started_but_an_embedded_server_and_nothing_beside_variables_of_the_shell(
    embedded_server, opened, monkeypatch
):
    for server in ("postgresql://nobody@localhost/none", "container"):
        assert start_ahead(SETTINGS.replace(server=server)) is None
    assert make_data(SETTINGS) is None  # there are some
    monkeypatch.setitem(libpq._SHELL, "PGTZ", "UTC")
    monkeypatch.setenv("PGTZ", "UTC")
    assert start_ahead(SETTINGS) is None
    assert opened == {"opened": 0, "gone": 0}
