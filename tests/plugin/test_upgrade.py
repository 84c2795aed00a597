"""Upgrading is silent: what the released version wrote into databases, servers and files, this one goes on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest
from command import QUICK
from processes import eventually, guards, postmasters, private_cache
from psycopg import sql
from released import Environment

from pytest_seeddb.templates.history import OLDER_FORM

pytestmark = pytest.mark.long

ENV = """
    from alembic import context
    from sqlalchemy import create_engine, pool
    url = context.config.get_main_option("sqlalchemy.url")
    with create_engine(url, poolclass=pool.NullPool).connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""
ALEMBIC_INI = "[alembic]\nscript_location = migrations\nsqlalchemy.url = postgresql+psycopg://localhost/x\n"
REVISION = """
    from alembic import op
    revision, down_revision = "1", None
    def upgrade():
        op.execute("CREATE TABLE t (name text)")
"""
LOAD = """
    import os, psycopg
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("{statement}")
"""
COMMAND = f"{sys.executable} load.py"
SECRETS = """
    admin_password = "hunter2"
    replica = "postgresql://app:hunter3@elsewhere/x"
"""
SEEDS = """
    import os, sys
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
    from names import NAME
    from sqlalchemy import text
    from pytest_seeddb import seeder

    @seeder
    def stores(session, stores: int = 1, admin_password: str = "x", replica: str = ""):
        session.execute(text("INSERT INTO t VALUES (:name)"), {"name": f"{NAME} {stores}"})

    @seeder(tier="demo", after=[stores], idempotent=True)
    def customers(session):
        session.execute(text("INSERT INTO t VALUES ('customer')"))
"""
CALLABLE = """
    import os, sys
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
    from names import NAME
    import psycopg

    def migrate(url):
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t (name text)")
            connection.execute("INSERT INTO t VALUES ('callable')")
"""
DJANGO_SETTINGS = """
    import os
    from urllib.parse import parse_qsl, urlsplit
    SECRET_KEY = "x"
    INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "shop"]
    DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "elsewhere"}}
    BROKER_URL = "amqp://app:hunter4@elsewhere/x"
    DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
"""
FILES = {
    "every-kind-of-seed": {
        "pyproject.toml": f"""
            [tool.seeddb]
            name = "every-kind-of-seed"
            migrations = "alembic.ini"
            seeds = ["shop.seeds", "shop.more:init", "seeds/*.sql", {{command = "{COMMAND}", inputs = ["secrets/*"]}}]
            profile = "demo"
            [tool.seeddb.profiles.demo]
            stores = 2{SECRETS}""",
        "alembic.ini": ALEMBIC_INI,
        "migrations/env.py": ENV,
        "migrations/versions/1.py": REVISION,
        "shop/__init__.py": "",
        "shop/seeds.py": SEEDS,
        "shop/lib/names.py": "NAME = 'store'",
        "shop/more.py": """
            from sqlalchemy import text
            def init(session):
                session.execute(text("INSERT INTO t VALUES ('init')"))
        """,
        "seeds/a.sql": "INSERT INTO t VALUES ('sql');",
        "secrets/key.txt": "123456",
        "load.py": LOAD.format(statement="INSERT INTO t VALUES ('command')"),
    },
    "a-callable-migrates": {
        "pyproject.toml": """
            [tool.seeddb]
            name = "a-callable-migrates"
            migrations = "shop.db:migrate"
            seeds = ["seeds/a.sql"]
        """,
        "shop/db.py": CALLABLE,
        "shop/lib/names.py": "NAME = 'x'",
        "seeds/a.sql": "INSERT INTO t VALUES ('sql');",
    },
    "sql-files-migrate": {
        "pyproject.toml": """
            [tool.seeddb]
            name = "sql-files-migrate"
            migrations = "db"
            seeds = ["shop.seeds:seed"]
            extensions = ["pg_trgm"]
            watch = ["secrets/*"]
        """,
        "db/1.sql": "CREATE TABLE t (name text); INSERT INTO t VALUES ('one');",
        "db/2.sql": "INSERT INTO t VALUES ('two');",
        "secrets/key.txt": "123456",
        "shop/seeds.py": """
            def seed(connection, token: str = "12"):
                connection.exec_driver_sql("INSERT INTO t VALUES ('seed')")
        """,
    },
    "a-command-migrates": {
        "pyproject.toml": f"""
            [tool.seeddb]
            name = "a-command-migrates"
            migrations = {{command = "{COMMAND}", inputs = ["load.py", ".env.seeds"]}}
            seeds = ["seeds/a.sql"]
        """,
        "load.py": LOAD.format(statement="CREATE TABLE IF NOT EXISTS t (name text); INSERT INTO t VALUES ('ran')"),
        "seeds/a.sql": "INSERT INTO t VALUES ('sql');",
        ".env.seeds": "PASSWORD=hunter5",
    },
    "django": {
        "pyproject.toml": """
            [tool.seeddb]
            name = "django-project"
            migrations = "django"
            seeds = [{django = "load 3", inputs = ["shop/things.json"]}, "shop.seeds"]
        """,
        "manage.py": "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site_settings')\n",
        "site_settings.py": DJANGO_SETTINGS,
        "shop/__init__.py": "",
        "shop/things.json": "[]",
        "shop/models.py": """
            from django.db import models
            class T(models.Model):
                name = models.TextField()
                class Meta:
                    db_table = "t"
        """,
        "shop/apps.py": """
            from django.apps import AppConfig
            from django.db.models.signals import post_migrate
            def fill(sender, **_):
                sender.get_model("T").objects.create(name="signal")
            class Shop(AppConfig):
                name = "shop"
                def ready(self):
                    post_migrate.connect(fill, sender=self)
        """,
        "shop/migrations/__init__.py": "",
        "shop/migrations/0001_initial.py": """
            from django.conf import settings
            from django.db import migrations, models
            class Migration(migrations.Migration):
                initial = True
                broker = settings.BROKER_URL
                operations = [migrations.CreateModel("T", [
                    ("id", models.AutoField(primary_key=True, serialize=False)), ("name", models.TextField()),
                ], {"db_table": "t"})]
        """,
        "shop/management/__init__.py": "",
        "shop/management/commands/__init__.py": "",
        "shop/management/commands/load.py": """
            from django.core.management.base import BaseCommand
            from shop.models import T
            class Command(BaseCommand):
                def add_arguments(self, parser):
                    parser.add_argument("number", type=int)
                def handle(self, number, **_):
                    T.objects.create(name="loaded")
        """,
        "shop/seeds.py": """
            from pytest_seeddb import seeder
            from shop.models import T
            @seeder
            def things(session_password: str = "x"):
                T.objects.create(name="seed")
        """,
    },
}  # fmt: skip
TESTS = """
    import os, pathlib, time
    def test_it(seeded_connection):
        assert seeded_connection.execute("SELECT count(*) FROM t").fetchone() > (1,)
        if "STAYS" in os.environ:
            pathlib.Path("running").touch()
            time.sleep(600)
"""
RUN = ("pytest", *QUICK, "-p", "no:asyncio", "-p", "no:django", "--seed-db")


