"""`seeddb apply`: a database that people work with comes to the plan's state, once, whatever happens."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid

import psycopg
import pytest
from dumping import run
from psycopg import sql
from separate import separate_server

from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.settings.settings import KEYS, load_settings

TABLE = """
[project]
name = "little-shop"
[tool.seeddb]
migrations = "db"
seeds = ["shop.seeds", "seeds/*.sql"]
env = "SHOP_URL"
"""
SCHEMA = """
CREATE TABLE shop (id serial PRIMARY KEY, name text NOT NULL);
CREATE TABLE item (id serial PRIMARY KEY, shop int REFERENCES shop, name text NOT NULL);
"""
SEEDS = """
import time
import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from pytest_seeddb import seeder

@seeder
def shops(session: Session):
    for number in range(3):
        session.execute(text("INSERT INTO shop (name) VALUES (:name)"), {"name": f"shop {number}"})
        session.flush()

@seeder(after=[shops])
async def asynchronous(session: AsyncSession):
    await session.execute(text("INSERT INTO shop (name) VALUES ('async')"))

@seeder(after=[asynchronous])
def driver(connection: psycopg.Connection):
    connection.execute("INSERT INTO shop (name) VALUES ('psycopg')")

@seeder(after=[driver])
def both(connection: Connection, session: Session):
    connection.execute(text("INSERT INTO shop (name) VALUES ('connection')"))
    session.execute(text("INSERT INTO shop (name) VALUES ('session')"))

@seeder(tier="demo", after=[both])
def items(session: Session, items: int = 20):
    shop = session.scalar(text("SELECT id FROM shop WHERE name = 'shop 0'"))
    for number in range(items):
        row = {"shop": shop, "name": f"item {number}"}
        session.execute(text("INSERT INTO item (shop, name) VALUES (:shop, :name)"), row)
        session.flush()
        time.sleep(0.002)
