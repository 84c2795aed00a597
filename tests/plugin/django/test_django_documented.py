"""What pytest-django documents is so with this plugin beside it."""

from __future__ import annotations

import pytest
from clinic import Clinic

EAST = '[{"model": "clinic.ward", "pk": 3, "fields": {"name": "east"}}]'


@pytest.fixture
def clinic(pytester):
    return Clinic(pytester.path, pytester)


# -- database access ------------------------------------------------------------------------------


@pytest.mark.slow
def test_access_is_refused_without_a_mark_and_granted_to_a_marked_function_class_and_module(clinic):
    clinic.write(
        "test_module.py",
        """
        import pytest
        from clinic.models import Patient
        pytestmark = pytest.mark.django_db

        def test_it():
            assert Patient.objects.count() == 0
        """,
    )
    result = clinic.test(
        """
        def test_unmarked():
            with pytest.raises(RuntimeError, match="Database access not allowed"):
                Patient.objects.count()

        class TestUnmarked:
            def test_it(self):
                with pytest.raises(RuntimeError, match="Database access not allowed"):
                    connection.ensure_connection()

        @pytest.mark.django_db
        def test_function():
            assert Patient.objects.count() == 0

        @pytest.mark.django_db
        class TestOfUnittest(__import__("unittest").TestCase):
            def test_it(self):
                self.assertEqual(Patient.objects.create(name="x").id, 1)

        @pytest.mark.django_db
        class TestMarked:
            def test_it(self):
                assert Patient.objects.count() == 0

        def test_fixture(db):
            assert Patient.objects.count() == 0

        def test_refused_again_afterwards():
            with pytest.raises(RuntimeError, match="Database access not allowed"):
                Patient.objects.count()
        """,
        "test_module.py",
    )
    result.assert_outcomes(passed=8)


@pytest.mark.slow
def test_a_marked_test_is_rolled_back_and_is_in_a_transaction(clinic):
    result = clinic.test(
        """
        @pytest.mark.django_db
        @pytest.mark.parametrize("round", range(3))
        def test_it(round):
            assert connection.in_atomic_block
            assert Patient.objects.count() == 0
            Patient.objects.create(name="mine")
            with transaction.atomic():
                Ward.objects.all().delete()

        @pytest.fixture
        def patient(db):
            return Patient.objects.create(name="of a fixture")

        @pytest.mark.django_db
        @pytest.mark.parametrize("round", range(2))
        def test_fixture(round, patient):
            assert Patient.objects.get() == patient
            assert Ward.objects.count() == 2
        """
    )
    result.assert_outcomes(passed=5)


@pytest.mark.slow
def test_transaction_true_really_commits_runs_on_commit_and_needs_no_serialized_rollback(clinic):
    result = clinic.test(
        """
        def seen_by_another():
            found = []
            def look():
                found.append(Patient.objects.count())
                connection.close()
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            return found[0]

        def use():
            assert not connection.in_atomic_block
            assert Patient.objects.count() == 0
            assert [each.name for each in Ward.objects.order_by("id")] == ["north", "south"]
            called = []
            with transaction.atomic():
                Patient.objects.create(name="committed")
                transaction.on_commit(lambda: called.append(1))
                assert seen_by_another() == 0 and not called
            assert called == [1]
            assert seen_by_another() == 1
            Ward.objects.all().delete()

        @pytest.mark.django_db(transaction=True)
        @pytest.mark.parametrize("round", range(2))
        def test_mark(round):
            use()

        @pytest.mark.parametrize("round", range(2))
        def test_fixture(transactional_db, round):
            use()

        def test_the_transactional_fixture_wins(db, transactional_db):
            use()

        @pytest.mark.django_db(transaction=True, available_apps=["clinic"])
        @pytest.mark.parametrize("round", range(2))
        def test_available_apps_are_accepted(round):
            use()

        @pytest.mark.django_db(transaction=True, serialized_rollback=True)
        @pytest.mark.parametrize("round", range(2))
        def test_serialized_rollback_is_accepted(round):
            use()

        def test_serialized_rollback_fixture(transactional_db, django_db_serialized_rollback):
            use()
        """
    )
    result.assert_outcomes(passed=10)


