"""What `seeddb init` recognises in a project, and what it writes."""

from __future__ import annotations

import ast
import gzip
import sys
import textwrap
import tomllib

import pytest

from pytest_seeddb.cli.init import init
from pytest_seeddb.cli.init.proposal import Proposal
from pytest_seeddb.errors import ConfigError, SeedDbError
from pytest_seeddb.settings.settings import KEYS, load_settings

ENV_PY = "from alembic import context\n"
ALEMBIC = {
    "alembic.ini": "[alembic]\nscript_location = migrations\n",
    "migrations/env.py": ENV_PY,
    "migrations/script.py.mako": "",
    "migrations/versions/0001_first.py": "revision = '0001'\ndown_revision = None\n",
}
BASE = """
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    class Base(DeclarativeBase):
        pass
"""
USER = """
    from sqlalchemy.orm import Mapped, mapped_column
    from {base} import Base

    class {name}(Base):
        __tablename__ = "{name}"
        id: Mapped[int] = mapped_column(primary_key=True)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Lays files, and gives what `init` makes of them."""
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])

    def laid(files, *, dry_run=True):
        for name, text in {"pyproject.toml": '[project]\nname = "shop"\n', **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text) if isinstance(text, bytes) else path.write_text(textwrap.dedent(text))
        return init(tmp_path, dry_run=dry_run, imports=False)

    return laid


def table(found):
    """The settings that it proposes, and those in comments."""
    text = found.files[-1].text
    commented = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    values = tomllib.loads(text)
    return values.get("tool", {"seeddb": values})["seeddb"], tomllib.loads("\n".join(commented))


def engine(url, maker="create_engine"):
    module = "sqlalchemy" if maker == "create_engine" else "sqlalchemy.ext.asyncio"
    return f"import os\nfrom {module} import {maker}\nengine = {maker}({url})\n"


# -- the schema ----------------------------------------------------------------------------------

MODELS = {"shop/__init__.py": "", "shop/models.py": BASE + USER.format(base="shop.models", name="User")}
LITESTAR = {
    "shop/__init__.py": "",
    "shop/config.py": """
        from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig
        alchemy = SQLAlchemyAsyncConfig(connection_string="postgresql+asyncpg://localhost/shop")
    """,
    "shop/server.py": """
        from advanced_alchemy.extensions.litestar import SQLAlchemyPlugin
        from shop import config
        plugin = SQLAlchemyPlugin(config=config.alchemy)
    """,
    "alembic.ini": "[alembic]\nscript_location = migrations\n",
    "migrations/env.py": "from alembic import context\nconfig: 'AlembicCommandConfig' = context.config\n",
    "migrations/script.py.mako": "",
}
PLAN = "%project=shop\n\na 2026-01-01T00:00:00Z A B <a@b>\n"
DBMATE = {"db/migrations/20240101_one.sql": "-- migrate:up\nCREATE TABLE a ();\n-- migrate:down\nDROP TABLE a;\n"}


