"""Tests that Django rolls back: most of a suite. Without the marker ``seeded`` the database is only migrated."""

import pytest
from clinic.patients.models import Patient
from clinic.seeds.factories import ClinicianFactory, PatientFactory, VisitFactory
from clinic.tenants.models import Tenant
from clinic.visits.booking import RefusedError, book
from clinic.visits.models import Visit
from django.contrib.auth.models import Group
from django.db import IntegrityError, transaction

pytestmark = pytest.mark.usefixtures("db")


@pytest.mark.parametrize("_attempt", [1, 2])
def test_without_seeds_there_is_what_migrations_and_their_signals_made(_attempt):
    assert [each.slug for each in Tenant.objects.all()] == ["main"]
    assert {each.name for each in Group.objects.all()} == {"clinicians", "reception"}
    assert not Patient.objects.exists()
    PatientFactory()


def test_factories_make_what_they_need():
    visit = VisitFactory()
    assert visit.clinician.tenant == visit.patient.tenant == visit.tenant


def test_two_patients_of_a_tenant_have_two_numbers():
    patient = PatientFactory()
    with pytest.raises(IntegrityError, match="patient_number"), transaction.atomic():
        Patient.objects.create(tenant=patient.tenant, number=patient.number, born_on="2000-01-01")


def test_a_clinician_sees_one_patient_at_a_time():
    visit = VisitFactory()
    args = (visit.tenant, visit.patient.number, visit.clinician.username, "check-up", visit.starts_at)
    with pytest.raises(RefusedError, match="is busy"):
        book(*args)

    Visit.objects.update(is_cancelled=True)
    assert book(*args).number == visit.number + 1


def test_nothing_is_mailed_before_the_commit(mailoutbox, django_capture_on_commit_callbacks):
    patient = PatientFactory()
    doctor = ClinicianFactory(tenant=patient.tenant)
    kind = VisitFactory().kind
    with django_capture_on_commit_callbacks(execute=True):
        book(patient.tenant, patient.number, doctor.username, kind.slug, VisitFactory.build().starts_at)
        assert mailoutbox == []
    assert [each.to for each in mailoutbox] == [[patient.email]]


@pytest.mark.seeded
@pytest.mark.parametrize("_attempt", [1, 2])
def test_with_seeds_there_are_three_clinics_each_time(_attempt):
    assert Patient.objects.count() == 36
    assert Visit.objects.filter(tenant__slug="clinic1").count() == 20
    Visit.objects.all().delete()


@pytest.mark.seeded("minimal", patients=40)
def test_the_smallest_clinic_with_many_patients():
    assert (Tenant.objects.count(), Patient.objects.count()) == (2, 40)