@pytest.mark.slow
def test_sequences_that_are_reset_start_where_the_template_left_them(clinic):
    result = clinic.test(
        """
        def use(patient=1):
            assert Patient.objects.create(name="x").id == patient
            # A data migration made two of them. Django would start at 1, where the rows are already.
            assert Ward.objects.create(name="x").id == 3

        @pytest.mark.django_db(transaction=True, reset_sequences=True)
        @pytest.mark.parametrize("round", range(2))
        def test_mark(round):
            use()

        @pytest.mark.parametrize("round", range(2))
        def test_fixture(django_db_reset_sequences, round):
            use()

        @pytest.mark.django_db(reset_sequences=True)
        def test_mark_alone():
            use()

        @pytest.mark.seeded
        @pytest.mark.django_db(transaction=True, reset_sequences=True)
        def test_seeded():
            use(patient=4)

        class TestClass(TransactionTestCase):
            reset_sequences = True
            def test_one(self):
                use()
            def test_two(self):
                use()
        """
    )
    result.assert_outcomes(passed=8)


# -- classes of Django's --------------------------------------------------------------------------


@pytest.mark.slow
def test_django_test_classes_behave_as_in_django(clinic):
    clinic.write("clinic/fixtures/wards.json", EAST)
    result = clinic.test(
        """
        class TestRolledBack(TestCase):
            @classmethod
            def setUpTestData(cls):
                cls.patient = Patient.objects.create(name="of the class")

            def test_one(self):
                self.patient.name = "changed"
                self.patient.save()
                Patient.objects.create(name="x")
                self.assertEqual(Patient.objects.count(), 2)

            def test_two(self):
                self.assertEqual(Patient.objects.get().name, "of the class")
                self.assertEqual(self.patient.name, "of the class")
                with self.assertNumQueries(1), self.captureOnCommitCallbacks(execute=True) as callbacks:
                    transaction.on_commit(lambda: Patient.objects.count())
                self.assertEqual(len(callbacks), 1)

        class TestCommitted(TransactionTestCase):
            def test_one(self):
                self.assertFalse(connection.in_atomic_block)
                self.assertEqual(Patient.objects.count(), 0)
                Patient.objects.create(name="x")
                Ward.objects.all().delete()

            def test_two(self):
                self.test_one()

        class TestLive(LiveServerTestCase):
            def test_one(self):
                self.assertEqual(get(self.live_server_url + "/count")["patients"], 0)
                get(self.live_server_url + "/add")
                self.assertEqual(Patient.objects.count(), 1)

            def test_two(self):
                self.test_one()

        class TestWithout(SimpleTestCase):
            def test_refused(self):
                with self.assertRaises(Exception) as raised:
                    Patient.objects.count()
                self.assertIn("not allowed", str(raised.exception))

            def test_client(self):
                self.assertEqual(self.client.get("/nowhere").status_code, 404)

        class TestRolledBackAfterwards(TestCase):
            fixtures = ["wards.json"]
            def test_one(self):
                self.assertEqual(Patient.objects.count(), 0)
                self.assertEqual([each.name for each in Ward.objects.order_by("id")], ["north", "south", "east"])
        """
    )
    result.assert_outcomes(passed=9)