@pytest.mark.parametrize(
    ("files", "migrations"),
    [
        (ALEMBIC, "alembic.ini"),
        ({f"backend/{name}": text for name, text in ALEMBIC.items()}, "backend/alembic.ini"),
        (
            {
                **{name: text for name, text in ALEMBIC.items() if name != "alembic.ini"},
                "pyproject.toml": '[tool.alembic]\nscript_location = "%(here)s/migrations"\n',
            },
            "pyproject.toml",
        ),
        (
            {
                "backend/conf/migrate.ini": "[alembic]\nscript_location = app/migrations\n",
                **{f"backend/app/{name}": text for name, text in ALEMBIC.items() if name != "alembic.ini"},
            },
            "backend/conf/migrate.ini",
        ),
        (DBMATE, "db/migrations"),
        ({"sql/schema/1_a.sql": "-- +goose Up\nCREATE TABLE a ();", "sql/queries/a.sql": "SELECT 1"}, "sql/schema"),
        ({"migrations/V1__a.sql": "CREATE TABLE a ();", "migrations/V2__b.sql": "CREATE TABLE b ();"}, "migrations"),
        ({"sql/tables.sql": "create table a ();"}, "sql"),
        ({"db/a.sql": "-- depends: b\nSELECT 1;", "db/b.sql": "SELECT 1;", "migrations/c.sql": "SELECT 1;"}, "db"),
        ({"db/1.do.sql": "SELECT 1;", "migrations/c.sql": "SELECT 1;"}, "db"),
        ({"db/1.sql": "CREATE TABLE a ();", "migrations/helpers.sql": "SELECT 1;"}, "db"),
        ({"prisma/migrations/1_init/migration.sql": "CREATE TABLE a ();"}, "prisma/migrations"),
        ({"migrations/1_a/up.sql": "CREATE TABLE a ();", "migrations/1_a/down.sql": "DROP TABLE a;"}, "migrations"),
        ({"sql/up/1.sql": "CREATE TABLE a ();", "sql/down/1.sql": "CREATE TABLE b ();"}, "sql/up"),
        ({"db/1.sql": "CREATE TABLE a ();", "db/1_undo.sql": "CREATE TABLE b ();"}, "db"),
        ({"sqitch.plan": PLAN, "deploy/a.sql": "CREATE TABLE a ();"}, "sqitch.plan"),
        ({"db/sqitch.plan": PLAN, "db/deploy/a.sql": "CREATE TABLE a ();"}, "db/sqitch.plan"),
        ({"db/tables.sql": "CREATE TABLE a ();", "db/seed.sql": "INSERT INTO a DEFAULT VALUES;"}, "db/tables.sql"),
        ({"schema.sql": "CREATE TABLE a ();"}, "schema.sql"),
        (MODELS, "shop.models:Base.metadata"),
        ({**MODELS, **ALEMBIC}, "alembic.ini"),
        ({**MODELS, **DBMATE}, "db/migrations"),
        ({**ALEMBIC, **DBMATE}, "alembic.ini"),
        (LITESTAR, "shop.config:alchemy"),
        ({**LITESTAR, "shop/config.py": "alchemy = SETTINGS.alchemy()\n"}, "shop.config:alchemy"),
        ({**LITESTAR, **ALEMBIC}, "alembic.ini"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_makes_the_schema_is_recognised(project, files, migrations):
    assert table(project(files))[0]["migrations"] == migrations


def test_sql_below_a_changelog_of_liquibase_is_left_to_liquibase(project):
    sql = {"db/changes/1.sql": "CREATE TABLE a ();"}
    with pytest.raises(SeedDbError, match=r"db/db\.changelog-master\.xml says which of its changes Liquibase runs"):
        project({**sql, "db/db.changelog-master.xml": "<databaseChangeLog/>"})
    assert table(project({**sql, "db/db.changelog-master.xml": "<other/>"}))[0]["migrations"] == "db/changes"


def test_a_directory_of_migrations_that_is_refused_is_a_note(project):
    with pytest.raises(SeedDbError, match=r"migrations was not taken: .* holds migrations of more than one format"):
        project({"migrations/1_a.up.sql": "SELECT 1;", "migrations/V1__a.sql": "SELECT 1;"})


def test_a_seed_that_runs_among_the_migrations_is_no_seed(project):
    files = {"db/1_a.sql": "CREATE TABLE a ();", "db/2_b.sql": "CREATE TABLE b ();", "db/seed.sql": "SELECT 1"}
    values = table(project(files))[0]
    assert (values["migrations"], values["seeds"]) == ("db", ["seeds"])


def test_a_configuration_of_advanced_alchemy_has_the_engine_too(project):
    assert table(project(LITESTAR))[0]["engines"] == ["shop.config:alchemy"]


def test_an_env_py_that_only_advanced_alchemy_runs_is_not_taken_without_a_configuration(project):
    files = {name: text for name, text in LITESTAR.items() if name not in {"shop/config.py", "shop/server.py"}}
    with pytest.raises(SeedDbError, match=r"migrations/env\.py runs only with a configuration of Advanced Alchemy"):
        project(files)
    assert table(project({**files, **MODELS}))[0]["migrations"] == "shop.models:Base.metadata"


def test_what_was_seen_beside_it_is_told(project):
    found = project({**ALEMBIC, **DBMATE, **{f"old/{name}": text for name, text in ALEMBIC.items()}})
    first = "was not taken: alembic.ini was found first"
    assert found.notes == (f"old/alembic.ini {first}", f"db/migrations {first}")


def test_alembics_directory_without_a_configuration_is_told(project):
    files = {f"shop/{name}": text for name, text in ALEMBIC.items() if name != "alembic.ini"}
    assert "shop/migrations has Alembic's env.py" in project({**MODELS, **files}).notes[0]


BROKEN_INI = {"alembic.ini": "[alembic]\nscript_location = nowhere\n"}


def test_an_alembic_ini_that_leads_nowhere_is_passed_over_and_said_so(project):
    found = project({**BROKEN_INI, **DBMATE})
    assert table(found)[0]["migrations"] == "db/migrations"
    assert "alembic.ini was not taken: Alembic's script directory has no env.py" in found.notes[0]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"db/queries/report.sql": "SELECT 1", "tests/schema.sql": "CREATE TABLE a ();"},
        {".venv/pyvenv.cfg": "", ".venv/migrations/1.sql": "CREATE TABLE a ();"},
        {"env/pyvenv.cfg": "", "env/migrations/1.sql": "CREATE TABLE a ();"},
        {"node_modules/prisma/migrations/1_a/migration.sql": "CREATE TABLE a ();"},
        {"shop.py": "def f(:\n"},
        {"shop.py": "\xff\xfe"},
    ],
)
def test_where_nothing_makes_a_schema_nothing_is_written_and_the_error_says_what_was_looked_for(
    project, tmp_path, files
):
    with pytest.raises(SeedDbError, match="The project has no migrations or models that seeddb recognises") as raised:
        project(files, dry_run=False)
    assert not isinstance(raised.value, ConfigError)
    assert "no alembic.ini, no [tool.alembic], no directory of *.sql migrations" in raised.value.saw
    assert "seeddb" not in (tmp_path / "pyproject.toml").read_text()


