"""Alembic projects of every layout end in our database, whatever their env.py does."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
import uuid
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

import pytest_seeddb
from pytest_seeddb.errors import BuildError, ConfigError
from pytest_seeddb.migrations.sources import stages
from pytest_seeddb.plan.plan import Target
from pytest_seeddb.settings.settings import Settings

_numbers = count(1)

LOGGING = """
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(levelname)s %(message)s
"""

SYNC_ENV = """
from logging.config import fileConfig
from alembic import context
from sqlalchemy import create_engine, pool

config = context.config
if config.config_file_name is not None:
    fileConfig(config.config_file_name)
print("env.py was here")
engine = create_engine(THE_URL, poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=None, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()
"""

ASYNC_ENV = """
import asyncio
from alembic import context
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import create_async_engine

def do_run_migrations(connection):
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    engine = create_async_engine(THE_URL)
    async with engine.connect() as connection:
        await connection.run_sync(do_run_migrations)
    await engine.dispose()

asyncio.run(main())
"""

ATTRIBUTE_ENV = """
from alembic import context

connectable = context.config.attributes.get("connection", None)
assert connectable is not None
with CONNECT as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""


class Project:
    """An Alembic project in a directory."""

    def __init__(self, root, target):
        self.root = root
        self.target = target
        self.scripts = "migrations"
        self.source = "migrations in pyproject.toml"

    def ini(self, name="alembic.ini", **options):
        options = {"script_location": self.scripts, **options}
        lines = "".join(f"{key} = {value}\n" for key, value in options.items())
        return self.write(name, f"[alembic]\n{lines}{LOGGING}")

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def env(self, text=SYNC_ENV, url="postgresql://user:secret@nowhere.invalid/shop", **options):
        text = text.replace("THE_URL", url if url.startswith("os.") else repr(url)).replace("OPTIONS", repr(options))
        return self.write(f"{self.scripts}/env.py", f"import os\n{text}")

    def revision(self, revision, down=None, upgrade="", *, where=None, **extra):
        place = where or f"{self.scripts}/versions"
        body = textwrap.indent(upgrade or f"op.execute('CREATE TABLE t_{revision} (id int)')", "    ")
        further = "".join(f"{key} = {value!r}\n" for key, value in extra.items())
        return self.write(
            f"{place}/{revision}_step.py",
            f'"""step {revision}"""\nfrom alembic import op\nimport sqlalchemy as sa\n'
            f"revision = {revision!r}\ndown_revision = {down!r}\n{further}\n\ndef upgrade():\n{body}\n",
        )

    def stages(self, migrations="alembic.ini"):
        settings = Settings(
            root=self.root, migrations=migrations, env=self.target.env, sources={"migrations": self.source}
        )
        return stages(settings)

    def steps(self, migrations="alembic.ini"):
        return [step for stage in self.stages(migrations) for step in stage.steps]

    def run(self, migrations="alembic.ini", first=0):
        for stage in self.stages(migrations):
            stage.run(self.target, first)

    def tables(self, schema="public"):
        with psycopg.connect(self.target.address.conninfo) as own:
            rows = own.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema])
            return {row[0] for row in rows}


@pytest.fixture
def started():
    return []


@pytest.fixture
def project(tmp_path, empty_database, started):
    return Project(tmp_path, Target(empty_database, tmp_path, started=started.append))


@pytest.fixture
def decoy(server_address):
    """The developer's own database, in which nothing may happen."""
    name = f"decoy_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    address = server_address.with_database(name)
    yield address
    with psycopg.connect(address.conninfo) as own:
        assert own.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


