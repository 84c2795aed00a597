"""Layers in the middle of a history: a changed migration builds from there on, to what a build from nothing is."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace

import pytest
from attacks import times
from dumping import text_of
from handmade import Heard, Statements

from pytest_seeddb.clones.opening import worker_on
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.errors import BuildError
from pytest_seeddb.plan.plan import Indivisible, Target
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.settings.settings import load_settings
from pytest_seeddb.templates.record import Record
from pytest_seeddb.templates.scratch import Scratch

TABLE = '[project]\nname = "history-{own}"\n[tool.seeddb]\nmigrations = "{place}"\nseeds = ["seeds.sql"]\n'
ENV = """
from alembic import context
from sqlalchemy import create_engine, text

with create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nowhere").connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
        {more}
"""
REVISION = """
revision, down_revision = "{number:04}", {before!r}
from pathlib import Path
from alembic import op

def upgrade():
    word = Path("words.txt").read_text() if {reads} else ""
    op.execute("INSERT INTO log (entry) VALUES ('{entry} " + word + "')" if {number} else "{first}")
"""
FIRST = "CREATE TABLE log (id serial PRIMARY KEY, entry text)"


class History:
    """A project with a migration for each of its entries, after one that makes their table."""

    def __init__(self, root, kind, entries, *, reads=(), more="pass", first=FIRST):
        self.root, self.kind, self.entries, self.reads = root, kind, list(entries), set(reads)
        self.first = first
        (root / "migrations" / "versions").mkdir(parents=True)
        place = "alembic.ini" if kind == "alembic" else "migrations"
        (root / "pyproject.toml").write_text(TABLE.format(own=uuid.uuid4().hex[:8], place=place))
        (root / "seeds.sql").write_text("INSERT INTO log (entry) SELECT 'seeded ' || count(*) FROM log")
        (root / "words.txt").write_text("words")
        if kind == "alembic":
            (root / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n")
            (root / "migrations" / "env.py").write_text(ENV.format(more=more))
        self.write()

    def write(self):
        directory = self.root / "migrations" / ("versions" if self.kind == "alembic" else "")
        for path in directory.glob("0*"):
            path.unlink()
        for number, entry in enumerate(["", *self.entries]):
            if self.kind == "sql":
                text = f"INSERT INTO log (entry) VALUES ('{entry}')" if number else self.first
                (directory / f"{number:04}.sql").write_text(text)
            else:
                before = f"{number - 1:04}" if number else None
                fields = {"number": number, "before": before, "reads": number in self.reads, "first": self.first}
                (directory / f"{number:04}.py").write_text(REVISION.format(entry=entry, **fields))

    def build(self, server):
        """The numbers of the migrations that run now, and the template's text."""
        settings, heard = load_settings(self.root), Heard()
        plan = plan_of(settings)
        with worker_on(server, settings, heard) as worker:
            clone = worker.clones.make(worker.template(plan))
            made = text_of(clone.address, self.root / "made.sql")
            worker.clones.discard(clone)
        numbers = [name.split()[1] for name in heard.steps if name.startswith("migration")]
        return [int(number.rpartition("/")[2][:4]) for number in numbers], made

    def truth(self, database):
        for stage in plan_of(load_settings(self.root)).stages:
            stage.run(Target(database, self.root), 0)
        return text_of(database, self.root / "true.sql")


