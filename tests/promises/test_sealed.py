"""A template that somebody changes behind our back is noticed, also when he puts the seal back.

Single-user mode is the one way past it: no server runs then, and nothing that it keeps tells what was done.
"""

from __future__ import annotations

import json
import random
import sys
from contextlib import contextmanager, suppress

import attacks
import psycopg
import pytest
from attacks import times
from psycopg import sql
from separate import separate_server

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.naming import MARK
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import load_settings

OPEN = "ALTER DATABASE {} ALLOW_CONNECTIONS true"
SEALED = "ALTER DATABASE {} ALLOW_CONNECTIONS false IS_TEMPLATE true"
ROLE = "attacker_of_templates"
LEFT = "SELECT datname FROM pg_database WHERE datname ~ '^(seeddb_|away)'"
SAID = r"""
    SELECT datname, shobj_description(oid, 'pg_database')::json FROM pg_database WHERE datname LIKE 'seeddb\_t\_%'
"""
SEEN = f"""
    SELECT (SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM shop t),
           (SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM item t),
           current_setting('default_transaction_read_only'),
           has_database_privilege('{ROLE}', current_database(), 'CREATE'),
           has_database_privilege('{ROLE}', current_database(), 'CONNECT')
"""


@pytest.fixture(scope="module")
def server():
    with separate_server() as start:
        yield start()


@pytest.fixture(scope="module")
def place(server):
    """A project on a server of which we are the superuser."""
    with attacks.site(SEEDDB_SERVER=server.url) as site, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEDDB_SERVER", server.url)
        patch.setattr(sys, "path", [*sys.path])
        yield site
        for name in [name for name in sys.modules if name.partition(".")[0] == "attacked"]:
            del sys.modules[name]


def fetched(place):
    """Why the next run would build, the name of the template that it would use then, and what its clones hold."""
    settings = load_settings(place.project)
    with open_server(settings) as server, Worker(server) as worker:
        reason = worker.look(plan := plan_of(settings)).reason
        clone = worker.clones.make(template := worker.template(plan))
        with psycopg.connect(clone.address.conninfo) as connection:
            return reason, template.name, connection.execute(SEEN).fetchone()


@pytest.fixture
def superuser(server):
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {ROLE} CREATEDB")
        yield connection
        for (name,) in connection.execute(LEFT).fetchall():
            run(connection, "ALTER DATABASE {} IS_TEMPLATE false", name)
            run(connection, "DROP DATABASE {} WITH (FORCE)", name)
        connection.execute(f"DROP ROLE {ROLE}")


def run(connection, statement, *names):
    connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def templates(superuser):
    """The templates by name, with what they say of themselves."""
    return dict(superuser.execute(SAID).fetchall())


@contextmanager
def inside(superuser, server, name):
    """As a superuser who wants in gets in."""
    run(superuser, OPEN, name)
    with writing(server, name) as connection:
        yield connection


def writing(server, name):
    """A connection that may write, also where the database says otherwise since an earlier attack."""
    conninfo = server.with_database(name).conninfo
    return psycopg.connect(conninfo, autocommit=True, options="-c default_transaction_read_only=off")


def spoilt(superuser, server, name):
    """Rows that no seed makes, in a template that looks as before."""
    with inside(superuser, server, name) as connection:
        connection.execute("INSERT INTO shop (name) SELECT 'spoilt ' || n FROM generate_series(1, 3) n")
    _wait(superuser, name)


def _wait(superuser, name):
    while superuser.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [name]).fetchone() != (0,):
        pass


# Each leaves the template as it seems: sealed, marked, commented, by its own name.


def rows_and_sealed_again(superuser, server, name):
    spoilt(superuser, server, name)
    run(superuser, SEALED, name)


def rows_and_left_open(superuser, server, name):
    spoilt(superuser, server, name)


def rows_and_the_catalog_by_hand(superuser, server, name):
    # No ALTER DATABASE anywhere.
    superuser.execute("UPDATE pg_database SET datallowconn = true WHERE datname = %s", [name])
    with writing(server, name) as connection:
        connection.execute("DELETE FROM item")
    _wait(superuser, name)
    superuser.execute("UPDATE pg_database SET datallowconn = false WHERE datname = %s", [name])


def rows_and_all_vacuumed(superuser, server, name):
    with inside(superuser, server, name) as connection:
        connection.execute("UPDATE shop SET name = name || '!'")
        connection.execute("VACUUM (FREEZE, ANALYZE)")
    _wait(superuser, name)
    run(superuser, SEALED, name)
    superuser.execute("VACUUM (FREEZE) pg_database")
    superuser.execute("VACUUM (FULL) pg_database")


def rows_under_another_name(superuser, server, name):
    run(superuser, "ALTER DATABASE {} RENAME TO away", name)
    spoilt(superuser, server, "away")
    run(superuser, SEALED, "away")
    run(superuser, "ALTER DATABASE away RENAME TO {}", name)


def a_copy_in_its_place(superuser, server, name):
    """A changed copy, with the comment, the mark and the name of the first."""
    (comment,) = superuser.execute(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [name]
    ).fetchone()
    run(superuser, "ALTER DATABASE {} RENAME TO away", name)
    run(superuser, f"CREATE DATABASE {{}} TEMPLATE away CONNECTION LIMIT {MARK}", name)
    superuser.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(comment)))
    spoilt(superuser, server, name)
    run(superuser, SEALED, name)