def test_an_unchanged_env_migrates_our_database(project, started):
    project.ini()
    project.env()
    project.revision("0001")
    project.revision("0002", "0001")
    project.run()
    assert project.tables() == {"alembic_version", "t_0001", "t_0002"}
    assert [step.name for step in started] == [
        "migration 0001 step 0001 (0001_step.py)",
        "migration 0002 step 0002 (0002_step.py)",
    ]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_every_driver_of_a_sync_env_is_redirected(driver, project):
    project.ini()
    project.env(url=f"postgresql+{driver}://user:secret@nowhere.invalid/shop")
    project.revision("0001")
    project.run()
    assert "t_0001" in project.tables()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_async_env_migrates_our_database(driver, project):
    project.ini()
    project.env(ASYNC_ENV, url=f"postgresql+{driver}://user:secret@nowhere.invalid/shop")
    project.revision("0001")
    project.run()
    assert "t_0001" in project.tables()


@pytest.mark.parametrize("env", [SYNC_ENV, ASYNC_ENV])
def test_it_works_while_an_event_loop_runs(env, project):
    project.ini()
    driver = "asyncpg" if env is ASYNC_ENV else "psycopg"
    project.env(env, url=f"postgresql+{driver}://user:secret@nowhere.invalid/shop")
    project.revision("0001")

    async def main():
        project.run()

    asyncio.run(main())
    assert "t_0001" in project.tables()


def test_the_database_in_the_environment_is_not_touched(project, decoy, monkeypatch):
    monkeypatch.setenv("SHOP_URL", decoy.url_for("postgresql+psycopg"))
    project.ini()
    project.env(url="os.environ['SHOP_URL']")
    project.revision("0001")
    project.run()
    assert "t_0001" in project.tables()


def test_variables_of_the_settings_hold_our_url_and_keep_their_driver(project, decoy, monkeypatch):
    before = decoy.url_for("postgresql+asyncpg")
    monkeypatch.setenv("SHOP_URL", before)
    monkeypatch.delenv("OTHER_URL", raising=False)
    project.target = Target(project.target.address, project.root, ("SHOP_URL", "OTHER_URL"))
    name = project.target.address.database
    project.ini()
    project.env(
        "assert os.environ['SHOP_URL'].startswith('postgresql+asyncpg://')\n"
        f"assert {name!r} in os.environ['SHOP_URL']\n"
        "assert os.environ['OTHER_URL'].startswith('postgresql://')\n" + SYNC_ENV
    )
    project.revision("0001")
    project.run()
    assert os.environ["SHOP_URL"] == before
    assert "OTHER_URL" not in os.environ


@pytest.mark.parametrize("connect", ["__import__('contextlib').nullcontext(connectable)", "connectable.connect()"])
def test_an_env_that_honours_the_connection_attribute_gets_one(connect, project):
    project.ini()
    project.env(ATTRIBUTE_ENV.replace("CONNECT", connect))
    project.revision("0001")
    project.run()
    assert project.tables() == {"alembic_version", "t_0001"}


@pytest.mark.parametrize("level", ["READ COMMITTED", "AUTOCOMMIT"])
def test_an_engine_with_a_creator_is_found_out_before_anything_is_migrated(level, project, decoy):
    project.ini()
    project.env(
        SYNC_ENV.replace(
            "create_engine(THE_URL,",
            "create_engine('postgresql+psycopg://', creator=lambda: __import__('psycopg')"
            f".connect({decoy.conninfo!r}), isolation_level={level!r},",
        ),
        transaction_per_migration=True,
    )
    project.revision("0001")
    with pytest.raises(BuildError) as caught:
        project.run()
    assert decoy.database in str(caught.value)
    assert "creator=" in str(caught.value)
    assert "nothing was migrated" in str(caught.value)
    assert "t_0001" not in project.tables()


def test_an_env_for_another_kind_of_database_is_found_out(project):
    project.ini()
    project.env(url=f"sqlite:///{project.root}/shop.db")
    project.revision("0001")
    with pytest.raises(BuildError, match="only PostgreSQL connections are redirected"):
        project.run()


def test_an_env_without_a_connection_is_found_out(project):
    project.ini()
    project.env("from alembic import context\ncontext.configure(url='postgresql://x/y')\ncontext.run_migrations()\n")
    project.revision("0001")
    with pytest.raises(BuildError, match="did not connect to the database"):
        project.run()