class Upgraded:
    """Projects with the databases that the released version made for them, and what has been installed since."""

    def __init__(self, environment, place, cache, address):
        self.environment, self.place, self.cache = environment, place, cache
        self.databases, self.rows = {}, {}
        for name, files in FILES.items():
            for file, text in {**files, "test_it.py": TESTS}.items():
                path = place / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(textwrap.dedent(text))
            self.databases[name] = self._database(address, name)
            self.apply(name)
            self.rows[name] = self.read(name, "SELECT name FROM t")
        first = place / "every-kind-of-seed"
        self.seeddb("every-kind-of-seed", "build", "--export", "template.dump")
        self.seeddb("a-callable-migrates", "build")
        self.seeddb("every-kind-of-seed", "dump", "--output", "dump.sql")
        variables = environment.variables(XDG_CACHE_HOME=str(cache), STAYS="1")
        self.old = subprocess.Popen([environment.python, "-m", *RUN], cwd=first, env=variables, stdout=subprocess.PIPE)
        eventually((first / "running").exists, 60)
        environment.upgrade()

    def _database(self, address, name):
        with psycopg.connect(address.conninfo, autocommit=True) as admin:
            own = f"upgraded {name} {os.getpid()}"
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(own)))
        return address.with_database(own)

    def apply(self, name, *options, **more):
        return self.seeddb(name, "apply", "--url", self.databases[name].url_for("postgresql"), *options, **more)

    def seeddb(self, name, *arguments, **more):
        return self.environment.seeddb(*arguments, cwd=self.place / name, XDG_CACHE_HOME=str(self.cache), **more)

    def read(self, name, query):
        with psycopg.connect(self.databases[name].conninfo) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory, server_address):
    with private_cache() as cache:
        environment = Environment(Path(cache, "environment"))
        upgraded = Upgraded(environment, tmp_path_factory.mktemp("projects"), cache, server_address)
        yield upgraded
        upgraded.old.kill()
        upgraded.old.communicate()
        with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
            for database in upgraded.databases.values():
                admin.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(database.database)))


