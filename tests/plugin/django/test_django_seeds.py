"""Seeds of Django projects: seeders with the ORM, factories, management commands, `loaddata`; and `seeddb apply`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import psycopg
import pytest
from clinic import Clinic


@pytest.fixture
def clinic(pytester):
    clinic = Clinic(pytester.path, pytester)
    clinic.own_template()
    return clinic


def rows(address, statement):
    with psycopg.connect(address.conninfo) as connection:
        return connection.execute(statement).fetchall()


PATIENTS = "SELECT name FROM clinic_patient ORDER BY id"
COMMAND = """
    from django.core.management.base import BaseCommand, CommandError
    from clinic.models import Patient

    class Command(BaseCommand):
        def add_arguments(self, parser):
            parser.add_argument("--number", type=int, default=2)

        def handle(self, *, number, **options):
            self.stdout.write("a word of the command")
            for each in range(number):
                Patient.objects.create(name=f"demo {each}")
            if number > 9:
                raise CommandError("too many")
"""


def lead_to(clinic, address):
    """Let Django's own settings name the database."""
    names = {"dbname": "NAME", "host": "HOST", "user": "USER", "port": "PORT", "password": "PASSWORD"}
    place = {name: address.params[key] for key, name in names.items() if key in address.params}
    clinic.settings(f"DATABASES['default'].update({place!r})")


def with_command(clinic, seeds):
    for name in ("", "commands/"):
        clinic.write(f"clinic/management/{name}__init__.py", "")
    clinic.write("clinic/management/commands/seed_demo.py", COMMAND)
    clinic.table(f"    seeds = {seeds}\n")


@pytest.mark.slow
def test_a_management_command_seeds_and_is_run_again_when_it_changes(clinic):
    with_command(clinic, '[{django = "seed_demo --number 3", tier = "demo"}]')
    result = clinic.test(
        """
        @pytest.mark.seeded
        def test_it(db):
            assert [each.name for each in Patient.objects.order_by("id")] == ["demo 0", "demo 1", "demo 2"]
            assert Patient.objects.create(name="x").id == 4
        """
    )
    result.assert_outcomes(passed=1)
    assert "a word of the command" not in result.stdout.str()
    clinic.write("clinic/management/commands/seed_demo.py", COMMAND.replace("demo {each}", "other {each}"))
    told = clinic.seeddb("build").stdout
    assert re.search(r"clinic/management/commands/seed_demo\.py(: \S+)? changed", told)
    with_command(clinic, '[{django = "seed_demo --number 4", tier = "demo"}]')
    assert " built in " in clinic.seeddb("build").stdout


@pytest.mark.slow
def test_a_command_or_fixture_of_that_name_in_another_app_is_noticed(clinic):
    with_command(clinic, '["clinic.seeds"]')
    clinic.settings("INSTALLED_APPS = ['ward', *INSTALLED_APPS]")
    clinic.write("ward/__init__.py", "")
    clinic.write("clinic/fixtures/few.json", '[{"model": "clinic.patient", "pk": 70, "fields": {"name": "fixed"}}]')
    clinic.write(
        "clinic/seeds.py",
        """
        from django.core.management import call_command
        from pytest_seeddb import seeder

        @seeder
        def all_of_them():
            call_command("seed_demo")
            call_command("loaddata", "few")
        """,
    )
    assert " built in " in clinic.seeddb("build").stdout
    assert " built in " not in clinic.seeddb("build").stdout
    news = {
        "ward/management/commands/seed_demo.py": "ward/management/commands/seed_demo.py",
        "ward/fixtures/few.json": "ward/fixtures",
        "clinic/fixtures/few.default.json": "clinic/fixtures/ (few*)",
    }
    for new, part in news.items():
        clinic.write(new, "[]" if new.endswith("json") else "from clinic.management.commands.seed_demo import Command")
        told = clinic.seeddb("explain").stdout
        assert re.search(f"next run builds: .*{re.escape(part)}", told), told
        shutil.rmtree(clinic.path / "ward")
        clinic.write("ward/__init__.py", "")