SHOP = "from django.db import models\nclass Shop(models.Model): pass\n"


def test_where_nothing_that_was_seen_can_be_used_the_error_says_why(project, tmp_path):
    with pytest.raises(SeedDbError, match="No migrations or models that were found can be used") as raised:
        project(BROKEN_INI, dry_run=False)
    assert "alembic.ini was not taken: Alembic's script directory has no env.py" in raised.value.saw
    assert "seeddb" not in (tmp_path / "pyproject.toml").read_text()


MANAGE = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n"


@pytest.mark.parametrize(
    "files",
    [
        {"manage.py": MANAGE},
        {"site/manage.py": MANAGE},
        {"pyproject.toml": '[tool.pytest.ini_options]\nDJANGO_SETTINGS_MODULE = "shop.settings"\n'},
    ],
)
def test_django_is_recognised(project, files):
    assert table(project(files))[0] == {"migrations": "django", "seeds": ["seeds"]}


@pytest.mark.parametrize("above", [False, True])
def test_a_project_below_the_root_gets_its_table_there_unless_pytest_is_configured_above(project, tmp_path, above):
    files = {"apps/api/manage.py": MANAGE, "apps/api/shop/__init__.py": "", "apps/api/shop/models.py": SHOP}
    found = project({**files, **({"pytest.ini": "[pytest]\n"} if above else {})})
    home, seeds, commands = (".", "seeds", ()) if above else ("apps/api", "shop.seeds", ("cd apps/api",))
    assert found.directory == str(tmp_path / home)
    assert table(found)[0] == {"migrations": "django", "seeds": [seeds]}
    assert found.next == (*commands, "seeddb build", "pytest --seed-db")


def test_django_goes_before_another_schema(project):
    assert table(project({**DBMATE, "manage.py": MANAGE}))[0]["migrations"] == "django"


CLINIC = {
    "manage.py": MANAGE,
    "shop/__init__.py": "",
    "shop/models.py": "class Shop(models.Model): pass\nclass Item(TimeStampedModel): pass\n",
    "shop/management/__init__.py": "",
    "shop/management/commands/__init__.py": "",
    "shop/management/commands/seed_demo.py": "",
    "shop/management/commands/runbot.py": "",
    "shop/fixtures/kinds.json": "[]",
    "people/__init__.py": "",
    "people/models.py": "class Person(models.Model): pass\n",
}


def test_a_django_projects_seeds_go_to_the_application_with_the_most_models(project):
    seeds, _ = project(CLINIC).files
    assert seeds.file == "shop/seeds.py"
    assert "# from shop.models import Shop, Item" in seeds.text
    ast.parse(seeds.text)


def test_models_in_a_package_of_modules_belong_to_its_application(project):
    files = {"shop/db/__init__.py": "", "shop/db/models/__init__.py": "", "shop/db/models/shop.py": SHOP}
    assert project({"manage.py": MANAGE, "shop/__init__.py": "", **files}).files[0].file == "shop/db/seeds.py"