"""
ROWS = {"shop": 3 + 1 + 1 + 2 + 1, "item": 20}


class Database:
    """One that nobody made for us, in a project that seeds it."""

    def __init__(self, project, server):
        self.project = project
        name = f"shop_{uuid.uuid4().hex[:12]}"
        self.address = server.with_database(name)
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        project.write("pyproject.toml", TABLE)
        project.write("db/001_shop.sql", SCHEMA)
        project.write("shop/__init__.py", "")
        project.write("shop/seeds.py", SEEDS)
        project.write("seeds/shops.sql", "INSERT INTO shop (name) VALUES ('file');")

    def run(self, statement):
        with psycopg.connect(self.address.conninfo, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None

    @property
    def rows(self):
        return {name: self.run(f"SELECT count(*) FROM {name}")[0][0] for name in ("shop", "item")}

    def start(self, *arguments, **environ):
        environment = {**os.environ, "SHOP_URL": self.address.url, **environ}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        line = [sys.executable, "-W", "error", "-m", "pytest_seeddb.cli", "apply", *arguments]
        return subprocess.Popen(line, cwd=self.project.path, env=environment, **pipes)

    def apply(self, *arguments, code=0, **environ):
        process = self.start(*arguments, **environ)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == code, output + errors
        assert "Traceback" not in errors
        return output, errors

    def edit(self, before, after):
        text = (self.project.path / "shop/seeds.py").read_text()
        assert before in text
        self.project.write("shop/seeds.py", text.replace(before, after))


@pytest.fixture(scope="module")
def server():
    with separate_server() as start:
        yield start()


@pytest.fixture
def database(project, server):
    return Database(project, server)


# -- once ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_first_one_migrates_and_seeds_and_the_second_says_up_to_date(database):
    output, errors = database.apply()
    assert "ran: migration db/001_shop.sql (new" in output
    assert "ran: seed shop.seeds:items (new" in output
    steps = [line.split(" (")[0] for line in output.splitlines()[:-1]]
    assert len(steps) == len(set(steps)) == 7, "each is told once, when it ends"
    assert output.splitlines()[-1].split(": ")[-1].startswith("applied in ")
    assert errors == "applying little-shop/default: migrations, essential seeds, demo seeds\n"
    assert database.rows == ROWS
    output, errors = database.apply()
    assert output.strip().endswith("little-shop/default, demo: up to date")
    assert errors == ""
    assert database.rows == ROWS
    (database.project.path / "db/001_shop.sql").rename(database.project.path / "db/001_renamed.sql")
    output, _ = database.apply("--dry-run")
    assert "run: migration db/001_renamed.sql (new)" in output
    assert "applied earlier, and no longer in the project: migration db/001_shop.sql" in output


@pytest.mark.slow
def test_json_says_of_each_step_what_was_done(database):
    first = json.loads(database.apply("--json")[0])
    assert not first["up_to_date"]
    assert [each["action"] for each in first["steps"]] == ["run"] * 7
    second = json.loads(database.apply("--json")[0])
    assert second["up_to_date"]
    assert {each["action"] for each in second["steps"]} == {"done"}


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(database):
    output, errors = database.apply("--dry-run", "-q")
    assert "would do" in output
    assert "run: seed shop.seeds:shops (new)" in output
    assert errors == ""
    assert database.apply("--check", code=3)[0] == output
    assert database.run("SELECT count(*) FROM pg_class WHERE relname IN ('shop', 'seeddb_step')") == [(0,)]


@pytest.mark.slow
def test_a_role_that_may_only_read_learns_that_there_is_nothing_to_do(database):
    database.apply()
    database.run("DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN")
    database.run("GRANT USAGE ON SCHEMA seeddb TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA seeddb TO reader")
    assert "postgres@" in database.address.url
    output, errors = database.apply(SHOP_URL=database.address.url.replace("postgres@", "reader@"))
    assert output.strip().endswith("up to date"), errors
    database.project.write("db/002_more.sql", "ALTER TABLE shop ADD city text")
    for options in ((), ("--dry-run",), ("--check",)):
        _, errors = database.apply(*options, code=1, SHOP_URL=database.address.url.replace("postgres@", "reader@"))
        assert "The role reader may not create schemas in the database shop_" in errors
        database.run(errors.partition("as the database's owner: ")[2])
        _, errors = database.apply(*options, code=1, SHOP_URL=database.address.url.replace("postgres@", "reader@"))
        assert "The role reader may not write into the schema seeddb of the database shop_" in errors
        database.run(
            sql.SQL("REVOKE CREATE ON DATABASE {} FROM reader").format(sql.Identifier(database.address.database))
        )
    database.run("DROP OWNED BY reader; DROP ROLE reader")
    assert database.apply("--check", code=3)[0].count("  run: ") == 1
    database.apply()
    assert database.apply("--check")[0].endswith(": up to date\n")


@pytest.mark.slow
def test_a_dry_run_exits_with_1_where_the_run_is_certain_to_fail_and_says_why(database):
    table = TABLE + 'extensions = ["no_such_extension", "plpgsql"]\n'
    database.project.write("pyproject.toml", table)
    output, errors = database.apply("--dry-run", code=1)
    assert "run: extension no_such_extension (new)" in output
    assert "The extension no_such_extension could not be created" in errors
    assert "available on this server: " in errors
    database.project.write("pyproject.toml", TABLE)
    database.apply()
    database.edit("range(3)", "range(4)")
    output, errors = database.apply("--dry-run", code=1)
    assert "cannot be run: seed shop.seeds:items (it has changed since it was applied)" in output
    assert "without running steps twice" in errors
    told = json.loads(database.apply("--dry-run", "--json", code=1)[0])
    assert told["error"] == told["errors"][0]
    assert "idempotent=True" in told["error"]["do"]
    _, errors = database.apply("--check", "--url", "postgresql://127.0.0.1:1/none", code=1)
    assert "The database cannot be reached" in errors


@pytest.mark.slow
def test_a_dry_run_reads_the_files_that_would_run(database):
    files = {
        "002_mark": ("SELECT 1;\n-- DOWN\nDROP TABLE shop;", "this comment looks like the start of a down migration"),
        "003_other": ("\\c other", "connects to another database"),
        "004_bytes": (b"SELECT '\xff';", "db/004_bytes.sql cannot be read"),
        "005_include": ("\\i no.sql", "the file to include does not exist"),
        "006_open": ("BEGIN;\nSELECT 1;\nCOMMIT AND CHAIN;\nSELECT 1;", "begins a transaction and does not end it"),
        "007_fine": ("BEGIN; SELECT 1; ROLLBACK TO SAVEPOINT a; COMMIT;", ""),
    }
    for name, (text, _) in files.items():
        (database.project.path / f"db/{name}.sql").write_bytes(text if isinstance(text, bytes) else text.encode())
    told = json.loads(database.apply("--dry-run", "--json", code=1)[0])
    expected = [what for _, what in files.values() if what]
    assert [what in error["title"] for what, error in zip(expected, told["errors"], strict=True)] == [True] * 5
    commands = {
        '{command = "nosuchtool up && true", inputs = ["db/*"]}': "The migrations command was not found",
        '{command = "nosuchtool up || true", inputs = ["db/*"]}': "",
        '{command = "A=1 exec true; exit", inputs = ["db/*"]}': "",
        '"shop.schema:create"': "There is no 'create' in the module 'shop.schema'",
        '"shop.schema:made"': "",
    }
    database.project.write("shop/schema.py", "if True:\n    def made(connection): ...")
    for migrations, what in commands.items():
        database.project.write("pyproject.toml", TABLE.replace('migrations = "db"', f"migrations = {migrations}"))
        errors = json.loads(database.apply("--dry-run", "--json", code=1 if what else 0)[0])["errors"]
        assert [what in error["title"] for error in errors] == [True] * bool(what)
    database.project.write("pyproject.toml", TABLE.replace('migrations = "db"', 'migrations = "db/007_fine.sql"'))
    database.project.write("lib/further.py", "")
    seeds = database.project.path / "shop/seeds.py"
    text = seeds.read_text()
    imports = {
        "import nosuch.module": "The module 'shop.seeds' fails while it is imported",
        "try:\n    import nosuch\nexcept ImportError: pass": "",
        "import sys\nsys.path.insert(0, 'lib')\nimport further": "",
    }
    for lines, what in imports.items():
        seeds.write_text(f"{lines}\n{text}")
        errors = json.loads(database.apply("--dry-run", "--json", code=1 if what else 0)[0])["errors"]
        assert [what in error["title"] for error in errors] == [True] * bool(what)


@pytest.mark.slow
def test_another_profile_is_called_that_and_not_a_change(database):
    database.project.write("pyproject.toml", TABLE + "[tool.seeddb.profiles.large]\nitems = 30\n")
    database.apply()
    for options in (("--dry-run",), ()):
        output, errors = database.apply("--profile", "large", *options, code=1)
        assert "seeded with another profile, 'default'" in errors
        assert "seed shop.seeds:items: it was applied with another profile, 'default', and not 'large'" in errors
        assert "has changed" not in output + errors
    assert "--profile default" in errors
    assert "up to date" in database.apply("--profile", "default")[0]


@pytest.mark.slow
def test_only_runs_one_seeder_and_the_rest_when_it_is_asked_for(database):
    database.apply("--tier", "none")
    _, errors = database.apply("--only", "shosp", code=2)
    assert "Did you mean 'shops'?" in errors
    output, _ = database.apply("--only", "shops")
    assert output.count("ran: ") == 1
    assert database.rows == {"shop": 3, "item": 0}
    assert "up to date" in database.apply("--only", "shop.seeds:shops")[0]
    database.apply("--only", "shops", "--force")
    assert database.rows == {"shop": 6, "item": 0}
    output, _ = database.apply()
    assert output.count("ran: ") == 5
    assert "up to date" in database.apply()[0]
    database.apply("--only", "items", code=2, ENVIRONMENT="production")


@pytest.mark.slow
def test_ten_at_once_do_the_work_once(database):
    running = [database.start("--json") for _ in range(10)]
    ended = [(*process.communicate(timeout=120), process.returncode) for process in running]
    assert {code for _, _, code in ended} == {0}, ended
    found = [json.loads(output) for output, _, _ in ended]
    assert sum(not each["up_to_date"] for each in found) == 1
    assert database.rows == ROWS
    assert any("another seeddb apply is at work" in errors for _, errors, _ in ended)


def killed_and_applied_again(database, moments):
    for moment in moments:
        database.run("DROP SCHEMA IF EXISTS seeddb CASCADE; DROP TABLE IF EXISTS item, shop")
        process = database.start()
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        database.apply()
        assert database.rows == ROWS, moment
        names = [name for (name,) in database.run("SELECT name FROM shop")]
        assert len(set(names)) == len(names)


@pytest.mark.slow
def test_killed_in_the_middle_the_next_one_makes_the_same_rows(database):
    killed_and_applied_again(database, [0.35, 0.5])


@pytest.mark.long
def test_killed_at_thirty_random_moments_the_next_one_makes_the_same_rows(database):
    killed_and_applied_again(database, [random.uniform(0.1, 0.9) for _ in range(30)])


@pytest.mark.slow
def test_killed_while_rows_draw_numbers_the_next_one_makes_the_rows_with_later_numbers(database):
    database.edit("        session.flush()\n\n", "        session.flush()\n        time.sleep(0.2)\n\n")
    process = database.start()
    while database.run("SELECT 1 FROM pg_sequences WHERE sequencename = 'shop_id_seq' AND last_value > 0") == []:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert database.run("SELECT * FROM shop") == []
    database.apply()
    assert database.rows == ROWS
    assert database.run("SELECT min(id) > 1 FROM shop") == [(True,)]


@pytest.mark.slow
def test_a_commit_that_outlives_its_killed_process_is_waited_for_and_not_done_twice(database):
    database.apply()
    step = database.run("DELETE FROM seeddb.seeddb_step WHERE name LIKE '%:items' RETURNING *")[0]
    rows = database.run("DELETE FROM item RETURNING *")
    with psycopg.connect(database.address.conninfo) as committing:
        committing.execute("INSERT INTO seeddb.seeddb_step VALUES (%s, %s, %s, %s, %s)", step)
        committing.cursor().executemany("INSERT INTO item VALUES (%s, %s, %s)", rows)
        process = database.start()
        assert "the server is still at the last transaction" in process.stderr.readline()
    output, errors = process.communicate(timeout=60)
    assert output.strip().endswith("up to date"), errors
    assert database.rows == ROWS


@pytest.mark.slow
def test_a_seeder_that_commits_by_itself_and_was_killed_is_named_and_not_run_again(database):
    database.edit("    for number in range(items):", "    session.commit()\n    for number in range(items):")
    database.edit("time.sleep(0.002)", "session.commit(); time.sleep(0.02)")
    process = database.start()
    while database.run("SELECT to_regclass('item') IS NOT NULL") == [(False,)] or database.rows["item"] < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, errors = database.apply(code=1)
    assert "seed shop.seeds:items: it was started but not finished" in errors
    database.apply("--reset", "--yes")
    assert database.rows == ROWS


@pytest.mark.slow
@pytest.mark.parametrize("asks_for", ["url: str", "engine"])
def test_what_makes_its_own_transactions_is_noted_before_and_after(database, asks_for):
    database.edit("def items(session: Session, items", f"def items({asks_for}, items")
    database.edit("    for number in range(items):", "    raise SystemExit\n    for number in range(items):")
    database.apply(code=1)
    assert database.run("SELECT finished FROM seeddb.seeddb_step WHERE name LIKE '%:items'") == [(False,)]


# -- what changed ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_only_pending_migrations_and_new_seeders_run(database):
    database.apply()
    database.project.write("db/002_more.sql", "ALTER TABLE shop ADD city text; UPDATE shop SET city = 'x';")
    database.project.write("seeds/zz.sql", "INSERT INTO shop (name, city) VALUES ('late', 'y');")
    output, _ = database.apply()
    assert [line.split(" (")[0].strip() for line in output.splitlines() if "ran:" in line] == [
        "ran: migration db/002_more.sql",
        "ran: seed seeds/zz.sql",
    ]


@pytest.mark.slow
def test_a_changed_seeder_that_is_idempotent_runs_again_and_alone(database):
    database.edit('@seeder(tier="demo", after=[both])', '@seeder(tier="demo", after=[both], idempotent=True)')
    database.edit(
        "    for number in range(items):",
        '    session.execute(text("DELETE FROM item"))\n    for number in range(items):',
    )
    database.apply()
    output, _ = database.apply("--set", "items=4")
    assert output.count("ran:") == 1
    assert "ran: seed shop.seeds:items (it has changed since it was applied" in output
    assert database.rows == {**ROWS, "item": 4}


FACTORIES = """
import factory
from pytest_seeddb import seeder
from shop.models import Shop