def test_an_env_that_runs_no_migrations_is_found_out(project):
    project.ini()
    project.env("")
    project.revision("0001")
    with pytest.raises(BuildError, match=r"env\.py ran no migrations"):
        project.run()


def test_an_env_that_does_not_commit_is_found_out(project):
    project.ini()
    project.env(SYNC_ENV + "    # nothing more\n", transactional_ddl=True)
    text = (project.root / "migrations/env.py").read_text()
    text = text.replace(
        "    with context.begin_transaction():\n        context.run_migrations()", "    context.run_migrations()"
    )
    (project.root / "migrations/env.py").write_text(text)
    project.revision("0001")
    with pytest.raises(BuildError, match="not at the head"):
        project.run()


def test_branches_with_labels_dependencies_and_a_merge(project):
    project.ini()
    project.env()
    project.revision("a1", branch_labels=("orders",))
    project.revision("a2", "a1")
    project.revision("b1", depends_on="orders", branch_labels=["stock"])
    project.revision("b2", "b1", depends_on=("a2",))
    project.revision("m1", ("a2", "b2"))
    names = [step.name.split()[1] for step in project.steps()]
    assert names.index("a1") < names.index("b1")
    assert names.index("a2") < names.index("b2")
    assert names[-1] == "m1"
    project.run()
    assert {"t_a1", "t_a2", "t_b1", "t_b2", "t_m1"} < project.tables()


def test_two_heads_are_both_reached(project):
    project.ini()
    project.env()
    project.revision("0001")
    project.revision("0002", "0001")
    project.revision("0003", "0001")
    project.run()
    assert {"t_0002", "t_0003"} < project.tables()


def test_a_later_migration_runs_alone_on_what_is_there(project, started):
    project.ini()
    project.env()
    project.revision("0001")
    project.run()
    project.revision("0002", "0001")
    started.clear()
    project.run(first=1)
    assert [step.name.split()[1] for step in started] == ["0002"]
    assert "t_0002" in project.tables()


def test_a_version_table_of_another_name_and_schema(project):
    with psycopg.connect(project.target.address.conninfo) as own:
        own.execute("CREATE SCHEMA book")
    project.ini()
    project.env(version_table="chapters", version_table_schema="book")
    project.revision("0001")
    project.run()
    assert project.tables("book") == {"chapters"}


@pytest.mark.parametrize("per_migration", [True, False])
def test_an_index_made_concurrently(per_migration, project):
    project.ini()
    project.env(transaction_per_migration=per_migration)
    project.revision("0001")
    project.revision(
        "0002",
        "0001",
        "with op.get_context().autocommit_block():\n    op.execute('CREATE INDEX CONCURRENTLY ix ON t_0001 (id)')",
    )
    project.revision("0003", "0002")
    project.run()
    assert "t_0003" in project.tables()