def test_what_seeds_a_django_project_already_is_suggested(project):
    declared, suggested = table(project(CLINIC))
    assert declared == {"migrations": "django", "seeds": ["shop.seeds"]}
    commands = [{"django": "seed_demo", "tier": "demo"}, {"django": "loaddata kinds.json"}]
    assert suggested == {"seeds": ["shop.seeds", *commands]}


FLASK = {
    "migrations/alembic.ini": "[alembic]\n",
    "migrations/env.py": "from flask import current_app\n",
    "shop/__init__.py": "",
    "shop/models.py": """
        from flask_sqlalchemy import SQLAlchemy
        db = SQLAlchemy()

        class User(db.Model):
            id = db.Column(db.Integer, primary_key=True)
    """,
}


def test_flask_migrate_runs_by_its_own_command_where_the_url_comes_from_the_environment(project):
    settings = {"shop/config.py": 'import os\nURI = os.environ["DATABASE_URL"]\n'}
    found, _ = table(project({**FLASK, **settings}))
    assert found["migrations"] == {"command": "flask db upgrade", "inputs": ["migrations/**/*.py"]}
    assert found["env"] == "DATABASE_URL"


def test_flask_is_told_which_module_has_the_application_where_it_does_not_look(project):
    settings = {"shop/config.py": 'import os\nURI = os.environ["DATABASE_URL"]\n'}
    made = {"shop/serve.py": "from shop import create_app\napp = create_app()\n"}
    found, _ = table(project({**FLASK, **settings, **made}))
    assert found["migrations"]["command"] == "flask --app shop.serve db upgrade"


def test_flask_migrate_with_a_url_of_its_own_would_migrate_another_database_so_the_models_are_taken(project):
    found = project(FLASK)
    assert table(found)[0]["migrations"] == "shop.models:db.metadata"
    assert "`flask db upgrade`" in found.notes[0]
    found = project({"shop/web.py": "def create_app():\n    return Flask(__name__)\n"})
    assert table(found)[0] == {"migrations": "shop.web:create_app", "seeds": ["shop.seeds"], "engines": "all"}


# -- models --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "path"),
    [
        ({"models.py": BASE + USER.format(base="models", name="User")}, "models:Base.metadata"),
        (
            {
                "src/shop/__init__.py": "",
                "src/shop/models.py": BASE + USER.format(base="shop.models", name="User"),
            },
            "shop.models:Base.metadata",
        ),
        (
            {
                "shop/__init__.py": "",
                "shop/base.py": BASE,
                "shop/models/__init__.py": "from .user import User\nfrom .item import Item\n",
                "shop/models/user.py": USER.format(base="shop.base", name="User"),
                "shop/models/item.py": USER.format(base="..base", name="Item"),
            },
            "shop.models:User.metadata",
        ),
        (
            {
                "shop/__init__.py": "",
                "shop/db/__init__.py": "from shop.db.base_class import Base\n",
                "shop/db/base_class.py": BASE,
                "shop/db/all.py": "from shop.db import Base\nfrom shop.user import User\nfrom shop.item import Item\n",
                "shop/user.py": USER.format(base="shop.db", name="User"),
                "shop/item.py": USER.format(base="shop.db", name="Item"),
            },
            "shop.db.all:Base.metadata",
        ),
        (
            {
                "shop/__init__.py": "",
                "shop/models/__init__.py": "from shop.models.user import *\n",
                "shop/models/user.py": BASE + USER.format(base="shop.models.user", name="User"),
            },
            "shop.models.user:Base.metadata",
        ),
        (
            {
                "shop.py": """
                    import sqlalchemy as sa
                    metadata = sa.MetaData()
                    users = sa.Table("users", metadata, sa.Column("id", sa.Integer))
                """
            },
            "shop:metadata",
        ),
        (
            {
                "shop.py": """
                    from sqlalchemy.ext.declarative import declarative_base
                    from sqlalchemy import Column, Integer
                    Base = declarative_base()

                    class Timed(Base):
                        __abstract__ = True

                    class User(Timed):
                        __tablename__ = "users"
                        id = Column(Integer, primary_key=True)
                """
            },
            "shop:Base.metadata",
        ),
        (
            {
                "shop/__init__.py": "",
                "shop/database.py": """
                    from flask_sqlalchemy import SQLAlchemy
                    db = SQLAlchemy()
                    Model = db.Model
                """,
                "shop/user.py": """
                    from shop.database import Model, db

                    class User(Model):
                        id = db.Column(db.Integer, primary_key=True)
                """,
            },
            "shop.user:db.metadata",
        ),
        (
            {
                "shop.py": """
                    from sqlmodel import Field, SQLModel

                    class UserBase(SQLModel):
                        name: str

                    class User(UserBase, table=True):
                        id: int | None = Field(default=None, primary_key=True)
                """
            },
            "shop:SQLModel.metadata",
        ),
    ],
)
def test_the_metadata_is_named_where_all_models_are_imported(project, files, path):
    found = project(files)
    assert table(found)[0]["migrations"] == path
    assert found.notes == ()


