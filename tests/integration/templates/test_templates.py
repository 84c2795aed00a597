from __future__ import annotations

import dataclasses

import psycopg
import pytest
from handmade import Statements

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.errors import BuildError, ConfigError
from pytest_seeddb.servers.naming import parse_name
from pytest_seeddb.templates import building
from pytest_seeddb.templates.history import FIRST, OLDER_FORM

SCHEMA = ("CREATE TABLE shop (id serial PRIMARY KEY, name text)", "CREATE INDEX ON shop (name)")
ROWS = ("INSERT INTO shop (name) SELECT 'shop ' || n FROM generate_series(1, 5) n",)


def rows(address, query="SELECT name FROM shop ORDER BY id"):
    with psycopg.connect(address.conninfo) as connection:
        return [row[0] for row in connection.execute(query)]


@pytest.mark.slow
def test_a_template_is_built_once_and_reused_by_the_next_worker(server, make_plan):
    schema, seeds = Statements("migration", SCHEMA), Statements("seed", ROWS)
    plan = make_plan(schema, seeds)
    with Worker(server) as first:
        built = first.template(plan)
    with Worker(server) as second:
        reused = second.template(plan)
    assert (built.built, reused.built) == (True, False)
    assert built.name == reused.name
    assert schema.ran + seeds.ran == [*SCHEMA, *ROWS]


@pytest.mark.slow
def test_two_projects_with_the_same_sources_share_neither_template_nor_layer(server, make_plan):
    schema, seeds, schema_too, seeds_too = (Statements(*each) for each in (("migration", SCHEMA), ("seed", ROWS)) * 2)
    with Worker(server) as worker:
        one = worker.template(make_plan(schema, seeds, name="shop"))
        other = worker.template(make_plan(schema_too, seeds_too, name="shop two"))
        look = worker.look(make_plan(schema, seeds, name="a third"))
    assert (one.built, other.built) == (True, True)
    assert schema_too.ran + seeds_too.ran == [*SCHEMA, *ROWS]
    assert other.reason == look.reason == "first build of this plan and profile", "no other project is named"
    assert (one.record.plan, other.record.plan) == ("shop", "shop two")


@pytest.mark.slow
def test_two_projects_whose_names_look_the_same_in_a_databases_name_share_nothing(server, make_plan):
    with Worker(server) as worker:
        built = [worker.template(make_plan(Statements("m", SCHEMA), name=name)) for name in ("The Shop", "the-shop")]
    assert [each.built for each in built] == [True, True]
    assert len({each.record.fingerprint for each in built}) == 2


def test_the_checkouts_of_a_project_share_its_templates_wherever_they_lie(server, make_plan, tmp_path):
    plan = make_plan(Statements("migration", SCHEMA), Statements("seed", ROWS))
    checkout = dataclasses.replace(plan, root=tmp_path / "another")
    checkout.root.mkdir()
    with Worker(server) as worker:
        built = worker.template(plan)
    with Worker(server) as worker:
        found = worker.template(checkout)
    assert (built.built, found.built) == (True, False)
    assert found.name == built.name


def test_two_projects_of_one_name_hear_nothing_of_each_other_and_share_what_is_the_same(server, make_plan, tmp_path):
    def plan(root, *stages):
        (tmp_path / root).mkdir(exist_ok=True)
        return dataclasses.replace(make_plan(*stages), root=tmp_path / root)

    def last(templates, plan):
        comparison = templates.compare(plan)
        return comparison and [(difference.kind, difference.name) for difference in comparison.differences]

    one, two = (plan(name, Statements(f"billing {name}", SCHEMA)) for name in ("one", "two"))
    with Worker(server) as worker:
        assert worker.template(one).reason == FIRST
    with Worker(server) as worker:
        look = worker.look(two)
        assert (look.reason, look.opened, last(worker, two)) == (FIRST, (), None), "not how it differs from the other"
        assert worker.template(two).reason == FIRST
    edited = Statements("billing one", [*SCHEMA, "SELECT 1"])
    checkout, changed = dataclasses.replace(one, root=plan("checkout").root), plan("checkout", edited)
    with Worker(server) as worker:
        assert last(worker, plan("one", edited)) == [("added", "billing one 2")]
        assert last(worker, changed) is None
        assert last(worker, checkout) == [], "it is there already"
        shared = worker.template(checkout)
        assert (shared.built, shared.record.projects) == (False, (one.project, checkout.project))
        assert last(worker, changed) == [("added", "billing one 2")], "what a checkout has used is its last build, too"
        assert "billing one 2" in worker.look(changed).reason


def test_a_build_that_does_not_say_for_which_project_is_no_ones_last(server, make_plan):
    plan = make_plan(Statements("migration", SCHEMA))
    with Worker(server) as worker:
        template = worker.template(plan)
        unnamed = dataclasses.replace(template.record, projects=())
        worker.admin.comment(template.name, unnamed.to_json())
        look = worker.look(make_plan(Statements("migration", ["SELECT 1"])))
    assert (look.reason, look.opened) == (OLDER_FORM, ())


