"""What pytest-django documents of how the databases are set up is so with this plugin beside it."""

from __future__ import annotations

import pytest
from clinic import IMPORTS, TABLE, Clinic

EAST = '[{"model": "clinic.ward", "pk": 3, "fields": {"name": "east"}}]'


@pytest.fixture
def clinic(pytester):
    return Clinic(pytester.path, pytester)


@pytest.mark.slow
def test_rows_of_a_conftests_own_django_db_setup_are_found_by_all_unmarked_tests_and_survive_them(clinic):
    clinic.write("clinic/fixtures/wards.json", EAST)
    clinic.write(
        "conftest.py",
        """
        import pytest
        from django.core.management import call_command
        from django.db import connection

        @pytest.fixture(scope="session")
        def django_db_setup(django_db_setup, django_db_blocker):
            with django_db_blocker.unblock():
                call_command("loaddata", "wards.json", verbosity=0)
                connection.cursor().execute("ALTER SEQUENCE clinic_patient_id_seq RESTART WITH 1000")
        """,
    )
    result = clinic.test(
        """
        def use():
            assert [each.name for each in Ward.objects.order_by("id")] == ["north", "south", "east"]
            assert Ward.objects.create(name="x").id == 4
            assert Patient.objects.create(name="x").id == 1000

        @pytest.mark.parametrize("round", range(2))
        def test_atomic(db, round):
            use()

        @pytest.mark.parametrize("round", range(2))
        def test_transactional(transactional_db, round):
            use()

        def test_live(live_server):
            assert get(live_server.url + "/add") == {"id": 1000}

        class TestRolledBack(TestCase):
            def test_it(self):
                use()

        class TestCommitted(TransactionTestCase):
            def test_one(self):
                use()
            def test_two(self):
                use()
        """
    )
    result.assert_outcomes(passed=8)


@pytest.mark.slow
def test_rows_that_a_wider_fixture_writes_unblocked_are_found_by_the_tests_that_follow(clinic):
    result = clinic.test(
        """
        @pytest.fixture(scope="session")
        def of_the_session(django_db_setup, django_db_blocker):
            with django_db_blocker.unblock():
                return Patient.objects.create(name="of the session")

        @pytest.fixture(scope="module")
        def of_the_module(django_db_setup, django_db_blocker):
            with django_db_blocker.unblock():
                patient = Patient.objects.create(name="of the module")
                Patient.objects.filter(name="of the session").update(name="changed")
            yield patient
            with django_db_blocker.unblock():
                patient.delete()

        @pytest.mark.django_db
        @pytest.mark.parametrize("round", range(2))
        def test_a_session(of_the_session, round):
            assert Patient.objects.get().name == "of the session"
            Patient.objects.all().delete()

        @pytest.mark.django_db
        @pytest.mark.parametrize("round", range(2))
        def test_b_module(of_the_session, of_the_module, round):
            assert [each.name for each in Patient.objects.order_by("id")] == ["changed", "of the module"]
            Patient.objects.all().delete()

        @pytest.mark.parametrize("round", range(2))
        def test_c_transactional(of_the_session, of_the_module, transactional_db, round):
            assert [each.name for each in Patient.objects.order_by("id")] == ["changed", "of the module"]
            Patient.objects.all().delete()
        """
    )
    result.assert_outcomes(passed=6)


