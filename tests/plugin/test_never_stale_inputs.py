"""Directories, data files and environment variables that a build depends on, wherever they are: end to end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import uuid

import psycopg
import pytest
from command import QUICK, Command

pytestmark = pytest.mark.slow

TABLE = """
    [project]
    name = "inputs-{own}"
    [tool.seeddb]
    migrations = "shop.db:migrate"
    {settings}
"""
ONE_TABLE = """
    import psycopg

    def migrate(url):
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS shop (name text)")
            connection.execute("INSERT INTO shop VALUES (%s)", [{value}])
"""
SEES = """
    def test_it(seeded_connection):
        print(seeded_connection.execute("SELECT name FROM shop").fetchall())
    def test_too(seeded_connection):
        pass
"""
ALEMBIC = """
    from pathlib import Path
    from alembic import command
    from alembic.config import Config

    def migrate(url):
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        url = url.replace("postgresql://", "postgresql+psycopg://").replace("%", "%%")
        config.set_main_option("sqlalchemy.url", url)
        command.upgrade(config, "head")
"""
ENV = """
    from alembic import context
    from sqlalchemy import create_engine, pool

    engine = create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""
REVISION = """
    from alembic import op
    revision, down_revision = {name!r}, {before!r}
    def upgrade():
        op.execute("CREATE TABLE t{name} ()")
"""
GLOB = """
    import glob, psycopg
    from pathlib import Path

    def migrate(url):
        with psycopg.connect(url) as connection:
            for path in sorted(glob.glob(str(Path(__file__).parent / "sql" / "*.sql"))):
                connection.execute(Path(path).read_text())
"""
PKGUTIL = """
    import importlib, pkgutil, psycopg
    import shop.steps

    def migrate(url):
        with psycopg.connect(url) as connection:
            for module in sorted(pkgutil.iter_modules(shop.steps.__path__)):
                connection.execute(importlib.import_module(f"shop.steps.{module.name}").STATEMENT)
"""


class Project:
    def __init__(self, root, files, settings=""):
        self.root, self.own = root, uuid.uuid4().hex[:8]
        texts = {"pyproject.toml": TABLE.format(own=self.own, settings=settings), "shop/__init__.py": "", **files}
        for name, text in texts.items():
            self.write(name, text)
        self.edit("shop/db.py", "def migrate", f"OWN = {self.own!r}\n\ndef migrate")

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def edit(self, name, old, new):
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))

    def seeddb(self, *arguments, **environ):
        return Command(self.root, PYTHONDONTWRITEBYTECODE="1", **environ)(*arguments).stdout

    def builds(self, **environ):
        """Whether `seeddb build` builds."""
        return " built in " in self.seeddb("build", **environ)

    def run(self, *options, **environ):
        """Run the tests; how often a template was built, and why."""
        plugins = (*QUICK, "-p", "no:asyncio", "-p", "no:django", "-rP", "--seed-db")
        variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environ}
        command = [sys.executable, "-m", "pytest", *plugins, *options]
        done = subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"seeddb: template inputs-{self.own}")]
        return line, done.stdout


@pytest.fixture
def make(tmp_path, embedded_server):
    def make(files, settings=""):
        return Project(tmp_path / "project", files, settings)

    return make


# -- directories that are listed on behalf of the build -------------------------------------------------

LISTED = {
    "Alembic": (
        {
            "shop/db.py": ALEMBIC,
            "shop/migrations/env.py": ENV,
            "shop/migrations/versions/1_step.py": REVISION.format(name="1", before=None),
        },
        ("shop/migrations/versions/2_step_test.py", REVISION.format(name="2", before="1")),
        "shop/migrations/versions",
    ),
    "glob": (
        {"shop/db.py": GLOB, "shop/sql/1.sql": "CREATE TABLE t1 ()"},
        ("shop/sql/test_2.sql", "CREATE TABLE t2 ()"),
        "shop/sql",
    ),
    "pkgutil": (
        {"shop/db.py": PKGUTIL, "shop/steps/__init__.py": "", "shop/steps/s1.py": "STATEMENT = 'CREATE TABLE t1 ()'"},
        ("shop/steps/s2.py", "STATEMENT = 'CREATE TABLE t2 ()'"),
        "shop/steps",
    ),
}


