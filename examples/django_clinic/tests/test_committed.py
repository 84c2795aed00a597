"""Tests that commit: on a database of their own, so that nothing is flushed afterwards, and migrations' rows stay."""

import json
from datetime import UTC, datetime
from urllib.request import urlopen

import pytest
from clinic.clinicians.models import Clinician
from clinic.patients.models import Patient
from clinic.seeds.factories import PatientFactory
from clinic.tenants.models import Tenant
from clinic.visits.booking import RefusedError, book
from clinic.visits.models import Visit
from django.core.management import call_command

pytestmark = pytest.mark.usefixtures("transactional_db")

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.mark.seeded
@pytest.mark.parametrize("_attempt", [1, 2])
def test_a_visit_is_confirmed_once_it_is_committed(mailoutbox, _attempt):
    visit = book(Tenant.objects.get(slug="clinic1"), 1, "clinician1", "check-up", NOON)

    assert visit.number == 21
    assert [each.to for each in mailoutbox] == [["patient1@clinic1.example"]]


def test_nothing_is_confirmed_where_nothing_was_booked(mailoutbox):
    patient = PatientFactory()
    with pytest.raises(RefusedError, match="there is no clinician nobody"):
        book(patient.tenant, patient.number, "nobody", "check-up", NOON)

    assert not Visit.objects.exists()
    assert mailoutbox == []


@pytest.mark.seeded("essential")
@pytest.mark.parametrize("_attempt", [1, 2])
def test_the_migrations_rows_are_there_whatever_the_test_before_has_done(_attempt):
    Tenant.objects.get(slug="main").delete()


def test_a_live_server_answers_from_the_tests_database(live_server):
    with urlopen(f"{live_server.url}/health") as answer:  # noqa: S310 - our own
        assert json.load(answer) == {"tenants": Tenant.objects.count()}


@pytest.mark.seeded
def test_a_live_server_shows_the_seeds(live_server):
    with urlopen(f"{live_server.url}/clinic1/board/2025-03-03") as answer:  # noqa: S310 - our own
        assert b'"number": 1,' in answer.read()


def test_the_demo_can_be_seeded_by_the_projects_own_command(capsys):
    call_command("seed_demo", profile="minimal")
    assert "applied in" in capsys.readouterr().out
    assert Patient.objects.count() == 2

    call_command("seed_demo", "--idempotent", profile="minimal")
    assert "up to date" in capsys.readouterr().out

    Patient.objects.filter(number=2).delete()
    call_command("seed_demo", "--force", profile="minimal")
    assert Patient.objects.count() == 2
    assert Clinician.objects.count() == 4
