"""Nothing that is stored lets a secret be guessed: what depends on one depends on it through a costly digest alone."""

from __future__ import annotations

import dataclasses
import json
import os
import time
import uuid
from itertools import count

import psycopg
import pytest
from psycopg import sql

from pytest_seeddb.cli.applying import Wish, apply_to
from pytest_seeddb.cli.build import build
from pytest_seeddb.cli.dump import Request, dump
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.fingerprint import digests
from pytest_seeddb.fingerprint.digests import Part
from pytest_seeddb.fingerprint.recording import begin
from pytest_seeddb.plan.plan import Progress
from pytest_seeddb.seeds.planning import Plans, plan_of
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.settings.settings import Found, load_settings
from pytest_seeddb.templates.exports import KeptDumps
from pytest_seeddb.templates.record import Record
from pytest_seeddb.templates.salt import salt_of, server_origin

_numbers = count(1)
VOLATILE = {"created", "moments", "seconds", "sealed", "size", "strategy", "numbering", "carried"}
SEEDERS = """
import pathlib
from typing import Annotated
from sqlalchemy import text
from pytest_seeddb import Param, seeder

@seeder
def admin(session, pin: Annotated[int, Param(secret=True)] = 0, api_token: str = "x", dsn: str = "", stores: int = 1):
    environment = pathlib.Path(__file__).parent / ".env"
    if environment.exists():
        environment.read_text()
    session.execute(text("INSERT INTO shop VALUES ('a shop')"))
"""


class Project:
    def __init__(self, root):
        self.root, self.name = root, f"secretive{next(_numbers)}i{os.getpid()}"
        (root / "db").mkdir(parents=True)
        (root / "pyproject.toml").write_text(
            f'[tool.seeddb]\nname = "{self.name}"\nmigrations = "db"\nseeds = ["{self.name}"]\n'
        )
        (root / "db/001.sql").write_text(f"CREATE TABLE shop (name text); -- {uuid.uuid4()}")
        (root / f"{self.name}.py").write_text(SEEDERS)

    def settings(self, **secrets):
        parameters = {name: Found(value, f"the option --set {name}") for name, value in secrets.items()}
        return load_settings(self.root, parameters=parameters)

    def plan(self, **secrets):
        begin(self.root)
        return plan_of(self.settings(**secrets))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def no_secrets_digest(monkeypatch):
    """The costly digest is the same for each secret: whatever differs now shows another trace of it."""
    monkeypatch.setattr(digests, "_sealed", lambda *_secret: f"scrypt:{'0' * 32}")


def stored(server, project, settings, empty_database):
    """All that one way of giving secrets leaves: in comments, names, ledgers, dumps and exports."""
    begin(settings.root)
    plan = plan_of(settings)
    exported, dumped = project.root / "template.export", project.root / "state.sql"
    built = build(settings.replace(reseed=True), Progress(), exported=exported)
    dump(settings, Request(dumped), Progress())
    apply_to(empty_database, plan, Wish(tier="essential"), Progress())
    with psycopg.connect(empty_database.conninfo, autocommit=True) as connection:
        columns = "name, digest, finished, numbers"
        ledger = connection.execute(f"SELECT {columns} FROM seeddb.seeddb_step ORDER BY name").fetchall()
        ledger += connection.execute("SELECT fingerprint, profile, tier, version FROM seeddb.seeddb_marker").fetchall()
        connection.execute("DROP SCHEMA seeddb CASCADE; DROP TABLE shop")
    with psycopg.connect(server.address.conninfo) as connection:
        query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
        record = json.loads(connection.execute(query, [built.template]).fetchone()[0])
    tail = exported.read_bytes()
    return {
        "ledger": ledger,
        "record": {key: value for key, value in record.items() if key not in {*VOLATILE, "token"}},
        "name": built.template[: -len("_12345678")],
        "exported": record["fingerprint"].encode() in tail and record["salt"].encode() in tail,
        "dumped": [line for line in dumped.read_text().splitlines() if "restrict" not in line],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"pin": "123456"}, {"pin": "654321"}),
        ({"api_token": "123456"}, {"api_token": "a much longer one, which is more than forty characters"}),
        ({"dsn": "postgresql://app:123456@db/shop"}, {"dsn": "postgresql://app:654321@db/shop"}),
        ({"pin": "123456", "api_token": "654321"}, {"pin": "654321", "api_token": "123456"}),
    ],
)
def test_nothing_stored_depends_on_a_secret_but_through_its_costly_digest(
    server, project, empty_database, no_secrets_digest, one, other
):
    first = stored(server, project, project.settings(**one), empty_database)
    assert first["record"]["salt"]
    assert first["exported"]
    assert first == stored(server, project, project.settings(**other), empty_database)


@pytest.mark.slow
def test_a_file_of_secrets_that_the_build_read_is_stored_through_the_costly_digest_alone(
    server, project, empty_database, no_secrets_digest
):
    traces = []
    for pin in ("123456", "654321"):
        (project.root / ".env").write_text(f"PIN={pin}\n")
        traces.append(stored(server, project, project.settings(), empty_database))
    assert traces[0] == traces[1]
    assert [".env", f"scrypt:{'0' * 32}"] in traces[0]["record"]["opened"]


def test_a_million_guesses_take_more_than_an_hour_on_two_cores():
    started = time.process_time()
    digests._sealed.__wrapped__("parameter pin", "123456", "a salt")
    assert (time.process_time() - started) * 1e6 / 2 > 3600