@pytest.mark.slow
def test_modified_settings_of_the_databases_are_asked_for_and_do_not_matter(clinic):
    clinic.write(
        "conftest.py",
        """
        import pytest
        from django.conf import settings

        @pytest.fixture(scope="session")
        def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix):
            settings.DATABASES["default"].update(NAME="elsewhere", HOST="nowhere.invalid")
            settings.DATABASES["default"]["TEST"]["NAME"] = "elsewhere"
        """,
    )
    result = clinic.test(
        """
        @pytest.mark.django_db
        def test_it():
            from django.conf import settings
            assert settings.DATABASES["default"]["TEST"]["NAME"] == "elsewhere"
            assert Ward.objects.count() == 2
        """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-p", "no:django")], ids=["pytest-django", "alone"])
def test_test_modules_import_models_at_their_top_although_only_manage_py_names_the_settings(clinic, options):
    clinic.write("pyproject.toml", TABLE.partition("    [tool.pytest")[0])
    test = "@pytest.mark.seeded\ndef test_it(): assert Patient.objects.count() == 3"
    clinic.test(test, *options).assert_outcomes(passed=1)
    clinic.run(*options, enabled=False).assert_outcomes(skipped=1)
    clinic.write("tests/conftest.py", "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site_.other')\n")
    clinic.write("site_/other.py", "from site_.settings import *\nSITE_ID = 7\n")
    test = "@pytest.mark.seeded\ndef test_it(settings): assert settings.SITE_ID == 7\n"
    if options:
        test = "from django.conf import settings\n" + test.replace("settings)", ")", 1)
    clinic.test(test, *options, name="tests/test_there.py").assert_outcomes(passed=1)
    clinic.settings("import nowhere")
    result = clinic.run(*options, *(("-n", "1") if options else ()), "test_it.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "Django cannot be set up" in result.stderr.str()
    assert "No module named 'nowhere'" in result.stderr.str()


VARIABLE = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site_.other')\n"
CONFIGURE = """
    from django.conf import settings
    from site_ import other
    settings.configure(**{name: value for name, value in vars(other).items() if name.isupper()})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("conftest", "site", "options"),
    [
        (VARIABLE, 7, ()),
        (CONFIGURE, 7, ()),
        ("from clinic.models import Patient", 1, ()),
        (CONFIGURE, 7, ("-p", "no:django")),
    ],
    ids=["variable", "configure", "models", "alone"],
)
def test_a_conftest_below_the_root_may_name_the_settings_before_manage_py_does(clinic, conftest, site, options):
    clinic.write("pyproject.toml", TABLE.partition("    [tool.pytest")[0])
    clinic.write("area/tests/conftest.py", conftest)
    clinic.write("site_/other.py", "from site_.settings import *\nSITE_ID = 7\n")
    test = f"{IMPORTS}def test_it(settings):\n    assert settings.SITE_ID == {site}\n"
    if options:
        test = "from django.conf import settings\n" + test.replace("(settings)", "()")
    else:
        test += "    with pytest.raises(RuntimeError, match='Database access not allowed'): Ward.objects.count()\n"
    clinic.write("area/tests/test_there.py", test)
    clinic.run(*options, enabled=False).assert_outcomes(passed=1)


@pytest.mark.slow
def test_what_a_migration_prints_is_seen_and_names_of_databases_have_the_form_that_is_set(clinic):
    clinic.table('seeds = ["clinic.seeds"]\nclone_name = "test_{clone}_{worker}"\n')
    clinic.own_template()
    speaks = "migrations.RunPython(lambda apps, editor: print('printed by a migration'))"
    clinic.migration("0004_speaks", speaks, "0003_own")
    clinic.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture(autouse=True)
        def guard(worker_id, request):
            if {"db", "transactional_db", "seeded_db"} & {*request.fixturenames}:
                from django.db import connection
                name = connection.settings_dict["NAME"]
                assert name.startswith("test_") and name.endswith(f"_{worker_id}"), name
        """,
    )
    test = """
        def test_rolled_back(db): assert Ward.objects.count() == 2

        def test_committed(transactional_db): Ward.objects.all().delete()

        @pytest.mark.seeded
        class TestOfDjangos(TestCase):
            def test_it(self): self.assertTrue(connection.settings_dict["NAME"].startswith("test_seeddb_c_"))

        @pytest.mark.parametrize("round", range(3))
        def test_seeded(seeded_db, round):
            assert connection.settings_dict["NAME"] == seeded_db.name
            Ward.objects.all().delete()
            with seeded_db.connect() as other:
                assert other.execute("SELECT current_database()").fetchone() == (seeded_db.name,)
    """
    first = clinic.test(test, "-s", "-n", "0")
    first.assert_outcomes(passed=6)
    first.stdout.fnmatch_lines(["*printed by a migration*"])
    clinic.run("-n", "2").assert_outcomes(passed=6)
    assert "orphans    none" in clinic.seeddb("status").stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--reuse-db", "--create-db"), ("--no-migrations",)])
def test_options_that_are_not_needed_are_accepted_and_told(clinic, options):
    result = clinic.test("def test_it(db): assert Ward.objects.count() == 2", *options)
    result.assert_outcomes(passed=1)
    are = "are" if len(options) > 1 else "is"
    result.stdout.fnmatch_lines([f"seeddb: {', '.join(options)} {are} not needed*"])


@pytest.mark.slow
def test_a_run_without_them_and_a_quiet_run_tell_nothing_of_options(clinic):
    assert "not needed" not in clinic.test("def test_it(): pass").stdout.str()
    assert "seeddb" not in clinic.run("--reuse-db", "-q").stdout.str()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("databases", "texts"),
    [
        (
            {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}},
            ["None of Django's databases is a PostgreSQL database", "default: django.db.backends.sqlite3"],
        ),
        ({}, ["None of Django's databases is a PostgreSQL database", "default: django.db.backends.dummy"]),
        (
            {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "x"}, "other": {"ENGINE": "postgres"}},
            ["Django cannot use its databases", "'postgres'"],
        ),
    ],
    ids=["sqlite", "none", "misspelt"],
)
def test_settings_whose_databases_cannot_be_used_are_refused_instead_of_building_nothing(clinic, databases, texts):
    clinic.settings(f"DATABASES = {databases!r}")
    told = clinic.seeddb("build", code=2).stderr
    for text in [*texts, "from: DATABASES in site_.settings, as `migrations` in [tool.seeddb]", "do: "]:
        assert text in told
    result = clinic.test("@pytest.mark.seeded\ndef test_it(): pass")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert texts[0] in result.stderr.str()


