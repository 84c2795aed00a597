"""`seeddb prune`: what nobody uses goes, what is in use stays, and nothing is touched that is not ours."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from contextlib import contextmanager
from functools import partial

import psycopg
import pytest
from command import Command
from psycopg import sql
from separate import separate_server
from stocked import day, make_kept, make_orphan
from stocked import make_template as make_template_of

from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.naming import MARK, build_name, clone_name, lock_key, new_lease
from pytest_seeddb.servers.places import state_place
from pytest_seeddb.settings.files import project_identity

make_template = partial(make_template_of, plan="little-shop")

DECOYS = {
    "seeddb_t_shop_0123456789abcdef01234567_01234567": -1,
    "seeddb_c_00000000000000aa_1": -1,
    "seeddb_c_00000000000000aa_2": MARK + 1,
    "seeddb_k_20200101000000_00000000_1": -1,
    "seeddb_my_own": MARK,
    "shop": -1,
}


@pytest.fixture(scope="module")
def server():
    """A server of this module's own: its databases are counted. There are databases on it that are not ours."""
    with separate_server() as start:
        address = start()
        with psycopg.connect(address.conninfo, autocommit=True) as connection:
            for name, limit in DECOYS.items():
                made = sql.SQL("CREATE DATABASE {} CONNECTION LIMIT {}").format(sql.Identifier(name), limit)
                connection.execute(made)
        yield address


@pytest.fixture
def admin(server):
    with Admin(server) as admin:
        yield admin
        for each in admin.databases():
            admin.drop(each.name)
        rows = admin.run("SELECT datname FROM pg_database WHERE datname = ANY(%s)", [list(DECOYS)])
        assert {name for (name,) in rows} == set(DECOYS)


@pytest.fixture
def seeddb(project, server):
    return Command(project.path, SEEDDB_SERVER=server.url)


@pytest.fixture
def pruned(seeddb):
    """Prunes, and gives the names of what went."""

    def prune(*options, code=0):
        found = json.loads(seeddb("prune", "--json", *options, code=code).stdout)
        return [each["name"] for each in found["gone"]]

    return prune


@contextmanager
def held(server, *words):
    with Admin(server) as user:
        user.lock(lock_key(*words), shared=True)
        yield


def ours(admin):
    return {each.name for each in admin.databases()}


@pytest.mark.slow
def test_by_default_orphans_go_and_what_was_last_used_more_than_fourteen_days_ago(admin, pruned, server):
    old = [make_template(admin, used=90, layer=True), make_template(admin, used=15), make_kept(admin, ago=15)]
    orphans = [make_orphan(admin, clone_name), make_orphan(admin, build_name)]
    lease, used = new_lease(), make_template(admin, used=90)
    stays = {make_template(admin, used=14), make_kept(admin, ago=14), used, make_template(admin, comment="{}")}
    with held(server, "lease", lease), held(server, "use", used):
        stays |= {make_orphan(admin, kind, lease) for kind in (clone_name, build_name)}
        assert set(pruned()) == {*old, *orphans}
        assert ours(admin) == stays


@pytest.mark.slow
def test_a_dry_run_lists_what_would_go_and_why_and_touches_nothing(admin, seeddb):
    names = make_template(admin, used=20), make_kept(admin, ago=20), make_orphan(admin)
    done = seeddb("prune", "--dry-run", "-q")
    assert ours(admin) == set(names)
    rows = {line.split()[-1]: " ".join(line.split()) for line in done.stdout.splitlines()}
    assert rows[names[0]].startswith("template ")
    assert f"little-shop/default last used on {day(20)}" in rows[names[0]]
    assert rows[names[1]].startswith("kept ")
    assert "its worker is gone" in rows[names[2]]
    assert "3 would go, 2" in done.stdout
    assert "0 B stay, 0 databases in use" in done.stdout


@pytest.mark.slow
def test_age_and_budget_are_read_with_their_units(admin, pruned, server):
    names = [make_template(admin, used=50), make_template(admin, used=15), make_template(admin, used=14)]
    names += [make_template(admin, used=3), make_template(admin, used=2)]
    size = admin.size(names[0])
    with held(server, "use", names[0]):
        budget = f"{(2 * size + size // 2) / 2**20:.1f} MB"
        assert pruned("--older-than=2 weeks", "--budget", budget) == [names[1], names[2], names[3]]
        assert ours(admin) == {names[0], names[4]}


@pytest.mark.slow
def test_kept_databases_go_all_at_once_but_not_one_that_somebody_looks_at(admin, pruned, server):
    names = [make_kept(admin, ago=ago) for ago in (0, 1)]
    template = make_template(admin, used=100)
    with psycopg.connect(server.with_database(names[0]).conninfo):
        assert pruned("--kept") == [names[1]]
        assert ours(admin) == {names[0], template}


@pytest.mark.slow
def test_all_is_all_that_nobody_uses(admin, seeddb, server):
    used, free = make_template(admin), [make_template(admin, comment=""), make_kept(admin), make_template(admin)]
    with held(server, "use", used):
        done = seeddb("prune", "--all")
        assert "3 went, 2" in done.stdout
        assert "1 database in use" in done.stdout
        assert ours(admin) == {used}
    assert not set(free) & ours(admin)


