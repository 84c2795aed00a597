"""A Django project's template: what is in it, what builds it again, and what is said where it cannot be built."""

from __future__ import annotations

import json
import re
import uuid
from ast import literal_eval

import pytest
from clinic import INITIAL, WARDS, Clinic


@pytest.fixture
def clinic(tmp_path):
    clinic = Clinic(tmp_path)
    clinic.own_template()
    return clinic


def rows(clinic, *statements):
    """What the statements give in a database made of the present template, and what was said of building it."""
    clinic.write(
        "test_rows.py",
        f"""
        def test_rows(seeded_db):
            with seeded_db.connect() as connection:
                print("ROWS", *[connection.execute(each).fetchall() for each in {statements!r}], sep="\\n")
        """,
    )
    found = clinic.pytest("-s", "test_rows.py").splitlines()
    start = next(number for number, line in enumerate(found) if line.endswith("ROWS")) + 1
    told = [line for line in found if line.startswith("seeddb: template")]
    return [literal_eval(line) for line in found[start : start + len(statements)]], told[-1]


def run_steps(done):
    return re.findall(r"^  \d+/\d+ (.*) \(", done.stderr, re.MULTILINE)


def reason(done):
    return done.stdout.splitlines()[0]


MORE = "migrations.CreateModel('More', [('id', models.BigAutoField(primary_key=True))])"
WARD_NAMES = "SELECT name FROM clinic_ward ORDER BY id"
TYPES = "SELECT id, app_label, model FROM django_content_type ORDER BY id"
PERMISSIONS = "SELECT id, content_type_id, codename FROM auth_permission ORDER BY id"


@pytest.mark.slow
def test_one_more_migration_runs_one_migration_and_going_back_builds_nothing(clinic):
    first = clinic.seeddb("build").stdout.split()
    clinic.migration("0004_more", MORE, "0003_own")
    second = clinic.seeddb("build")
    assert reason(second).endswith("new migration clinic.0004_more")
    (clinic.path / "clinic/migrations/0004_more.py").unlink()
    back = clinic.seeddb("build")
    assert back.stderr == ""
    assert "is there already" in back.stdout
    assert back.stdout.split()[-1] in " ".join(first)
    migrations = [each for each in run_steps(second) if each.startswith("migration ")]
    assert migrations == ["migration clinic.0004_more"]


COLUMNS = """
SELECT table_name, column_name, ordinal_position, data_type FROM information_schema.columns
WHERE table_schema = 'public' ORDER BY table_name, ordinal_position
"""
APPLIED = "SELECT id, app, name, applied::text FROM django_migrations ORDER BY id"


@pytest.mark.slow
def test_a_changed_migration_builds_from_there_on_and_to_what_a_build_from_nothing_makes(clinic):
    name = f"clinic {uuid.uuid4().hex[:8]}"  # other tests' layers are not its own
    clinic.write("pyproject.toml", clinic.read("pyproject.toml").replace('name = "clinic"', f'name = "{name}"'))
    clinic.migration("0004_more", MORE, "0003_own")
    clinic.seeddb("build")
    ran = {}
    for ward in ("west", "east"):
        clinic.write("clinic/migrations/0002_wards.py", WARDS.replace('"south"', f'"{ward}"'))
        steps = run_steps(clinic.seeddb("build"))
        ran[ward] = [step.removeprefix("migration ") for step in steps if step.startswith("migration ")]
    assert ran["west"].count("clinic.0001_initial") == 1
    assert ran["east"] == ran["west"][ran["west"].index("clinic.0002_wards") :]
    shown = json.loads(clinic.seeddb("status", "--json").stdout)["templates"]
    assert any(row["plan"] == name and row["layer"] for row in shown)
    statements = (WARD_NAMES, TYPES, PERMISSIONS, COLUMNS, APPLIED)
    from_a_layer, told = rows(clinic, *statements)
    assert from_a_layer[0] == [("north",), ("east",)]
    assert "reused" in told
    clinic.seeddb("build", "--reseed")
    assert rows(clinic, *statements)[0] == from_a_layer


