"""`examples/django_clinic`: its tests, its command, its dump, its stack."""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from separate import separate_server

from pytest_seeddb.servers.binaries import choose
from pytest_seeddb.settings.settings import load_settings

EXAMPLE = Path(__file__).parents[2] / "examples/django_clinic"
TABLES = ["tenants_tenant", "clinicians_clinician", "patients_patient", "visits_visitkind", "visits_visit"]
ESSENTIAL = [1, 1, 0, 3, 0]
MINIMAL = [2, 4, 2, 3, 1]
DEMO = [4, 10, 36, 3, 60]
PRODUCTION = {"ENVIRONMENT": "production", "SECRET_KEY": "b7f1c0", "SEEDDB_SEED_ADMIN_PASSWORD": "x9-hidden"}


class Clinic:
    """The example, copied, with an empty database."""

    def __init__(self, reader, server):
        self.directory = reader.directory
        name = f"clinic_{uuid.uuid4().hex[:12]}"
        self.address = server.with_database(name)
        self.environment = {
            **reader._environment(),
            "DATABASE_URL": self.address.url,
            "PYTEST_ADDOPTS": "-p no:cacheprovider",  # its tests need pytest-asyncio, and bear any order
        }
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def run(self, command, code=0, **environ):
        """Run a command, and return all that it printed."""
        done = self._run(command, {**self.environment, **environ})
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        assert "x9-hidden" not in done.stdout
        return done.stdout

    def typed(self, command):
        """Run what the README shows, on the database that it names."""
        done = self._run(command, self.environment)
        done.stdout = done.stdout.replace(self.address.masked, "postgresql://localhost/clinic").splitlines()
        return done

    def _run(self, command, environment):
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        options = {"cwd": self.directory, "env": environment, "timeout": 300, **pipes}
        return subprocess.run(command, shell=True, check=False, **options)

    @property
    def rows(self):
        with psycopg.connect(self.address.conninfo) as connection:
            return [connection.execute(f"SELECT count(*) FROM {each}").fetchone()[0] for each in TABLES]

    @property
    def is_empty(self):
        with psycopg.connect(self.address.conninfo) as connection:
            return connection.execute("SELECT count(*) = 0 FROM pg_tables WHERE schemaname = 'public'").fetchone()[0]


@pytest.fixture(scope="module")
def server():
    with separate_server() as start:
        yield start()


@pytest.fixture
def clinic(example, server):
    return Clinic(example("django_clinic"), server)


def text_of(name):
    return (EXAMPLE / name).read_text(encoding="utf-8")


# -- tests -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_second_run_reuses_what_the_first_built_in_any_order(clinic):
    nowhere = {"DATABASE_URL": "postgresql://nobody@nohost.invalid/nowhere"}
    cold = clinic.run("pytest --seed-db", **nowhere)
    warm = [clinic.run(f"pytest --seed-db {more}", **nowhere) for more in ("", "-n 2")]

    assert "seeddb: template django-clinic/demo built in " in cold
    for printed in warm:
        assert "seeddb: template django-clinic/demo reused" in printed
        assert " built in " not in printed
    for printed in (cold, *warm):
        assert re.search(r"\d+ passed in ", printed)
        assert "skipped" not in printed


@pytest.mark.long
def test_what_is_not_seeded_needs_no_plugin(clinic):
    printed = clinic.run("pytest")
    assert re.search(r"\d+ passed, \d+ skipped in ", printed)
    assert "seeddb: template" not in printed
    assert clinic.is_empty


# -- the project's own command ---------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("option", ["", " --idempotent"])
def test_the_second_time_there_is_nothing_to_seed(clinic, option):
    first = clinic.run(f"python manage.py seed_demo{option}")
    assert clinic.rows == DEMO
    second = clinic.run(f"python manage.py seed_demo{option}")
    assert "up to date" in second
    assert second.splitlines()[-1] == first.splitlines()[-1]
    assert re.fullmatch(r"seed_demo: version [0-9a-f]{12}", second.splitlines()[-1])
    assert clinic.rows == DEMO


@pytest.mark.long
def test_force_runs_the_seeders_again_and_adds_what_is_missing(clinic):
    clinic.run("python manage.py seed_demo --profile minimal")
    with psycopg.connect(clinic.address.conninfo) as connection:
        connection.execute("DELETE FROM visits_visit")
    assert "up to date" in clinic.run("python manage.py seed_demo --profile minimal")
    assert "seed clinic.seeds.demo:visits (it was asked for" in clinic.run(
        "python manage.py seed_demo --profile minimal --force"
    )
    assert clinic.rows == MINIMAL


@pytest.mark.slow
def test_production_refuses_the_demo(clinic):
    printed = clinic.run("python manage.py seed_demo", code=2, **PRODUCTION)
    assert "Demo data is refused in production" in printed
    assert clinic.is_empty


@pytest.mark.slow
def test_production_takes_what_is_essential(clinic):
    clinic.run("seeddb apply --tier essential", **PRODUCTION)
    assert clinic.rows == ESSENTIAL
    assert "up to date" in clinic.run("seeddb apply --tier essential", **PRODUCTION)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "said"),
    [("SEEDDB_SEED_ADMIN_PASSWORD", "`admin_password` has its default value"), ("SECRET_KEY", "SECRET_KEY needs")],
)
def test_production_needs_secrets_of_its_own(clinic, variable, said):
    given = {name: value for name, value in PRODUCTION.items() if name != variable}
    assert said in clinic.run("seeddb apply --tier essential", code=2, **given)
    assert clinic.is_empty


