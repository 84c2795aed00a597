"""Marked ``seeded``, a test needs no ``db``: its commits are real and its own, and other connections see them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from clinic.seeds.factories import ClinicianFactory
from clinic.tenants.models import Tenant
from clinic.visits.booking import RefusedError, book
from django.db import connection

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)

pytestmark = pytest.mark.seeded


def test_of_bookings_at_the_same_time_one_is_taken():
    tenant = Tenant.objects.get(slug="clinic2")

    def attempt(patient):
        try:
            return book(tenant, patient, "clinician4", "vaccination", NOON).number
        except RefusedError:
            return None
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        numbers = [number for number in pool.map(attempt, range(1, 9)) if number]

    assert numbers == [21]


def test_factories_go_on_after_the_seeded_rows():
    assert ClinicianFactory().username == "clinician10"


def test_whatever_is_done_to_the_schema_is_gone_for_the_next():
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE visits_visit")
