"""`seeddb status`: what there is, told quickly, without changing anything."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from pathlib import Path

import psycopg
import pytest
from command import Command
from handmade import Statements
from psycopg import sql
from separate import separate_server
from stocked import make_kept, make_orphan, make_template

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.plan.plan import Plan
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Found, load_settings


@pytest.fixture(scope="module")
def server():
    """A server of this module's own: its databases are counted."""
    with separate_server() as start:
        yield start()


@pytest.fixture
def admin(server):
    with Admin(server) as admin:
        yield admin
        for each in admin.databases():
            admin.drop(each.name)


@pytest.fixture
def seeddb(project, server):
    return Command(project.path, SEEDDB_SERVER=server.url)


def told(seeddb):
    return json.loads(seeddb("status", "--json").stdout)


def test_an_empty_server_is_told_in_six_lines(seeddb, server):
    done = seeddb("status")
    assert done.stdout.splitlines() == [
        done.stdout.splitlines()[0],
        "           running",
        "templates  none",
        "clones     none",
        "orphans    none",
        "kept       none",
    ]
    assert re.match(r"server     PostgreSQL \d+\.\d+ \(external, postgresql://postgres@", done.stdout)
    assert server.params["host"] in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_each_template_has_its_size_age_days_of_use_users_and_clones_and_each_clone_its_owner(
    seeddb, server, admin, project
):
    stage = Statements("migration", ["CREATE TABLE a ()"]).stage()
    plan = Plan("little-shop", "demo", project.path, (stage,))
    settings = load_settings(project.path, options={"server": Found(server.url, "the test")})
    with open_server(settings) as running, Worker(running) as worker:
        template = worker.template(plan)
        clones = {worker.clones.make(template).name for _ in range(2)}
        found, shown = told(seeddb), seeddb("status").stdout
    (one,) = found["templates"]
    assert (one["plan"], one["profile"], one["layer"], one["name"]) == ("little-shop", "demo", False, template.name)
    assert (one["clones"], one["days"], one["used"]) == (2, 1, time.strftime("%Y-%m-%d", time.gmtime()))
    assert one["size"] > 1_000_000
    (user,) = one["users"]
    assert (user["process"], user["host"], user["role"]) == (os.getpid(), socket.gethostname(), "postgres")
    assert {each["name"] for each in found["clones"]} == clones
    assert all(each["owner"] == user and each["templates"] == [template.name] for each in found["clones"])
    assert found["orphans"] == found["kept"] == []
    assert f"process {os.getpid()} on {socket.gethostname()}, postgres, now" in shown
    assert re.search(r"little-shop/demo +\d\.\d MB +now +\S+ +1 +1 +2 +seeddb_t_", shown)


@pytest.mark.slow
def test_orphans_kept_databases_and_layers_are_told_apart_and_nothing_is_swept(seeddb, admin):
    names = make_orphan(admin), make_kept(admin, ago=3), make_template(admin, "little-shop", used=2, layer=True)
    found, shown = told(seeddb), seeddb("status").stdout
    assert [found["orphans"][0]["name"], found["kept"][0]["name"], found["templates"][0]["name"]] == list(names)
    assert found["clones"] == []
    assert re.search(r"little-shop/default  layer  \d\.\d MB  2 d ", shown)
    assert re.search(r"clone  \d\.\d MB  gone   seeddb_c_", shown)
    assert re.search(r"\d\.\d MB  \d d  0        seeddb_k_", shown)
    assert {each.name for each in admin.databases()} == set(names)


@pytest.mark.slow
def test_templates_that_say_nothing_of_themselves_are_listed_as_unknown(seeddb, admin):
    name = make_template(admin, comment="{}")
    assert told(seeddb)["templates"][0] | {"name": name, "plan": "", "created": ""} == told(seeddb)["templates"][0]
    assert re.search(rf"unknown +\d\.\d MB +\? +\? +0 +0 +0 +{name}", seeddb("status").stdout)


@pytest.mark.long  # the inventory's own tests are quick
def test_databases_that_are_not_ours_are_not_told(seeddb, admin, server):
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        for name in ("seeddb_c_00000000000000aa_1", "shop"):
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        assert "seeddb_c_00000000000000aa_1" not in seeddb("status").stdout
    finally:
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            for name in ("seeddb_c_00000000000000aa_1", "shop"):
                connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


@pytest.mark.long
def test_a_role_without_privileges_sees_what_it_may(project, admin, server):
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("CREATE ROLE visitor LOGIN CREATEDB")
    name = make_kept(admin)
    admin.run(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
    visitor = Command(project.path, SEEDDB_SERVER=server.url.replace("postgres@", "visitor@"))
    try:
        assert told(visitor)["kept"][0]["size"] is None
        assert re.search(rf" \?  +\S+ \S+ +0 +{name}|\? +now +0 +{name}", visitor("status").stdout)
    finally:
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute("DROP ROLE visitor")


def test_a_server_that_cannot_be_reached_exits_with_1_and_shows_no_password(project):
    done = Command(project.path)("status", "--server", "postgresql://app:s3cret@no-such-host.invalid/x", code=1)
    assert "correct the host in the URL" in done.stderr
    assert "s3cret" not in done.stderr


# -- an embedded server --------------------------------------------------------------------------


@pytest.fixture
def cache(cache_home):
    """A cache directory of the test's own."""
    own = cache_home / f"status-{os.getpid()}"
    own.mkdir(mode=0o755)
    yield own
    wait_for_the_end(own)
    shutil.rmtree(own)


def wait_for_the_end(cache):
    deadline = time.monotonic() + 20
    while list(cache.glob("*/servers/*/data/postmaster.pid")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.embedded
def test_an_embedded_server_is_not_made_to_be_looked_at_and_a_stopped_one_is_started_for_the_look(project, cache):
    project.write("db/000_own.sql", f"SELECT {os.getpid()};")
    seeddb = Command(project.path, XDG_CACHE_HOME=str(cache))
    found = told(seeddb)
    assert found["server"]["state"] == "new"
    assert "never started" in seeddb("status").stdout
    assert not list(cache.glob("**/servers/*"))
    template = json.loads(seeddb("build", "--json").stdout)["template"]
    wait_for_the_end(cache)
    found = told(seeddb)
    assert found["server"]["state"] == "started"
    assert Path(found["server"]["data"]).is_dir()
    assert template in {each["name"] for each in found["templates"]}
