"""A Django project with several PostgreSQL databases: each has a template and a clone of its own."""

from __future__ import annotations

import pytest
from clinic import Clinic

ROUTER = """
    class Archive:
        def db_for_read(self, model, **hints):
            return "other" if model._meta.app_label == "archive" else "default"

        db_for_write = db_for_read

        def allow_migrate(self, db, app_label, **hints):
            return (db == "other") == (app_label == "archive")
"""
MODELS = """
    from django.db import models

    class Paper(models.Model):
        name = models.CharField(max_length=100)
"""
INITIAL = """
    from django.db import migrations, models

    class Migration(migrations.Migration):
        dependencies = []
        operations = [migrations.CreateModel("Paper", [
            ("id", models.BigAutoField(primary_key=True)), ("name", models.CharField(max_length=100)),
        ])]
"""
COLUMN = """
    from django.db import migrations, models

    class Migration(migrations.Migration):
        dependencies = [("archive", "0001_initial")]
        operations = [migrations.AddField("paper", "more", models.IntegerField(null=True))]
"""
SEEDS = """
    from pytest_seeddb import seeder
    from archive.models import Paper
    from clinic.models import Patient

    @seeder
    def both():
        for number in range(3):
            Paper.objects.create(name=Patient.objects.create(name=f"patient {number}").name)
        Paper.objects.create(name="more")
"""
HEAD = """
    from archive.models import Paper

    def use(patient=4, paper=5):
        assert (Patient.objects.count(), Paper.objects.count()) == (patient - 1, paper - 1)
        assert (Patient.objects.create(name="x").id, Paper.objects.create(name="x").id) == (patient, paper)
        Paper.objects.filter(id=1).delete()

    rounds = pytest.mark.parametrize("round", range(2))
"""


@pytest.fixture
def clinic(pytester):
    clinic = Clinic(pytester.path, pytester)
    clinic.settings(
        """
        INSTALLED_APPS.append("archive")
        DATABASES["other"] = {**NOWHERE, "NAME": "other"}
        DATABASE_ROUTERS = ["site_.routers.Archive"]
        """
    )
    clinic.write("site_/routers.py", ROUTER)
    clinic.write("archive/__init__.py", "")
    clinic.write("archive/models.py", MODELS)
    clinic.write("archive/migrations/__init__.py", "")
    clinic.write("archive/migrations/0001_initial.py", INITIAL)
    clinic.write("clinic/seeds.py", SEEDS)
    return clinic


@pytest.mark.slow
def test_seeds_that_write_to_both_are_found_in_both_and_writes_to_neither_reach_the_next_test(clinic):
    result = clinic.test(
        HEAD
        + """
    @pytest.mark.seeded
    @pytest.mark.django_db(databases=["default", "other"])
    @rounds
    def test_atomic(round):
        use()

    @pytest.mark.seeded
    @pytest.mark.django_db(databases="__all__", transaction=True)
    @rounds
    def test_transactional(round):
        use()

    @pytest.mark.seeded
    @rounds
    def test_without_django_db(round):
        use()

    @rounds
    def test_seeded_db(seeded_db, round):
        assert Paper.objects.exists() and not seeded_db.changes()
        use()
        assert "other: archive_paper " in str(seeded_db.changes())

    @pytest.mark.django_db(databases=["default", "other"])
    @rounds
    def test_unmarked(round):
        use(patient=1, paper=1)

    @pytest.mark.django_db(databases=["default", "other"], transaction=True)
    @rounds
    def test_unmarked_transactional(round):
        use(patient=1, paper=1)

    @pytest.mark.seeded
    class TestBoth(TestCase):
        databases = "__all__"
        def test_one(self):
            use()

    @pytest.mark.seeded
    class TestCommitted(TransactionTestCase):
        databases = {"default", "other"}
        def test_one(self):
            use()
        def test_two(self):
            use()

    class TestUnmarked(TransactionTestCase):
        databases = {"default", "other"}
        def test_one(self):
            use(patient=1, paper=1)
        def test_two(self):
            use(patient=1, paper=1)
    """
    )
    result.assert_outcomes(passed=17)


