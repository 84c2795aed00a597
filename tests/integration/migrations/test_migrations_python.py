"""Schemas from a ``MetaData``, a callable or a command, and what is said about a wrong name."""

from __future__ import annotations

import os
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from pytest_seeddb.errors import BuildError, ConfigError
from pytest_seeddb.migrations.sources import stages
from pytest_seeddb.plan.plan import Step, Target
from pytest_seeddb.settings.settings import CommandSpec, Settings

MODELS = """
from sqlalchemy import Column, Integer, MetaData, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Order(Base):
    __tablename__ = "orders"
    __table_args__ = {"schema": "shop"}
    id: Mapped[int] = mapped_column(primary_key=True)

empty = MetaData()
number = 7
"""


@pytest.fixture
def started():
    return []


@pytest.fixture
def target(tmp_path, empty_database, started):
    return Target(empty_database, tmp_path, ("SHOP_URL",), started.append)


@pytest.fixture
def module(tmp_path):
    name = f"shop_{uuid.uuid4().hex}"

    def write(text=MODELS):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.fixture
def plan(target):
    def plan(migrations):
        return stages(Settings(root=target.root, migrations=migrations, sources={"migrations": "--the-test"}))

    return plan


@pytest.fixture
def ask(target):
    def ask(query):
        with psycopg.connect(target.address.conninfo) as own:
            return own.execute(query).fetchall()

    return ask


@pytest.mark.parametrize("attribute", ["Base.metadata", "Base"])
def test_metadata_is_created_with_its_schemas(attribute, module, plan, target, ask, started):
    path = f"{module()}:{attribute}"
    (stage,) = plan(path)
    stage.run(target, 0)
    assert ask("SELECT to_regclass('shop.orders')") == [("shop.orders",)]
    assert [step.name for step in started] == [f"schema {path}"]


def test_nothing_runs_where_it_has_run(module, plan, target, ask):
    (stage,) = plan(f"{module()}:Base.metadata")
    stage.run(target, 1)
    assert ask("SELECT to_regclass('shop.orders')") == [(None,)]


def test_metadata_without_tables_is_told(module, plan, target):
    (stage,) = plan(f"{module()}:empty")
    with pytest.raises(BuildError, match="holds no tables"):
        stage.run(target, 0)


def test_a_callable_gets_what_it_asks_for(module, plan, target, ask):
    name = module(
        "import os\nfrom sqlalchemy import text\n"
        "def migrate(connection):\n"
        "    connection.execute(text('CREATE TABLE t ()'))\n"
        "    assert os.environ['SHOP_URL'].startswith('postgresql://')\n"
    )
    (stage,) = plan(f"{name}:migrate")
    stage.run(target, 0)
    assert ask("SELECT to_regclass('t')") == [("t",)]
    assert "SHOP_URL" not in os.environ


def test_a_callable_with_an_engine_of_its_own_reaches_our_database(module, plan, target, ask):
    name = module(
        "from sqlalchemy import text\nfrom sqlalchemy.ext.asyncio import create_async_engine\n"
        "engine = create_async_engine('postgresql+asyncpg://u:p@nowhere.invalid/x')\n"
        "async def migrate():\n"
        "    async with engine.begin() as connection:\n"
        "        await connection.execute(text('CREATE TABLE t ()'))\n"
    )
    (stage,) = plan(f"{name}:migrate")
    stage.run(target, 0)
    assert ask("SELECT to_regclass('t')") == [("t",)]


def unusable_engines(urls):
    """No redirection covers them, so they would lead to the application's own database."""

    def connect(*_args, **_options):
        raise AssertionError("the application's own database was used")

    yield create_engine("sqlite://", creator=connect)
    yield create_engine(urls[0], creator=connect)
    yield create_async_engine(urls[1], async_creator=connect).sync_engine


