"""What the views answer, to whom."""

import pytest
from clinic.clinicians.models import Clinician

pytestmark = pytest.mark.seeded

VISIT = {"patient": 2, "clinician": "clinician2", "kind": "vaccination", "starts_at": "2026-03-02T10:00:00Z"}


@pytest.fixture
def reception(client):
    """Who is at the reception of clinic1."""
    client.force_login(Clinician.objects.get(tenant__slug="clinic1", groups__name="reception"))
    return client


def test_patients_are_for_those_who_are_logged_in(client):
    assert client.get("/clinic1/patients").status_code == 401


def test_the_reception_sees_its_own_patients(reception):
    found = reception.get("/clinic1/patients").json()["patients"]
    assert [each["number"] for each in found] == list(range(1, 13))
    assert reception.get("/clinic2/patients").status_code == 403


def test_a_patient_is_found_by_the_beginning_of_the_name(reception):
    name = reception.get("/clinic1/patients").json()["patients"][3]["name"].split()[1]
    found = reception.get("/clinic1/patients", {"q": name[:3].upper()}).json()["patients"]
    assert 4 in [each["number"] for each in found]


def test_the_admin_sees_all_and_is_the_seeded_one(admin_client):
    assert len(admin_client.get("/clinic3/patients").json()["patients"]) == 12
    assert Clinician.objects.get(is_superuser=True).email == "admin@clinic.example"
    assert b"36 patients" in admin_client.get("/admin/patients/patient/").content


def test_the_reception_adds_a_visit_and_no_second_one_at_that_time(reception):
    added = reception.post("/clinic1/visits", VISIT, content_type="application/json")
    assert (added.status_code, added.json()["number"]) == (201, 21)

    refused = reception.post("/clinic1/visits", VISIT, content_type="application/json")
    assert (refused.status_code, refused.json()) == (409, {"error": "clinician2 is busy at 10:00"})


def test_a_clinician_adds_none(client):
    client.force_login(Clinician.objects.get(username="clinician1"))
    assert client.post("/clinic1/visits", VISIT, content_type="application/json").status_code == 403


@pytest.mark.parametrize("wrong", [{"starts_at": "soon"}, {"starts_at": None}])
def test_what_is_no_visit_is_refused(reception, wrong):
    assert reception.post("/clinic1/visits", VISIT | wrong, content_type="application/json").status_code == 400


@pytest.mark.asyncio
async def test_the_board_shows_the_day_without_names(async_client):
    found = (await async_client.get("/clinic1/board/2025-03-03")).json()["visits"]
    assert [each["number"] for each in found] == list(range(1, 17))
    assert set(found[0]) == {"number", "kind", "starts_at"}


@pytest.mark.asyncio
async def test_a_visit_that_is_cancelled_is_on_no_board(async_client):
    clinician = await Clinician.objects.aget(username="clinician1")
    await clinician.visits.aupdate(is_cancelled=True)
    found = (await async_client.get("/clinic1/board/2025-03-03")).json()["visits"]
    assert 0 < len(found) < 16


@pytest.mark.asyncio
async def test_there_is_no_board_for_what_is_no_clinic_or_no_day(async_client):
    assert (await async_client.get("/elsewhere/board/2025-03-03")).status_code == 404
    assert (await async_client.get("/clinic1/board/today")).status_code == 400