class ShopFactory(factory.alchemy.SQLAlchemyModelFactory):
    class Meta:
        model = Shop
        sqlalchemy_get_or_create = ["name"]
    name = factory.Sequence(lambda n: f"shop {n}")

@seeder(idempotent=True)
def first(session, shops: int = 2):
    ShopFactory.create_batch(shops)

@seeder(idempotent=True, after=[first])
def second(session, more: int = 2):
    ShopFactory.create_batch(more)
"""
MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase): pass

class Shop(Base):
    __tablename__ = "shop"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
"""


@pytest.fixture
def numbered(database):
    """A project whose rows have the numbers of a factory's sequence."""
    database.project.write("seeds/shops.sql", "SELECT 1;")
    database.project.write("shop/models.py", MODELS)
    database.project.write("shop/seeds.py", FACTORIES)
    return database


def shops(database):
    return [name for (name,) in database.run("SELECT name FROM shop ORDER BY id")]


@pytest.mark.slow
def test_a_seeder_that_runs_again_begins_its_sequences_where_it_did(numbered):
    numbered.apply()
    numbered.apply("--set", "more=3")
    assert shops(numbered) == [f"shop {n}" for n in range(5)], "2 and 3 were found, 4 is new"
    numbered.apply("--force", "--set", "more=3")
    assert shops(numbered) == [f"shop {n}" for n in range(5)]