@pytest.mark.parametrize("kind", LISTED)
def test_a_new_file_in_a_directory_that_is_listed_for_the_build_is_built(make, kind):
    files, (new, text), directory = LISTED[kind]
    project = make(files)
    assert project.builds()
    assert not project.builds()
    for name in (f"{directory}/run.log", f"{directory}/report.html", "shop/another.py", "report.json"):
        # By the source, an import of a computed name may mean any module of the package.
        if kind != "pkgutil" or not name.endswith(".py"):
            project.write(name, "")
    assert "template    seeddb_t_" in (last := project.seeddb("explain").splitlines()[-1]), last
    assert not project.builds(), "logs, reports and modules beside the code make no difference"
    project.write(new, text)
    assert f"{directory}/ (" in project.seeddb("explain").splitlines()[-1]
    assert project.builds()
    assert not project.builds()


def test_apply_runs_a_migration_that_is_new_to_the_library(make, empty_database):
    files, (new, text), _ = LISTED["Alembic"]
    project = make(files)
    url = empty_database.url
    assert "ran: schema shop.db:migrate" in project.seeddb("apply", "--url", url)
    assert "up to date" in project.seeddb("apply", "--url", url)
    project.write(new, text)
    assert "ran: schema shop.db:migrate" in project.seeddb("apply", "--url", url)
    assert "up to date" in project.seeddb("apply", "--url", url)
    with psycopg.connect(empty_database.conninfo) as connection:
        assert connection.execute("SELECT to_regclass('t2') IS NOT NULL").fetchone() == (True,)


# -- data files ------------------------------------------------------------------------------------------


def test_data_in_the_repository_around_the_project_counts(make):
    value = "(Path(__file__).parents[2] / 'data.txt').read_text()"
    project = make({"shop/db.py": "from pathlib import Path\n" + textwrap.dedent(ONE_TABLE.format(value=value))})
    (project.root.parent / ".git").mkdir()
    (project.root.parent / "data.txt").write_text("1")
    assert project.builds()
    assert not project.builds()
    (project.root.parent / "data.txt").write_text("2")
    assert "../data.txt changed" in project.seeddb("explain")


def test_data_that_a_plugin_read_when_it_was_imported_counts(make):
    project = make(
        {
            "shop/db.py": "from shop.names import NAME\n" + textwrap.dedent(ONE_TABLE.format(value="NAME")),
            "shop/names.py": "from pathlib import Path\nNAME = Path(__file__).with_name('name.txt').read_text()\n",
            "shop/name.txt": "old",
            "shop/plugin.py": "import shop.names\n",
            "test_it.py": SEES,
        }
    )
    assert " built in " in project.run("-p", "shop.plugin")[0]
    assert "reused" in project.run("-p", "shop.plugin")[0]
    project.write("shop/name.txt", "new")
    line, output = project.run("-p", "shop.plugin")
    assert "shop/name.txt changed" in line
    assert "[('new',)]" in output


# -- environment variables ---------------------------------------------------------------------------------

SETTINGS = """
    from functools import lru_cache
    from pydantic_settings import BaseSettings, SettingsConfigDict

    class Settings(BaseSettings):
        model_config = SettingsConfigDict(env_prefix="SHOP_")
        name: str = "little"
        token: str = ""

    @lru_cache
    def settings():
        return Settings()
"""
FROM_SETTINGS = "from shop.config import settings\n" + textwrap.dedent(ONE_TABLE.format(value="settings().name"))


def test_a_field_of_pydantic_settings_counts_and_nothing_else_of_the_environment(make):
    project = make(
        {
            "shop/config.py": SETTINGS,
            "shop/db.py": FROM_SETTINGS,
            "conftest.py": "from shop.config import settings\nsettings()\n",
            "test_it.py": SEES,
        }
    )
    first = {"PATH": os.environ["PATH"], "GITHUB_RUN_ID": "1", "OTHER": "1"}
    second = {"PATH": f"{os.environ['PATH']}:/nowhere", "GITHUB_RUN_ID": "2", "OTHER": "2"}
    assert " built in " in project.run("-n", "2", **first)[0]
    assert "reused" in project.run("-n", "2", **second)[0]
    assert "reused" in project.run(**second)[0]
    line, output = project.run("-n", "2", shop_name="big")
    assert "environment variable SHOP_NAME (any case) changed" in line or " built in " in line
    assert "[('big',)]" in output
    assert "environment variable SHOP_NAME" in project.run(SHOP_NAME="bigger")[0]
    explained = project.seeddb("explain", SHOP_NAME="bigger", SHOP_TOKEN="123456")
    (line,) = [line for line in explained.splitlines() if "SHOP_NAME" in line and line.startswith("   ")]
    assert line.split(maxsplit=1)[0] == "environment", "a name without a digest"


