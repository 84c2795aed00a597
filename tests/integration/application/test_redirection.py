"""Connections of unchanged applications end in our database, and none is left afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from itertools import count
from pathlib import Path

import asyncpg
import psycopg
import pytest
from processes import free_port
from psycopg import sql
from separate import wait_for
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool, StaticPool

from pytest_seeddb.application.disconnection import empty_pool
from pytest_seeddb.application.redirection import engines_of, redirect
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.servers.address import Address

SYNC = ["postgresql+psycopg", "postgresql+psycopg2", "postgresql+pg8000"]
ASYNC = ["postgresql+psycopg", "postgresql+asyncpg"]
NOWHERE = "user:secret@nowhere.invalid:1/nothing"
_numbers = count(1)


@pytest.fixture
def other_database(server_address):
    name = f"other_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    yield server_address.with_database(name)
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def guarded_server():
    """A server that listens on TCP and on a socket, on a port of its own, and wants a password."""
    where = Path(tempfile.mkdtemp(prefix="sdg-", dir="/tmp"))
    binaries = Path(
        subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
    )
    (where / "password").write_text("p@ss/w:rd")
    account = {}
    if os.geteuid() == 0:
        account = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(where, "postgres")
        shutil.chown(where / "password", "postgres")
    initdb = [binaries / "initdb", "-D", where / "data", "-U", "owner", "-A", "scram-sha-256", "--no-sync"]
    subprocess.run(
        [*initdb, "--pwfile", where / "password", "-E", "UTF8", "--locale=C.UTF-8"],
        check=True,
        stdout=subprocess.DEVNULL,
        **account,
    )
    port = free_port()
    server = subprocess.Popen(
        [binaries / "postgres", "-D", where / "data", "-k", where, "-p", str(port), "-c", "fsync=off"],
        stderr=subprocess.DEVNULL,
        **account,
    )
    params = {"port": str(port), "user": "owner", "password": "p@ss/w:rd", "dbname": "postgres"}
    try:
        yield {
            "tcp": Address({"host": "127.0.0.1", **params}),
            "socket": Address({"host": str(where), **params}),
        }
    finally:
        server.send_signal(2)
        server.wait(20)
        shutil.rmtree(where)


def where(connection):
    return connection.execute(text("SELECT current_database()")).scalar_one()


def backends(address):
    """How many connections the database has, after those that are closing had time to."""
    for _ in range(400):
        with psycopg.connect(address.with_database("postgres").conninfo) as own:
            row = own.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [address.database]).fetchone()
        if row[0] == 0:
            break
        time.sleep(0.005)
    return row[0]


def own_engine(address, scheme, **options):
    """An engine that really reaches ``address`` by itself, also through pg8000's socket."""
    if scheme.endswith("pg8000") and address.params["host"].startswith("/"):
        url = f"{scheme}://{address.params['user']}@/{address.database}"
        options["connect_args"] = {"unix_sock": f"{address.params['host']}/.s.PGSQL.5432"}
    else:
        url = address.url_for(scheme)
    return create_engine(url, **options)


@pytest.mark.parametrize("scheme", SYNC)
def test_a_named_engine_connects_to_the_address(scheme, empty_database):
    engine = create_engine(f"{scheme}://{NOWHERE}")
    with redirect(empty_database, [engine]), engine.connect() as connection:
        assert where(connection) == empty_database.database
    assert backends(empty_database) == 0


@pytest.mark.parametrize("scheme", SYNC)
def test_the_environment_does_not_lead_elsewhere(scheme, empty_database, monkeypatch):
    for name, value in {"PGHOSTADDR": "192.0.2.1", "PGPORT": "1", "PGDATABASE": "x", "PGUSER": "x"}.items():
        monkeypatch.setenv(name, value)
    address = Address({"port": "5432", **empty_database.params})
    engine = create_engine(f"{scheme}://{NOWHERE}")
    with redirect(address, [engine]), engine.connect() as connection:
        assert where(connection) == empty_database.database
    monkeypatch.undo()


@pytest.mark.parametrize("scheme", SYNC)
def test_engines_made_inside_are_redirected_when_all_are(scheme, empty_database):
    with redirect(empty_database):
        engine = create_engine(f"{scheme}://{NOWHERE}")
        with engine.connect() as connection:
            assert where(connection) == empty_database.database
    assert backends(empty_database) == 0