# -- fixtures of tests ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_fixtures_that_pytest_django_documents_work(clinic):
    clinic.write(
        "site_/others.py",
        """
        from django.urls import path
        from site_.urls import count
        urlpatterns = [path("other", count)]
        """,
    )
    result = clinic.test(
        """
        from django.conf import settings as django_settings

        def test_client(client, db):
            Patient.objects.create(name="x")
            assert client.get("/count").json() == {"patients": 1, "user": ""}

        def test_client_without_a_database(client):
            assert client.get("/nowhere").status_code == 404
            with pytest.raises(RuntimeError, match="Database access not allowed"):
                client.get("/count")

        def test_admin_client(admin_client):
            assert admin_client.get("/count").json() == {"patients": 0, "user": "admin"}

        def test_admin_user(admin_user, django_user_model, django_username_field):
            assert admin_user.is_superuser and admin_user.pk == 1 and django_username_field == "username"
            assert django_user_model.objects.get() == admin_user

        def test_user_model(django_user_model):
            assert django_user_model.objects.count() == 0
            django_user_model.objects.create_user(username="someone", password="something")

        @pytest.mark.seeded
        def test_seeded_admin_client(admin_client):
            assert admin_client.get("/count").json() == {"patients": 3, "user": "admin"}

        def test_rf(rf, db):
            from site_.urls import add
            assert json.loads(add(rf.get("/add")).content) == {"id": 1}

        def test_settings(settings):
            settings.SITE_ID = 2
            assert django_settings.SITE_ID == 2

        def test_settings_are_put_back():
            assert django_settings.SITE_ID == 1

        @pytest.mark.django_db
        def test_queries(django_assert_num_queries, django_assert_max_num_queries):
            with django_assert_num_queries(2) as captured:
                Patient.objects.create(name="a")
                Patient.objects.count()
            assert "INSERT" in captured.captured_queries[0]["sql"]
            with django_assert_max_num_queries(1):
                Patient.objects.count()
            with pytest.raises(pytest.fail.Exception, match="Expected to perform 2 queries but 1 was done"):
                with django_assert_num_queries(2):
                    Patient.objects.count()

        @pytest.mark.django_db
        def test_callbacks(django_capture_on_commit_callbacks):
            called = []
            with django_capture_on_commit_callbacks(execute=True) as callbacks:
                transaction.on_commit(lambda: called.append(1))
            assert len(callbacks) == 1 and called == [1]

        def test_mail(mailoutbox):
            from django.core import mail
            mail.send_mail("subject", "body", "from@example.com", ["to@example.com"])
            assert [each.subject for each in mailoutbox] == ["subject"]

        @pytest.mark.urls("site_.others")
        def test_urls(client, db):
            assert client.get("/other").json()["patients"] == 0

        def test_assertions(client, db):
            from pytest_django.asserts import assertContains, assertNumQueries
            with assertNumQueries(1):
                Patient.objects.count()
            assertContains(client.get("/count"), "patients")
        """
    )
    result.assert_outcomes(passed=14)


@pytest.mark.slow
def test_a_live_server_sees_what_the_test_commits_and_the_other_way_around(clinic):
    result = clinic.test(
        """
        @pytest.mark.parametrize("round", range(2))
        def test_it(live_server, round):
            assert get(live_server.url + "/count")["patients"] == 0
            assert get(live_server + "/add") == {"id": 1}
            assert Patient.objects.get().name == "web"
            Patient.objects.create(name="x")
            assert get(str(live_server) + "/count")["patients"] == 2
            assert get(live_server.url + "/acount")["patients"] == 2
            assert Ward.objects.count() == 2
        """
    )
    result.assert_outcomes(passed=2)


@pytest.mark.slow
def test_coroutines_use_the_database_and_the_async_client(clinic):
    result = clinic.test(
        """
        pytestmark = pytest.mark.asyncio

        @pytest.mark.django_db(transaction=True)
        @pytest.mark.parametrize("round", range(2))
        async def test_transactional(async_client, round):
            assert (await Patient.objects.acreate(name="x")).id == 1
            assert (await async_client.get("/acount")).json() == {"patients": 1}
            assert (await async_client.get("/count")).json()["patients"] == 1

        @pytest.mark.django_db
        @pytest.mark.parametrize("round", range(2))
        async def test_atomic(async_client, async_rf, round):
            assert await Patient.objects.acount() == 0
            await Patient.objects.acreate(name="x")
            assert (await async_client.get("/acount")).json() == {"patients": 1}

        class TestAsync(TestCase):
            async def test_one(self):
                await Patient.objects.acreate(name="x")
                self.assertEqual((await self.async_client.get("/acount")).json(), {"patients": 1})

            async def test_two(self):
                await self.test_one()
        """,
        asyncio=True,
    )
    result.assert_outcomes(passed=6)