def test_a_clone_holds_what_the_plan_made(worker, make_plan):
    clone = worker.clones.make(worker.template(make_plan(Statements("migration", SCHEMA), Statements("seed", ROWS))))
    assert rows(clone.address) == [f"shop {number}" for number in range(1, 6)]


def test_nobody_can_connect_to_a_template_not_even_a_superuser(worker, make_plan, server_address):
    template = worker.template(make_plan(Statements("migration", SCHEMA)))
    with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
        psycopg.connect(server_address.with_database(template.name).conninfo)


@pytest.mark.slow
def test_one_more_migration_runs_one_migration(worker, make_plan):
    worker.template(make_plan(Statements("migration", SCHEMA[:1]), Statements("seed", ROWS)))
    longer = Statements("migration", SCHEMA)
    worker_plan = make_plan(longer, Statements("seed", ROWS), profile="later")
    worker.template(worker_plan)
    assert longer.ran == [SCHEMA[1]]


@pytest.mark.slow
def test_a_changed_seed_runs_no_migration(worker, make_plan):
    worker.template(make_plan(Statements("migration", SCHEMA), Statements("seed", ROWS)))
    schema, seeds = Statements("migration", SCHEMA), Statements("seed", ["INSERT INTO shop (name) VALUES ('other')"])
    clone = worker.clones.make(worker.template(make_plan(schema, seeds, profile="other")))
    assert schema.ran == []
    assert rows(clone.address) == ["other"]


@pytest.mark.slow
def test_a_rebuild_says_in_one_line_what_changed(server, make_plan):
    with Worker(server) as worker:
        worker.template(make_plan(Statements("migration", SCHEMA), Statements("seed", ROWS)))
    with Worker(server) as worker:
        again = worker.template(make_plan(Statements("migration", (*SCHEMA, "SELECT 1")), Statements("seed", ROWS)))
    assert again.built
    assert "migration 2" in again.reason
    assert "\n" not in again.reason


def test_a_failed_build_leaves_nothing_and_is_not_tried_twice_by_one_worker(worker, make_plan, databases):
    before = databases()
    broken = Statements("migration", ["CREATE TABLE a ()", "SELECT 1/0"])
    plan = make_plan(broken)
    for _ in range(2):
        with pytest.raises(BuildError, match="A statement failed"):
            worker.template(plan)
    assert broken.ran == ["CREATE TABLE a ()", "SELECT 1/0"]
    assert databases() <= before


def test_after_a_failed_seed_the_migrations_are_kept_as_a_layer(worker, make_plan):
    with pytest.raises(BuildError):
        worker.template(make_plan(Statements("migration", SCHEMA), Statements("seed", ["SELECT 1/0"])))
    schema = Statements("migration", SCHEMA)
    worker.template(make_plan(schema, Statements("seed", ROWS), profile="mended"))
    assert schema.ran == []


@pytest.mark.slow
def test_settings_and_grants_on_the_database_are_carried_over(worker, make_plan, server_address):
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS carried_reader")
        admin.execute("CREATE ROLE carried_reader")
    change = """DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET search_path TO shop, "$user", "a b"', current_database());
        EXECUTE format('ALTER DATABASE %I SET "app.tenant" TO %L', current_database(), 'it''s = 1');
        EXECUTE format('ALTER ROLE carried_reader IN DATABASE %I SET work_mem TO ''5MB''', current_database());
        EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database());
        EXECUTE format('GRANT TEMP ON DATABASE %I TO carried_reader WITH GRANT OPTION', current_database());
        END $$"""
    seeds = Statements("seed", ["SELECT 1"])
    clone = worker.clones.make(worker.template(make_plan(Statements("migration", [change]), seeds)))
    with psycopg.connect(clone.address.conninfo) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ('shop, "$user", "a b"',)
        assert connection.execute("SHOW app.tenant").fetchone() == ("it's = 1",)
        for_role = (
            "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'carried_reader'::regrole AND setdatabase ="
        )
        mine = " (SELECT oid FROM pg_database WHERE datname = current_database())"
        assert connection.execute(for_role + mine).fetchone() == (["work_mem=5MB"],)
        asked = "SELECT has_database_privilege('carried_reader', current_database(), %s)"
        privileges = ["CONNECT", "TEMP WITH GRANT OPTION"]
        assert [connection.execute(asked, [each]).fetchone()[0] for each in privileges] == [False, True]
    worker.clones.discard(clone)
    worker.close()
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        for (name,) in admin.execute(
            "SELECT datname FROM pg_database WHERE datacl::text LIKE '%carried_reader%'"
        ).fetchall():
            admin.execute(f'ALTER DATABASE "{name}" IS_TEMPLATE false')
            admin.execute(f'DROP DATABASE "{name}"')
        admin.execute("DROP ROLE carried_reader")


@pytest.mark.slow
def test_another_profile_builds_on_the_common_layer(worker, make_plan):
    schema = Statements("migration", SCHEMA)
    worker.template(make_plan(schema, Statements("seed", ROWS), profile="demo"))
    worker.template(make_plan(schema, Statements("seed", ["SELECT 2"]), profile="minimal"))
    assert schema.ran == list(SCHEMA)