@pytest.mark.slow
def test_databases_of_other_projects_go_only_with_all_also_if_they_have_the_same_name(admin, pruned, seeddb, project):
    identity = project_identity(project.path)
    named = {"plan": "little-shop", "project": "another of this name"}
    others = {make_template_of(admin, "little-shop-2", used=50), make_kept(admin, ago=50, plan="another")}
    others |= {namesake := make_template(admin, used=50, projects=("another",)), make_kept(admin, ago=50, **named)}
    own = {make_template(admin, used=50, projects=("another", identity)), unknown := make_template(admin, used=50)}
    own |= {make_kept(admin, ago=50, plan="little-shop", project=of) for of in ("", identity)}
    recent = make_template_of(admin, "another")
    shown = json.loads(seeddb("status", "--json").stdout)
    assert {one["name"] for one in (*shown["templates"], *shown["kept"])} == own
    assert {one["name"]: one["project"] for one in shown["templates"]}[unknown] == "unknown"
    assert shown["others"]["number"] == 5
    assert "5 databases of other projects" in seeddb("status").stdout
    everything = json.loads(seeddb("status", "--json", "--all").stdout)
    assert {one["name"] for one in (*everything["templates"], *everything["kept"])} == {*own, *others, recent}
    lines = seeddb("status", "--all").stdout.splitlines()
    assert [line.split(name)[1].strip() for name in (namesake, unknown) for line in lines if name in line] == [
        "of another project",
        "of an unknown project",
    ]
    assert set(pruned()) == own
    assert set(pruned("--older-than", "40d")) == set()
    assert set(pruned("--older-than", "40d", "--all")) == others
    assert pruned("--all") == [recent]


@pytest.mark.slow
def test_what_the_server_refuses_to_drop_saves_nothing_else_and_exits_with_1(admin, project, server):
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("CREATE ROLE other LOGIN CREATEDB PASSWORD 's3cret'")
    refused = make_kept(admin, ago=50)
    try:
        with Admin(type(server)({**server.params, "user": "other"})) as other:
            gone = make_kept(other, ago=50)
        url = server.url.replace("postgres@", "other:s3cret@")
        done = Command(project.path, SEEDDB_SERVER=url)("prune", code=1)
        assert f"{refused} stays: " in done.stdout
        assert "must be owner of database" in done.stdout
        assert "s3cret" not in done.stdout + done.stderr
        assert ours(admin) == {refused}
        assert gone in done.stdout
    finally:
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute("DROP ROLE other")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--older-than", "14"], "argument --older-than: write days or weeks, 14d or 2w"),
        (["--older-than=-1d"], "not '-1d'"),
        (["--older-than=3h"], "uses are known to the day"),
        (["--budget", "5"], "argument --budget: write a size as a number and a unit, 500MB or 5GB, not '5'"),
        (["--budget", "much"], "not 'much'"),
    ],
)
def test_ages_and_sizes_that_cannot_be_read_exit_with_2(seeddb, admin, options, text):
    name = make_template(admin, used=100)
    assert text in seeddb("prune", *options, code=2).stderr
    assert ours(admin) == {name}


# -- what embedded servers leave -----------------------------------------------------------------


@pytest.fixture
def cache(cache_home):
    """Our part of a cache directory of the test's own, where no server ever ran."""
    own = cache_home / f"prune-{os.getpid()}"
    (own / "pytest-seeddb").mkdir(mode=0o755, parents=True)
    own.chmod(0o755)
    yield own / "pytest-seeddb"
    shutil.rmtree(own)


def left(cache, version, *, ago=0):
    """A state directory as a stopped server leaves it, and programs."""
    programs = cache / "binaries" / f"{version}-ba9876543210"
    state = state_place(cache, version, programs / "bin")
    files = [state / name for name in ("data/PG_VERSION", "server.json", "users.lock", "server.lock")]
    for path in (*files, programs / "bin/initdb"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    moment = time.time() - ago * 86400
    for path in (*files, programs):
        os.utime(path, (moment, moment))
    return state, programs


@pytest.mark.slow
@pytest.mark.embedded
def test_servers_and_programs_that_nobody_has_used_for_long_go_and_locks_save_them(project, cache):
    seeddb = Command(project.path, XDG_CACHE_HOME=str(cache.parent))
    old, young, used = (left(cache, version, ago=ago) for version, ago in (("15.1", 20), ("16.1", 10), ("17.1", 20)))
    decoys = [cache / "servers/notes", cache / "binaries/mine-0123456789ab"]
    for decoy in decoys:
        decoy.mkdir()
        os.utime(decoy, (0, 0))
    with (used[0] / "users.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert json.loads(seeddb("prune", "--dry-run", "--json").stdout)["gone"] == []
        planned = json.loads(seeddb("prune", "--all", "--older-than=14d", "--dry-run", "--json").stdout)
        assert {(each["kind"], each["name"]) for each in planned["gone"]} == {
            ("data", str(old[0])),
            ("programs", str(old[1])),
        }
        assert (old[0] / "data").exists()
        done = seeddb("prune", "--all", "--older-than=14d")
    assert "2 went" in done.stdout
    assert not old[1].exists()
    assert {each.name for each in old[0].iterdir()} == {"users.lock", "server.lock"}, "locks stay"
    assert all(path.exists() for path in (young[0] / "data", young[1], used[0] / "data", used[1], *decoys))
    again = json.loads(seeddb("prune", "--all", "--json").stdout)
    assert {each["name"] for each in again["gone"]} == {str(each) for each in (*young, *used)}