@pytest.mark.long
def test_the_readme_shows_what_is_printed(example, server, blocks):
    reader = example("django_clinic")
    reader.run = Clinic(reader, server).typed
    shown = [each for each in blocks("examples/django_clinic/README.md", "console") if "\n" in each.text.strip()]
    shown = [each for each in shown if "createdb" not in each.text and "pip install" not in each.text]

    assert len(shown) == 2
    reader.follow(shown)


# -- the committed dump ----------------------------------------------------------------------------


def psql_of(directory):
    """The client that fits the servers here, as CI has one."""
    binaries = choose(load_settings(directory)).program("psql")
    return str(binaries)


@pytest.mark.slow
def test_restored_by_psql_there_is_nothing_to_migrate_or_to_seed(clinic):
    workflow = text_of(".github/workflows/seed-db.yml")
    assert 'run: psql -X -q -v ON_ERROR_STOP=1 -f seed-db.sql "$DATABASE_URL"' in workflow
    clinic.run('"$PSQL" -X -q -v ON_ERROR_STOP=1 -f seed-db.sql "$DATABASE_URL"', PSQL=psql_of(clinic.directory))

    assert clinic.rows == DEMO
    assert "No migrations to apply." in clinic.run("python manage.py migrate")
    assert clinic.run("python manage.py migrate --check").strip() == ""
    # Another version of Django than that which made the dump sends its signals once more; no seed runs.
    applied = clinic.run("seeddb apply")
    assert "up to date" in applied or re.findall(r"  ran: (.+?) \(", applied) == ["signals after the migrations"]


def test_the_workflow_restores_migrates_verifies_and_tests():
    commands = re.findall(r"run: (?!pip )(.+)$", text_of(".github/workflows/seed-db.yml"), re.MULTILINE)
    assert [each.split(" -")[0] for each in commands] == [
        "psql",
        "python manage.py migrate",
        "python manage.py migrate",
        "seeddb verify",
        "pytest",
    ]
    assert "SEEDDB_DUMP: seed-db.sql" in text_of(".github/workflows/seed-db.yml")


@pytest.mark.long
def test_the_dump_is_not_stale(clinic):
    printed = clinic.run("seeddb verify --dump", SEEDDB_DUMP="seed-db.sql")
    assert "seed-db.sql holds all 23 migrations" in printed


# -- the stack -------------------------------------------------------------------------------------


def recipes():
    found = re.findall(r"^([\w-]+):.*\n((?:\t.*\n)+)", text_of("Makefile"), re.MULTILINE)
    return {target: [line.strip() for line in recipe.splitlines()] for target, recipe in found}


def services():
    """The text of each service, by name, without comments."""
    text = re.sub(r"(?m)\s+#.*$", "", text_of("docker-compose.yml"))
    body = text.partition("services:\n")[2].partition("\nvolumes:")[0]
    parts = re.split(r"(?m)^  ([\w-]+):\n", body)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_makefiles_targets_do_what_they_are_called():
    assert recipes() == {
        "up": [
            "$(COMPOSE) up --detach --build",
            (
                "curl --silent --show-error --fail --retry 60 --retry-delay 1 --retry-all-errors"
                " http://127.0.0.1:$(API_PORT)/health"
            ),
        ],
        "reseed": ["$(COMPOSE) run --rm db-init seeddb apply --reset --yes"],
        "logs": ["$(COMPOSE) logs --follow"],
        "down": ["$(COMPOSE) down"],
        "down-all": ["$(COMPOSE) down --volumes"],
    }


def test_the_makefile_is_one_that_make_reads(clinic):
    assert shutil.which("make")
    for target in recipes():
        assert "docker compose " in clinic.run(f"make --dry-run {target}")


def test_each_service_waits_for_the_one_before():
    found = services()
    assert list(found) == ["db", "db-init", "api"]
    assert '"pg_isready", "-h", "127.0.0.1"' in found["db"]
    assert "db: { condition: service_healthy }" in found["db-init"]
    assert "db-init: { condition: service_completed_successfully }" in found["api"]


@pytest.mark.slow
def test_the_stacks_commands_are_there(clinic):
    """What `db-init` runs, on a database here; the second time it is up to date, as in a stack that starts again."""
    [command] = re.findall(r"command: (seeddb .+)$", services()["db-init"], re.MULTILINE)
    assert command == "seeddb apply --wait 60"
    clinic.run(command)
    assert clinic.rows == DEMO
    assert "up to date" in clinic.run(command)

    clinic.run(recipes()["reseed"][0].partition("db-init ")[2])
    assert clinic.rows == DEMO


def test_the_image_is_built_of_what_is_there():
    root = EXAMPLE.parents[1]
    copied = re.findall(r"^COPY (.+) \S+$", text_of("Dockerfile"), re.MULTILINE)
    let_in = {line.removeprefix("!") for line in text_of("Dockerfile.dockerignore").splitlines()}
    for each in " ".join(copied).split():
        assert (root / each).exists()
        assert each in let_in
    assert "dockerfile: examples/django_clinic/Dockerfile" in services()["db-init"]