@pytest.mark.parametrize(
    ("wanted", "driver"),
    [
        ("def migrate(engine: Engine)", "psycopg2"),
        ("def migrate(session: Session)", "psycopg2"),
        ("def migrate(connection: Connection)", "psycopg2"),
        ("async def migrate(engine: AsyncEngine)", "asyncpg"),
        ("async def migrate(session: AsyncSession)", "asyncpg"),
        ("def migrate(url: URL)", "psycopg2"),
        ("async def migrate(url: URL)", "asyncpg"),
    ],
)
def test_a_callable_gets_the_application_s_driver_and_options(wanted, driver, module, plan, target, ask):
    urls = [f"postgresql+{driver}://nobody@nowhere.invalid/none" for driver in ("psycopg2", "asyncpg")]
    engines = (
        *unusable_engines(urls),
        create_engine(urls[0], json_serializer=lambda _value: '"own"'),
        create_async_engine(urls[1], json_serializer=lambda _value: '"own"').sync_engine,
    )
    parameter = wanted.partition("(")[2].partition(":")[0]
    bound = {"engine": "engine", "session": "session.get_bind()", "connection": "connection.engine", "url": "engine"}
    is_async = wanted.startswith("async")
    create = f"create_{'async_' if is_async else ''}engine(url, json_serializer=lambda _value: '\"own\"')"
    lines = [
        "from sqlalchemy import URL, Connection, Engine, JSON, bindparam, create_engine, text",
        "from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine",
        "from sqlalchemy.orm import Session",
        f"{wanted}:",
        *([f"    engine = {create}"] if parameter == "url" else []),
        f"    assert {bound[parameter]}.driver == {driver!r}",
        "    statement = text('CREATE TABLE made AS SELECT CAST(:value AS jsonb) AS value')",
        "    statement = statement.bindparams(bindparam('value', type_=JSON))",
    ]
    if parameter in {"engine", "url"}:
        lines.append(f"    {'async ' if is_async else ''}with engine.begin() as on:")
        lines.append(f"        {'await ' if is_async else ''}on.execute(statement, {{'value': 1}})")
        # Else its connection is closed by whoever collects the engine, perhaps in the middle of another test's loop.
        lines.extend(["    await engine.dispose()"] if is_async and parameter == "url" else [])
    else:
        lines.append(f"    {'await ' if is_async else ''}{parameter}.execute(statement, {{'value': 1}})")
    (stage,) = plan(f"{module(chr(10).join(lines))}:migrate")
    application = ModuleType(f"application_{uuid.uuid4().hex}")
    sys.modules[application.__name__] = application
    for number, engine in enumerate(engines):
        setattr(application, f"engine{number}", engine)
    paths = tuple(f"{application.__name__}:engine{number}" for number in range(len(engines)))

    stage.run(replace(target, settings=Settings(root=target.root, engines=paths)), 0)

    assert ask("SELECT value FROM made") == [("own",)]


def test_another_session_factory_is_another_template_and_migrates_no_database_again(module, tmp_path):
    settings = Settings(root=tmp_path, migrations=f"{module()}:Base.metadata")
    settings = [settings, *(settings.replace(session=[path]) for path in ("a:B", "a:C"))]
    steps = [stage.steps[0] for named in settings for stage in stages(named)]
    assert len({step.declared for step in steps}) == 3
    plain = Step(steps[0].name, steps[0].parts)
    assert {(step.versions, step.parts_before) for step in steps} == {(plain.versions, plain.parts_before)}


def test_a_failing_callable_is_told_with_its_line(module, plan, target):
    name = module("from sqlalchemy import text\ndef migrate(connection):\n    connection.execute(text('SELECT x'))\n")
    (stage,) = plan(f"{name}:migrate")
    with pytest.raises(BuildError) as caught:
        stage.run(target, 0)
    assert f"{name}:migrate failed at {name}.py:3" in str(caught.value)
    assert "SQLSTATE 42703" in str(caught.value)


def test_what_is_neither_is_refused(module, plan, target):
    (stage,) = plan(f"{module()}:number")
    with pytest.raises(ConfigError, match="neither a MetaData nor a function"):
        stage.run(target, 0)