@pytest.mark.parametrize("scheme", ASYNC)
@pytest.mark.parametrize("named", [True, False])
def test_an_async_engine_connects_to_the_address_and_nothing_stays_open(scheme, named, empty_database):
    engine = create_async_engine(f"{scheme}://{NOWHERE}")

    async def main():
        async with engine.connect() as connection:
            return (await connection.execute(text("SELECT current_database()"))).scalar_one()

    with redirect(empty_database, [engine.sync_engine] if named else None):
        assert asyncio.run(main()) == empty_database.database
        assert asyncio.run(main()) == empty_database.database, "also in another loop"
    assert backends(empty_database) == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ASYNC)
@pytest.mark.parametrize("named", [True, False])
def test_connections_of_a_closed_loop_are_closed_without_a_word(scheme, named, empty_database, caplog, recwarn):
    gc.collect()  # what other tests have left must not be blamed on this one
    recwarn.clear()
    engine = create_async_engine(f"{scheme}://{NOWHERE}")

    async def leave_open():
        kept.extend([await engine.connect() for _ in range(2)])
        await kept[0].execute(text("SELECT 1"))
        pooled = await engine.connect()
        await pooled.close()

    kept = []
    with redirect(empty_database, [engine.sync_engine] if named else None):
        asyncio.run(leave_open())
    assert backends(empty_database) == 0
    kept.clear()
    gc.collect()
    assert not caplog.records
    assert not recwarn.list


@pytest.mark.parametrize("scheme", ASYNC)
def test_it_can_be_left_while_the_loop_runs(scheme, empty_database):
    engine = create_async_engine(f"{scheme}://{NOWHERE}")

    async def main():
        with redirect(empty_database, [engine.sync_engine]):
            held = await engine.connect()
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        assert backends(empty_database) == 0
        return held

    held = asyncio.run(main())
    assert held is not None


@pytest.mark.parametrize("scheme", SYNC)
@pytest.mark.parametrize("named", [True, False])
def test_pooled_connections_do_not_cross_the_border(scheme, named, empty_database, other_database):
    engine = own_engine(other_database, scheme)
    with engine.connect() as connection:
        assert where(connection) == other_database.database
    with redirect(empty_database, [engine] if named else None):
        for _ in range(2):
            with engine.connect() as connection:
                assert where(connection) == empty_database.database
    with engine.connect() as connection:
        assert where(connection) == other_database.database
    engine.dispose()
    assert backends(empty_database) == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ASYNC)
@pytest.mark.parametrize("named", [True, False])
def test_async_pooled_connections_do_not_cross_the_border(
    scheme, named, empty_database, other_database, recwarn, caplog
):
    gc.collect()  # what other tests have left must not be blamed on this one
    recwarn.clear()
    engine = create_async_engine(other_database.url_for(scheme))

    async def look():
        async with engine.connect() as connection:
            return (await connection.execute(text("SELECT current_database()"))).scalar_one()

    async def one_loop():
        assert await look() == other_database.database
        with redirect(empty_database, [engine.sync_engine] if named else None):
            assert await look() == empty_database.database
        assert await look() == other_database.database

    asyncio.run(one_loop())
    with redirect(empty_database, [engine.sync_engine] if named else None):
        assert asyncio.run(look()) == empty_database.database
    assert asyncio.run(look()) == other_database.database
    empty_pool(engine.sync_engine)
    assert backends(other_database) == 0
    gc.collect()
    assert not recwarn.list
    assert not caplog.records


def test_the_innermost_redirection_wins(empty_database, other_database):
    engine = create_engine(f"postgresql+psycopg://{NOWHERE}")
    with redirect(empty_database):
        with engine.connect() as connection:
            assert where(connection) == empty_database.database
        with redirect(other_database, [engine]), engine.connect() as connection:
            assert where(connection) == other_database.database
        with engine.connect() as connection:
            assert where(connection) == empty_database.database


def test_an_inner_one_for_another_engine_changes_nothing(empty_database, other_database):
    engine = create_engine(f"postgresql+psycopg://{NOWHERE}")
    another = create_engine(f"postgresql+psycopg://{NOWHERE}")
    with redirect(empty_database, [engine]), redirect(other_database, [another]):
        with engine.connect() as connection:
            assert where(connection) == empty_database.database
        with another.connect() as connection:
            assert where(connection) == other_database.database