def test_modules_that_import_everything_from_each_other_are_read(project):
    files = {
        "shop/__init__.py": "",
        "shop/models.py": "from shop.other import *\n"
        + textwrap.dedent(BASE + USER.format(base="shop.models", name="User")),
        "shop/other.py": "from shop.models import *\n",
    }
    assert table(project(files))[0]["migrations"] == "shop.models:Base.metadata"


def test_models_that_no_module_imports_together_are_told(project):
    files = {
        "shop/__init__.py": "",
        "shop/base.py": BASE,
        "shop/user.py": USER.format(base="shop.base", name="User"),
        "shop/item.py": USER.format(base="shop.base", name="Item"),
    }
    assert "leaves out shop/user.py: name a module that imports all models" in project(files).notes[0]


def test_classes_that_only_look_like_models_are_none(project):
    files = {"shop.py": "class Base:\n    pass\n\nclass User(Base):\n    __tablename__ = 'users'\n"}
    with pytest.raises(SeedDbError):
        project(files)


# -- engines, variables, dumps, seeds ------------------------------------------------------------

CACHED = """
    from functools import lru_cache
    from sqlalchemy import create_engine

    @lru_cache
    def get_engine():
        return create_engine(URL)
"""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"db.py": engine('os.environ["DATABASE_URL"]')}, ["db:engine"]),
        ({"src/shop/db.py": engine("URL"), "src/shop/__init__.py": ""}, ["shop.db:engine"]),
        ({"shop/db.py": engine("URL", "create_async_engine")}, ["shop.db:engine"]),
        (
            {"shop/db.py": "import sqlalchemy as sa\nif True:\n    e: sa.Engine = sa.create_engine(URL)\n"},
            ["shop.db:e"],
        ),
        ({"a.py": engine("URL"), "b.py": engine("URL")}, ["a:engine", "b:engine"]),
        ({"shop.py": CACHED}, ["shop:get_engine"]),
        ({"db.py": engine("'sqlite:///x.db'")}, None),
        ({"db.py": "def create_engine(): ...\nengine = create_engine()\n"}, None),
        ({"tests/db.py": engine("URL"), "migrations/env.py": engine("URL")}, None),
        ({"services/shop/__init__.py": "", "services/shop/db.py": engine("URL")}, None),
    ],
)
def test_engines_that_modules_make_are_named(project, files, expected):
    assert table(project({**ALEMBIC, **files}))[0].get("engines") == expected


def test_an_engine_made_in_a_function_suggests_all_engines(project):
    found, commented = table(
        project(
            {**ALEMBIC, "db.py": "from sqlalchemy import create_engine\ndef make():\n    return create_engine(URL)\n"}
        )
    )
    assert "engines" not in found
    assert commented["engines"] == "all"


def test_an_application_below_the_root_is_pointed_out(project):
    found = project({**DBMATE, "services/shop/__init__.py": "", "services/shop/db.py": engine("URL")})
    assert "seeddb init -C services" in found.notes[0]


