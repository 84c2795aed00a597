"""`seeddb shell`: psql or Python, on the database of a failed test or on a fresh clone."""

from __future__ import annotations

import os
import re
import signal
import time

import psycopg
import pytest
from command import Command
from separate import separate_server
from stocked import make_kept

from pytest_seeddb.servers.admin import Admin


@pytest.fixture(scope="module")
def server():
    """A server of this module's own: its clones are counted."""
    with separate_server() as start:
        yield start()


@pytest.fixture
def seeddb(project, server):
    project.write("shop/__init__.py", "")
    project.write(
        "shop/db.py",
        """
        import os
        from sqlalchemy import create_engine
        engine = create_engine(os.environ.get("SHOP_URL", "postgresql+psycopg://nobody@no-such-host.invalid/x"))
        """,
    )
    project.table('env = "SHOP_URL"')
    return Command(project.path, SEEDDB_SERVER=server.url)


@pytest.fixture
def admin(server):
    with Admin(server) as admin:
        yield admin
        for each in admin.databases():  # but for the template, which the tests have in common
            if not each.name.startswith("seeddb_t_"):
                admin.drop(each.name)


def clones(admin):
    return [each.name for each in admin.databases(r"seeddb\_c\_%")]


WRITE = "INSERT INTO shop (name) VALUES ('left'); SELECT current_database(), count(*) FROM shop;"


@pytest.mark.slow
def test_fresh_opens_psql_on_a_clone_that_is_discarded_afterwards(project, seeddb, admin):
    project.write("db/002_own.sql", "SELECT 'this test''s template alone';")
    first = seeddb("shell", "--fresh", input=WRITE)
    assert "building little-shop/default: migrations" in first.stderr, "the template was built first"
    second = seeddb("shell", "--fresh", input=f"\\set ON_ERROR_STOP on\n{WRITE}\nSELECT nonsense;\n", code=1)
    for done in (first, second):
        assert re.search(r"seeddb_c_\w+ \| +4\n", done.stdout)
    assert clones(admin) == []


SCRIPT = """
from sqlalchemy import text
session.execute(text("INSERT INTO shop (name) VALUES ('left')")); session.commit()
connection.execute("SELECT count(*) FROM shop").fetchone()
with engine.connect() as other: print("engine", other.execute(text("SELECT current_database()")).scalar() in url)

from shop.db import engine as own
with own.connect() as other: print("own", other.execute(text("SELECT current_database()")).scalar() in url)

import os
print("variable", os.environ["SHOP_URL"].partition("?")[0].endswith(url.partition("?")[0].rpartition("/")[2]))
{end}
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", pytest.param("exit()", marks=pytest.mark.long)])
def test_python_has_everything_ready_and_the_application_reaches_the_same_clone(seeddb, admin, end):
    done = seeddb("shell", "--fresh", "--python", input=SCRIPT.format(end=end))
    assert "(4,)" in done.stdout
    assert all(f"{name} True" in done.stdout for name in ("engine", "own", "variable"))
    assert "engine, session: SQLAlchemy; connection: psycopg; url: text." in done.stderr
    assert clones(admin) == []


@pytest.mark.slow
def test_python_opens_kept_databases_too(seeddb, admin):
    older, newer = make_kept(admin, ago=2), make_kept(admin, ago=1)
    asked = "print('in', connection.execute('SELECT current_database()').fetchone()[0])\n"
    assert f"in {older}\n" in seeddb("shell", older, "--python", input=asked).stdout
    assert {older, newer} == {each.name for each in admin.databases(r"seeddb\_k\_%")}


@pytest.mark.slow
def test_the_database_made_last_is_opened_also_where_the_clock_was_set_back(seeddb, admin):
    make_kept(admin, ago=1)
    latest = make_kept(admin, ago=2)
    make_kept(admin, plan="little-shop", project="another of this name")
    done = seeddb("shell", "--python", input="print(url)\n")
    assert latest in done.stdout


def test_without_kept_databases_the_error_says_how_to_have_a_clone(seeddb, admin):
    other = make_kept(admin, plan="another")
    done = seeddb("shell", code=2)
    assert other not in done.stderr, "another project's"
    assert "No database of a failed test was kept" in done.stderr
    assert "--fresh" in done.stderr


def test_a_name_and_fresh_contradict_each_other(seeddb):
    assert "not allowed with argument" in seeddb("shell", "--fresh", "seeddb_k_1", code=2).stderr


@pytest.mark.long
def test_ctrl_c_ends_a_query_in_psql_and_not_the_prompt(seeddb, admin, server):
    process = seeddb.start("shell", "--fresh", stdin=-1, start_new_session=True)
    process.stdin.write("SELECT pg_sleep(60);\nSELECT 'still ' || 'here';\n")
    process.stdin.flush()
    with psycopg.connect(server.conninfo, autocommit=True) as watching:
        deadline = time.monotonic() + 30
        while not watching.execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'").fetchone():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode in {0, 1}, errors
    assert "interrupted" not in errors
    assert "canceling statement due to user request" in errors
    assert clones(admin) == []
