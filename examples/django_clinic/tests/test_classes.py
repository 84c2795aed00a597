"""Django's own test classes: the tests of a class share a database, and what one does is undone before the next."""

import pytest
from clinic.patients.models import Patient
from clinic.tenants.models import Tenant
from clinic.visits.models import Visit
from django.test import TestCase, TransactionTestCase


@pytest.mark.seeded
class SeededTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.tenant = Tenant.objects.create(slug="own", name="Of this class")

    def test_the_seeds_and_the_classs_own_rows_are_there(self):
        self.assertEqual(Patient.objects.count(), 36)  # noqa: PT009 - as such classes are written
        self.assertTrue(Tenant.objects.filter(pk=self.tenant.pk).exists())  # noqa: PT009 - likewise
        Visit.objects.all().delete()

    def test_another_one_finds_all_of_it(self):
        self.assertEqual(Visit.objects.count(), 60)  # noqa: PT009 - likewise


class UnseededTests(TestCase):
    def test_there_is_the_migrated_database(self):
        self.assertEqual(Tenant.objects.get().slug, "main")  # noqa: PT009 - likewise


@pytest.mark.seeded("minimal")
class CommittingTests(TransactionTestCase):
    def test_what_is_committed_is_gone_for_the_next(self):
        Tenant.objects.update(name="Renamed")

    def test_what_was_committed_is_gone(self):
        self.assertFalse(Tenant.objects.filter(name="Renamed").exists())  # noqa: PT009 - likewise
        self.assertEqual(Visit.objects.count(), 1)  # noqa: PT009 - likewise