PYDANTIC = """
    from pydantic import Field, PostgresDsn
    from pydantic_settings import BaseSettings, SettingsConfigDict

    class Settings(BaseSettings):
        {config}
        name: str = "shop"
        {field}
"""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('import os\nURL = os.environ["DATABASE_URL"]\n', "DATABASE_URL"),
        ('import os\nURL = os.getenv("SHOP_DB_URI", "postgresql://localhost/shop")\n', "SHOP_DB_URI"),
        ('from os import environ\nURL = environ.get("POSTGRES_DSN")\n', "POSTGRES_DSN"),
        ('from decouple import config\nURL = config("DATABASE_URL", default="postgresql:///shop")\n', "DATABASE_URL"),
        ('import os\nA, B = os.environ["READ_DB_URL"], os.environ["WRITE_DB_URL"]\n', ["READ_DB_URL", "WRITE_DB_URL"]),
        ('import os\nURL = os.environ["TEST_DATABASE_URL"]\nKEY = os.environ["API_URL"]\n', None),
        (PYDANTIC.format(config="", field="database_url: str"), "DATABASE_URL"),
        (PYDANTIC.format(config="", field="store: PostgresDsn"), "STORE"),
        (
            PYDANTIC.format(
                config='model_config = SettingsConfigDict(env_prefix="shop_")', field="db_url: str = 'postgresql:///x'"
            ),
            "SHOP_DB_URL",
        ),
        (PYDANTIC.format(config="", field='db_url: str = Field(validation_alias="the_dsn")'), "THE_DSN"),
    ],
)
def test_variables_that_hold_the_url_are_named(project, code, expected):
    assert table(project({**ALEMBIC, "shop.py": code}))[0].get("env") == expected


@pytest.mark.parametrize(
    "code",
    [
        engine('os.environ.get("DATABASE_URL", "postgresql+asyncpg://localhost/shop")', "create_async_engine"),
        textwrap.dedent(PYDANTIC.format(config="", field='database_url: str = "postgresql+asyncpg:///x"'))
        + engine("Settings().database_url", "create_async_engine"),
    ],
)
def test_a_variable_whose_url_has_a_driver_is_only_suggested(project, code):
    """Set to a URL without one, the module that makes the engine could not be imported."""
    found, commented = table(project({**ALEMBIC, "shop.py": code}))
    assert found["engines"] == ["shop:engine"]
    assert "env" not in found
    assert commented["env"] == "DATABASE_URL"


DUMP = "--\n-- PostgreSQL database dump\n--\nCREATE TABLE a (id int);\nCOPY public.a (id) FROM stdin;\n1\n\\.\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("seed-db.sql", DUMP),
        ("db/seed-db.sql.gz", gzip.compress(DUMP.encode(), mtime=0)),  # or its name would change with the clock
        ("backup.dump", b"PGDMP\x01\x10\x00"),
    ],
)
def test_a_dump_is_suggested(project, name, content):
    found = project({**ALEMBIC, name: content})
    assert table(found)[1] == {"dump": name}
    assert table(found)[0]["seeds"] == ["seeds"]


def test_a_corrupt_gz_file_is_not_taken_for_a_dump(project):
    whole = gzip.compress(DUMP.encode() * 100, mtime=0)
    found = project({**ALEMBIC, "seed-db.sql.gz": whole[:20] + b"\xff" * 20 + whole[40:], "half.sql.gz": whole[:40]})
    assert table(found)[1] == {}


def test_a_dump_of_the_schema_alone_is_neither_suggested_nor_taken_for_a_migration(project):
    found = project({**DBMATE, "db/schema.sql": DUMP.partition("COPY")[0]})
    assert table(found) == ({"migrations": "db/migrations", "seeds": ["seeds"]}, {})


def test_seeds_that_are_there_are_used_and_none_are_written(project):
    seeds = "from pytest_seeddb import seeder\n@seeder\ndef roles(session): ...\n"
    found = project({**DBMATE, "shop/__init__.py": "", "shop/filling.py": seeds, "db/seeds/roles.sql": "SELECT 1"})
    assert table(found)[0]["seeds"] == ["shop.filling", "db/seeds/*.sql"]
    assert [each.file for each in found.files] == ["pyproject.toml"]


FILLING = """
    def init_db(session):
        session.add(object())

    def create_tables():
        Base.metadata.create_all(engine)

    def seed_nothing():
        pass
"""
SCRIPT = "from shop.filling import {0} as fill\n\ndef main():\n    fill()\n\nif __name__ == '__main__':\n    main()\n"