@pytest.mark.slow
def test_machines_that_share_a_server_find_the_template_by_the_secret_and_another_secret_has_another(server, project):
    templates = []
    for pin in ("123456", "123456", "654321"):
        with Worker(server) as worker:
            templates.append(worker.template(project.plan(pin=pin)))
    first, same, other = templates
    assert [template.built for template in templates] == [True, False, True]
    assert same.name == first.name
    assert first.record.fingerprint != other.record.fingerprint
    assert other.reason == "parameter pin changed (used by seed " + f"{project.name}:admin)"


@pytest.mark.slow
def test_a_secret_file_that_changed_builds_anew_and_one_that_did_not_does_not(server, project):
    built = []
    for pin in ("123456", "123456", "654321"):
        (project.root / ".env").write_text(f"PIN={pin}\n")
        with Worker(server) as worker:
            built.append(worker.template(project.plan()).built)
    assert built == [True, False, True]


@pytest.mark.slow
def test_the_salt_is_the_servers_and_the_plans_and_stands_in_the_record(server, project, tmp_path):
    other = Project(tmp_path / "other")
    with Worker(server) as worker:
        plan = project.plan(pin="123456")
        look = worker.look(plan)
        record = worker.template(plan).record
        own = Plans().of(other.settings(pin="123456"))
        parts = dict(worker.look(own).steps)[f"seed {other.name}:admin"]
    assert record.salt
    assert dict(look.steps)[f"seed {project.name}:admin"] == record.steps[-1][1]
    pins = {part for part in (*parts, *record.steps[-1][1]) if part.name == "parameter pin"}
    assert len(pins) == 2, "the same secret of two projects"
    assert all(part.text == "set" and part.digest != "set" for part in pins)


@pytest.mark.slow
def test_a_plan_without_secrets_asks_for_no_salt_and_computes_no_costly_digest(server, project, monkeypatch):
    monkeypatch.setattr(digests, "_sealed", None)
    monkeypatch.setattr("pytest_seeddb.templates.templates.server_origin", None)
    with Worker(server) as worker:
        assert worker.template(project.plan(stores="3")).record.salt == ""


@pytest.mark.slow
def test_two_values_of_a_secret_parameter_are_two_templates_in_one_run(server, project):
    plans = Plans()
    plan = plans.of(project.settings())
    with Worker(server) as worker:
        one, other = (worker.template(plans.vary(plan, None, {"pin": pin})) for pin in (123456, 654321))
        assert worker.template(plans.vary(plan, None, {"pin": 123456})).name == one.name
    assert one.name != other.name
    assert one.record.profile == other.record.profile == "default(pin=***)"


@pytest.mark.slow
def test_an_export_carries_its_salt_to_another_server(server, project, monkeypatch):
    settings = project.settings(pin="123456")
    exported = project.root / "template.export"
    monkeypatch.setattr("pytest_seeddb.templates.templates.server_origin", lambda _admin: "another server")
    monkeypatch.setattr("pytest_seeddb.templates.templates.user_origin", lambda: "another user")
    there = build(settings, Progress(), exported=exported)
    monkeypatch.undo()
    monkeypatch.syspath_prepend(project.root)
    here = build(settings, Progress(), imported=exported)
    assert here.reason == f"restored from {exported}"
    assert here.fingerprint != there.fingerprint
    with Worker(server) as worker:
        assert worker.template(plan_of(settings)).name == here.template
    other = build(project.settings(pin="654321"), Progress(), imported=exported)
    assert "parameter pin changed" in other.not_imported


@pytest.mark.slow
def test_a_dump_of_a_server_that_does_not_last_is_found_again_by_the_next_one(server, project, monkeypatch):
    ephemeral = dataclasses.replace(server, is_ephemeral=True)
    settings = project.settings(pin="123456")
    reasons = []
    for number in ("1", "1", "2"):
        monkeypatch.setattr("pytest_seeddb.templates.templates.server_origin", lambda _admin, own=number: own)
        with Worker(ephemeral, dumps=KeptDumps(settings)) as worker:
            template = worker.template(plan_of(settings))
            reasons.append(template.reason)
        with Admin(server.address) as admin:
            admin.drop(template.name)
    assert reasons[0] == "first build of this plan and profile"
    assert reasons[1:] == ["restored from the dump of an earlier container's"] * 2


def test_a_role_that_may_not_read_the_servers_number_has_a_salt_too(server_address):
    revoke, grant = (
        f"{verb} EXECUTE ON FUNCTION pg_control_system() {word} PUBLIC"
        for verb, word in (("REVOKE", "FROM"), ("GRANT", "TO"))
    )
    role = f"poor_{os.getpid()}"
    with psycopg.connect(server_address.conninfo, autocommit=True) as connection:
        login = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
            sql.Identifier(role), server_address.params.get("password", "")
        )
        connection.execute(login)
        try:
            with Admin(Address({**server_address.params, "user": role})) as admin:
                assert server_origin(admin)
                connection.execute(revoke)
                assert server_origin(admin) == ""
            assert salt_of("shop", "")
        finally:
            connection.execute(grant)
            connection.execute(f"DROP ROLE {role}")


def test_a_record_never_holds_what_a_secret_was():
    record = Record("shop", "default", "f", (("seed", digests.seal([Part("parameter pin", "set", "123456")], "s")),))
    assert "123456" not in record.to_json() + repr(Part("parameter pin", "set", "123456"))
    assert Record.from_json(record.to_json()) == record
