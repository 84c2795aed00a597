"""Tests of Django projects find the seeds, whichever way they reach the database, and the same next ids."""

from __future__ import annotations

import json

import django
import pytest
from clinic import TABLE, Clinic


@pytest.fixture
def clinic(pytester):
    return Clinic(pytester.path, pytester)


SHUFFLED = """
    import os, random, pytest

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(items):
        random.Random(os.environ["ORDER"]).shuffle(items)
"""
ALL_WAYS = """
    seeded = pytest.mark.seeded
    rounds = pytest.mark.parametrize("round", range(2))

    def use():
        assert [each.name for each in Patient.objects.order_by("id")] == [f"patient {n}" for n in range(3)]
        assert Patient.objects.create(name="x").id == 4
        assert Visit.objects.create(patient_id=4).id == 4
        assert Ward.objects.count() == 2
        Ward.objects.all().delete()

    @seeded
    @rounds
    def test_atomic(db, round):
        use()

    @seeded
    @rounds
    def test_transactional(transactional_db, round):
        assert not connection.in_atomic_block
        use()

    @seeded
    @rounds
    def test_without_django_db(round):
        assert not connection.in_atomic_block
        use()

    @seeded
    @rounds
    def test_with_seeded_db(seeded_db, db, round):
        use()

    @rounds
    def test_beside_a_connection(seeded_db, round):
        use()
        with seeded_db.connect() as other:
            assert other.execute("SELECT count(*) FROM clinic_patient").fetchone() == (4,)

    @seeded
    @rounds
    def test_live(live_server, round):
        assert get(live_server.url + "/count")["patients"] == 3
        assert get(live_server.url + "/add") == {"id": 4}
        assert Patient.objects.count() == 4

    @seeded
    @rounds
    @pytest.mark.asyncio
    @pytest.mark.django_db(transaction=True)
    async def test_async_transactional(round):
        assert (await Patient.objects.acreate(name="x")).id == 4

    @seeded
    @rounds
    @pytest.mark.asyncio
    @pytest.mark.django_db
    async def test_async(async_client, round):
        assert (await async_client.get("/acount")).json() == {"patients": 3}
        assert (await Patient.objects.acreate(name="x")).id == 4

    @pytest.mark.django_db(transaction=True)
    @rounds
    def test_unmarked_transactional(round):
        assert Patient.objects.create(name="x").id == 1

    @pytest.mark.django_db
    @rounds
    def test_unmarked(round):
        assert Patient.objects.create(name="x").id == 1
        assert Ward.objects.count() == 2
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", ["", "first", "second"])
def test_every_way_finds_the_seeds_and_the_same_next_id_in_any_order(clinic, order, monkeypatch):
    monkeypatch.setenv("ORDER", order)
    if order:
        clinic.write("conftest.py", SHUFFLED)
    clinic.test(ALL_WAYS, asyncio=True).assert_outcomes(passed=20)


@pytest.mark.slow
def test_a_seeded_class_of_djangos_has_the_seeds_for_each_of_its_tests(clinic):
    result = clinic.test(
        """
        @pytest.mark.seeded
        class TestRolledBack(TestCase):
            @classmethod
            def setUpTestData(cls):
                cls.patient = Patient.objects.create(name="of the class")

            def test_one(self):
                self.assertEqual(self.patient.id, 4)
                self.assertEqual(Patient.objects.count(), 4)
                Patient.objects.all().delete()

            def test_two(self):
                self.test_one()

        class TestInherited(TestRolledBack):
            pass

        @pytest.mark.seeded
        class TestCommitted(TransactionTestCase):
            def test_one(self):
                self.assertEqual(Patient.objects.create(name="x").id, 4)
                Ward.objects.all().delete()

            def test_two(self):
                self.assertEqual(Ward.objects.count(), 2)
                self.test_one()

        @pytest.mark.seeded
        class TestLive(LiveServerTestCase):
            def test_one(self):
                self.assertEqual(get(self.live_server_url + "/add"), {"id": 4})
                self.assertEqual(Patient.objects.count(), 4)

            def test_two(self):
                self.test_one()

        class TestUnmarked(TestCase):
            def test_it(self):
                self.assertEqual(Patient.objects.count(), 0)

        @pytest.mark.seeded
        class TestPlain:
            @pytest.mark.parametrize("round", range(2))
            def test_it(self, db, round):
                assert Patient.objects.create(name="x").id == 4
        """
    )
    result.assert_outcomes(passed=11)


@pytest.mark.slow
def test_a_seeded_method_in_an_unmarked_class_of_djangos_is_told_to_mark_the_class(clinic):
    result = clinic.test(
        """
        class TestMixed(TestCase):
            @pytest.mark.seeded
            def test_seeded(self):
                raise AssertionError("it ran")

            def test_other(self):
                self.assertEqual(Patient.objects.count(), 0)
        """
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ConfigError: The tests of a Django class*", "*mark the class*"])
    assert "Traceback" not in result.stdout.str()


@pytest.mark.slow
def test_without_pytest_django_the_orm_reaches_the_seeded_database(clinic):
    clinic.write("pyproject.toml", TABLE.partition("[tool.pytest")[0])
    clinic.write(
        "test_it.py",
        """
        import pytest

        @pytest.mark.parametrize("round", range(2))
        def test_fixture(seeded_db, round):
            from clinic.models import Patient
            assert Patient.objects.create(name="x").id == 4
            with seeded_db.connect() as connection:
                assert connection.execute("SELECT count(*) FROM clinic_patient").fetchone() == (4,)

        @pytest.mark.seeded
        def test_marked():
            from clinic.models import Patient
            assert Patient.objects.count() == 3
        """,
    )
    clinic.run("-p", "no:django").assert_outcomes(passed=3)


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
def test_it_does_not_matter_which_plugin_is_loaded_first(clinic, reverse, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    names = sorted(["pytest_django.plugin", "pytest_seeddb.plugin"], reverse=reverse)
    result = clinic.test(
        """
        def test_unmarked(db):
            assert Patient.objects.create(name="x").id == 1

        @pytest.mark.seeded
        def test_seeded(db):
            assert Patient.objects.create(name="x").id == 4

        @pytest.mark.seeded
        def test_committed(transactional_db):
            assert Patient.objects.create(name="x").id == 4

        @pytest.mark.seeded
        class TestSeeded(TestCase):
            def test_it(self):
                self.assertEqual(Patient.objects.create(name="x").id, 4)
        """,
        *(option for name in names for option in ("-p", name)),
    )
    result.assert_outcomes(passed=4)


@pytest.mark.slow
def test_without_the_option_seeded_tests_are_skipped_and_the_others_left_to_pytest_django(clinic):
    clinic.settings('DATABASES["default"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}')
    result = clinic.test(
        """
        def test_unmarked(db):
            assert connection.vendor == "sqlite" and Ward.objects.count() == 2

        @pytest.mark.seeded
        def test_seeded(db):
            raise AssertionError("it ran")

        @pytest.mark.seeded
        class TestSeeded(TestCase):
            def test_it(self):
                raise AssertionError("it ran")
        """,
        enabled=False,
    )
    result.assert_outcomes(passed=1, skipped=2)


# A thread that ends without closing its connection is told so by psycopg, with and without us.
LEFT_OPEN = ("-W", "ignore::pytest.PytestUnraisableExceptionWarning")
THREADS = """
    from concurrent.futures import ThreadPoolExecutor

    workers = ThreadPoolExecutor(1)

    @pytest.fixture(scope="session", autouse=True)
    def workers_end():
        yield
        workers.shutdown()

    def in_a_thread(function):
        found = []
        thread = threading.Thread(target=lambda: found.append(function()))
        thread.start()
        thread.join()
        return found[0]

    def insert():
        return Patient.objects.create(name="of a thread").id  # and the connection stays open

    rounds = pytest.mark.parametrize("round", range(3))
    pytestmark = pytest.mark.seeded

    @rounds
    def test_committing(round):
        assert in_a_thread(insert) == 4
        assert workers.submit(insert).result() == 5
        assert Patient.objects.count() == 5

    @rounds
    def test_transactional(transactional_db, round):
        assert in_a_thread(insert) == 4
        assert workers.submit(insert).result() == 5
        assert Patient.objects.count() == 5

    @rounds
    def test_atomic(db, round):
        assert Patient.objects.count() == 3
        assert in_a_thread(insert) == 4
        assert workers.submit(insert).result() == 5
        assert Patient.objects.count() == 5

    @pytest.mark.parametrize("round", range(2))
    def test_a_thread_that_stayed_connected(transactional_db, round):
        assert workers.submit(Patient.objects.count).result() == 3
