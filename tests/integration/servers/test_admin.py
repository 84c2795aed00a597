"""The administrative SQL: what is dropped, what is refused, what is left after a failure."""

from __future__ import annotations

import contextlib
import threading
import time
from itertools import count

import psycopg
import pytest
from psycopg import sql

from pytest_seeddb.errors import CloneError, ServerError
from pytest_seeddb.fingerprint.digests import FORMAT
from pytest_seeddb.servers import admin as admin_module
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.naming import MARK, clone_name, lock_key, new_lease
from pytest_seeddb.templates.grants import Carried, Setting

_numbers = count(1)

STATE = "SELECT oid, datallowconn, datistemplate, datconnlimit FROM pg_database WHERE datname = %s"


@pytest.fixture
def admin(server_address):
    with Admin(server_address) as admin:
        yield admin


@pytest.fixture
def ours(admin):
    """A database of ours."""
    name = clone_name(new_lease(), next(_numbers))
    admin.create(name)
    yield name
    admin.drop(name)


@pytest.fixture
def foreign(server_address):
    """Makes databases that are not ours, with any options; they are dropped at the end."""
    made = []
    with psycopg.connect(server_address.conninfo, autocommit=True) as connection:

        def make(name, options=""):
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 " + options).format(sql.Identifier(name)))
            made.append(name)
            return name

        yield make
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def clients(address, *, number=1):
    """Connections in three states: idle, in a transaction, and in the middle of a statement."""
    opened = [psycopg.connect(address.conninfo, autocommit=True) for _ in range(3 * number)]
    for at in range(number):
        opened[3 * at + 1].execute("BEGIN")
        opened[3 * at + 1].execute("CREATE TABLE open_work ()" if at == 0 else "SELECT 1")
        opened[3 * at + 2].pgconn.send_query(b"SELECT pg_sleep(60)")
    yield opened
    for each in opened:
        each.close()


def timed(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def test_a_drop_ends_idle_busy_and_open_connections_without_the_servers_own_waiting_steps(admin, server_address):
    def one(connected):
        name = clone_name(new_lease(), 1)
        admin.create(name)
        with clients(server_address.with_database(name)) if connected else contextlib.nullcontext():
            return timed(lambda: admin.drop(name))

    plain, connected = (min(one(connected) for _ in range(3)) for connected in (False, True))
    # The server's steps are of 100 ms, once for a DROP that meets a client.
    assert connected < plain + 0.08


def test_a_drop_waits_itself_until_the_backends_are_gone_so_that_the_server_never_has_to(admin, ours, server_address):
    statements = []
    real = admin.run
    admin.run = lambda statement, params=(): (
        statements.append(statement if isinstance(statement, str) else statement.as_string(None)),
        real(statement, params),
    )[1]
    with clients(server_address.with_database(ours), number=3):
        admin.drop(ours)
    (drop,) = [each for each in statements if each.startswith("DROP DATABASE")]
    assert statements[-1] == drop
    assert "pg_terminate_backend" in statements[-2]
    assert not admin.exists(ours)


@pytest.mark.slow
def test_a_client_that_is_just_being_let_in_is_ended_too(admin, ours, server_address):
    # It has passed the check whether the database takes connections, and is in no list of clients yet.
    slow = Address({**server_address.with_database(ours).params, "options": "-c post_auth_delay=1"})
    ended = []

    def connect():
        with pytest.raises(psycopg.OperationalError), psycopg.connect(slow.conninfo) as connection:
            connection.execute("SELECT pg_sleep(60)")
        ended.append(True)

    client = threading.Thread(target=connect)
    client.start()
    locks = "SELECT 1 FROM pg_locks WHERE objid = (SELECT oid FROM pg_database WHERE datname = %s)"
    while not admin.run(locks, [ours]):
        time.sleep(0.001)
    time.sleep(0.2)  # from its lock to the check takes it some microseconds
    assert admin.run("SELECT 1 FROM pg_stat_activity WHERE datname = %s", [ours]) == []
    assert timed(lambda: admin.drop(ours)) < 4  # a DROP that meets a client gives up after 5 s
    client.join()
    assert ended == [True]
    assert not admin.exists(ours)


def test_dropping_what_is_not_there_is_no_error(admin):
    admin.drop(clone_name(new_lease(), 1))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("seeddb_c_0123456789abcdef_1", ""),  # our kind of name alone
        (f"seeddb_t_shop_{'0' * 24}_{'0' * 8}", ""),
        ("seeddb_c_0123456789abcdef_2", f"CONNECTION LIMIT {MARK + 1}"),  # another format's
        ("seeddb_production", f"CONNECTION LIMIT {MARK}"),  # the mark alone
        ("shop", f"CONNECTION LIMIT {MARK}"),
        ("seeddb_c_0123456789ABCDEF_3", f"CONNECTION LIMIT {MARK}"),
        ("seeddb_c_0123456789abcdef_4 ", f"CONNECTION LIMIT {MARK}"),
        ("seeddb_c_0123456789abcdef_5\n", f"CONNECTION LIMIT {MARK}"),
    ],
)
def test_a_database_that_is_not_ours_is_never_dropped_nor_listed_nor_changed(admin, foreign, name, options):
    foreign(name, options)
    admin.comment(name, f'{{"seeddb": {FORMAT}, "plan": "shop"}}')
    before = admin.run(STATE, [name])
    admin.drop(name)
    assert admin.run(STATE, [name]) == before
    assert name not in {each.name for each in admin.databases()}
    assert name not in {each.name for each in admin.databases("%")}


