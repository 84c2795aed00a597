"""What may go from a server, and what stays."""

from __future__ import annotations

import datetime as dt
import time
from contextlib import contextmanager
from itertools import count

import psycopg
import pytest
from handmade import Statements
from psycopg import sql

from pytest_seeddb.admin import Admin
from pytest_seeddb.naming import MARK, build_name, clone_name, lock_key, new_lease, template_name
from pytest_seeddb.record import Record
from pytest_seeddb.registry import KEPT_DAYS, KEPT_TEMPLATES, drop_unused, prune, sweep
from pytest_seeddb.worker import Worker

_numbers = count(1)


def soon_dropped(admin, name):
    """The server ends the locks of a closed connection a moment after its client is gone."""
    deadline = time.monotonic() + 10
    while not (dropped := drop_unused(admin, name)) and time.monotonic() < deadline:
        time.sleep(0.001)
    return dropped


@pytest.fixture
def admin(server_address):
    with Admin(server_address) as admin:
        sweep(admin)  # what other tests left
        yield admin


@pytest.fixture
def made(server_address):
    """Databases that the test made, dropped at its end."""
    names = []
    yield names
    with psycopg.connect(server_address.conninfo, autocommit=True) as connection:
        for name in names:
            connection.execute("UPDATE pg_database SET datistemplate = false WHERE datname = %s", [name])
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} (FORCE)").format(sql.Identifier(name)))


def day(ago):
    return (dt.datetime.now(dt.UTC) - dt.timedelta(days=ago)).date().isoformat()


@pytest.fixture
def template(admin, made):
    """Makes templates of any plan and age. Empty ones: copying files is all that takes time here."""

    def make(plan="shop", *, used=0, comment=None):
        fingerprint = f"{next(_numbers):064x}"
        name = template_name(plan, fingerprint, new_lease())
        record = Record(plan, "default", fingerprint, (), created=f"{day(used)}T{next(_numbers):06}", used=day(used))
        admin.create(name)
        made.append(name)
        admin.comment(name, record.to_json() if comment is None else comment)
        admin.seal(name)
        return name

    return make


@contextmanager
def few_kept(monkeypatch, number):
    """The limit is 30: too many databases to make for each test."""
    with monkeypatch.context() as patch:
        patch.setattr("pytest_seeddb.registry.KEPT_TEMPLATES", number)
        yield


def test_the_newest_thirty_stay_however_old_and_those_used_within_fourteen_days_however_many(admin, template):
    assert (KEPT_TEMPLATES, KEPT_DAYS) == (30, 14)
    old = [template("thirty", used=100 - number) for number in range(32)]
    assert prune(admin, "thirty") == [old[1], old[0]]
    assert prune(admin, "thirty") == []
    assert not {old[0], old[1]} & {each.name for each in admin.ours()}
    assert set(old[2:]) <= {each.name for each in admin.ours()}


def test_what_was_used_within_fourteen_days_stays_however_many_there_are(admin, template, monkeypatch):
    young = [template("busy", used=ago) for ago in (0, 1, 13, 14)]
    gone = template("busy", used=15)
    with few_kept(monkeypatch, 1):
        assert prune(admin, "busy") == [gone]
    assert set(young) <= {each.name for each in admin.ours()}


def test_templates_of_other_plans_stay_also_with_names_that_look_alike(admin, template, monkeypatch):
    mine = template("pruned", used=50)
    others = [template(plan, used=50) for plan in ("pruned_2", "Pruned", "prune", "other")]
    with few_kept(monkeypatch, 0):
        assert prune(admin, "pruned") == [mine]
    assert set(others) <= {each.name for each in admin.ours()}


def test_a_template_that_another_process_holds_stays(admin, template, server_address, monkeypatch):
    held, free = template("held", used=60), template("held", used=50)
    with Admin(server_address) as user:
        user.share_lock(lock_key("use", held))
        with few_kept(monkeypatch, 0):
            assert prune(admin, "held") == [free]
        assert not drop_unused(admin, held)
        assert admin.exists(held)
    assert soon_dropped(admin, held)
    assert not admin.exists(held)


def test_a_worker_holds_what_it_got_for_as_long_as_it_lives(server, admin, make_plan):
    plan = make_plan(Statements("migration", ["SELECT 1"]))
    with Worker(server) as builder:
        name = builder.template(plan).name
        assert not drop_unused(admin, name)
    with Worker(server) as user:
        assert user.template(plan).name == name
        assert not drop_unused(admin, name)
    assert soon_dropped(admin, name)