"""


@pytest.mark.slow
def test_threads_reach_the_tests_own_clone_and_their_connections_do_not_outlive_it(clinic):
    clinic.test(THREADS, *LEFT_OPEN).assert_outcomes(passed=11)


@pytest.mark.slow
@pytest.mark.skipif(django.VERSION < (5, 1), reason="Django has pools of connections since 5.1")
def test_pools_of_connections_lead_to_each_tests_own_clone(clinic):
    clinic.settings('DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 4, "timeout": 5}}')
    result = clinic.test(
        THREADS
        + """
    @pytest.mark.parametrize("round", range(2))
    def test_live(live_server, round):
        assert get(live_server.url + "/add") == {"id": 4}
        assert Patient.objects.count() == 4

    class TestRolledBack(TestCase):
        def test_it(self):
            self.assertEqual(Patient.objects.create(name="x").id, 4)

    class TestCommitted(TransactionTestCase):
        def test_one(self):
            self.assertEqual(Patient.objects.create(name="x").id, 4)

        def test_two(self):
            self.test_one()
    """,
        *LEFT_OPEN,
    )
    result.assert_outcomes(passed=16)


@pytest.mark.slow
def test_the_report_tells_of_tests_that_django_rolls_back_and_of_its_classes(clinic):
    clinic.test(
        """
        @pytest.mark.seeded
        def test_atomic(db):
            Ward.objects.create(name="x")

        def test_unmarked(db):
            assert Patient.objects.count() == 1

        @pytest.mark.seeded
        def test_committed(transactional_db):
            Ward.objects.create(name="x")

        @pytest.mark.seeded
        class TestRolledBack(TestCase):
            def test_one(self): pass
            def test_two(self): pass
        """,
        "--seed-db-report=report.json",
    ).assert_outcomes(passed=4, failed=1)
    uses = json.loads((clinic.path / "report.json").read_text(encoding="utf-8"))["databases"]
    told = {use["node"].partition("::")[2]: (use["outcome"], use["afterwards"], len(use["tests"])) for use in uses}
    assert told == {
        "test_atomic": ("passed", "rollback", 1),
        "test_unmarked": ("failed", "rollback", 1),
        "test_committed": ("passed", "rewind", 1),
        "TestRolledBack": ("passed", "keep", 2),
    }
    assert all(use["taken"] > 0 and use["settled"] >= 0 for use in uses)