@pytest.mark.slow
def test_a_new_seeder_begins_its_sequences_after_all_that_were_drawn_wherever_it_stands(numbered):
    numbered.apply()
    numbered.edit(
        "@seeder(idempotent=True, after=[first])",
        """
@seeder(after=[first])
def between(session): ShopFactory()

@seeder(idempotent=True, after=[between])""",
    )
    numbered.apply()
    assert shops(numbered) == [f"shop {n}" for n in range(5)]


@pytest.mark.slow
def test_sequences_go_on_in_a_database_that_a_dump_was_loaded_into(numbered, seeddb):
    seeddb("dump", "-o", "seed-db.sql")
    psql = find_program(load_settings(numbered.project.path), "psql").path
    run(psql, numbered.address, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", numbered.project.path / "seed-db.sql")
    output, _ = numbered.apply()
    assert output.strip().endswith("up to date"), "such a file needs nothing more"
    numbered.apply("--set", "more=3")
    assert shops(numbered) == [f"shop {n}" for n in range(5)]


@pytest.mark.slow
def test_a_changed_seeder_that_is_not_is_refused_with_all_ways_out(database):
    database.apply()
    _, errors = database.apply("--set", "items=4", code=1)
    assert "seed shop.seeds:items: it has changed since it was applied" in errors
    for way in ("idempotent=True", "--accept", "--force", "--reset"):
        assert way in errors
    assert database.rows == ROWS
    output, _ = database.apply("--set", "items=4", "--accept")
    assert "accepted, not run: seed shop.seeds:items" in output
    assert database.rows == ROWS
    assert "up to date" in database.apply("--set", "items=4")[0]


@pytest.mark.slow
def test_a_comment_in_what_a_seeder_imports_is_no_change(database):
    database.project.write("shop/names.py", "SHOP = 'shop'\n")
    database.edit("import time", "import time\nfrom shop.names import SHOP")
    database.apply()
    database.project.write("shop/names.py", "SHOP = 'shop'  # a comment\n")
    database.apply()
    assert database.rows == ROWS


@pytest.mark.slow
def test_an_sql_migration_that_was_edited_after_it_was_applied_is_refused(database):
    database.apply()
    database.project.write("db/001_shop.sql", SCHEMA + "-- edited\n")
    _, errors = database.apply(code=1)
    assert "migration db/001_shop.sql: it has changed since it was applied" in errors
    assert "write another" in errors


@pytest.mark.slow
def test_force_runs_all_seeders_again(database):
    database.apply()
    database.apply("--force")
    assert database.rows == {name: 2 * count for name, count in ROWS.items()}


@pytest.mark.slow
def test_reset_empties_all_and_seeds_anew_and_asks_first(database):
    database.apply()
    database.run("INSERT INTO shop (name) VALUES ('own'); CREATE TABLE stray (v int); CREATE SCHEMA other")
    _, errors = database.apply("--reset", code=2)
    assert "add --yes" in errors
    assert database.rows["shop"] == ROWS["shop"] + 1
    database.apply("--reset", "--yes")
    assert database.rows == ROWS
    assert database.run("SELECT min(id) FROM shop") == [(1,)]
    assert database.run("SELECT to_regclass('stray'), to_regnamespace('other')") == [(None, None)]


@pytest.mark.slow
def test_reset_empties_nothing_where_the_run_is_certain_to_fail(database):
    database.apply()
    database.project.write("pyproject.toml", f'{TABLE}extensions = ["nope"]\n')
    _, errors = database.apply("--reset", "--yes", code=1)
    assert "The extension nope could not be created" in errors
    assert database.rows == ROWS


@pytest.mark.slow
def test_reset_gives_up_where_others_hold_locks_and_says_who_and_changes_nothing(database):
    database.apply()
    with psycopg.connect(database.address.conninfo, application_name="the shop") as other:
        other.execute("SELECT count(*) FROM item")
        _, errors = database.apply("--reset", "--yes", "--lock-timeout", "0.5", code=1)
        assert f"waiting: pid {other.info.backend_pid}" in errors
        assert "could not be emptied within 0.5 s: other clients are using it. Nothing was changed" in errors
        assert "application the shop, idle in transaction for" in errors
        assert database.rows == ROWS
    database.apply("--reset", "--yes")
    assert database.rows == ROWS


@pytest.mark.slow
def test_a_database_with_rows_that_nobody_noted_is_not_seeded_on_top(database):
    database.run(SCHEMA + "INSERT INTO shop (name) VALUES ('whose?')")
    database.project.write("db/001_shop.sql", SCHEMA.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
    _, errors = database.apply(code=1)
    assert "shop already has rows, and no ledger says where they come from" in errors
    database.apply("--accept")
    assert database.rows == {"shop": 1, "item": 0}


# -- production ------------------------------------------------------------------------------------

FLAGS = ["--force", "--accept", "--yes", "--dry-run", "--json"]


@pytest.mark.parametrize("value", ["production", "Prod", "LIVE", "prod-eu"])
@pytest.mark.parametrize("variable", ["ENVIRONMENT", "APP_ENV", "DJANGO_ENV", "FLASK_ENV", "ENV"])
@pytest.mark.slow
def test_production_refuses_demo_data(database, variable, value):
    _, errors = database.apply(code=2, **{variable: value})
    assert "Demo data is refused in production" in errors
    assert f"{variable}={value}" in errors


@pytest.mark.long
def test_production_refuses_demo_data_whatever_the_flags(database):
    for number in range(len(FLAGS) + 1):
        for flags in itertools.combinations(FLAGS, number):
            _, errors = database.apply(*flags, code=2, ENVIRONMENT="production")
            assert "is refused in production; no option allows it" in errors
    assert database.run("SELECT to_regclass('shop')") == [(None,)]


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--reset", "--force"])
def test_production_takes_essential_seeds_and_no_flag_that_undoes(database, flag):
    database.apply("--tier", "essential", ENVIRONMENT="production")
    assert database.rows == {"shop": ROWS["shop"], "item": 0}
    _, errors = database.apply("--tier", "essential", flag, "--yes", code=2, ENVIRONMENT="production")
    assert f"omit {flag}" in errors
    assert database.rows == {"shop": ROWS["shop"], "item": 0}


@pytest.mark.slow
def test_a_database_that_was_production_once_stays_so_without_the_variable(database):
    database.apply("--tier", "essential", APP_ENV="production")
    for arguments in ((), ("--tier", "demo"), ("--reset", "--yes"), ("--force",)):
        _, errors = database.apply(*arguments, code=2)
        assert "the marker of the database, which says production" in errors
    database.apply("--tier", "essential", APP_ENV="staging")
    assert database.run("SELECT environment FROM seeddb.seeddb_marker") == [("production",)]


def test_the_setting_names_the_variable_that_counts(database):
    database.project.write("pyproject.toml", TABLE + 'environment = "DEPLOYED_TO"\n')
    database.apply("--dry-run", ENVIRONMENT="production")
    database.apply("--dry-run", code=2, DEPLOYED_TO="production")


# -- .env ------------------------------------------------------------------------------------------


@pytest.fixture
def unnamed(database, monkeypatch):
    """The database, in a shell that does not say where this is."""
    for name in KEYS["environment"].default:
        monkeypatch.delenv(name, raising=False)
    return database


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["ENVIRONMENT=production", "#\nexport app_env='Prod'", "STAGE=live\nDJANGO_ENV=${STAGE}-eu"]
)
def test_a_dotenv_that_says_production_refuses_demo_data_and_nothing_undoes_that(unnamed, text):
    unnamed.project.write(".env", text)
    for arguments, environ in (
        ((), {}),
        (("--yes",), {"ENVIRONMENT": "development", "APP_ENV": "dev"}),
        (("--reset", "--yes"), {}),
        (("--force", "--accept", "--tier", "essential"), {"ENV": "test"}),
    ):
        _, errors = unnamed.apply(*arguments, code=2, **environ)
        assert "is refused in production; no option allows it" in errors
        assert f"in {unnamed.project.path / '.env'}, line {text.count(chr(10)) + 1}" in errors
    assert unnamed.run("SELECT to_regclass('shop'), to_regnamespace('seeddb')") == [(None, None)]
    unnamed.apply("--tier", "essential")
    assert unnamed.rows == {"shop": ROWS["shop"], "item": 0}
    (unnamed.project.path / ".env").unlink()
    assert "the marker of the database" in unnamed.apply(code=2)[1]


@pytest.mark.slow
def test_a_dotenv_above_the_root_and_one_that_is_turned_off_say_nothing(unnamed):
    unnamed.project.write(".env", "ENVIRONMENT=production")
    unnamed.apply("--dry-run", SEEDDB_DOTENV="false")
    unnamed.project.write("pyproject.toml", TABLE + "dotenv = false\n")
    unnamed.apply("--dry-run")
    inner = unnamed.project.path / "inner"
    for directory in ("db", "shop", "seeds"):
        shutil.copytree(unnamed.project.path / directory, inner / directory)
    unnamed.project.write("inner/pyproject.toml", TABLE)
    unnamed.apply("--dry-run", "-C", "inner")


@pytest.mark.slow
def test_the_url_in_dotenv_is_used_and_said_before_anything_else(unnamed):
    host = unnamed.address.params["host"]
    unnamed.project.write(".env", f"# ours\nDATABASE_URL={unnamed.address.url}\n")
    output, errors = unnamed.apply("--json", SHOP_URL="")
    assert errors.splitlines()[0] == f"URL from .env, line 2: {host}/{unnamed.address.database}"
    assert json.loads(output)["tier"] == "demo"
    assert unnamed.rows == ROWS
    unnamed.project.write(".env", "DATABASE_URL=postgresql://me:hidden-3@127.0.0.1:1/none\nENVIRONMENT=prod")
    output, errors = unnamed.apply(code=2, SHOP_URL="")
    assert errors.splitlines()[0] == "URL from .env, line 1: 127.0.0.1/none"
    assert "hidden-3" not in output + errors


@pytest.mark.slow
def test_the_variable_of_the_setting_goes_before_the_other_in_dotenv_and_the_environment_before_both(unnamed):
    unnamed.project.write(".env", f"DATABASE_URL=postgresql://127.0.0.1:1/none\nSHOP_URL='{unnamed.address.url}'")
    assert "URL from .env, line 2: " in unnamed.apply(SHOP_URL="")[1]
    unnamed.project.write(".env", "SHOP_URL=postgresql://127.0.0.1:1/none")
    assert "URL from" not in unnamed.apply()[1]
    assert "URL from" not in unnamed.apply("--url", unnamed.address.url, SHOP_URL="")[1]


@pytest.mark.slow
def test_settings_and_parameters_in_dotenv_count(unnamed):
    unnamed.project.write(".env", "SEEDDB_SEED_ITEMS=2\nSEEDDB_PROFILE=small")
    unnamed.project.write("pyproject.toml", TABLE + "[tool.seeddb.profiles.small]\n")
    assert "little-shop/small, demo" in unnamed.apply()[0]
    assert unnamed.rows["item"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("url", ["postgresql://postgres@db", "postgresql+psycopg://db:5432/", "postgres:///?host=/tmp"])
def test_a_url_without_a_database_is_refused_wherever_it_comes_from(unnamed, url):
    _, errors = unnamed.apply("--url", url, code=2)
    assert "The URL names a server, but no database" in errors
    assert "from: the option --url" in errors
    assert "from: the environment variable SHOP_URL" in unnamed.apply(code=2, SHOP_URL=url, PGDATABASE="shop")[1]
    unnamed.project.write(".env", f"\nDATABASE_URL={url}")
    _, errors = unnamed.apply(code=2, SHOP_URL="")
    assert f"from: DATABASE_URL in {unnamed.project.path / '.env'}, line 2" in errors


@pytest.mark.slow
@pytest.mark.parametrize("service", ["host=127.0.0.1\nport=1\nuser=postgres", "user=postgres", ""])
def test_a_service_without_a_database_is_refused(unnamed, service):
    file = unnamed.project.write("services", f"[shop]\n{service}\n")
    _, errors = unnamed.apply("--url", "postgresql:///?service=shop", code=2, PGSERVICEFILE=str(file))
    assert "The URL names a server, but no database" in errors
    named = {"PGSERVICEFILE": str(file), "PGSERVICE": "shop"}
    assert "names a server, but no database" in unnamed.apply("--url", "postgresql:///", code=2, **named)[1]
    _, errors = unnamed.apply("--url", "postgresql:///?service=none", code=2, PGSERVICEFILE=str(file))
    assert "the service 'none' is not in libpq's service file" in errors


# -- the application's own value -------------------------------------------------------------------

CONFIG = """
import enum, functools, os
from pathlib import Path

class Stage(enum.Enum):
    production = 1
    development = 2

class Settings:
    environment = "production"
    stage = Stage.production
    is_production = True
    nothing = None

    @property
    def of_file(self):
        return Path("where").read_text()  # relative to the root

    @property
    def broken(self):
        raise RuntimeError("no key")

@functools.lru_cache
def get_settings():
    return Settings()

def stage():
    return "prod"

settings = Settings()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "settings.environment",
        "settings.stage",
        "settings.is_production",
        "settings.of_file",
        "get_settings.environment",
        "stage",
    ],
)
def test_the_applications_own_value_says_production(unnamed, path):
    unnamed.project.write("pyproject.toml", TABLE + f'environment = "shop.config:{path}"\n')
    unnamed.project.write("shop/config.py", CONFIG)
    unnamed.project.write("where", "production")
    for arguments in ((), ("--yes", "-C", "shop"), ("--reset", "--yes", "--tier", "essential")):
        _, errors = unnamed.apply(*arguments, code=2, ENVIRONMENT="development")
        assert "is refused in production; no option allows it" in errors
        assert f"shop.config:{path} is " in errors
    unnamed.apply("--tier", "essential")
    assert marker(unnamed)[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("shop.nowhere:settings", "There is no module 'shop.nowhere'"),
        ("shop.config:settings.envronment", "AttributeError"),
        ("shop.config:settings.broken", "RuntimeError: no key"),
        ("shop.config:settings", "its type is Settings, which does not name an environment"),
        ("shop.failing:settings", "ModuleNotFoundError: No module named 'pydantic_setings'"),
    ],
)
def test_a_value_of_the_application_that_cannot_be_had_refuses_demo_data(unnamed, path, reason):
    unnamed.project.write("pyproject.toml", TABLE + f'environment = "{path}"\n')
    unnamed.project.write("shop/config.py", CONFIG)
    unnamed.project.write("shop/failing.py", "import pydantic_setings")
    for arguments in ((), ("--yes",), ("--force", "--tier", "essential"), ("--reset", "--yes", "--tier", "none")):
        _, errors = unnamed.apply(*arguments, code=2, ENVIRONMENT="development")
        assert "is refused because this may be production" in errors
        assert reason in errors
    assert unnamed.run("SELECT to_regclass('shop')") == [(None,)]
    unnamed.apply("--tier", "essential")
    assert unnamed.rows == {"shop": ROWS["shop"], "item": 0}


@pytest.mark.slow
def test_a_value_of_the_application_that_says_development_lets_demo_data_in(unnamed):
    unnamed.project.write("pyproject.toml", TABLE + 'environment = "shop.config:settings.environment"\n')
    unnamed.project.write("shop/config.py", CONFIG.replace('"production"', '"development"'))
    unnamed.apply("--url", elsewhere(unnamed))
    assert marker(unnamed)[-1] == "development"


# -- where nothing says what the database is -------------------------------------------------------


def elsewhere(database):
    """The database's URL with a host that is not nearby. It is not there, and the next one is tried."""
    return (
        f"postgresql://postgres@/{database.address.database}?host=db.example.invalid,{database.address.params['host']}"
    )


def apply_on_a_terminal(database, answer, *arguments):
    """The exit code, and what was printed to standard error, where standard input is a terminal."""
    ours, theirs = os.openpty()
    try:
        line = [sys.executable, "-W", "error", "-m", "pytest_seeddb.cli", "apply", *arguments]
        process = subprocess.Popen(line, cwd=database.project.path, stdin=theirs, stderr=subprocess.PIPE, text=True)
        os.write(ours, f"{answer}\n".encode())
        _, errors = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    return process.returncode, errors


@pytest.mark.slow
def test_without_a_terminal_demo_data_is_refused_elsewhere_unless_something_says_that_it_may(unnamed):
    url = elsewhere(unnamed)
    _, errors = unnamed.apply("--url", url, code=2)
    assert "Demo data is refused: nothing says whether this is a production database" in errors
    assert "--yes" in errors
    assert 'environment = "demo"' in errors
    assert unnamed.run("SELECT to_regclass('shop')") == [(None,)]
    unnamed.apply("--url", url, "--dry-run")
    unnamed.apply("--url", url, "--tier", "essential")
    assert unnamed.rows == {"shop": ROWS["shop"], "item": 0}
    unnamed.apply("--url", url, code=2)
    unnamed.apply("--url", url, "--yes")
    assert unnamed.rows == ROWS
    unnamed.apply("--url", url)  # it has demo data of ours
    _, errors = unnamed.apply("--url", "postgresql://me@db.example.invalid/shop", code=2)
    assert "Demo data is refused" in errors


@pytest.mark.slow
@pytest.mark.parametrize("says", ["the table", "a variable", ".env", "the marker"])
def test_what_says_what_it_is_lets_demo_data_in_elsewhere(unnamed, says):
    url = elsewhere(unnamed)
    if says == "the table":
        unnamed.project.write("pyproject.toml", TABLE + 'environment = "demo"\n')
    elif says == ".env":
        unnamed.project.write(".env", "APP_ENV=staging")
    elif says == "the marker":
        unnamed.apply("--url", url, "--tier", "essential", ENV="qa")
    unnamed.apply("--url", url, **({"ENV": "dev"} if says == "a variable" else {}))
    assert unnamed.rows == ROWS


@pytest.mark.slow
def test_a_terminal_asks_and_only_yes_goes_on(unnamed):
    url = elsewhere(unnamed)
    for answer in ("no", "", "y"):
        code, errors = apply_on_a_terminal(unnamed, answer, "--url", url)
        assert code == 1
        assert "Nothing says whether" in errors
        assert "nothing was done" in errors
    assert unnamed.run("SELECT to_regclass('shop')") == [(None,)]
    code, errors = apply_on_a_terminal(unnamed, "yes", "--url", url)
    assert code == 0, errors
    assert unnamed.rows == ROWS
    code, errors = apply_on_a_terminal(unnamed, "no", "--url", url)
    assert (code, errors) == (0, "")


@pytest.mark.slow
def test_a_terminal_does_not_ask_on_this_machine(unnamed):
    code, errors = apply_on_a_terminal(unnamed, "no", "--url", unnamed.address.url)
    assert code == 0, errors
    assert "Type yes" not in errors


@pytest.mark.slow
def test_a_terminal_asks_about_a_name_without_a_dot(unnamed):
    url = elsewhere(unnamed).replace("db.example.invalid", "db")
    assert apply_on_a_terminal(unnamed, "no", "--url", url)[0] == 1
    unnamed.apply("--url", url)  # as in a stack, where nobody is there to answer


@pytest.mark.slow
def test_a_database_that_is_production_is_refused_before_it_is_asked_about(unnamed):
    url = elsewhere(unnamed)
    unnamed.apply("--url", url, "--tier", "essential", ENV="prod")
    for code, errors in (
        apply_on_a_terminal(unnamed, "yes", "--url", url),
        (2, unnamed.apply("--url", url, code=2)[1]),
    ):
        assert code == 2
        assert "the marker of the database, which says prod" in errors
    assert unnamed.rows == {"shop": ROWS["shop"], "item": 0}


# -- parameters and secrets ------------------------------------------------------------------------

ADMIN = """
from typing import Annotated
from sqlalchemy import text
from sqlalchemy.orm import Session
from pytest_seeddb import Param, seeder

@seeder
def admin(session: Session, admin_login: Annotated[str, Param(secret=True)] = "s3cret-default", size: int = 1):
    session.execute(text("INSERT INTO shop (name) VALUES (:name)"), {"name": admin_login})
"""


@pytest.fixture
def guarded(database):
    database.project.write("shop/seeds.py", ADMIN)
    return database


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, "", "s3cret-default", "changeme"])
def test_a_secret_with_a_known_value_is_a_warning_and_in_production_an_error(guarded, value):
    given = {} if value is None else {"SEEDDB_SEED_ADMIN_LOGIN": value}
    output, errors = guarded.apply(**given)
    assert "warning: shop.seeds:admin: `admin_login`" in errors or value == "changeme"
    assert "s3cret-default" not in output + errors
    if value == "changeme":
        assert "has a well-known value" in errors
        return
    _, errors = guarded.apply(code=2, ENVIRONMENT="production", **given)
    assert "Secrets in production need their own values" in errors
    assert "s3cret-default" not in errors


