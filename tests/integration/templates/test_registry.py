"""What may go from a server, and what stays."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import psycopg
import pytest
from handmade import Statements
from psycopg import sql
from stocked import day, make_kept, make_orphan, make_template

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.globals import Globals
from pytest_seeddb.servers.naming import MARK, build_name, clone_name, lock_key, new_lease
from pytest_seeddb.templates.inventory import KEPT_DAYS, KEPT_TEMPLATES, drop, drop_unused, inventory, prune, sweep
from pytest_seeddb.templates.record import Record


def soon(attempt):
    """The server ends the locks of a closed connection a moment after its client is gone."""
    deadline = time.monotonic() + 10
    while not (found := attempt()) and time.monotonic() < deadline:
        time.sleep(0.001)
    return found


def soon_dropped(admin, name):
    return soon(lambda: drop_unused(admin, name))


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


@pytest.fixture
def template(admin, made):
    """Makes templates of any plan and age."""

    def make(plan="shop", **options):
        made.append(make_template(admin, plan, **{"projects": ("ours",), **options}))
        return made[-1]

    return make


@contextmanager
def few_kept(monkeypatch, number):
    """The limit is 30: too many databases to make for each test."""
    with monkeypatch.context() as patch:
        patch.setattr("pytest_seeddb.templates.inventory.KEPT_TEMPLATES", number)
        yield


@pytest.mark.slow
def test_the_newest_thirty_stay_however_old_and_those_used_within_fourteen_days_however_many(admin, template):
    assert (KEPT_TEMPLATES, KEPT_DAYS) == (30, 14)
    old = [template("thirty", used=100 - number) for number in range(32)]
    assert prune(admin, "thirty", "ours") == [old[1], old[0]]
    assert prune(admin, "thirty", "ours") == []
    assert not {old[0], old[1]} & {each.name for each in admin.databases()}
    assert set(old[2:]) <= {each.name for each in admin.databases()}


def test_what_was_used_within_fourteen_days_stays_however_many_there_are(admin, template, monkeypatch):
    young = [template("busy", used=ago) for ago in (0, 1, 13, 14)]
    gone = template("busy", used=15)
    with few_kept(monkeypatch, 1):
        assert prune(admin, "busy", "ours") == [gone]
    assert set(young) <= {each.name for each in admin.databases()}


def test_templates_of_other_plans_and_projects_stay_also_with_names_that_look_alike(admin, template, monkeypatch):
    mine = [template("pruned", used=50), template("pruned", used=49, projects=("another", "ours"))]
    others = [template(plan, used=50) for plan in ("pruned_2", "Pruned", "prune", "other")]
    others += [template("pruned", used=50, projects=projects) for projects in ((), ("another",))]
    with few_kept(monkeypatch, 0):
        assert prune(admin, "pruned", "ours") == mine[::-1]
    assert set(others) <= {each.name for each in admin.databases()}


def test_of_the_layers_in_the_middle_of_a_stage_the_newest_stay_as_long_as_they_are_small(admin, template, monkeypatch):
    monkeypatch.setattr("pytest_seeddb.templates.inventory.KEPT_INNER_LAYERS", 3)
    layers = [template("long", layer=True, inner=True, size=2**28) for _ in range(5)]
    others = [template("long"), template("long", layer=True)]
    assert set(prune(admin, "long", "ours")) == set(layers[:2])
    large = [template("long", layer=True, inner=True, size=2**29 + number) for number in range(2)]
    assert set(prune(admin, "long", "ours")) == {*layers[2:], large[0]}
    assert {*others, large[1]} <= {each.name for each in admin.databases()}


def test_a_template_that_another_process_holds_stays(admin, template, server_address, monkeypatch):
    held, free = template("held", used=60), template("held", used=50)
    with Admin(server_address) as user:
        user.lock(lock_key("use", held), shared=True)
        with few_kept(monkeypatch, 0):
            assert prune(admin, "held", "ours") == [free]
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


@pytest.mark.slow
def test_a_template_that_was_pruned_while_somebody_looked_is_built_again(server, admin, make_plan, monkeypatch):
    plan = make_plan(Statements("migration", ["CREATE TABLE a ()"]))
    with Worker(server) as builder:
        name = builder.template(plan).name
    real = Admin.lock

    def pruned_first(self, key, **options):
        if key == lock_key("use", name):
            monkeypatch.setattr(Admin, "lock", real)
            assert drop_unused(admin, name)
        real(self, key, **options)

    monkeypatch.setattr(Admin, "lock", pruned_first)
    with Worker(server) as worker:
        again = worker.template(plan)
        assert again.built
        worker.clones.make(again)


def test_templates_that_say_nothing_or_nonsense_of_themselves_are_not_pruned(admin, template, monkeypatch):
    names = [template("strange", comment=text) for text in ("", "{}", "[1]", '{"seeddb": 99, "plan": "strange"}')]
    with few_kept(monkeypatch, 0):
        assert prune(admin, "strange", "ours") == []
    assert set(names) <= {each.name for each in admin.databases()}


def test_using_a_template_again_is_noted_once_a_day(server, admin, make_plan):
    plan = make_plan(Statements("migration", ["SELECT 1"]))
    with Worker(server) as worker:
        template = worker.template(plan)
    admin.comment(template.name, template.record.used_on(day(20)).to_json())
    with Worker(server) as worker:
        worker.template(plan)
    comments = {each.name: each.comment for each in admin.databases()}
    assert Record.from_json(comments[template.name]) == template.record.used_on(day(20)).used_on(day(0))


# -- orphans -------------------------------------------------------------------------------------


def orphan(admin, made, *kind_and_lease):
    made.append(make_orphan(admin, *kind_and_lease))
    return made[-1]


def test_clones_and_builds_without_a_living_owner_are_dropped(admin, made):
    prefixed = partial(clone_name, form="test_{clone}_gw0")
    orphans = {orphan(admin, made, kind) for kind in (clone_name, build_name, prefixed) for _ in range(2)}
    assert orphans <= {entry.name for entry in inventory(admin)}
    assert not any(key[0] == "database" and key[1] in orphans for key in Globals.of(admin.run, superuser=True).items)
    assert set(sweep(admin)) == orphans
    assert not orphans & {each.name for each in admin.databases()}


def test_what_a_living_lease_owns_stays(admin, made, server_address):
    lease = new_lease()
    with Admin(server_address) as owner:
        owner.lock(lock_key("lease", lease))
        mine = {orphan(admin, made, kind, lease) for kind in (clone_name, build_name)}
        assert sweep(admin) == []
        assert mine <= {each.name for each in admin.databases()}
    assert set(soon(lambda: sweep(admin))) == mine


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
    assert {each.name for each in admin.databases(r"seeddb\_c\_%")} & set(names) == {names[0]}
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


# -- what somebody asks for ----------------------------------------------------------------------


def test_what_has_come_into_use_since_it_was_listed_stays(admin, made, template, server_address):
    lease = new_lease()
    names = [template(), orphan(admin, made, clone_name, lease), make_kept(admin)]
    made.append(names[2])
    entries = {each.name: each for each in inventory(admin) if each.name in names}
    assert not any(each.in_use for each in entries.values())
    with Admin(server_address) as user, psycopg.connect(server_address.with_database(names[2]).conninfo):
        user.lock(lock_key("use", names[0]), shared=True)
        user.lock(lock_key("lease", lease))
        assert [drop(admin, entries[name]) for name in names] == [False] * 3
        assert {each.name for each in inventory(admin) if each.in_use} >= set(names)
    assert all(soon(lambda name=name: drop(admin, entries[name])) for name in names)
    assert not set(names) & {each.name for each in admin.databases()}


def test_a_database_that_is_dropped_while_it_is_listed_is_left_out(admin, made, monkeypatch):
    gone, stays = make_orphan(admin), orphan(admin, made)
    real = Admin.databases

    def listed(self, *pattern):
        found = real(self, *pattern)
        self.drop(gone)
        return found

    monkeypatch.setattr(Admin, "databases", listed)
    assert gone not in (names := {each.name for each in inventory(admin)})
    assert stays in names


def test_the_inventory_tells_orphans_ages_and_sizes(admin, made, template):
    names = [template("shop", used=3), orphan(admin, made), make_kept(admin, ago=4)]
    made.append(names[2])
    old, lost, kept = ({each.name: each for each in inventory(admin)}[name] for name in names)
    assert (old.kind, old.used, old.record.plan) == ("template", day(3), "shop")
    assert (lost.kind, lost.is_orphan, lost.used) == ("clone", True, "")
    assert (kept.kind, kept.used, kept.created) == ("kept", day(4), f"{day(4)}T01:02:03+00:00")
    assert all(each.size > 1_000_000 and not each.users for each in (old, lost, kept))


# -- the catalogs --------------------------------------------------------------------------------


def dead_rows(connection):
    return connection.execute("SELECT pg_stat_get_dead_tuples('pg_database'::regclass)").fetchone()[0]


@pytest.fixture
def worn(server_address, empty_database):
    """A connection to a server whose catalogs are full of rows that nobody sees any more."""
    there = empty_database.params["dbname"]
    renames = [(there, f"{there}_too"), (f"{there}_too", there)] * 260
    with psycopg.connect(server_address.conninfo, autocommit=True) as connection:
        for names in renames:
            connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*map(sql.Identifier, names)))
        connection.execute("SELECT pg_stat_force_next_flush()")
        assert dead_rows(connection) > 500
        yield connection


def test_what_dropped_databases_left_in_the_catalogs_is_cleared_away(embedded_server, worn):
    with Worker(embedded_server) as worker:
        pass
    assert worker.failures == []
    assert dead_rows(worn) < 100


def test_the_catalogs_of_a_server_that_is_not_ours_are_left_to_its_owner(embedded_server, worn):
    Worker(replace(embedded_server, kind="external")).close()
    assert dead_rows(worn) > 500
