"""A template that goes through a file is the template that a build makes, or a build takes its place."""

from __future__ import annotations

import re
import subprocess
import threading
import uuid

import psycopg
import pytest
from handmade import Heard
from psycopg import sql

from pytest_seeddb.cli.build import build
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.plan.plan import Progress
from pytest_seeddb.seeds.inputs import static_digest
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.settings.settings import load_settings
from pytest_seeddb.templates.exports import Unusable, importing
from pytest_seeddb.templates.record import Record

TABLE = '[tool.seeddb]\nname = "exported {own}"\nmigrations = "db"\nseeds = ["seeds/*.sql"]\n'
SCHEMA = """
CREATE EXTENSION pg_trgm;
CREATE TABLE shop (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
CREATE SEQUENCE ticket START 7;
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET application_name = %L', current_database(), 'a''b'); END $$;
DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$;
GRANT SELECT ON shop TO PUBLIC;
"""
ROWS = """
INSERT INTO shop (name) VALUES ('c'), ('a'), ('b');
UPDATE shop SET name = 'c2' WHERE name = 'c';
SELECT nextval('ticket'), lo_from_bytea(0, 'x');
CREATE MATERIALIZED VIEW names AS SELECT name FROM shop;
"""


class Project:
    def __init__(self, root, address):
        self.root, self.address = root, address
        self.own = uuid.uuid4().hex[:8]
        (root / ".git").mkdir()
        self.write("pyproject.toml", TABLE.format(own=self.own))
        self.write("db/001.sql", f"{SCHEMA} -- {self.own}")
        self.write("seeds/rows.sql", f"{ROWS} -- {uuid.uuid4()}")
        self.file = root / "template.dump"

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    @property
    def settings(self):
        return load_settings(self.root)

    def build(self, **files):
        return build(self.settings, Progress(), **files)

    def export(self):
        found = self.build(exported=self.file)
        assert found.exported == str(self.file)
        return found

    def forget(self):
        """Drop every template of this project: what a machine that begins with nothing has."""
        with Admin(self.address) as admin:
            for each in admin.databases(rf"seeddb\_t\_exported\_{self.own}\_%"):
                admin.drop(each.name)

    def imported(self):
        self.forget()
        return self.build(imported=self.file)


@pytest.fixture
def project(tmp_path, server_address):
    made = Project(tmp_path, server_address)
    yield made
    made.forget()


@pytest.fixture
def look(server):
    """What a clone of a project's template looks like: rows where they lie, settings, grants."""

    def seen(project):
        with Worker(server) as worker:
            template = worker.template(plan_of(project.settings))
            clone = worker.clones.make(template)
            with psycopg.connect(clone.address.conninfo) as connection:
                found = [
                    connection.execute(statement).fetchall()
                    for statement in (
                        "SELECT ctid::text, * FROM shop",
                        "SELECT matviewname, ispopulated FROM pg_matviews",
                        "SELECT last_value, is_called FROM ticket",
                        "SELECT count(*) FROM pg_largeobject_metadata",
                        "SELECT relacl::text FROM pg_class WHERE relname = 'shop'",
                        "SELECT extname FROM pg_extension ORDER BY 1",
                    )
                ]
            return found, template.carried, template.record

    return seen


@pytest.mark.slow
def test_what_was_imported_is_what_was_built(project, look):
    project.export()
    before, carried, record = look(project)
    found = project.imported()
    assert (found.built, found.reason, found.not_imported) == (True, f"restored from {project.file}", "")
    after, carried_over, again = look(project)
    assert after == before
    assert carried_over == carried
    assert carried.settings
    assert carried.grants
    project.file.unlink()
    again_asked = project.build(imported=project.file)
    assert (again_asked.built, again_asked.not_imported) == (False, ""), "what is there needs no file"
    same = ("plan", "profile", "fingerprint", "steps", "opened", "layer")
    assert [getattr(again, name) for name in same] == [getattr(record, name) for name in same]


@pytest.mark.slow
def test_factories_sequences_go_on_after_an_import(project, look):
    seeder = """
import factory
from pytest_seeddb import seeder

class Row(factory.DictFactory):
    number = factory.Sequence(int)

@seeder
def rows(connection):
    Row.create_batch(3)
"""
    project.write(f"rows_{project.own}.py", f"{seeder}# {project.own}")
    project.write("pyproject.toml", TABLE.format(own=project.own).replace(".sql", f'.sql", "rows_{project.own}'))
    project.export()
    project.imported()
    _, _, record = look(project)
    assert record.numbering.after() == {"factory.base:DictFactory": 3}, "which its children share"


@pytest.mark.long  # several builds
def test_no_step_runs_for_an_import(project):
    project.export()
    project.forget()
    heard = Heard()
    build(project.settings, heard, imported=project.file)
    assert heard.steps == ["import template.dump"]


@pytest.mark.long  # several builds
def test_what_was_imported_is_not_exported_again_to_the_same_file(project):
    project.export()
    project.forget()
    before = project.file.stat().st_mtime_ns
    project.build(imported=project.file, exported=project.file)
    assert project.file.stat().st_mtime_ns == before


# -- what cannot be imported ----------------------------------------------------------------------


@pytest.mark.slow
def test_a_file_of_another_plan_says_what_changed_and_a_build_takes_its_place(project, look):
    project.export()
    project.write("seeds/rows.sql", "INSERT INTO shop (name) VALUES ('other');")
    found = project.build(imported=project.file, exported=project.file)
    assert (
        found.not_imported == f"{project.file} is of another plan: seeds/rows.sql changed (used by seed seeds/rows.sql)"
    )
    assert found.built
    assert [row[2] for row in look(project)[0][0]] == ["other"]
    assert project.imported().not_imported == "", "the new template was exported in its place"