def test_what_postgresql_left_half_dropped_under_our_name_is_cleaned_up(admin, ours):
    admin.run("UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s", [ours])
    assert ours in {each.name for each in admin.databases()}
    admin.drop(ours)
    assert not admin.exists(ours)


def test_what_postgresql_left_half_dropped_under_another_name_stays(admin, foreign):
    name = foreign("seeddb_halfway")
    admin.run("UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s", [name])
    admin.drop(name)
    assert admin.exists(name)


def test_a_clone_that_cannot_get_its_settings_leaves_nothing(admin, ours):
    name = clone_name(new_lease(), 1)
    with pytest.raises(psycopg.errors.UndefinedObject):
        Carried((Setting("", "no_such_setting", "1"),)).clone(admin, ours, name, "FILE_COPY")
    assert not admin.exists(name)


def test_a_clone_of_what_is_not_there_leaves_nothing(admin):
    name = clone_name(new_lease(), 1)
    with pytest.raises(psycopg.errors.InvalidCatalogName):
        admin.clone("nowhere", name, "WAL_LOG")
    assert not admin.exists(name)


def test_every_database_that_we_make_carries_the_mark_from_its_first_moment(admin, ours):
    name = clone_name(new_lease(), 1)
    admin.clone(ours, name, "FILE_COPY")
    marks = admin.run("SELECT datconnlimit FROM pg_database WHERE datname = ANY(%s)", [[ours, name]])
    admin.drop(name)
    assert marks == [(MARK,), (MARK,)]


def test_identifiers_and_texts_with_quotes_stay_what_they_are(admin, foreign):
    name = foreign("""it's "odd"; --""")
    admin.comment(name, "another 'comment'")
    admin.make_read_only(name)
    admin.publish(name, new := """another 'odd" one""", lambda _: """a 'comment' with "quotes", a % and a \\""")
    assert admin.size(new) > 0
    rows = admin.run(
        "SELECT shobj_description(oid, 'pg_database'), datistemplate, datallowconn FROM pg_database WHERE datname = %s",
        [new],
    )
    assert rows == [("""a 'comment' with "quotes", a % and a \\""", True, False)]
    admin.run(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(sql.Identifier(new)))
    admin.rename(new, name)


def test_evict_spares_the_given_backend_and_ends_the_others(admin, ours, server_address):
    address = server_address.with_database(ours)
    with psycopg.connect(address.conninfo) as kept, clients(address) as others:
        admin.evict(ours, spare=kept.info.backend_pid)
        assert kept.execute("SELECT 1").fetchone() == (1,)
        kept.rollback()
        with pytest.raises(psycopg.OperationalError):
            others[0].execute("SELECT 1")
        assert admin.run("SELECT pid FROM pg_stat_activity WHERE datname = %s", [ours]) == [(kept.info.backend_pid,)]