@pytest.mark.slow
def test_a_secret_from_the_environment_is_used_and_shown_nowhere(guarded):
    output, errors = guarded.apply("--json", ENVIRONMENT="production", SEEDDB_SEED_ADMIN_LOGIN="x9-hidden")
    assert guarded.run("SELECT name FROM shop ORDER BY id LIMIT 1") == [("x9-hidden",)]
    line = [sys.executable, "-m", "pytest_seeddb.cli", "explain"]
    environment = {**os.environ, "SEEDDB_SEED_ADMIN_LOGIN": "x9-hidden"}
    done = subprocess.run(line, cwd=guarded.project.path, env=environment, capture_output=True, text=True, check=True)
    assert "x9-hidden" not in output + errors + done.stdout + done.stderr


@pytest.mark.slow
def test_a_value_that_does_not_fit_names_seeder_parameter_value_and_source(guarded):
    _, errors = guarded.apply(code=2, SEEDDB_SEED_SIZE="many")
    for part in ("shop.seeds:admin", "`size`", "'many'", "SEEDDB_SEED_SIZE", "a whole number"):
        assert part in errors
    _, errors = guarded.apply("--set", "size=1.5", code=2)
    assert "the option --set size=..." in errors
    _, errors = guarded.apply("--set", "sise=1", code=2)
    assert "Did you mean 'size'?" in errors
    _, errors = guarded.apply("--set", "size", code=2)
    assert "write NAME=VALUE" in errors