def test_a_template_that_was_pruned_while_somebody_looked_is_built_again(server, admin, make_plan, monkeypatch):
    plan = make_plan(Statements("migration", ["CREATE TABLE a ()"]))
    with Worker(server) as builder:
        name = builder.template(plan).name
    real = Admin.share_lock

    def pruned_first(self, key):
        if key == lock_key("use", name):
            monkeypatch.setattr(Admin, "share_lock", real)
            assert drop_unused(admin, name)
        real(self, key)

    monkeypatch.setattr(Admin, "share_lock", pruned_first)
    with Worker(server) as worker:
        again = worker.template(plan)
        assert again.built
        worker.clones.make(again)


def test_templates_that_say_nothing_or_nonsense_of_themselves_are_not_pruned(admin, template, monkeypatch):
    names = [template("strange", comment=text) for text in ("", "{}", "[1]", '{"seeddb": 99, "plan": "strange"}')]
    with few_kept(monkeypatch, 0):
        assert prune(admin, "strange") == []
    assert set(names) <= {each.name for each in admin.ours()}


def test_using_a_template_again_is_noted_once_a_day(server, admin, make_plan):
    plan = make_plan(Statements("migration", ["SELECT 1"]))
    with Worker(server) as worker:
        template = worker.template(plan)
    admin.comment(template.name, template.record.used_on(day(20)).to_json())
    with Worker(server) as worker:
        worker.template(plan)
    comments = {each.name: each.comment for each in admin.ours()}
    assert Record.from_json(comments[template.name]) == template.record.used_on(day(0))


# -- orphans -------------------------------------------------------------------------------------


def orphan(admin, made, kind=clone_name, lease=None):
    name = kind(lease or new_lease(), next(_numbers))
    admin.create(name)
    made.append(name)
    return name


def test_clones_and_builds_without_a_living_owner_are_dropped(admin, made):
    orphans = {orphan(admin, made, kind) for kind in (clone_name, build_name) for _ in range(2)}
    assert set(sweep(admin)) == orphans
    assert not orphans & {each.name for each in admin.ours()}


def test_what_a_living_lease_owns_stays(admin, made, server_address):
    lease = new_lease()
    with Admin(server_address) as owner:
        owner.lock(lock_key("lease", lease))
        mine = {orphan(admin, made, kind, lease) for kind in (clone_name, build_name)}
        assert sweep(admin) == []
        assert mine <= {each.name for each in admin.ours()}
    assert set(sweep(admin)) == mine


def test_a_sweep_gives_every_lease_back_that_it_tried(admin, made, server_address):
    name = orphan(admin, made)
    sweep(admin)
    with Admin(server_address) as another:
        assert another.try_lock(lock_key("lease", name.split("_")[2]))


@pytest.mark.parametrize(
    ("name", "limit"), [("seeddb_c_00000000000000aa_1", -1), ("seeddb_c_00000000000000aa_2", MARK + 1)]
)
def test_decoys_with_our_names_or_another_formats_mark_stay(admin, made, server_address, name, limit):
    with psycopg.connect(server_address.conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} CONNECTION LIMIT {}").format(sql.Identifier(name), limit))
    made.append(name)
    assert sweep(admin) == []
    assert admin.exists(name)


def test_an_orphan_with_clients_is_dropped_all_the_same(admin, made, server_address):
    name = orphan(admin, made)
    with psycopg.connect(server_address.with_database(name).conninfo) as client:
        client.execute("CREATE TABLE a ()")
        assert sweep(admin) == [name]
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")


def test_an_orphan_that_cannot_be_dropped_keeps_no_other_from_being_dropped(admin, made, monkeypatch):
    names = sorted(orphan(admin, made) for _ in range(3))
    real = Admin.drop

    def refusing(self, name):
        if name == names[0]:
            raise psycopg.errors.ObjectInUse("there are prepared transactions")
        real(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Admin, "drop", refusing)
        with pytest.raises(psycopg.errors.ObjectInUse, match="prepared transactions"):
            sweep(admin)
    assert {each.name for each in admin.ours(r"seeddb\_c\_%")} & set(names) == {names[0]}
    assert sweep(admin) == [names[0]]


def test_tidying_up_that_fails_fails_no_test_and_is_told(server, made, monkeypatch):
    with Admin(server.address) as admin:
        orphan(admin, made)

    def refusing(_self, _name):
        raise psycopg.errors.ObjectInUse("there are prepared transactions")

    with monkeypatch.context() as patch:
        patch.setattr(Admin, "drop", refusing)
        with Worker(server) as worker:
            pass
    assert worker.failures == ["there are prepared transactions"]