@pytest.mark.slow
def test_an_alias_of_another_vendor_still_gets_its_own_test_database(clinic):
    clinic.settings(
        """
        DATABASES["other"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": "/nowhere/real.sqlite3"}
        """
    )
    result = clinic.test(
        """
        @pytest.mark.django_db(databases=["default", "other"])
        @pytest.mark.parametrize("round", range(2))
        def test_both(round):
            assert "memory" in str(connections["other"].settings_dict["NAME"])
            assert Patient.objects.using("other").count() == 0
            Patient.objects.using("other").create(name="x")
            assert Patient.objects.count() == 0

        @pytest.mark.django_db
        def test_default_only():
            assert Patient.objects.create(name="x").id == 1
            with pytest.raises(Exception, match="not allowed"):
                Patient.objects.using("other").count()

        @pytest.mark.seeded
        @pytest.mark.django_db(databases=["default", "other"])
        def test_seeded():
            assert (Patient.objects.count(), Patient.objects.using("other").count()) == (3, 0)

        @pytest.mark.django_db(transaction=True, databases=["default", "other"])
        @pytest.mark.parametrize("round", range(2))
        def test_transactional(round):
            for alias in ("default", "other"):
                assert Patient.objects.using(alias).count() == 0
                Patient.objects.using(alias).create(name="x")

        class TestBoth(TestCase):
            databases = "__all__"
            def test_it(self):
                self.assertEqual(Patient.objects.using("other").count(), 0)
        """
    )
    result.assert_outcomes(passed=7)


@pytest.mark.slow
def test_one_build_serves_all_workers_of_xdist(clinic):
    clinic.own_template()
    result = clinic.test(
        """
        @pytest.mark.django_db
        @pytest.mark.parametrize("round", range(4))
        def test_atomic(round):
            assert Patient.objects.create(name="x").id == 1

        @pytest.mark.parametrize("round", range(4))
        def test_transactional(transactional_db, round):
            assert Patient.objects.create(name="x").id == 1

        @pytest.mark.seeded
        @pytest.mark.parametrize("round", range(4))
        def test_seeded(db, round):
            assert Patient.objects.create(name="x").id == 4
        """,
        "-n",
        "2",
    )
    result.assert_outcomes(passed=12)
    assert result.stdout.str().count(" built in ") == 2