def test_it_wins_over_a_listener_of_the_application(empty_database):
    engine = create_engine(f"postgresql+psycopg://{NOWHERE}")

    @event.listens_for(engine, "do_connect", insert=True)
    def token(dialect, record, cargs, cparams):
        pytest.fail("the application's own listener was asked")

    with redirect(empty_database), engine.connect() as connection:
        assert where(connection) == empty_database.database


def test_other_databases_are_left_alone(empty_database):
    engine = create_engine("sqlite://")
    with redirect(empty_database), engine.connect() as connection:
        assert connection.execute(text("SELECT sqlite_version()")).scalar_one()
    engine.dispose()


def test_what_is_no_address_is_kept(empty_database):
    engine = create_engine(
        f"postgresql+psycopg://{NOWHERE}?application_name=shop",
        connect_args={"options": "-c work_mem=3MB", "sslmode": "require", "prepare_threshold": 7},
    )
    with redirect(empty_database, [engine]), engine.connect() as connection:
        assert connection.execute(text("SHOW application_name")).scalar_one() == "shop"
        assert connection.execute(text("SHOW work_mem")).scalar_one() == "3MB"
        assert connection.connection.driver_connection.prepare_threshold == 7


def test_asyncpg_keeps_its_server_settings_and_cache_sizes(empty_database):
    engine = create_async_engine(
        f"postgresql+asyncpg://{NOWHERE}?prepared_statement_cache_size=5",
        connect_args={"server_settings": {"application_name": "shop"}, "ssl": "require", "command_timeout": 9},
    )

    async def main():
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            assert raw.driver_connection._config.command_timeout == 9
            assert raw.dbapi_connection._prepared_statement_cache.capacity == 5
            return (await connection.execute(text("SHOW application_name"))).scalar_one()

    with redirect(empty_database, [engine.sync_engine]):
        assert asyncio.run(main()) == "shop"


@pytest.mark.parametrize("scheme", SYNC)
@pytest.mark.parametrize("way", ["tcp", "socket"])
def test_a_password_and_a_port_reach_the_driver(scheme, way, guarded_server):
    address = guarded_server[way]
    wait_for(address)
    engine = create_engine(f"{scheme}://{NOWHERE}")
    with redirect(address, [engine]), engine.connect() as connection:
        assert connection.execute(text("SELECT current_user")).scalar_one() == "owner"


@pytest.mark.parametrize("way", ["tcp", "socket"])
def test_a_password_and_a_port_reach_asyncpg(way, guarded_server):
    address = guarded_server[way]
    wait_for(address)
    engine = create_async_engine(f"postgresql+asyncpg://{NOWHERE}")

    async def main():
        async with engine.connect() as connection:
            return (await connection.execute(text("SELECT current_user"))).scalar_one()

    with redirect(Address({**address.params, "sslmode": "prefer"}), [engine.sync_engine]):
        assert asyncio.run(main()) == "owner"


@pytest.mark.parametrize("scheme", SYNC)
def test_a_connection_that_is_still_held_is_closed_at_the_end(scheme, empty_database):
    engine = create_engine(f"{scheme}://{NOWHERE}")
    with redirect(empty_database, [engine]):
        held = engine.connect()
        session = Session(engine)
        session.execute(text("SELECT 1"))
    assert backends(empty_database) == 0
    held.close()
    session.close()


def test_a_session_that_is_held_over_two_redirections_works_after_a_rollback(empty_database, other_database):
    engine = create_engine(f"postgresql+psycopg://{NOWHERE}")
    session = Session(engine)
    with redirect(empty_database, [engine]):
        assert where(session) == empty_database.database
    session.close()
    with redirect(other_database, [engine]):
        assert where(session) == other_database.database
        session.close()


@pytest.mark.parametrize("pool", [NullPool, StaticPool])
def test_every_kind_of_pool_is_redirected(pool, empty_database, other_database):
    engine = create_engine(other_database.url_for("postgresql+psycopg"), poolclass=pool)
    with engine.connect() as connection:
        assert where(connection) == other_database.database
    for named in ([engine], None):
        with redirect(empty_database, named), engine.connect() as connection:
            assert where(connection) == empty_database.database
    with engine.connect() as connection:
        assert where(connection) == other_database.database
    engine.dispose()