@pytest.mark.slow
def test_a_template_or_fixture_that_takes_the_place_of_another_is_noticed(clinic):
    clinic.table("    seeds = [{django = 'loaddata few'}, 'clinic.seeds']\n")
    templates = "'BACKEND': 'django.template.backends.django.DjangoTemplates', 'APP_DIRS': True, 'DIRS': ['shared']"
    clinic.settings(f"INSTALLED_APPS = ['first', *INSTALLED_APPS, 'last']\nTEMPLATES = [{{{templates}}}]")
    for app in ("first", "last"):
        clinic.write(f"{app}/__init__.py", "")
        clinic.write(f"{app}/templates/of_{app}.txt", "")  # so it is no plain application, which would not count
        clinic.write(f"{app}/fixtures/of_{app}.json", "")
    clinic.write("clinic/fixtures/few.json", '[{"model": "clinic.patient", "pk": 70, "fields": {"name": "fixed"}}]')
    clinic.write("clinic/templates/mail/name.txt", "from the clinic")
    clinic.write(
        "clinic/seeds.py",
        """
        from clinic.models import Patient
        from django.template.loader import render_to_string
        from pytest_seeddb import seeder

        @seeder
        def all_of_them():
            Patient.objects.create(name=render_to_string("mail/name.txt"))
        """,
    )
    assert " built in " in clinic.seeddb("build").stdout
    news = {
        "first/templates/mail/name.txt": True,
        "shared/mail/name.txt": True,
        "last/templates/mail/name.txt": False,
        "first/templates/mail/other.txt": False,
        "first/fixtures/few.json": True,
        "last/fixtures/few.json": True,
    }
    for new, counts in news.items():
        place = clinic.write(new, "[]")
        told = clinic.seeddb("explain").stdout
        assert bool(re.search(f"next run builds: .*{re.escape(new)}", told)) == counts, told
        assert ("next run builds" in told) == counts, told
        place.unlink()


@pytest.mark.slow
def test_a_management_command_that_fails_or_is_not_known_is_told_without_a_traceback(clinic):
    with_command(clinic, '[{django = "seed_demo --number 10"}]')
    told = clinic.seeddb("build", code=1).stderr
    assert "CommandError: too many" in told
    assert "a word of the command" in told
    assert "clinic/management/commands/seed_demo.py:" in told
    with_command(clinic, '[{django = "seed_demo --numbr 3"}]')
    assert "--numbr" in clinic.seeddb("build", code=1).stderr
    with_command(clinic, '[{django = "seed_dmo"}]')
    told = clinic.seeddb("build", code=2).stderr
    assert "Django has no management command 'seed_dmo'" in told
    assert "'seed_demo'" in told
    result = clinic.test("@pytest.mark.seeded\ndef test_it(db): pass")
    assert result.ret == 4
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
    result.stderr.fnmatch_lines(["*Django has no management command 'seed_dmo'*"])


@pytest.mark.slow
def test_loaddata_seeds_and_a_changed_fixture_builds_again(clinic):
    clinic.table('    seeds = [{django = "loaddata things.json"}]\n')

    def things(name):
        row = {"model": "clinic.patient", "pk": 7, "fields": {"name": name}}
        clinic.write("clinic/fixtures/things.json", json.dumps([row]))

    things("from a file")
    result = clinic.test(
        """
        @pytest.mark.seeded
        @pytest.mark.parametrize("round", range(2))
        def test_it(transactional_db, round):
            assert [(each.pk, each.name) for each in Patient.objects.all()] == [(7, "from a file")]
            assert Patient.objects.create(name="x").id == 8
        """
    )
    result.assert_outcomes(passed=2)
    assert "is there already" in clinic.seeddb("build").stdout
    things("changed")
    assert "things.json changed" in clinic.seeddb("build").stdout
    (clinic.path / "clinic/fixtures/things.json").unlink()
    told = clinic.seeddb("build", code=1).stderr
    assert "things" in told