@pytest.fixture(autouse=True)
def fresh_files(monkeypatch):
    """An edit in the same second, of the same length, is seen."""
    monkeypatch.setattr("sys.dont_write_bytecode", True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sql", "alembic"])
def test_the_second_edit_of_a_migration_runs_it_and_what_follows(server, tmp_path, kind, empty_database):
    history = History(tmp_path, kind, "abcde")
    assert history.build(server)[0] == [0, 1, 2, 3, 4, 5]
    runs = {}
    for edit in ("x", "y", "z"):
        history.entries[3] = edit
        history.write()
        runs[edit], made = history.build(server)
    assert runs == {"x": [0, 1, 2, 3, 4, 5], "y": [4, 5], "z": [4, 5]}
    assert made == history.truth(empty_database)
    history.entries.append("f")
    history.write()
    assert history.build(server)[0] == [6]
    history.entries[4] = "w"
    history.write()
    assert history.build(server)[0] == [4, 5, 6]
    history.entries[4] = "v"
    history.write()
    assert history.build(server)[0] == [5, 6]
    assert history.build(server)[0] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sql", "alembic"])
def test_a_layer_is_kept_now_and_then_in_a_long_history(server, tmp_path, kind, monkeypatch):
    monkeypatch.setattr("pytest_seeddb.templates.templates._SPREAD", 4)
    history = History(tmp_path, kind, "abcdefghi", reads=[7] if kind == "alembic" else [])
    assert history.build(server)[0] == [*range(10)]
    with Worker(server) as worker:
        inner = [len(record.steps) for record in records(worker) if record.plan == plan_name(history) and record.inner]
    assert sorted(inner) == [4, 8]
    history.entries[6] = "x"
    history.write()
    assert history.build(server)[0] == [4, 5, 6, 7, 8, 9]
    if kind == "alembic":
        (tmp_path / "words.txt").write_text("other words")
        assert history.build(server)[0] == [7, 8, 9], "the layer before the file that was read"


def plan_name(history):
    return load_settings(history.root).name


def records(worker):
    texts = (database.comment for database in worker.admin.databases(r"seeddb\_t\_%"))
    return [record for text in texts if (record := Record.from_json(text))]


SCHEMAS = "CREATE SCHEMA app; CREATE TABLE app.log (LIKE log INCLUDING ALL); SET search_path TO app, public"
NEEDS_ALL = {
    "env.py": {"more": "connection.execute(text(\"SELECT 1 / count(*) FROM log WHERE entry LIKE 'e%'\"))"},
    "a setting": {"first": f"{FIRST}; {SCHEMAS}"},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", NEEDS_ALL.values(), ids=NEEDS_ALL)
def test_what_needs_all_migrations_in_one_session_is_run_with_all_of_them(server, tmp_path, empty_database, options):
    history = History(tmp_path, "alembic", "abcde", **options)
    history.build(server)
    for edit in ("x", "y"):
        history.entries[3] = edit
        history.write()
        ran, made = history.build(server)
        assert ran == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    assert made == history.truth(empty_database)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sql", "alembic"])
def test_whatever_is_edited_a_build_from_layers_comes_to_what_one_from_nothing_does(
    server, tmp_path, kind, monkeypatch, server_address
):
    monkeypatch.setattr("pytest_seeddb.templates.templates._SPREAD", 2)
    chance = random.Random(seed := uuid.uuid4().hex)
    history = History(tmp_path, kind, "abcdef", reads=[2, 5] if kind == "alembic" else [])
    edits = []
    for number in range(times(8, least=3)):
        edit = chance.choice(["change", "change", "append", "remove", "back", "data"])
        place = chance.randrange(len(history.entries))
        edits.append((edit, place))
        if edit == "change":
            history.entries[place] = f"{number}"
        elif edit == "append":
            history.entries.append("new")
        elif edit == "remove" and len(history.entries) > 3:
            history.entries.pop()
        elif edit == "back":
            history.entries[place] = "abcdefghijklmnopqrst"[place]
        else:
            (tmp_path / "words.txt").write_text(f"words {number % 3}")
        history.write()
        ran, made = history.build(server)
        with Scratch(server_address) as made_here:
            assert made == history.truth(made_here.empty()), (seed, edits, ran)


class Divisible(Statements):
    """A stage that stops where it is told to; not after the steps in ``refuses``, where it fails."""

    def __init__(self, name, statements, refuses=()):
        super().__init__(name, statements)
        self.refuses = refuses

    def stage(self):
        return replace(super().stage(), stops=range(1, len(self.statements)))

    def run(self, target, first):
        every, self.statements = self.statements, self.statements[: target.end]
        try:
            super().run(target, first)
        finally:
            self.statements = every
        if target.end in self.refuses:
            raise Indivisible


@pytest.mark.slow
def test_a_stage_that_cannot_stop_runs_as_a_whole(worker, make_plan, databases):
    worker.template(make_plan(Divisible("m", ["SELECT 1", "SELECT 2", "SELECT 3"])))
    before = databases()
    changed = Divisible("m", ["SELECT 1", "SELECT 2", "SELECT 4"], refuses=[2])
    worker.template(make_plan(changed, profile="changed"))
    assert changed.ran == ["SELECT 1", "SELECT 2", "SELECT 1", "SELECT 2", "SELECT 4"]
    assert len(databases() - before) == 1, "nothing is left of the first try"


@pytest.mark.slow
def test_a_migration_that_fails_is_not_tried_again_as_a_whole(worker, make_plan):
    worker.template(make_plan(Divisible("m", ["SELECT 1", "SELECT 2", "SELECT 3"])))
    broken = Divisible("m", ["SELECT 1", "SELECT 1/0", "SELECT 3"])
    with pytest.raises(BuildError):
        worker.template(make_plan(broken, profile="broken"))
    assert broken.ran == ["SELECT 1", "SELECT 1/0"]