@pytest.mark.slow
def test_only_the_databases_that_a_test_names_may_be_used(clinic):
    result = clinic.test(
        HEAD
        + """
    @pytest.mark.django_db
    def test_default():
        assert Patient.objects.count() == 0
        with pytest.raises(Exception, match="to 'other' are not allowed"):
            Paper.objects.count()

    @pytest.mark.django_db(databases=["other"])
    def test_other():
        assert Paper.objects.count() == 0
        with pytest.raises(Exception, match="to 'default' are not allowed"):
            Patient.objects.count()

    @pytest.mark.seeded
    @pytest.mark.django_db(databases=["other"], transaction=True)
    @rounds
    def test_other_transactional(round):
        assert Paper.objects.create(name="x").id == 5
        with pytest.raises(Exception, match="to 'default' are not allowed"):
            Patient.objects.count()

    @pytest.mark.seeded
    class TestDefault(TestCase):
        def test_it(self):
            self.assertEqual(Patient.objects.count(), 3)
            with self.assertRaisesRegex(Exception, "to 'other' are not allowed"):
                Paper.objects.count()
    """
    )
    result.assert_outcomes(passed=5)


@pytest.mark.slow
def test_each_database_has_the_tables_that_the_router_gives_it_and_a_database_of_its_own(clinic):
    result = clinic.test(
        HEAD
        + """
    @pytest.mark.seeded
    def test_it():
        names = [connections[alias].introspection.table_names() for alias in ("default", "other")]
        assert "clinic_patient" in names[0] and "archive_paper" not in names[0]
        assert "clinic_patient" not in names[1] and "archive_paper" in names[1]
        place = "SELECT current_database()"
        found = []
        for alias in ("default", "other"):
            with connections[alias].cursor() as cursor:
                cursor.execute(place)
                found += cursor.fetchone()
        assert len(set(found)) == 2
        assert "nowhere" not in found and "other" not in found
    """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.slow
def test_a_changed_migration_of_one_database_builds_it_again_and_its_seeds_with_it(clinic):
    tests = """
    @pytest.mark.seeded
    @pytest.mark.django_db(databases="__all__")
    def test_it():
        use()
    """
    clinic.own_template()
    first = clinic.test(HEAD + tests)
    first.assert_outcomes(passed=1)
    again = clinic.run("test_it.py")
    again.assert_outcomes(passed=1)
    assert " built in " not in again.stdout.str()
    clinic.write("archive/migrations/0002_column.py", COLUMN)
    third = clinic.test(
        HEAD
        + tests
        + """
    @pytest.mark.seeded
    def test_column():
        with connections["other"].cursor() as cursor:
            cursor.execute("SELECT more FROM archive_paper")
            assert cursor.fetchall() == [(None,)] * 4
    """
    )
    third.assert_outcomes(passed=2)
    third.stdout.fnmatch_lines(["*template clinic-other/default built*0002_column*"])


@pytest.mark.slow
def test_a_mirror_and_a_second_name_of_the_same_database_lead_to_the_tests_clone(clinic):
    clinic.settings(
        """
        DATABASES["mirror"] = {**NOWHERE, "NAME": "replica", "TEST": {"MIRROR": "default"}}
        DATABASES["again"] = dict(NOWHERE)
        """
    )
    clinic.write(
        "clinic/seeds.py",
        SEEDS.replace("Paper.objects", "Patient.objects").replace("from archive.models import Paper", "import os"),
    )
    result = clinic.test(
        """
        def use(count):
            for alias in ("default", "mirror", "again"):
                assert Patient.objects.using(alias).count() == count

        @pytest.mark.seeded
        @pytest.mark.django_db(databases="__all__", transaction=True)
        @pytest.mark.parametrize("round", range(2))
        def test_transactional(round):
            use(7)
            Patient.objects.create(name="x")
            use(8)

        # Over connections of their own, so that what Django will roll back is seen by none of the others.
        @pytest.mark.seeded
        @pytest.mark.django_db(databases=["default", "mirror"])
        @pytest.mark.parametrize("round", range(2))
        def test_atomic(round):
            Patient.objects.create(name="x")
            assert (Patient.objects.count(), Patient.objects.using("mirror").count()) == (8, 7)

        class TestMirror(TransactionTestCase):
            databases = ["default", "mirror"]
            def test_one(self):
                Patient.objects.create(name="x")
                self.assertEqual(Patient.objects.using("mirror").count(), 1)
            def test_two(self):
                self.test_one()
        """
    )
    result.assert_outcomes(passed=6)


@pytest.mark.slow
def test_xdist_builds_each_template_once(clinic):
    clinic.own_template()
    result = clinic.test(
        HEAD
        + """
    @pytest.mark.seeded
    @pytest.mark.django_db(databases="__all__")
    @pytest.mark.parametrize("round", range(4))
    def test_it(round):
        use()
    """,
        "-n",
        "2",
    )
    result.assert_outcomes(passed=4)
    text = result.stdout.str()
    assert text.count("template clinic/default built") == 1
    assert text.count("template clinic-other/default built") == 1