HALF = """
    import os
    from django.db import connections
    from pytest_seeddb import seeder
    from clinic.models import Patient, Visit, Ward

    @seeder
    def wards():
        Ward.objects.create(name="of the first")

    @seeder(after=[wards])
    def patients():
        for number in range(3):
            Visit.objects.create(patient=Patient.objects.create(name=f"patient {number}"))
        if os.environ.get("BROKEN"):
            raise RuntimeError("half-way")
"""


@pytest.mark.slow
def test_a_seeder_that_fails_half_way_leaves_nothing_and_apply_goes_on_from_there(clinic, empty_database):
    clinic.write("clinic/seeds.py", HALF)
    clinic.seeddb.environment = {"BROKEN": "1"}
    told = clinic.seeddb("apply", "--url", empty_database.url, code=1).stderr
    assert "clinic.seeds:patients" in told
    assert "half-way" in told
    assert "clinic/seeds.py:16" in told
    assert rows(empty_database, PATIENTS) == []
    assert len(rows(empty_database, "SELECT FROM clinic_ward")) == 3
    clinic.seeddb.environment = {}
    done = clinic.seeddb("apply", "--url", empty_database.url)
    assert "patients" in done.stdout + done.stderr
    assert len(rows(empty_database, PATIENTS)) == 3
    assert len(rows(empty_database, "SELECT FROM clinic_ward")) == 3


@pytest.mark.slow
def test_apply_brings_a_real_database_up_to_date_once_and_runs_what_is_new(clinic, empty_database):
    clinic.seeddb("apply", "--url", empty_database.url)
    assert rows(empty_database, PATIENTS) == [("patient 0",), ("patient 1",), ("patient 2",)]
    types = rows(empty_database, "SELECT count(*) FROM django_content_type WHERE app_label = 'clinic'")
    assert types == [(3,)]
    again = clinic.seeddb("apply", "--url", empty_database.url)
    assert "up to date" in again.stdout
    assert len(rows(empty_database, PATIENTS)) == 3
    clinic.migration("0004_more", "migrations.AddField('patient', 'age', models.IntegerField(default=5))", "0003_own")
    planned = clinic.seeddb("apply", "--dry-run", "--url", empty_database.url).stdout
    assert [line.split(" (")[0] for line in planned.splitlines()[1:-1]] == [
        "  run: migration clinic.0004_more",
        "  run: signals after the migrations",
    ]
    third = clinic.seeddb("apply", "--url", empty_database.url)
    assert (third.stdout + third.stderr).count("clinic.0004_more") == 1
    assert "clinic.0004_more" in third.stdout + third.stderr
    assert "clinic.0003_own" not in third.stdout + third.stderr
    assert rows(empty_database, "SELECT age FROM clinic_patient") == [(5,)] * 3
    assert "up to date" in clinic.seeddb("apply", "--url", empty_database.url).stdout
    lead_to(clinic, empty_database)
    clinic.python("from django.core.management import call_command; call_command('migrate', check_unapplied=True)")


@pytest.mark.slow
def test_apply_takes_over_a_database_that_django_migrated_itself(clinic, empty_database):
    lead_to(clinic, empty_database)
    clinic.python("from django.core.management import call_command; call_command('migrate', verbosity=0)")
    told = clinic.seeddb("apply", "--url", empty_database.url, code=1).stderr
    assert "seed clinic.seeds:patients: clinic_ward already has rows" in told
    assert "migration" not in told.partition("saw:")[2].partition("from:")[0]
    clinic.seeddb("apply", "--force", "--url", empty_database.url)
    assert len(rows(empty_database, PATIENTS)) == 3
    assert len(rows(empty_database, "SELECT FROM clinic_ward")) == 2
    assert "up to date" in clinic.seeddb("apply", "--url", empty_database.url).stdout