def a_setting(superuser, server, name):
    run(superuser, "ALTER DATABASE {} SET default_transaction_read_only = on", name)


def a_setting_of_one_role(superuser, server, name):
    run(superuser, "ALTER ROLE postgres IN DATABASE {} SET default_transaction_read_only = on", name)


def a_grant(superuser, server, name):
    run(superuser, f"GRANT CREATE ON DATABASE {{}} TO {ROLE}", name)


def a_privilege_less(superuser, server, name):
    run(superuser, "REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC", name)


def another_owner(superuser, server, name):
    run(superuser, f"ALTER DATABASE {{}} OWNER TO {ROLE}", name)


def no_mark(superuser, server, name):
    run(superuser, "ALTER DATABASE {} CONNECTION LIMIT -1", name)


def a_new_name(superuser, server, name):
    run(superuser, "ALTER DATABASE {} RENAME TO away", name)


def the_name_of_another(superuser, server, name):
    other = next(each for each in templates(superuser) if each != name)
    for before, after in ((other, "away"), (name, other), ("away", name)):
        run(superuser, "ALTER DATABASE {} RENAME TO {}", before, after)


def no_comment(superuser, server, name):
    run(superuser, "COMMENT ON DATABASE {} IS NULL", name)


def another_comment(superuser, server, name):
    said = templates(superuser)[name]
    other = json.dumps({**said, "fingerprint": "0" * 64})
    superuser.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(other)))


def nothing_left(superuser, server, name):
    run(superuser, "ALTER DATABASE {} IS_TEMPLATE false", name)
    run(superuser, "DROP DATABASE {}", name)


WAYS = [
    *(rows_and_sealed_again, rows_and_left_open, rows_and_the_catalog_by_hand, rows_and_all_vacuumed),
    *(rows_under_another_name, a_copy_in_its_place, a_setting, a_setting_of_one_role, a_grant, a_privilege_less),
    *(another_owner, no_mark, a_new_name, the_name_of_another, no_comment, another_comment, nothing_left),
]
CHANGES_ROWS = {*WAYS[:6]}


@pytest.mark.parametrize("way", WAYS)
def test_a_template_that_was_changed_is_built_anew(place, server, superuser, tried, way):
    _, name, seeded = fetched(place)
    way(superuser, server, name)
    reason, again, seen = fetched(place)
    assert again != name
    assert seen == seeded
    if way in CHANGES_ROWS:
        assert reason == "somebody altered the last template, which nobody was to open"
    assert fetched(place) == ("", again, seeded)
    tried("a template changed by a superuser")


@pytest.mark.parametrize("way", [rows_and_sealed_again, rows_and_the_catalog_by_hand, a_setting, the_name_of_another])
def test_nothing_is_built_on_a_layer_that_was_changed(place, server, superuser, tried, way):
    _, name, seeded = fetched(place)
    layers = [each for each, said in templates(superuser).items() if said["layer"]]
    assert len(layers) >= 2, "after the migrations, and after the essential seeds"
    nothing_left(superuser, server, name)
    for layer in layers:
        with suppress(psycopg.errors.UndefinedTable):
            way(superuser, server, layer)
        tried("a layer changed by a superuser")
    assert fetched(place)[2] == seeded


def test_what_leaves_a_template_as_it_is_leaves_it_in_use(place, superuser, tried):
    found = fetched(place)
    for statement in ("VACUUM (FREEZE) pg_database", "VACUUM (FULL, ANALYZE) pg_database", "VACUUM (FREEZE)"):
        superuser.execute(statement)
    run(superuser, "CREATE DATABASE away TEMPLATE {}", found[1])
    run(superuser, "DROP DATABASE away")
    superuser.execute("CHECKPOINT")
    superuser.execute(f"GRANT CREATE ON DATABASE postgres TO {ROLE}")
    superuser.execute(f"REVOKE ALL ON DATABASE postgres FROM {ROLE}")
    assert fetched(place) == ("", *found[1:])
    tried("things done beside a template", 7)


def test_a_restart_of_the_server_leaves_it_in_use(place, tried):
    with separate_server() as start, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEDDB_SERVER", (own := start()).url)
        with psycopg.connect(own.conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {ROLE}")
        found = fetched(place)
        for _ in range(times(3)):
            start.stop()
            start()
            assert fetched(place) == ("", *found[1:])
            tried("a restart")


def test_tests_never_see_what_was_changed_whatever_was_done_to_which(place, server, superuser, tried):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for _ in range(times(10)):
        fetched(place)
        done = []
        for name in chance.sample(names := list(templates(superuser)), chance.randrange(1, len(names) + 1)):
            way = chance.choice([rows_and_sealed_again, rows_and_the_catalog_by_hand, rows_and_all_vacuumed, a_setting])
            with suppress(psycopg.errors.UndefinedTable, psycopg.errors.UniqueViolation):
                way(superuser, server, name)
            done.append((name, way.__name__))
        told = place.run()
        assert f"{attacks.PASSING} passed" in told, (seed, done, told)
        tried("templates changed at random, then pytest", len(done))