@pytest.mark.parametrize(
    ("files", "seeds"),
    [
        ({"shop/initial_data.py": SCRIPT.format("init_db")}, ["shop.filling:init_db"]),
        ({"scripts/fill.py": SCRIPT.format("init_db")}, ["shop.filling:init_db"]),
        ({"pyproject.toml": '[project.scripts]\nfill = "shop.filling:init_db"\n'}, ["shop.filling:init_db"]),
        ({"shop/initial_data.py": SCRIPT.format("create_tables")}, ["shop.seeds"]),
        ({"shop/initial_data.py": SCRIPT.format("init_db").partition("if __name__")[0]}, ["shop.seeds"]),
    ],
)
def test_a_function_that_a_script_calls_to_fill_the_database_is_a_seed(project, files, seeds):
    found = project({**DBMATE, "shop/__init__.py": "", "shop/filling.py": FILLING, **files})
    assert table(found)[0]["seeds"] == seeds


def test_a_command_that_fills_the_database_is_told_and_not_called(project):
    command = "import click\n\n@click.command()\n@click.option('--number')\ndef seed_all(number): ...\n"
    found = project({**DBMATE, "shop/__init__.py": "", "shop/cli.py": command})
    assert table(found)[0]["seeds"] == ["shop.seeds"]
    assert "shop.cli:seed_all was not taken: it is a command" in found.notes[0]


@pytest.mark.slow
def test_what_cannot_be_imported_is_not_proposed_and_the_reason_is_told(project, tmp_path):
    files = {
        **ALEMBIC,
        **DBMATE,
        "migrations/env.py": "from alembic import context\nimport nowhere\n",
        "shop/__init__.py": "",
        "shop/db.py": engine("'postgresql+psycopg://nowhere.invalid/shop'") + "print('printed')\n",
        "shop/broken.py": engine("'postgresql+psycopg:///shop'") + "1 / 0\n",
        "shop/ends.py": engine("'postgresql+psycopg:///shop'") + "os._exit(7)\n",
        "shop/connects.py": engine("'postgresql+psycopg:///shop'") + "engine.connect()\n",
        "shop/filling.py": "def seed_number(number): ...\n",
        "shop/fill.py": SCRIPT.format("seed_number"),
    }
    project(files)
    found = init(tmp_path, dry_run=True)
    assert table(found)[0] == {
        "migrations": "db/migrations",
        "seeds": ["shop.seeds"],
        "engines": ["shop.connects:engine", "shop.db:engine"],
    }
    for note, expected in zip(
        found.notes,
        (
            "alembic.ini was not taken: env.py fails: ModuleNotFoundError: No module named 'nowhere'",
            "shop.filling:seed_number was not taken: shop.filling:seed_number asks for 'number'",
            "shop.broken:engine was not taken: The module 'shop.broken' fails while it is imported: ZeroDivisionError",
            "shop.ends:engine was not taken: its import ends the process with 7",
        ),
        strict=True,
    ):
        assert expected in note
    for path in tmp_path.glob("db/migrations/*"):
        path.unlink()
    with pytest.raises(SeedDbError, match="No migrations or models that were found can be used") as raised:
        init(tmp_path, dry_run=True)
    assert "No module named 'nowhere'" in raised.value.saw
    assert "--no-import" in raised.value.remedy


@pytest.mark.slow
def test_a_variable_that_cannot_hold_the_url_of_a_seeded_test_is_not_proposed(project, tmp_path):
    config = "import os\nURL = os.environ.get('DATABASE_URL', 'postgresql://db/shop')\n"
    files = {
        **ALEMBIC,
        "migrations/env.py": "from alembic import context\nfrom shop.config import URL\n",
        "shop/__init__.py": "",
        "shop/config.py": f"{config}if '@/' in URL:\n    raise ValueError('empty host')\n",
    }
    assert table(project(files))[0]["env"] == "DATABASE_URL"
    found = init(tmp_path, dry_run=True)
    assert table(found)[0] == {"migrations": "alembic.ini", "seeds": ["shop.seeds"]}
    assert found.notes[0].startswith(
        "DATABASE_URL cannot hold a seeded test's URL: env.py fails: ValueError: empty host"
    )


@pytest.mark.parametrize(
    ("files", "module", "file"),
    [
        (DBMATE, "seeds", "seeds.py"),
        (MODELS, "shop.seeds", "shop/seeds.py"),
        ({**DBMATE, "src/shop/__init__.py": ""}, "shop.seeds", "src/shop/seeds.py"),
        ({**MODELS, "shop/seeds.py": "# ours\n"}, "shop.seeders", "shop/seeders.py"),
        ({**MODELS, "shop/seeds/readme.txt": ""}, "shop.seeders", "shop/seeders.py"),
        ({**DBMATE, "shop/db.py": engine("URL"), "zoo/__init__.py": ""}, "shop.seeds", "shop/seeds.py"),
    ],
)
def test_a_seeds_module_goes_into_the_applications_package_under_a_name_that_is_free(project, files, module, file):
    found = project(files)
    assert table(found)[0]["seeds"] == [module]
    assert [each.file for each in found.files] == [file, "pyproject.toml"]