LAYOUTS = {
    "beside": ({}, "migrations", "migrations/versions"),
    "here": ({"script_location": "%(here)s/db/scripts"}, "db/scripts", "db/scripts/versions"),
    "space": (
        {"version_locations": "one two", "path_separator": "space"},
        "migrations",
        "two",
    ),
    "os": (
        {"version_locations": f"%(here)s/one{os.pathsep}%(here)s/two", "version_path_separator": "os"},
        "migrations",
        "two",
    ),
    "old": ({"version_locations": "%(here)s/one, %(here)s/two"}, "migrations", "two"),
    "recursive": ({"recursive_version_locations": "true"}, "migrations", "migrations/versions/2026/11"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_of_an_ini(name, project):
    options, scripts, place = LAYOUTS[name]
    project.scripts = scripts
    project.ini(**options)
    project.env()
    project.revision("0001", where=place)
    assert len(project.steps()) == 1
    project.run()
    assert "t_0001" in project.tables()


def test_scripts_inside_a_package(project):
    package = f"shop_{uuid.uuid4().hex}"
    project.scripts = f"src/{package}/db"
    project.write(f"src/{package}/__init__.py", "")
    project.ini(script_location=f"{package}:db")
    project.env()
    project.revision("0001")
    project.run()
    assert "t_0001" in project.tables()


def test_an_ini_in_a_directory_that_is_meant_to_be_run_from_the_root(project):
    project.scripts = "backend/migrations"
    project.ini("backend/alembic.ini", script_location="backend/migrations")
    project.env()
    project.revision("0001")
    project.run("backend/alembic.ini")
    assert "t_0001" in project.tables()


def test_a_configuration_in_pyproject(project):
    project.write(
        "pyproject.toml",
        '[tool.alembic]\nscript_location = "%(here)s/migrations"\nversion_locations = ["%(here)s/one"]\n',
    )
    project.env()
    project.revision("0001", where="one")
    assert any("[tool.alembic]" in part.name for part in project.steps("pyproject.toml")[0].parts)
    project.run("pyproject.toml")
    assert "t_0001" in project.tables()


def test_env_finds_the_projects_own_modules(project):
    name = f"shop_{uuid.uuid4().hex}"
    project.write(f"src/{name}.py", "x = 1")
    project.ini()
    project.env(f"import {name}\n" + SYNC_ENV)
    project.revision("0001")
    before = list(sys.path)
    project.run()
    assert sys.path == before


def test_loggers_and_their_handlers_are_as_before(project, tmp_path):
    logger = logging.getLogger(f"shop.{uuid.uuid4().hex}")
    handler = logging.FileHandler(tmp_path / "log", mode="w")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    root = logging.getLogger()
    before = (root.level, list(root.handlers), [each.level for each in root.handlers])
    project.ini()
    project.env()
    project.revision("0001", upgrade="import logging; assert logging.getLogger().level == logging.WARNING")
    project.run()
    try:
        assert (root.level, list(root.handlers), [each.level for each in root.handlers]) == before
        assert not logger.disabled
        logger.info("still here")
        assert "still here" in (tmp_path / "log").read_text()
    finally:
        logger.removeHandler(handler)
        handler.close()


def test_nothing_is_printed(project, capfd):
    project.ini()
    project.env()
    project.revision("0001", upgrade="print('migrating')")
    project.run()
    assert capfd.readouterr() == ("", "")


def test_progress_may_print(project, capsys):
    project.target = Target(project.target.address, project.root, started=lambda step: print(step.name))
    project.ini()
    project.env()
    project.revision("0001")
    project.run()
    assert capsys.readouterr().out == "migration 0001 step 0001 (0001_step.py)\n"


def test_it_runs_in_the_projects_directory_and_comes_back(project):
    before = Path.cwd()
    project.ini()
    project.env(f"assert os.getcwd() == {str(project.root)!r}\n" + SYNC_ENV)
    project.revision("0001")
    project.run()
    assert Path.cwd() == before


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_a_failing_migration_is_told_in_full(driver, project):
    project.ini()
    project.env(url=f"postgresql+{driver}://user:secret@nowhere.invalid/shop")
    project.revision("0001")
    project.revision("0002", "0001", "print('on my way')\nop.execute('SELECT 1,\\n  missing FROM t_0001')")
    with pytest.raises(BuildError) as caught:
        project.run()
    text = str(caught.value)
    assert "The migration 0002 failed at migrations/versions/0002_step.py:10" in text
    assert "SQLSTATE 42703" in text
    assert 'column "missing" does not exist' in text
    assert "  missing FROM t_0001\n" in text
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if "missing FROM" in line)
    assert lines[at + 1].index("^") == lines[at].index("missing")
    assert "on my way" in text
    assert "secret" not in text


def test_a_failing_migration_of_an_async_env_is_told_in_full(project):
    project.ini()
    project.env(ASYNC_ENV, url="postgresql+asyncpg://user:secret@nowhere.invalid/shop")
    project.revision("0001", upgrade="op.execute('SELECT missing')")
    with pytest.raises(BuildError) as caught:
        project.run()
    text = str(caught.value)
    assert "The migration 0001 failed at migrations/versions/0001_step.py:9" in text
    assert "SQLSTATE 42703" in text
    assert "^" in text


def test_a_failing_env_is_told_with_its_line(project):
    project.ini()
    project.env("\n\nimport no_such_module_at_all\n")
    project.revision("0001")
    with pytest.raises(BuildError, match=r"env\.py failed at migrations/env\.py:4") as caught:
        project.run()
    assert "no_such_module_at_all" in str(caught.value)


def test_an_env_that_exits_is_told(project):
    project.ini()
    project.env("import sys\nsys.exit(3)\n")
    project.revision("0001")
    with pytest.raises(BuildError, match="SystemExit: 3"):
        project.run()


def test_no_migrations_are_no_stage(project):
    project.ini()
    project.env()
    assert project.stages() == ()


def test_a_missing_script_directory_names_the_file_and_the_key(project):
    project.ini(script_location="nowhere")
    with pytest.raises(ConfigError) as caught:
        project.stages()
    assert "script_location = nowhere" in str(caught.value)
    assert project.source in str(caught.value)


def test_revisions_that_are_computed_are_read_by_alembic_itself(project):
    project.ini()
    project.env()
    project.revision("0001")
    project.write(
        "migrations/versions/two.py",
        "'''the second'''\nfrom alembic import op\nrevision = '00' + '02'\ndown_revision = '0001'\n"
        "def upgrade():\n    op.execute('CREATE TABLE second ()')\n",
    )
    assert [step.name for step in project.steps()][1] == "migration 0002 the second (two.py)"
    project.run()
    assert "second" in project.tables()


def test_a_file_that_is_no_migration_is_told(project):
    project.ini()
    project.env()
    project.write("migrations/versions/notes.py", "x = 1\n")
    with pytest.raises(ConfigError, match=r"notes\.py"):
        project.stages()


def test_planning_imports_neither_alembic_nor_sqlalchemy_nor_the_migrations(project):
    project.ini()
    project.env("raise RuntimeError('env.py was run')")
    project.revision("0001", upgrade="pass", extra=1)
    path = project.root / "migrations/versions/0001_step.py"
    path.write_text(path.read_text() + "\nraise RuntimeError('migration was run')\n")
    code = (
        "import sys; from pathlib import Path; from pytest_seeddb.settings.settings import Settings\n"
        "from pytest_seeddb.migrations.sources import stages\n"
        f"assert stages(Settings(root=Path({str(project.root)!r}), migrations='alembic.ini'))\n"
        "print(sorted({'alembic', 'sqlalchemy', 'psycopg'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(pytest_seeddb.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "[]\n"


def test_adding_a_migration_leaves_the_steps_before_it_as_they_are(project):
    project.ini()
    project.env()
    project.revision("0001")
    project.revision("0002", "0001")
    before = project.steps()
    project.revision("0003", "0002")
    assert project.steps()[:2] == before


def test_the_environment_is_part_of_the_first_step(project):
    name = f"models_{uuid.uuid4().hex}"
    project.write(f"{name}.py", "x = 1")
    project.ini()
    project.env(f"import {name}\n" + SYNC_ENV)
    project.revision("0001")
    project.revision("0002", "0001")
    first, second = project.steps()
    names = {part.name for part in first.parts}
    assert {"alembic.ini", "migrations/env.py", "migrations/versions/0001_step.py"} < names
    assert {"package alembic", "package sqlalchemy"} < names
    assert f"{name}.py" not in names, "the models change often; the migrations do not read them"
    assert "migrations/env.py" not in {part.name for part in second.parts}


def test_what_a_migration_imports_is_part_of_its_step(project):
    name = f"rates_{uuid.uuid4().hex}"
    project.write(f"{name}.py", "x = 1")
    project.ini()
    project.env()
    path = project.revision("0001")
    path.write_text(f"import {name}\n" + path.read_text())
    assert f"{name}.py" in {part.name for part in project.steps()[0].parts}
