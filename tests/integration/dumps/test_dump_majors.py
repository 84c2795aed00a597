"""Dumps of each major version restore into a server of each, as far as any can."""

from __future__ import annotations

from contextlib import contextmanager

import majors
import psycopg
import pytest
from dumping import contents, fill, pg_dump, restored
from psycopg import sql

from pytest_seeddb.cli.dump import Request, dump
from pytest_seeddb.plan.plan import Progress
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Settings, load_settings

DIRECTORIES = majors.directories()
SUPPORTED = (15, 16, 17, 18)
FORMATS = {"plain": (), "inserts": ("--inserts",), "custom": ("-Fc",), "directory": ("-Fd",), "tar": ("-Ft",)}

pytestmark = pytest.mark.majors


def directory(major):
    if major not in DIRECTORIES:
        pytest.fail(f"{majors.VARIABLE} names no programs of PostgreSQL {major}; tox run -e majors gets all of them")
    return DIRECTORIES[major]


@contextmanager
def server(major, tmp_path):
    with open_server(Settings(root=tmp_path, binaries=directory(major), postgres=major)) as found:
        assert found.major == major
        yield found


@contextmanager
def database(address, name):
    with psycopg.connect(address.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    try:
        yield address.with_database(name)
    finally:
        with psycopg.connect(address.conninfo, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module", params=SUPPORTED, ids=lambda major: f"from_{major}")
def dumps(request, cache_home, tmp_path_factory):
    """Dumps in all formats, made by the version's own programs, and what is in the database."""
    place = tmp_path_factory.mktemp(f"from_{request.param}")
    with server(request.param, place) as running, database(running.address, "rich") as address:
        fill(address)
        made = {
            name: pg_dump(address, place / name, *options, directory=directory(request.param))
            for name, options in FORMATS.items()
        }
        return made, contents(address)


@pytest.mark.parametrize("into", SUPPORTED, ids=lambda major: f"into_{major}")
def test_dumps_restore_in_every_format(dumps, into, tmp_path):
    made, expected = dumps
    with server(into, tmp_path) as running:
        for name, path in made.items():
            with database(running.address, f"restored_{name}") as address:
                found = restored(path, address, binaries=directory(into))
                assert contents(address) == expected, name
                assert set(found.left_out) <= {"newer settings", "owners"}, name


@pytest.mark.parametrize("major", SUPPORTED)
def test_what_seeddb_dumps_is_the_same_each_time_and_restores_everywhere(cache_home, major, tmp_path):
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "1.sql").write_text(
        "CREATE TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) VALUES ('a')"
    )
    (tmp_path / "seeddb.toml").write_text('migrations = "db"\n')
    settings = load_settings(tmp_path, environ={"SEEDDB_BINARIES": str(directory(major))})
    first, second = (dump(settings, Request(tmp_path / name), Progress()).path for name in ("a.sql", "b.sql"))
    assert first.read_bytes() == second.read_bytes()
    assert f"-- Dumped by pg_dump version {major}\n" in first.read_text()
    for into in SUPPORTED:
        with server(into, tmp_path) as running, database(running.address, "again") as address:
            restored(first, address)
            with psycopg.connect(address.conninfo) as connection:
                assert connection.execute("SELECT * FROM t").fetchall() == [(1, "a")]