def test_the_seeds_module_is_sound_and_names_the_models(project):
    text = project(MODELS).files[0].text
    assert "# from shop.models import User" in text
    assert "# session.add(User(...))" in text
    assert [type(each).__name__ for each in ast.parse(text).body][-2:] == ["FunctionDef", "FunctionDef"]
    asynchronous = project({"shop/db.py": engine("URL", "create_async_engine")}).files[0].text
    assert [type(each).__name__ for each in ast.parse(asynchronous).body][-2:] == ["AsyncFunctionDef"] * 2


# -- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b'[project]\nname = "shop"  # ours\n\n\n[tool.black]\nline-length=99',
        b'[project]\r\nname = "shop"\r\n',
        b'tool.black.line-length = 99\n[project]\nname = "shop"\n',
    ],
)
def test_every_byte_of_pyproject_stays_and_the_table_is_added(project, tmp_path, before):
    project({**DBMATE, "pyproject.toml": before}, dry_run=False)
    after = (tmp_path / "pyproject.toml").read_bytes()
    assert after.startswith(before)
    assert load_settings(tmp_path, environ={}).migrations == "db/migrations"
    if b"\r" in before:
        assert b"\n" not in after.replace(b"\r\n", b"")


def test_a_pyproject_that_takes_no_further_table_is_left_alone_and_seeddb_toml_made(project, tmp_path):
    before = "tool = {black = {line-length = 99}}\n"
    project({**DBMATE, "pyproject.toml": before}, dry_run=False)
    assert (tmp_path / "pyproject.toml").read_text() == before
    assert load_settings(tmp_path, environ={}).origin == tmp_path / "seeddb.toml"


def test_every_setting_that_it_writes_is_one(project):
    found, _ = table(project({**ALEMBIC, "db.py": engine('os.environ["DATABASE_URL"]')}))
    assert set(found) == {"migrations", "seeds", "engines", "env"} <= set(KEYS)


def test_nothing_is_written_when_a_file_cannot_be(project, tmp_path, monkeypatch):
    real = type(tmp_path).open

    def refusing(self, mode="r", *args, **kwargs):
        if self.name == "pyproject.toml" and mode == "a":
            raise PermissionError(13, "Permission denied")
        return real(self, mode, *args, **kwargs)

    monkeypatch.setattr(type(tmp_path), "open", refusing)
    with pytest.raises(SeedDbError, match=r"pyproject\.toml cannot be written"):
        project(DBMATE, dry_run=False)
    assert not (tmp_path / "seeds.py").exists()


def test_a_file_that_has_appeared_meanwhile_is_not_overwritten(project, tmp_path, monkeypatch):
    real = Proposal.files

    def overtaken(proposal):
        (tmp_path / "seeds.py").write_text("# somebody else's\n")
        return real(proposal)

    monkeypatch.setattr(Proposal, "files", overtaken)
    with pytest.raises(SeedDbError, match=r"seeds\.py cannot be written"):
        project(DBMATE, dry_run=False)
    assert (tmp_path / "seeds.py").read_text() == "# somebody else's\n"
    assert "seeddb" not in (tmp_path / "pyproject.toml").read_text()


def test_a_table_further_up_holds_here_too_unless_this_is_a_project_of_its_own(tmp_path):
    (tmp_path / "seeddb.toml").write_text('migrations = "db"\n')
    inner = tmp_path / "service"
    (inner / "db").mkdir(parents=True)
    (inner / "db/1.sql").write_text("CREATE TABLE a ();")
    with pytest.raises(ConfigError, match="The project already has settings") as raised:
        init(inner, imports=False)
    assert str(tmp_path / "seeddb.toml") in str(raised.value)
    (inner / "pyproject.toml").write_text("")
    assert init(inner, imports=False).files[-1].file == "pyproject.toml"


def test_a_broken_pyproject_is_told(project):
    with pytest.raises(ConfigError, match=r"pyproject\.toml cannot be read"):
        project({**DBMATE, "pyproject.toml": "= broken ["})