@pytest.mark.slow
def test_the_command_line_goes_before_the_environment_and_that_before_the_table(database):
    database.project.write("pyproject.toml", TABLE + 'profile = "p"\n[tool.seeddb.profiles.p]\nitems = 1\n')
    for arguments, environ, count in (
        ((), {}, 1),
        ((), {"SEEDDB_SEED_ITEMS": "2"}, 2),
        (("--set", "items=3"), {"SEEDDB_SEED_ITEMS": "2"}, 3),
    ):
        database.apply("--reset", "--yes", *arguments, **environ)
        assert database.rows["item"] == count


# -- the schema alone ------------------------------------------------------------------------------


def marker(database):
    (found,) = database.run("SELECT profile, tier, version, environment FROM seeddb.seeddb_marker")
    return found


@pytest.mark.slow
def test_no_tier_migrates_and_seeds_nothing_and_the_seeds_can_follow(database):
    output, _ = database.apply("--tier", "none")
    assert output.count("ran:") == 1
    assert "little-shop, no seeds: applied" in output
    assert database.rows == {"shop": 0, "item": 0}
    assert "little-shop, no seeds: up to date" in database.apply("--tier", "none")[0]
    database.apply("--tier", "essential")
    database.apply()
    assert database.rows == ROWS


@pytest.mark.slow
def test_rows_that_migrations_made_are_no_reason_not_to_seed(database):
    database.project.write("db/002_own.sql", "INSERT INTO shop (name) VALUES ('of a migration');")
    database.apply("--tier", "none")
    database.apply()
    assert database.rows["shop"] == ROWS["shop"] + 1


