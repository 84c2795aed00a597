"""libpq's variables of the shell, while a database on a server that we started is in use."""

from __future__ import annotations

import os
import threading

import pytest
from psycopg import pq

from pytest_seeddb.fingerprint import environment
from pytest_seeddb.servers import libpq
from pytest_seeddb.servers.address import Address, environment_for
from pytest_seeddb.servers.libpq import without_shell_variables
from pytest_seeddb.servers.remedies import is_certain

SHELL = {"PGSERVICE": "gone", "PGOPTIONS": "-c search_path=x", "PGSSLMODE": "verify-full"}


@pytest.fixture(autouse=True)
def shell(monkeypatch):
    for name in libpq.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**SHELL, "PGPASSWORD": "secret"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(libpq, "_SHELL", {**SHELL})


def test_all_of_libpq_s_variables_are_known():
    known = {option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar}
    assert known - libpq.VARIABLES == set()


def test_they_are_aside_for_the_block_also_a_nested_one_and_one_in_another_thread():
    entered, leave = threading.Event(), threading.Event()

    def other():
        with without_shell_variables():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with without_shell_variables():
        thread.start()
        entered.wait(10)
        with without_shell_variables():
            assert (os.environ.get("PGSERVICE"), os.environ.get("PGOPTIONS")) == (None, None)
    assert "PGSERVICE" not in os.environ
    leave.set()
    thread.join()
    assert {name: os.environ.get(name) for name in SHELL} == SHELL


def test_what_applications_read_as_their_own_configuration_is_there():
    with without_shell_variables():
        assert (os.environ["PGPASSWORD"], os.environ["PGSSLMODE"]) == ("secret", "prefer")


def test_what_the_project_s_code_sets_stays_before_and_inside(monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c search_path=own")
    with without_shell_variables():
        assert os.environ["PGOPTIONS"] == "-c search_path=own"
        os.environ["PGSERVICE"] = "own"
    assert (os.environ["PGOPTIONS"], os.environ["PGSERVICE"]) == ("-c search_path=own", "own")


def test_an_xdist_worker_takes_what_a_conftest_of_the_controller_has_set_for_the_project_s():
    libpq.narrow_shell(["PGSERVICE"])
    with without_shell_variables():
        assert "PGSERVICE" not in os.environ
        assert os.environ["PGOPTIONS"] == SHELL["PGOPTIONS"]


def test_code_that_asks_for_one_inside_depends_on_the_shell_s_value():
    before = environment.part(environment.variable("PGOPTIONS"))
    with without_shell_variables():
        assert environment.part(environment.variable("PGOPTIONS")) == before


def test_a_child_program_on_a_server_of_ours_has_none_but_passwords_and_on_another_all():
    params = {"host": "/tmp/x", "user": "app", "dbname": "clone"}
    ours = environment_for(Address(params, is_ours=True).with_database("other").having(port="5432").without_password)
    assert {name for name in ours if name.startswith("PG")} == {
        "PGHOST",
        "PGPORT",
        "PGUSER",
        "PGDATABASE",
        "PGPASSWORD",
    }
    others = environment_for(Address(params))
    assert (others["PGOPTIONS"], others["PGSSLMODE"], others["PGPASSWORD"]) == (
        "-c search_path=x",
        "verify-full",
        "secret",
    )


@pytest.mark.parametrize(
    ("message", "certain"),
    [
        ("channel binding required, but server authenticated client without channel binding", True),
        ('authentication method requirement "scram-sha-256" failed: server did not complete authentication', True),
        ('definition of service "gone" not found', True),
        ("session is not read-only", True),
        ('invalid channel_binding value: "x"', True),
        ('invalid integer value "x" for connection option "keepalives"', True),
        ('root certificate file "/x" does not exist', True),
        ("server does not support SSL, but SSL was required", True),
        ("connection to server on socket failed: No such file or directory", False),
        ("connection failed: Connection refused", False),
        ("FATAL:  the database system is starting up", False),
        ("server closed the connection unexpectedly", False),
        ("server is in hot standby mode", False),
    ],
)
def test_waiting_for_a_server_ends_where_this_client_will_refuse_it_later_too(message, certain):
    assert is_certain(message) is certain