def test_two_plans_under_one_name_are_refused(worker, make_plan):
    worker.template(make_plan(Statements("migration", SCHEMA)))
    with pytest.raises(ConfigError, match="Two different plans have the name"):
        worker.template(make_plan(Statements("migration", SCHEMA[:1])))


@pytest.mark.slow
def test_a_data_file_that_the_build_read_belongs_to_the_template(server, make_plan, tmp_path):
    data = tmp_path / "prices.csv"
    data.write_text("1")

    class Reading(Statements):
        def run(self, target, first):
            self.statements = [f"CREATE TABLE price AS SELECT {data.read_text()} AS amount"]
            super().run(target, first)

    def built():
        plan = make_plan(Reading("seed", ["read prices.csv"]))
        with Worker(server) as worker:
            template = worker.template(plan)
            return template.built, rows(worker.clones.make(template).address, "SELECT amount FROM price")

    assert built() == (True, [1])
    assert built() == (False, [1])
    data.write_text("2")
    assert built() == (True, [2])
    data.write_text("1")
    assert built() == (False, [1])


@pytest.mark.slow
def test_reseed_builds_anew_once_for_all_workers_of_a_run(server, make_plan):
    schema = Statements("migration", SCHEMA)
    plan = make_plan(schema)
    outcomes = []
    for token in ("", "run 1", "run 1", "run 2", ""):
        with Worker(server, token=token) as worker:
            outcomes.append(worker.template(plan).built)
    assert outcomes == [True, True, False, True, False]


def test_the_cheapest_strategy_is_measured_and_kept_with_the_template(worker, make_plan, monkeypatch):
    monkeypatch.setattr(building, "_waits_for_disk", lambda _build: True)
    record = worker.template(make_plan(Statements("migration", SCHEMA))).record
    assert record.strategy in {"FILE_COPY", "WAL_LOG"}
    assert record.size > 5_000_000
    assert record.seconds > 0


def test_on_a_server_that_does_not_wait_for_its_disk_nothing_is_tried(worker, make_plan, monkeypatch):
    monkeypatch.setattr(building, "_waits_for_disk", lambda _build: False)
    monkeypatch.setattr(building, "_trial_seconds", lambda _build, _strategy: pytest.fail("a trial"))
    assert worker.template(make_plan(Statements("migration", SCHEMA))).record.strategy == "FILE_COPY"


@pytest.mark.parametrize(
    ("file_copies", "log", "cheapest"),
    [((29, 15), 24, "FILE_COPY"), ((15, 29), 24, "FILE_COPY"), ((90, 80), 24, "WAL_LOG")],
)
def test_what_the_build_left_to_write_is_not_held_against_file_copy(
    worker, make_plan, monkeypatch, file_copies, log, cheapest
):
    timed = {"FILE_COPY": iter(file_copies), "WAL_LOG": iter([log])}
    monkeypatch.setattr(building, "_trial_seconds", lambda _build, strategy: next(timed[strategy]))
    monkeypatch.setattr(building, "_waits_for_disk", lambda _build: True)
    assert worker.template(make_plan(Statements("migration", SCHEMA))).record.strategy == cheapest


def test_a_clone_starts_with_statistics_and_a_visibility_map(worker, make_plan):
    clone = worker.clones.make(worker.template(make_plan(Statements("migration", SCHEMA), Statements("seed", ROWS))))
    assert rows(clone.address, "SELECT (reltuples, relallvisible)::text FROM pg_class WHERE relname = 'shop'") == [
        "(5,1)"
    ]


@pytest.mark.slow
def test_a_template_with_a_damaged_comment_is_built_anew_and_left_alone(worker, server, make_plan, databases):
    plan = make_plan(Statements("migration", SCHEMA))
    damaged = worker.template(plan).name
    worker.admin.comment(damaged, '{"seeddb": 1, "plan": 3')
    with Worker(server) as other:
        again = other.template(plan)
    assert again.built
    assert {damaged, again.name} <= databases()


@pytest.mark.slow
def test_names_of_any_length_and_script_make_names_that_postgres_takes(worker, make_plan):
    for name in ("ärzte", "x" * 200, 'Robert\'); DROP TABLE "students";--', "日本"):
        template = worker.template(make_plan(Statements("migration", SCHEMA[:1]), name=name))
        assert len(template.name.encode()) <= 63
        assert parse_name(template.name)


def test_a_plan_with_another_server_owner_has_another_fingerprint(worker):
    names = [part.name for part in worker._source.base]
    assert names == ["PostgreSQL", "encoding", "collation", "character type", "locale", "locale provider", "owner"]


def test_a_plan_put_together_from_another_keeps_its_layers(worker, make_plan):
    plan = make_plan(Statements("migration", SCHEMA))
    worker.template(plan)
    renamed = dataclasses.replace(plan, profile="another")
    assert worker.template(renamed).record.fingerprint == worker.template(plan).record.fingerprint