MIGRATE = """
import os
import psycopg

with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS item (id serial PRIMARY KEY, shop int, name text)")
    connection.execute("CREATE TABLE IF NOT EXISTS shop (id int PRIMARY KEY DEFAULT 1, name text)")
    connection.execute("INSERT INTO shop VALUES (1, 'of a migration') ON CONFLICT DO NOTHING")
"""


@pytest.mark.slow
def test_a_seeder_that_failed_can_be_tried_again_where_a_tool_of_its_own_migrated(database):
    migrations = '{command = "python migrate.py", inputs = ["migrate.py"]}'
    database.project.write("pyproject.toml", TABLE.replace('"db"', migrations))
    database.project.write("migrate.py", MIGRATE)
    database.project.write("shop/seeds.py", ADMIN.replace("INSERT INTO shop (name)", "INSERT INTO shops (name)"))
    given = {"SEEDDB_SEED_ADMIN_LOGIN": "x9", "ENVIRONMENT": "production"}
    database.project.write("seeds/shops.sql", "SELECT 1;")
    assert "admin failed" in database.apply(code=1, **given)[1]
    assert database.rows["shop"] == 1
    assert marker(database)[1:] == ("none", "", "production")
    database.project.write("shop/seeds.py", ADMIN.replace("shop (name) VALUES (:name)", "shop VALUES (2, :name)"))
    database.apply(**given)
    assert database.rows["shop"] == 2