ASKING = {
    "subscript": "os.environ['SHOP_NAME']",
    "get": "os.environ.get('SHOP_NAME', 'x')",
    "getenv": "os.getenv('SHOP_NAME', 'x')",
    "in": "'x' if 'SHOP_NAME' in os.environ else 'y'",
    "format": "'{SHOP_NAME}'.format_map(os.environ)",
    "expandvars": "os.path.expandvars('$SHOP_NAME')",
}


@pytest.mark.parametrize("how", ["getenv", "format"])
def test_a_variable_that_the_code_asks_for_by_name_counts(make, how):
    code = f"import os\nNAME = {ASKING[how]}\n{textwrap.dedent(ONE_TABLE.format(value='NAME'))}"
    project = make({"shop/db.py": code}, settings='watch_env = ["MORE_*"]')
    assert project.builds(SHOP_NAME="1")
    assert not project.builds(SHOP_NAME="1", OTHER="1")
    assert project.builds(SHOP_NAME="2")
    assert not project.builds(SHOP_NAME="1"), "the first template is there"
    assert project.builds(SHOP_NAME="1", MORE_NAMES="1")
    project.edit("pyproject.toml", "watch_env", 'ignore_env = ["SHOP_*"]\nwatch_env')
    assert not project.builds(SHOP_NAME="3")


def test_what_a_dotenv_file_sets_during_the_build_is_known_by_the_file(make):
    code = f"""
import os
from dotenv import load_dotenv
load_dotenv(os.path.join(os.path.dirname(__file__), "../.env"))
NAME = os.environ["SHOP_NAME"]
{textwrap.dedent(ONE_TABLE.format(value="NAME"))}
"""
    project = make({"shop/db.py": code, ".env": "SHOP_NAME=one\n"})
    assert project.builds()
    assert not project.builds()
    project.write(".env", "SHOP_NAME=two\n")
    assert ".env changed" in project.seeddb("explain").splitlines()[-1]
    assert project.builds(SHOP_NAME="other")


MODELS = """
    from sqlalchemy import MetaData
    from sqlalchemy.orm import DeclarativeBase

    class Base(DeclarativeBase):
        metadata = MetaData()
"""
EXTRA = {
    "a class": """
        from little.models import Base
        from sqlalchemy.orm import Mapped, mapped_column

        class Extra(Base):
            __tablename__ = "extra"
            id: Mapped[int] = mapped_column(primary_key=True)
            old: Mapped[int]
    """,
    "a table": """
        import little.models
        from sqlalchemy import Column, Integer, Table

        extra = Table("extra", little.models.Base.metadata, Column("old", Integer))
    """,
    "a class that a function makes": """
        from little.models import Base
        from sqlalchemy import Column, Integer

        def make(name):
            column = Column(Integer, primary_key=True)
            return type(name, (Base,), {"__tablename__": "extra", "__module__": __name__, "old": column})

        Extra = make("Extra")
    """,
}


@pytest.mark.slow
@pytest.mark.parametrize("migrations", ["little.models:Base.metadata", "little.making:tables"])
@pytest.mark.parametrize("kind", EXTRA)
def test_a_table_that_only_a_conftest_adds_to_the_metadata_is_noticed(project, migrations, kind):
    project.write("pyproject.toml", f'[project]\nname = "little"\n[tool.seeddb]\nmigrations = "{migrations}"\n')
    project.write("little/__init__.py", "")
    project.write("little/models.py", MODELS)
    project.write(
        "little/making.py",
        "from little.models import Base\n\ndef tables(engine):\n    Base.metadata.create_all(engine)\n",
    )
    project.write("little/extra.py", EXTRA[kind])
    project.write("little/views.py", "import little.extra\nVALUE = 1\n")
    project.write("conftest.py", "import little.views\n")
    test = """
        def test_it(seeded_connection):
            columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'extra'::regclass AND attnum > 0"
            print("columns", seeded_connection.execute(columns).fetchall())
    """
    assert "old" in project.test(test, "-s").stdout.str()
    project.write("little/views.py", "import little.extra\nVALUE = 2\n")
    assert "template little/default reused" in project.run("-s").stdout.str()
    project.write("little/extra.py", EXTRA[kind].replace("old", "new"))
    told = project.run("-s").stdout.str()
    assert "new" in next(line for line in told.splitlines() if "columns" in line), told
    assert "little/extra.py" in told