@pytest.fixture
def creator(server_address):
    """A role that may create databases and nothing else."""
    name = f"creator_{next(_numbers)}"
    with psycopg.connect(server_address.conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN CREATEDB PASSWORD 'quoted'")
        yield Address({**server_address.params, "user": name, "password": "quoted"})
        connection.execute(f"DROP OWNED BY {name}")
        connection.execute(f"DROP ROLE {name}")


def test_a_client_that_our_role_may_not_end_is_told_with_the_remedy(creator, server_address, monkeypatch):
    monkeypatch.setattr(admin_module, "_PATIENCE", 0.2)
    name = clone_name(new_lease(), 1)
    with Admin(creator) as admin:
        admin.create(name)
        with psycopg.connect(server_address.with_database(name).conninfo, application_name="a stranger") as stranger:
            with pytest.raises(CloneError) as caught:
                admin.drop(name)
            assert stranger.execute("SELECT 1").fetchone() == (1,)
            assert f"process {stranger.info.backend_pid} of" in str(caught.value)
        assert "a stranger" in str(caught.value)
        assert "quoted" not in str(caught.value)
        admin.drop(name)
        assert not admin.exists(name)


def test_the_remedy_that_the_error_names_helps(creator, server_address):
    name, other = clone_name(new_lease(), 1), f"other_{next(_numbers)}"
    with psycopg.connect(server_address.conninfo, autocommit=True) as superuser, Admin(creator) as admin:
        superuser.execute(f"GRANT pg_signal_backend TO {admin.role()}")
        superuser.execute(f"CREATE ROLE {other} LOGIN PASSWORD 'quoted'")
        admin.create(name)
        params = {**server_address.params, "user": other, "password": "quoted"}
        with psycopg.connect(Address(params).with_database(name).conninfo):
            admin.drop(name)
        assert not admin.exists(name)
        superuser.execute(f"DROP ROLE {other}")


def test_a_lock_is_held_against_other_connections_until_it_is_given_back_or_its_holder_goes(server_address):
    key = lock_key("test", new_lease())
    with Admin(server_address) as one:
        with Admin(server_address) as two:
            one.lock(key)
            assert not two.try_lock(key)
            one.unlock(key)
            assert two.try_lock(key)
        with Admin(server_address) as three:  # two's end gave it back
            three.lock(key)


def test_a_shared_lock_keeps_the_exclusive_one_out_until_all_have_given_it_back(server_address):
    key = lock_key("test", new_lease())
    with Admin(server_address) as one, Admin(server_address) as two, Admin(server_address) as three:
        one.lock(key, shared=True)
        two.lock(key, shared=True)
        one.unlock(key, shared=True)
        assert not three.try_lock(key)
        two.unlock(key, shared=True)
        assert three.try_lock(key)


def test_a_lock_held_for_a_block_is_given_back_after_an_error_too(server_address):
    key = lock_key("test", new_lease())
    with Admin(server_address) as one, Admin(server_address) as two:
        with contextlib.suppress(ZeroDivisionError), one.hold(key):
            assert not two.try_lock(key)
            raise ZeroDivisionError
        assert two.try_lock(key)


def test_a_lost_connection_is_known_as_lost(server_address):
    with Admin(server_address) as one, Admin(server_address) as two:
        pid = one.run("SELECT pg_backend_pid()")[0][0]
        two.run("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(psycopg.OperationalError):
            one.run("SELECT pg_sleep(1)")
        assert one.is_broken
        assert not two.is_broken


def test_a_server_that_cannot_be_reached_is_told_without_the_password(server_address):
    address = Address({**server_address.params, "user": "nobody_known", "password": "s3cret"})
    with pytest.raises(ServerError) as caught:
        Admin(address)
    assert "s3cret" not in str(caught.value)
    assert "nobody_known" in str(caught.value)


def test_a_roles_own_timeouts_do_not_end_what_we_wait_for(creator, server_address):
    with psycopg.connect(server_address.conninfo, autocommit=True) as superuser:
        role = creator.params["user"]
        for setting in ("statement_timeout", "lock_timeout"):
            superuser.execute(f"ALTER ROLE {role} SET {setting} = '10ms'")
    with Admin(creator) as admin:
        admin.run("SELECT pg_sleep(0.05)")