@pytest.mark.slow
def test_migrating_alone_leaves_what_is_known_of_the_seeds(database):
    database.apply()
    before = marker(database)
    database.project.write("db/002_more.sql", "ALTER TABLE shop ADD city text;")
    assert "ran: migration db/002_more.sql" in database.apply("--tier", "none")[0]
    assert marker(database) == before
    assert "up to date" in database.apply()[0]
    assert database.rows == ROWS


@pytest.mark.slow
def test_migrating_alone_asks_for_no_secrets_and_knows_production(guarded):
    guarded.apply("--tier", "none", ENVIRONMENT="production")
    assert marker(guarded)[-1] == "production"
    _, errors = guarded.apply("--reset", "--yes", code=2)
    assert "the marker of the database, which says production" in errors


@pytest.mark.slow
def test_migrating_alone_does_not_vouch_for_rows_that_nobody_noted(database):
    database.run(SCHEMA + "INSERT INTO shop (name) VALUES ('whose?')")
    database.project.write("db/001_shop.sql", SCHEMA.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
    for flags in ((), ("--accept",)):
        database.apply("--tier", "none", *flags)
        _, errors = database.apply(code=1)
        assert "shop already has rows, and no ledger says where they come from" in errors
    database.apply("--accept")
    assert "up to date" in database.apply()[0]
    assert database.rows == {"shop": 1, "item": 0}


def test_a_failure_while_it_migrates_alone_vouches_for_nothing_either(database):
    database.run(SCHEMA + "INSERT INTO shop (name) VALUES ('whose?')")
    database.project.write("db/001_shop.sql", SCHEMA.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
    database.project.write("db/002_wrong.sql", "SELECT 1 / 0;")
    database.apply("--tier", "none", code=1)
    database.project.write("db/002_wrong.sql", "SELECT 1;")
    _, errors = database.apply(code=1)
    assert "shop already has rows, and no ledger says where they come from" in errors


# -- reaching it -----------------------------------------------------------------------------------


def test_without_a_url_it_says_where_it_looked(database):
    _, errors = database.apply(code=2, SHOP_URL="", DATABASE_URL="")
    assert "no SHOP_URL or DATABASE_URL" in errors


@pytest.mark.slow
def test_a_password_is_shown_nowhere(database):
    url = database.address.url + "&password=hidden-1"
    output, errors = database.apply("--url", url)
    assert "hidden-1" not in output + errors
    _, errors = database.apply("--url", "postgresql://me:hidden-2@127.0.0.1:1/none", code=1)
    assert "The database cannot be reached" in errors
    assert "hidden-2" not in errors


@pytest.mark.slow
def test_wait_waits_for_a_server_that_comes_up_later(project):
    with separate_server() as start:
        first = start()
        database = Database(project, first)
        start.stop()
        process = database.start("--wait", "30")
        time.sleep(1.0)
        assert process.poll() is None
        start()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert database.rows == ROWS


@pytest.mark.slow
def test_waiting_ends_with_what_the_server_said_last(database):
    started = time.monotonic()
    _, errors = database.apply("--url", "postgresql://me@127.0.0.1:1/none", "--wait", "1", code=1)
    assert "cannot be reached within 1 s" in errors
    assert time.monotonic() - started > 1
    _, errors = database.apply("--url", f"{database.address.url}&sslmode=none", "--wait", "55", code=1)
    assert "correct sslmode in the URL" in errors, "no wait would help"


# -- Alembic ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_alembic_runs_only_what_its_own_table_lacks(project, server, repository):
    database = Database(project, server)
    for source in sorted((repository / "examples" / "quickstart").rglob("*")):
        name = source.relative_to(repository / "examples" / "quickstart")
        if source.is_file() and source.suffix in {".py", ".ini", ".toml", ".mako"} and "tests" not in name.parts:
            project.write(str(name), source.read_text())
    url = {"DATABASE_URL": database.address.url}
    output, _ = database.apply(**url)
    assert output.count("ran: migration") == 9
    project.write(
        "migrations/versions/0010_note.py",
        """
        from alembic import op
        revision = "0010"
        down_revision = "0009"
        def upgrade():
            op.execute("ALTER TABLE stores ADD note text")
        """,
    )
    planned = database.apply("--dry-run", **url)[0]
    output, _ = database.apply(**url)
    assert output.count("ran: ") == planned.count("  run: ") == 1
    assert "ran: migration 0010" in output
    assert "run: migration 0010" in planned
    assert "up to date" in database.apply(**url)[0]
    project.write("shop/seeds.py", (project.path / "shop/seeds.py").read_text() + "# edited\n")
    assert "run: migration" not in database.apply("--dry-run", code=1, **url)[0]
    database.run("ALTER TABLE alembic_version RENAME TO shop_version; UPDATE shop_version SET version_num = 'x'")
    _, errors = database.apply("--dry-run", code=1, **url)
    assert "The database is at a revision that the migrations do not have" in errors
    assert "x in public.shop_version" in errors