def test_a_missing_attribute_is_told(module, plan, target):
    (stage,) = plan(f"{module()}:Bas.metadata")
    with pytest.raises(ConfigError, match="Did you mean 'Base'") as caught:
        stage.run(target, 0)
    assert "--the-test" in str(caught.value)


def test_a_missing_module_is_told_before_anything_is_imported(plan, tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "shop" / "models.py").write_text("")
    with pytest.raises(ConfigError, match="Did you mean 'models'") as caught:
        plan("shop.model:Base")
    assert "no module 'shop.model'" in str(caught.value)


def test_planning_imports_nothing_of_the_users(module, plan):
    name = module("raise RuntimeError('imported')")
    (stage,) = plan(f"{name}:Base.metadata")
    assert f"{name}.py" in {part.name for part in stage.steps[0].parts}
    assert name not in sys.modules


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [("alembc.ini", "Did you mean 'alembic.ini'"), ("db/migration", "Did you mean 'migrations'"), ("djngo", "")],
)
def test_what_is_not_there_is_told(wanted, hint, plan, tmp_path):
    (tmp_path / "alembic.ini").write_text("")
    (tmp_path / "db" / "migrations").mkdir(parents=True)
    with pytest.raises(ConfigError) as caught:
        plan(wanted)
    assert hint in str(caught.value)
    assert "--the-test" in str(caught.value)
    assert "alembic.ini" in str(caught.value)


@pytest.mark.parametrize("name", ["notes.txt", "pyproject.toml"])
def test_a_file_of_another_kind_is_refused(name, plan, tmp_path):
    (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match="does not say which migrations to run"):
        plan(name)


def test_a_command_finds_the_database_in_its_environment(plan, target, ask, monkeypatch, started):
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    (target.root / "in.sql").write_text("CREATE TABLE t ();")
    program = (
        "import os, psycopg; c = psycopg.connect(); c.execute(open('in.sql').read()); c.commit(); c.close();"
        "assert os.environ['DATABASE_URL'] == os.environ['SHOP_URL']; psycopg.connect(os.environ['SHOP_URL']).close();"
        "assert os.environ['PGDATABASE'] in os.environ['SHOP_URL']; assert not os.read(0, 1)"
    )
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # this Python's environment is not activated
    spec = CommandSpec(f'{Path(sys.executable).name} -c "{program}"', ("*.sql",))
    (stage,) = plan(spec)
    stage.run(target, 0)
    monkeypatch.undo()
    assert ask("SELECT to_regclass('t')") == [("t",)]
    assert {part.name for part in stage.steps[0].parts} == {"command", "in.sql"}
    assert started == list(stage.steps)


def test_a_failing_command_shows_its_output_without_secrets(plan, target):
    address = type(target.address)({**target.address.params, "password": "s3cr3t!"})
    (target.root / "in").write_text("")
    (stage,) = plan(CommandSpec("echo out $PGPASSWORD $DATABASE_URL; echo err >&2; exit 3", ("in",)))
    with pytest.raises(BuildError, match="failed with exit status 3") as caught:
        stage.run(Target(address, target.root), 0)
    text = str(caught.value)
    assert "out ***" in text
    assert "err" in text
    assert "s3cr3t" not in text


@pytest.mark.parametrize(
    ("command", "message"),
    [("no-such-program-here up", "was not found"), ("kill -KILL $$", "ended by SIGKILL"), ("./in", "status 126")],
)
def test_what_ended_a_command_is_explained(command, message, plan, target):
    (target.root / "in").write_text("")
    (stage,) = plan(CommandSpec(command, ("in",)))
    with pytest.raises(BuildError, match=message):
        stage.run(target, 0)


def test_only_the_end_of_a_long_output_is_shown(plan, target):
    (target.root / "in").write_text("")
    (stage,) = plan(CommandSpec("seq 1000; exit 1", ("in",)))
    with pytest.raises(BuildError, match="970 lines before") as caught:
        stage.run(target, 0)
    assert "1000" in str(caught.value)


def test_no_setting_is_no_stage(plan):
    assert plan(None) == ()