def test_threads_of_the_application_are_redirected(empty_database):
    engine = create_engine(f"postgresql+psycopg://{NOWHERE}")
    found = []

    def work():
        with engine.connect() as connection:
            found.append(where(connection))

    with redirect(empty_database, [engine]):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [empty_database.database] * 4
    assert backends(empty_database) == 0


def test_engines_with_a_creator_are_refused_when_named(empty_database):
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(empty_database.conninfo))
    asynchronous = create_async_engine(
        "postgresql+psycopg://", async_creator=lambda: psycopg.AsyncConnection.connect(empty_database.conninfo)
    )
    for each in (engine, asynchronous.sync_engine):
        with (
            pytest.raises(ConfigError, match="made with creator= or async_creator="),
            redirect(empty_database, [each]),
        ):
            pass


def test_engines_with_a_creator_still_work_when_all_are_redirected(empty_database, other_database):
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(other_database.conninfo))
    with redirect(empty_database), engine.connect() as connection:
        assert where(connection) == other_database.database
    engine.dispose()


def test_an_engine_for_another_database_is_refused_when_named(empty_database):
    with (
        pytest.raises(ConfigError, match="not for PostgreSQL"),
        redirect(empty_database, [create_engine("sqlite://")]),
    ):
        pass


def test_it_ends_also_after_an_error(empty_database, other_database):
    engine = create_engine(other_database.url_for("postgresql+psycopg"))
    with pytest.raises(ZeroDivisionError), redirect(empty_database), engine.connect():
        _ = 1 / 0
    with engine.connect() as connection:
        assert where(connection) == other_database.database
    engine.dispose()
    assert backends(empty_database) == 0


def test_engines_are_found_behind_what_applications_keep():
    engine = create_engine(f"postgresql+psycopg://{NOWHERE}")
    another = create_engine(f"postgresql+psycopg://{NOWHERE}")
    asynchronous = create_async_engine(f"postgresql+asyncpg://{NOWHERE}")
    factory = async_sessionmaker(asynchronous)
    assert engines_of(engine) == (engine,)
    assert engines_of(asynchronous) == (asynchronous.sync_engine,)
    assert engines_of(sessionmaker(engine)) == (engine,)
    assert engines_of(sessionmaker(engine, binds={Session: another, object: engine})) == (engine, another)
    assert engines_of(scoped_session(sessionmaker(engine))) == (engine,)
    assert engines_of(factory) == (asynchronous.sync_engine,)
    assert engines_of(async_sessionmaker(asynchronous, class_=AsyncSession)) == (asynchronous.sync_engine,)
    assert engines_of(async_scoped_session(factory, asyncio.current_task)) == (asynchronous.sync_engine,)
    assert engines_of(lambda: engine) == (engine,)


def test_what_is_no_engine_is_refused():
    with pytest.raises(ConfigError, match="not a SQLAlchemy engine"):
        engines_of("postgresql://x")
    with pytest.raises(ConfigError, match="not a SQLAlchemy engine"):
        engines_of(lambda: 7)
    with pytest.raises(ConfigError, match="bound to no engine"):
        engines_of(sessionmaker())


@pytest.mark.slow
def test_emptying_an_async_pool_needs_no_loop(empty_database, recwarn, caplog):
    gc.collect()  # what other tests have left must not be blamed on this one
    recwarn.clear()
    for scheme in ASYNC:
        engine = create_async_engine(empty_database.url_for(scheme))

        async def use(engine=engine):
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

        asyncio.run(use())
        empty_pool(engine.sync_engine)
        assert backends(empty_database) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
    assert not recwarn.list
    assert not caplog.records


def test_connections_whose_loop_runs_in_another_thread_are_closed_in_that_thread(empty_database, caplog, monkeypatch):
    """As with Starlette's test client; closed from here, one in some hundred met its loop doing the same."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    engine = create_async_engine(empty_database.url_for("postgresql+asyncpg"))
    closers, terminate = set(), asyncpg.Connection.terminate

    def noted(connection):
        if not connection.is_closed():
            closers.add(threading.get_ident())
        terminate(connection)

    monkeypatch.setattr(asyncpg.Connection, "terminate", noted)

    async def opened():
        return await engine.connect()

    held = []
    with redirect(empty_database, [engine.sync_engine]) as redirection:
        for _ in range(50):
            held.append(asyncio.run_coroutine_threadsafe(opened(), loop).result(20))
            redirection.close_connections()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert closers == {thread.ident}
    loop.close()
    assert not caplog.records
    assert backends(empty_database) == 0