@pytest.fixture(scope="module")
def exported(embedded_server, tmp_path_factory):
    """An exported template, its plan as the server sees it, and its settings."""
    made = Project(tmp_path_factory.mktemp("exported"), embedded_server.address)
    made.export()
    plan = plan_of(made.settings)
    with Worker(embedded_server) as worker:
        yield made.file.read_bytes(), plan, worker.look(plan), made.settings
    made.forget()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "is cut short, or was not written by `seeddb build --export`"),
        (lambda data: data[:-1], "is cut short"),
        (lambda data: data[: len(data) // 2], "is cut short"),
        (lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:], "is damaged"),
        (lambda data: data[100:], "is damaged"),
        (lambda data: data.replace(b'{\\"seeddb\\": 1', b'{\\"seeddb\\": 9'), "by another version of pytest-seeddb"),
    ],
    ids=["empty", "a byte short", "half", "a bit", "the head", "another format"],
)
def test_a_damaged_file_is_not_even_tried(exported, tmp_path, damage, message):
    data, plan, look, settings = exported
    file = tmp_path / "template.dump"
    file.write_bytes(data)
    importing(plan, look, settings, file)
    file.write_bytes(damage(data))
    with pytest.raises(Unusable, match=re.escape(message)):
        importing(plan, look, settings, file)


def test_a_file_that_is_not_there_is_told_and_a_build_takes_its_place(project):
    found = project.build(imported=project.file)
    assert found.not_imported == f"there is no {project.file}"
    assert found.built


@pytest.mark.long  # several builds
def test_data_files_that_changed_since_make_the_file_stale(project):
    module = f"seeds_{uuid.uuid4().hex}"
    project.write(
        f"{module}.py",
        "from pathlib import Path\ndef fill(connection):\n"
        "    name = Path('names.txt').read_text()\n"
        "    connection.exec_driver_sql(f\"INSERT INTO shop (name) VALUES ('{name}')\")\n",
    )
    project.write("names.txt", "first")
    table = TABLE.format(own=project.own).replace('"seeds/*.sql"', f'"{module}:fill"')
    project.write("pyproject.toml", table)
    project.export()
    key = static_digest(project.settings)
    project.write("names.txt", "second")
    assert static_digest(project.settings) == key, "the key for a cache cannot know it"
    assert "is of other code, data files or environment variables: names.txt changed" in project.imported().not_imported
    project.write("names.txt", "first")
    assert project.imported().not_imported == ""
    project.write("names.txt", "third")
    assert project.build().built, "the imported template knows its data files"


@pytest.mark.long  # several builds
def test_what_a_server_lacks_is_made_by_a_build(project):
    role = f"reader_{project.own}"
    made = (
        f"DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN END $$; GRANT SELECT ON shop TO {role};"
    )
    project.write("db/002.sql", made)
    # On a server of somebody else: on our own, a plan that makes a role has data of its own, and its role.
    table = (project.root / "pyproject.toml").read_text()
    project.write("pyproject.toml", f'{table}server = "{project.address.url}"\n')
    project.export()
    project.forget()
    with psycopg.connect(project.address.conninfo, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
        try:
            found = project.build(imported=project.file)
            assert (
                found.not_imported
                == f'{project.file} could not be restored: role "{role}" does not exist (SQLSTATE 42704)'
            )
            assert found.built
        finally:
            project.forget()
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


@pytest.mark.long  # several builds
def test_a_materialized_view_that_a_restore_would_change_is_made_by_a_build(project):
    project.write("seeds/rows.sql", f"{ROWS} INSERT INTO shop (name) VALUES ('d');")
    project.export()
    found = project.imported()
    assert "names: not refreshed after its tables were filled" in found.not_imported
    assert found.built


@pytest.mark.long  # several builds
def test_a_layer_that_is_there_is_built_upon(project, look):
    project.export()
    with Admin(project.address) as admin:
        for each in admin.databases(rf"seeddb\_t\_exported\_{project.own}\_%"):
            record = Record.from_json(each.comment)
            if record and not record.layer:
                admin.drop(each.name)
    assert project.build(imported=project.file).built
    assert [row[2] for row in look(project)[0][0]] == ["a", "b", "c2"]


@pytest.mark.long  # several builds
def test_many_who_import_at_once_make_one_template(project):
    project.export()
    project.forget()
    found = []
    threads = [threading.Thread(target=lambda: found.append(project.build(imported=project.file))) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({each.template for each in found}) == 1
    assert [each.not_imported for each in found] == [""] * 4
    with Admin(project.address) as admin:
        assert len(admin.databases(rf"seeddb\_t\_exported\_{project.own}\_%")) == 1


def test_a_file_that_cannot_be_written_is_an_error_of_usage(project):
    with pytest.raises(ConfigError, match="cannot be written"):
        project.build(exported=project.root / "no" / "such" / "file")


@pytest.mark.slow
def test_the_file_is_an_archive_that_pg_restore_reads_and_nothing_is_left_beside_it(project, server):
    project.export()
    program = find_program(project.settings, "pg_restore", wanted=server.major).path
    listed = subprocess.run([program, "-l", project.file], capture_output=True, text=True, check=True).stdout
    assert "TABLE DATA public shop" in listed
    assert [each.name for each in project.root.iterdir() if each.name.endswith(".part")] == []