@pytest.mark.slow
def test_what_a_migration_sets_in_the_session_is_there_for_those_that_follow(clinic):
    setting = "migrations.RunSQL('CREATE SCHEMA ward; SET search_path TO ward, public')"
    clinic.migration("0004_setting", setting, "0003_own")
    for table in ("first", "second"):
        made = f"migrations.RunSQL('CREATE TABLE {table} (); RESET search_path')"
        clinic.migration("0005_table", made, "0004_setting")
        clinic.seeddb("build")
    assert rows(clinic, "SELECT to_regclass('ward.second')::text")[0] == [[("ward.second",)]]


@pytest.mark.slow
def test_one_more_migration_of_the_last_app_runs_one_migration(clinic):
    clinic.settings("INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.auth', 'clinic', 'yard']")
    for name, text in {
        "__init__": "",
        "models": "",
        "migrations/__init__": "",
        "migrations/0001_initial": INITIAL,
    }.items():
        clinic.write(f"yard/{name}.py", text.replace("clinic.patient", "yard.patient"))
    clinic.seeddb("build")
    clinic.write("yard/migrations/0002_wards.py", WARDS.replace("clinic", "yard"))
    migrations = [each for each in run_steps(clinic.seeddb("build")) if each.startswith("migration ")]
    assert migrations == ["migration yard.0002_wards"]


@pytest.mark.slow
def test_ids_of_content_types_and_permissions_do_not_depend_on_what_was_built_before(clinic):
    clinic.seeddb("build")
    clinic.migration("0004_more", MORE, "0003_own")
    clinic.write("clinic/models.py", clinic.read("clinic/models.py") + "\nclass More(models.Model):\n    pass\n")
    from_a_layer, told = rows(clinic, TYPES, PERMISSIONS)
    assert "new migration clinic.0004_more" in told
    clinic.seeddb("build", "--reseed")
    assert rows(clinic, TYPES, PERMISSIONS)[0] == from_a_layer
    assert ("clinic", "more") in [each[1:] for each in from_a_layer[0]]


@pytest.mark.slow
def test_a_changed_migration_receiver_or_setting_builds_again_and_is_named(clinic):
    clinic.write(
        "clinic/signals.py",
        """
        from django.db.models.signals import post_migrate

        def fill(sender, using, **more):
            from clinic.models import Ward
            Ward.objects.using(using).get_or_create(name="by a signal")

        post_migrate.connect(fill)
        """,
    )
    clinic.write("clinic/models.py", clinic.read("clinic/models.py") + "\nimport clinic.signals\n")
    assert rows(clinic, WARD_NAMES)[0] == [[("north",), ("south",), ("by a signal",)]]

    clinic.write("clinic/signals.py", clinic.read("clinic/signals.py").replace("by a signal", "by another"))
    found, told = rows(clinic, WARD_NAMES)
    assert found == [[("north",), ("south",), ("by another",)]]
    assert re.search(r"clinic/signals\.py(: \S+)? changed", told)

    clinic.write("clinic/migrations/0002_wards.py", WARDS.replace('"south"', '"west"'))
    assert re.search(r"clinic/migrations/0002_wards\.py(: \S+)? changed", reason(clinic.seeddb("build")))

    clinic.settings("INSTALLED_APPS.append('django.contrib.admin')")
    found, told = rows(clinic, "SELECT to_regclass('django_admin_log')::text")
    assert found == [[("django_admin_log",)]]
    assert "INSTALLED_APPS" in told


@pytest.mark.slow
def test_squashed_migrations_build(clinic):
    before, _ = rows(clinic, WARD_NAMES, TYPES)
    squashed = INITIAL.replace(
        "dependencies = []", "dependencies = []\n        replaces = [('clinic', %r), ('clinic', %r)]"
    )
    squashed = squashed.replace("operations = [", "operations = [migrations.RunSQL('SELECT 1'), ")
    text = squashed % ("0001_initial", "0002_wards")
    fill = WARDS[WARDS.index("    def fill") : WARDS.index("    class")]
    text = text.replace("    class Migration", fill + "    class Migration")
    text = text.replace(
        "on_delete=django.db.models.deletion.CASCADE)),",
        "on_delete=django.db.models.deletion.CASCADE)),\n        migrations.RunPython(fill),",
    )
    clinic.write("clinic/migrations/0001_squashed_0002_wards.py", text)
    done = clinic.seeddb("build")
    assert "migration clinic.0001_squashed_0002_wards" in run_steps(done)
    assert "migration clinic.0002_wards" not in run_steps(done)
    names = "SELECT name FROM django_migrations WHERE app = 'clinic'"
    (*found, recorded), _ = rows(clinic, WARD_NAMES, TYPES, names)
    assert found == before
    assert {name for (name,) in recorded} >= {"0001_initial", "0001_squashed_0002_wards", "0002_wards", "0003_own"}