@pytest.mark.slow
def test_numbers_of_django_factories_go_on_in_tests_where_the_seeds_stopped(clinic):
    clinic.write(
        "clinic/factories.py",
        """
        import factory
        from clinic.models import Patient

        class PatientFactory(factory.django.DjangoModelFactory):
            class Meta:
                model = Patient
            name = factory.Sequence(lambda number: f"number {number}")
        """,
    )
    clinic.write(
        "clinic/seeds.py",
        """
        from pytest_seeddb import seeder
        from clinic.factories import PatientFactory

        @seeder
        def patients():
            PatientFactory.create_batch(3)
        """,
    )
    result = clinic.test(
        """
        from clinic.factories import PatientFactory

        def use():
            assert [each.name for each in Patient.objects.order_by("id")] == ["number 0", "number 1", "number 2"]
            assert PatientFactory().name == "number 3"
            assert PatientFactory().id == 5

        rounds = pytest.mark.parametrize("round", range(2))

        @pytest.mark.seeded
        @rounds
        def test_atomic(db, round):
            use()

        @pytest.mark.seeded
        @rounds
        def test_transactional(transactional_db, round):
            use()

        @rounds
        def test_seeded_db(seeded_db, round):
            use()

        @pytest.mark.seeded
        class TestSeeded(TestCase):
            def test_one(self):
                use()
            def test_two(self):
                # As the ids in such a class: they go on, and meet no row that is there.
                assert PatientFactory().name not in ("number 0", "number 1", "number 2")

        @pytest.mark.seeded
        class TestCommitted(TransactionTestCase):
            def test_one(self):
                use()
            def test_two(self):
                use()
        """
    )
    result.assert_outcomes(passed=10)


@pytest.mark.slow
def test_profiles_and_parameters_of_a_marker_choose_among_the_seeds(clinic):
    clinic.write(
        "clinic/seeds.py",
        """
        from pytest_seeddb import seeder
        from clinic.models import Patient

        @seeder(tier="demo")
        def patients(patients: int = 1):
            for number in range(patients):
                Patient.objects.create(name=f"patient {number}")
        """,
    )
    result = clinic.test(
        """
        @pytest.mark.seeded
        def test_default(db):
            assert Patient.objects.count() == 1

        @pytest.mark.seeded(patients=5)
        def test_parameters(db):
            assert Patient.objects.count() == 5
            assert Patient.objects.create(name="x").id == 6

        @pytest.mark.seeded(patients=2)
        class TestSeeded(TestCase):
            def test_it(self):
                self.assertEqual(Patient.objects.count(), 2)

        @pytest.mark.seeded(isolation="rollback")
        @pytest.mark.parametrize("round", range(2))
        def test_isolation(db, round):
            assert Patient.objects.create(name="x").id == 2

        # What Django's own transaction wrote is not nothing, and what it locked is.
        @pytest.mark.parametrize("isolation", [pytest.param(isolation, marks=pytest.mark.seeded(isolation=isolation))
                                               for isolation in ("clone", "rollback")])
        def test_changes(db, seeded_db, isolation):
            assert list(Patient.objects.select_for_update())
            assert not seeded_db.changes()
            Patient.objects.filter(id=1).update(name="y")
            assert "idle in transaction" in str(seeded_db.changes().not_known[0])
        """
    )
    result.assert_outcomes(passed=7)


@pytest.mark.slow
def test_manage_py_seeddb_forwards_its_options_its_output_and_its_exit_code(clinic, empty_database):
    clinic.settings("INSTALLED_APPS.append('pytest_seeddb.django')")

    def manage(*arguments):
        line = [sys.executable, "manage.py", "seeddb", *arguments]
        return subprocess.run(line, cwd=clinic.path, capture_output=True, text=True, check=False)

    first = manage("apply", "--url", empty_database.url)
    assert first.returncode == 0, first.stderr
    assert len(rows(empty_database, PATIENTS)) == 3
    assert "up to date" in manage("apply", "--url", empty_database.url).stdout
    assert "usage: seeddb apply" in manage("apply", "--help").stdout
    wrong = manage("apply", "--no-such-option")
    assert wrong.returncode == clinic.seeddb("apply", "--no-such-option", code=2).returncode
    assert "--no-such-option" in wrong.stderr
    nowhere = ("apply", "--url", "postgresql://127.0.0.1:1/nowhere")
    assert manage(*nowhere).returncode == clinic.seeddb(*nowhere, code=1).returncode
    clinic.python(
        "from django.core.management import call_command; "
        f"call_command('seeddb', 'apply', '--url', {empty_database.url!r})"
    )