@pytest.mark.slow
def test_atomic_tests_run_before_transactional_ones_and_classes_of_unittest_last(clinic):
    result = clinic.test(
        """
        class TestPlain:
            def test_plain(self):
                pass

        def test_transactional(transactional_db):
            Ward.objects.all().delete()

        class TestCommitted(TransactionTestCase):
            def test_class(self):
                pass

        @pytest.mark.django_db
        def test_atomic():
            assert Ward.objects.count() == 2

        class TestRolledBack(TestCase):
            def test_testcase(self):
                self.assertEqual(Ward.objects.count(), 2)
        """,
        "-v",
    )
    result.assert_outcomes(passed=5)
    names = ["test_atomic", "test_testcase", "test_transactional", "test_class", "test_plain"]
    result.stdout.fnmatch_lines([f"*::{name} PASSED*" for name in names])


@pytest.fixture
def monorepo(pytester):
    """A Django project and another below a root that knows neither."""
    clinic = Clinic(pytester.path / "apps/clinic", pytester)
    clinic.write("../../pyproject.toml", "[tool.pytest.ini_options]\naddopts = '--import-mode=importlib'\n")
    clinic.write("../shop/seeddb.toml", "migrations = 'db'\nname = 'shop'\n")
    clinic.write("../shop/db/1.sql", "CREATE TABLE shop (id int);")
    return clinic


BELOW = """
@pytest.mark.seeded
@pytest.mark.parametrize("round", range(2))
def test_atomic(db, round):
    assert Patient.objects.count() == 3
    Patient.objects.all().delete()

@pytest.mark.seeded
@pytest.mark.parametrize("round", range(2))
def test_transactional(transactional_db, round):
    assert Patient.objects.count() == 3
    Patient.objects.all().delete()

@pytest.mark.seeded
class TestSeeded(TestCase):
    def test_it(self):
        assert Patient.objects.count() == 3

@pytest.mark.django_db
def test_unmarked():
    assert (Patient.objects.count(), Ward.objects.count()) == (0, 2)
"""
OF_THE_SHOP = """
    import pytest

    @pytest.fixture
    def db(seeded_connection):
        return seeded_connection

    @pytest.mark.parametrize("round", range(2))
    def test_own_db(db, round):
        assert db.execute("TABLE shop").fetchall() == []
        db.execute("INSERT INTO shop VALUES (1)")
        db.commit()
"""


@pytest.mark.slow
@pytest.mark.parametrize("has_pytest_django", [True, False])
def test_a_table_below_the_root_may_be_a_django_project_s(monorepo, has_pytest_django):
    seeded = "\n@pytest.mark.seeded\ndef test_seeded():\n    assert Patient.objects.count() == 3\n"
    monorepo.write("tests/test_clinic.py", IMPORTS + (BELOW if has_pytest_django else seeded))
    monorepo.write("../shop/test_shop.py", OF_THE_SHOP)
    monorepo.write("../../lib/test_lib.py", "def test_lib(): ...")
    options = [] if has_pytest_django else ["-p", "no:django"]
    result = monorepo.run(*options)
    result.assert_outcomes(passed=9 if has_pytest_django else 4)


def test_two_tables_with_different_django_settings_are_refused(monorepo):
    monorepo.write("tests/test_clinic.py", "def test_it(): ...")
    monorepo.write("../other/seeddb.toml", "migrations = 'django'\n")
    monorepo.write(
        "../other/manage.py", 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "other.settings")\n'
    )
    monorepo.write("../other/test_other.py", "def test_it(): ...")
    result = monorepo.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*Two Django projects cannot be tested in one run of pytest*",
            "*saw:  other.settings, where site_.settings is set up*",
            "*from: *apps/other/seeddb.toml*",
        ]
    )