@pytest.mark.slow
def test_an_app_without_migrations_gets_its_tables(clinic):
    clinic.settings("INSTALLED_APPS.append('plain')")
    clinic.write("plain/__init__.py", "")
    model = "from django.db import models\n\nclass Thing(models.Model):\n    name = models.CharField(max_length=9)\n"
    clinic.write("plain/models.py", model)
    assert "tables of the apps without migrations" in run_steps(clinic.seeddb("build"))
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'plain_thing' ORDER BY 1"
    assert rows(clinic, columns)[0] == [[("id",), ("name",)]]
    clinic.write("plain/models.py", model + "    size = models.IntegerField(default=1)\n")
    found, told = rows(clinic, columns)
    assert found == [[("id",), ("name",), ("size",)]]
    assert re.search(r"plain/models\.py(: \S+)? changed", told)


def failure(clinic, code=2):
    done = clinic.seeddb("build", code=code)
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_migration_that_fails_is_named_with_its_place_and_leaves_nothing(clinic):
    clinic.migration("0004_broken", "migrations.RunPython(lambda apps, editor: 1 / 0)", "0003_own")
    told = failure(clinic, code=1)
    assert "migration clinic.0004_broken failed" in told
    assert "clinic/migrations/0004_broken.py:5" in told
    assert "ZeroDivisionError" in told
    clinic.migration("0004_broken", "migrations.RunSQL('SELECT nothing')", "0003_own")
    told = failure(clinic, code=1)
    assert "migration clinic.0004_broken failed" in told
    assert 'column "nothing" does not exist' in told
    clinic.migration("0004_broken", "migrations.RunSQL('SELECT 1')", "0003_own")
    clinic.seeddb("build")


@pytest.mark.slow
def test_conflicting_migrations_are_told_as_djangos_own_command_would(clinic):
    clinic.migration("0004_one", "", "0003_own")
    clinic.migration("0004_two", "", "0003_own")
    told = failure(clinic)
    assert "clinic: 0004_one, 0004_two" in told
    assert "makemigrations --merge" in told
    (clinic.path / "clinic/migrations/0004_two.py").unlink()
    clinic.migration("0004_one", "", "0003_gone")
    told = failure(clinic)
    assert "0003_gone" in told
    assert "clinic" in told


@pytest.mark.slow
def test_settings_that_are_missing_broken_or_named_nowhere_are_told(clinic, monkeypatch):
    clinic.seeddb.environment = {"DJANGO_SETTINGS_MODULE": "site_.gone"}
    told = failure(clinic)
    assert "site_.gone" in told
    assert "DJANGO_SETTINGS_MODULE" in told
    clinic.seeddb.environment = {}
    clinic.settings("raise RuntimeError('broken settings')")
    told = failure(clinic)
    assert "broken settings" in told
    assert "site_/settings.py" in told
    (clinic.path / "manage.py").unlink()
    clinic.write("pyproject.toml", '[tool.seeddb]\nmigrations = "django"\n')
    told = failure(clinic)
    assert "Django's settings are not found" in told


@pytest.mark.slow
def test_the_environment_goes_before_the_settings_that_pytest_and_manage_name(clinic):
    clinic.write(
        "site_/other.py", "from site_.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'django.contrib.admin']\n"
    )
    clinic.seeddb.environment = {"DJANGO_SETTINGS_MODULE": "site_.other"}
    assert "migration admin.0001_initial" in run_steps(clinic.seeddb("build"))