LEDGER = "SELECT name, digest, finished, applied_at, numbers FROM seeddb.seeddb_step ORDER BY 1"


@pytest.mark.parametrize("name", FILES)
def test_apply_says_up_to_date_and_does_nothing(upgraded, name):
    before = upgraded.read(name, LEDGER)
    assert ": up to date" in upgraded.apply(name, "--dry-run")
    assert upgraded.read(name, LEDGER) == before, "a dry run writes nothing"
    assert ": up to date" in upgraded.apply(name)
    assert upgraded.read(name, "SELECT name FROM t") == upgraded.rows[name]
    now = upgraded.read(name, LEDGER)
    assert [(row[0], *row[2:]) for row in now] == [(row[0], *row[2:]) for row in before], "and none at another time"
    (marker,) = upgraded.read(name, "SELECT fingerprint, version FROM seeddb.seeddb_marker")
    assert ": up to date" in upgraded.apply(name), "by its own notes"
    assert upgraded.read(name, LEDGER) == now
    assert upgraded.read(name, "SELECT fingerprint, version FROM seeddb.seeddb_marker") == [marker]


def test_a_seed_that_has_changed_is_noticed_all_the_same(upgraded):
    name = "every-kind-of-seed"
    file = upgraded.place / name / "seeds" / "a.sql"
    before = file.read_text()
    file.write_text("INSERT INTO t VALUES ('another')")
    assert "has changed since it was applied" in upgraded.apply(name, code=1)
    file.write_text(before)
    assert ": up to date" in upgraded.apply(name)


def test_what_was_built_is_built_once_more_and_said_in_one_line_and_pruned_and_the_old_guard_ends(upgraded):
    name = "every-kind-of-seed"
    variables = {"cwd": upgraded.place / name, "XDG_CACHE_HOME": str(upgraded.cache)}
    others = {"cwd": upgraded.place / "a-callable-migrates", "XDG_CACHE_HOME": str(upgraded.cache)}
    server = postmasters(upgraded.cache)
    assert len(server) == 1, "that of the released version, whose test is still running"

    said = upgraded.environment.seeddb("build", "--import", "template.dump", **variables).splitlines()
    lines = [line for line in said if line.startswith(("seeddb:", "template"))]
    assert [line for line in lines if f"an earlier version of pytest-seeddb wrote {upgraded.place}" in line], said
    assert [line for line in lines if line.startswith("template") and line.endswith(f": {OLDER_FORM}")], said
    assert len(lines) == 2
    assert "reused" in upgraded.environment.run(*RUN, **variables)

    before = json.loads(upgraded.environment.seeddb("status", "--json", **others))["templates"]
    assert f": {OLDER_FORM}" in upgraded.environment.seeddb("build", **others)
    assert "is there already" in upgraded.environment.seeddb("build", **others)
    after = json.loads(upgraded.environment.seeddb("status", "--json", **others))["templates"]
    own = [{one["name"] for one in templates if one["plan"] == others["cwd"].name} for templates in (before, after)]
    assert own[0]
    assert not own[0] & own[1], "those of the older form are gone"

    assert postmasters(upgraded.cache) == server, "the same one for both versions"
    upgraded.old.kill()
    eventually(lambda: not postmasters(upgraded.cache) and not guards(upgraded.cache), 30)

    # A committed dump is restored, and is not stale. Not a test of its own: it builds what the lines above expect.
    variables["SEEDDB_DUMP"] = "dump.sql"
    upgraded.environment.seeddb("verify", "--dump", **variables)
    assert "1 passed" in upgraded.environment.run(*RUN, **variables)
