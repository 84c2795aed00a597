from __future__ import annotations

import os
import socket
import time
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from separate import separate_server

from pytest_seeddb.errors import ConfigError, ServerError
from pytest_seeddb.servers import external
from pytest_seeddb.servers import opening as servers
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Settings

ROOT = Path("/")
SOURCE = "SEEDDB_SERVER"
_numbers = count(1)


def opened(address, **changes):
    settings = Settings(root=ROOT, server=address.url, sources={"server": SOURCE, "postgres": "--pg"}, **changes)
    return open_server(settings)


def refused(address, **changes):
    with pytest.raises(ServerError) as caught, opened(address, **changes):
        pass
    assert SOURCE in caught.value.source
    return caught.value


def superuser(address, *statements):
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture(scope="module")
def server_address():
    """One that asks for no passwords, whatever server the other tests have."""
    with separate_server() as start:
        yield start()


@pytest.fixture
def role(server_address):
    """Make roles with the given attributes; they are dropped afterwards."""
    made = []

    def make(attributes, name=""):
        made.append(name or f"external_{os.getpid()}_{next(_numbers)}")
        quoted = sql.Identifier(made[-1])
        superuser(server_address, sql.SQL("CREATE ROLE {} LOGIN " + attributes).format(quoted))
        return Address({**server_address.params, "user": made[-1]})

    yield make
    superuser(server_address, *(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)) for name in made))


@pytest.fixture
def own_server():
    """Start a further server on a fresh data directory that ``prepare`` may change first."""
    with separate_server() as start:
        yield start


def test_a_server_is_probed_and_told_where_it_comes_from(server_address):
    with opened(server_address) as server:
        assert server.kind == "external"
        assert server.superuser
        assert not server.fsync
        assert server.version.startswith(f"{server.major}.")
        assert server.origin == f"{server_address.masked}, {SOURCE}"


def test_the_maintenance_database_is_postgres_whatever_the_url_names(empty_database):
    with opened(empty_database) as server:
        assert server.address == empty_database.with_database("postgres")


@pytest.mark.slow
def test_the_urls_own_database_serves_where_postgres_is_closed(own_server):
    def prepare(data):
        (data / "pg_hba.conf").write_text("local postgres app reject\nlocal all all trust\n")

    address = own_server(prepare)
    superuser(address, "CREATE ROLE app LOGIN CREATEDB", "CREATE DATABASE shop")
    given = Address({**address.params, "user": "app", "dbname": "shop"})
    with opened(given) as server:
        assert server.address == given
        assert not server.superuser


@pytest.mark.slow
def test_the_address_gets_no_parameter_that_only_the_probe_needs(server_address):
    with opened(server_address) as server:
        assert "connect_timeout" not in server.address.params


def test_a_role_with_createdb_is_enough(role):
    with opened(role("CREATEDB")) as server:
        assert not server.superuser


@pytest.mark.slow
def test_a_role_without_createdb_is_told_the_statement_that_grants_it(role):
    error = refused(role("NOCREATEDB", 'odd "name"'))
    assert "may not create databases" in error.what
    assert 'ALTER ROLE "odd ""name""" CREATEDB;' in error.remedy


def test_another_major_than_the_wanted_one_is_an_error_that_names_both(server_address):
    error = refused(server_address, postgres=99)
    assert "the settings require 99" in error.what
    assert "--pg" in error.saw


@pytest.mark.slow
def test_a_replica_is_refused(own_server):
    error = refused(own_server(lambda data: (data / "standby.signal").touch()))
    assert "read-only replica" in error.what
    assert error.remedy == "name the primary server"


def test_an_older_server_is_refused_by_its_version():
    probe = external.Probe(140009, "app", True, True, False, True, "14.9", "PostgreSQL 14.9 on x86_64")
    finding = external.objection(probe, Settings(root=ROOT), SOURCE)
    assert finding.what == "The server is too old: PostgreSQL 15 is the oldest that works"
    assert finding.saw == "PostgreSQL 14.9 on x86_64"


@pytest.mark.slow
def test_a_wrong_password_is_named_and_masked(own_server):
    def prepare(data):
        (data / "pg_hba.conf").write_text("local all app scram-sha-256\nlocal all all trust\n")

    address = own_server(prepare)
    superuser(address, "CREATE ROLE app LOGIN CREATEDB PASSWORD 'right'")
    with opened(Address({**address.params, "user": "app", "password": "right"})) as server:
        assert "right" not in server.origin
        assert "right" not in repr(server)
    error = refused(Address({**address.params, "user": "app", "password": "wr0ng"}))
    assert "password authentication failed" in error.saw
    assert "correct the user or the password" in error.remedy
    assert "wr0ng" not in str(error)
    assert "app:***@" in error.saw


@pytest.mark.slow
def test_a_missing_entry_in_pg_hba_is_named(own_server):
    address = own_server(lambda data: (data / "pg_hba.conf").write_text("local all postgres trust\n"))
    error = refused(Address({**address.params, "user": "stranger"}))
    assert "no pg_hba.conf entry" in error.saw
    assert "pg_hba.conf" in error.remedy


def test_an_unknown_role_is_named(server_address):
    error = refused(Address({**server_address.params, "user": "no_such_role"}))
    assert 'role "no_such_role" does not exist' in error.saw
    assert "create the role" in error.remedy


@pytest.mark.slow
def test_an_unknown_database_is_named_where_postgres_is_closed_too(own_server):
    def prepare(data):
        (data / "pg_hba.conf").write_text("local postgres app reject\nlocal all all trust\n")

    address = own_server(prepare)
    superuser(address, "CREATE ROLE app LOGIN CREATEDB")
    error = refused(Address({**address.params, "user": "app", "dbname": "no_such"}))
    assert 'database "no_such" does not exist' in error.saw
    assert "create the database" in error.remedy


def test_a_closed_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = str(taken.getsockname()[1])
        error = refused(Address({"host": "127.0.0.1", "port": port, "user": "app", "dbname": "shop"}))
    assert "Connection refused" in error.saw
    assert "start the server" in error.remedy


def test_a_host_that_cannot_be_resolved_is_named():
    error = refused(Address({"host": "no-such-host.invalid", "user": "app", "password": "s3cret"}))
    assert "correct the host" in error.remedy
    assert "s3cret" not in str(error)


@pytest.mark.slow
def test_a_server_that_never_answers_ends_in_a_timeout_not_in_silence():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        address = Address({"host": "127.0.0.1", "port": port, "user": "app", "connect_timeout": "2"})
        began = time.monotonic()
        error = refused(address)
    assert time.monotonic() - began < 4
    assert "timeout" in error.saw
    assert "connect_timeout" in error.remedy


def test_a_url_of_another_kind_is_an_error_with_its_source():
    settings = Settings(root=ROOT, server="mysql://app:s3cret@db/shop", sources={"server": SOURCE})
    with pytest.raises(ConfigError) as caught, open_server(settings):
        pass
    assert caught.value.source == SOURCE
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in servers.describe(settings)
