"""Factories for seeds and tests. `django_get_or_create` makes the seeds ones that can run again."""

from datetime import UTC, date, datetime, timedelta

import factory
from factory.django import DjangoModelFactory

from clinic.clinicians.models import Clinician
from clinic.patients.models import Patient
from clinic.tenants.models import Tenant
from clinic.visits.models import Visit, VisitKind

FIRST_DAY = datetime(2025, 3, 3, 8, tzinfo=UTC)


class TenantFactory(DjangoModelFactory):
    slug = factory.Sequence(lambda number: f"clinic{number + 1}")
    name = factory.Sequence(lambda number: f"Clinic {number + 1}")

    class Meta:
        model = Tenant
        django_get_or_create = ("slug",)


class ClinicianFactory(DjangoModelFactory):
    tenant = factory.SubFactory(TenantFactory)
    username = factory.Sequence(lambda number: f"clinician{number + 1}")
    first_name = factory.Faker("first_name")
    last_name = factory.Faker("last_name")
    room = factory.Sequence(lambda number: str(101 + number))
    password = "!"  # noqa: S105 - fits none: somebody sets one first
    date_joined = datetime(2025, 1, 1, tzinfo=UTC)

    class Meta:
        model = Clinician
        django_get_or_create = ("username",)


class PatientFactory(DjangoModelFactory):
    tenant = factory.SubFactory(TenantFactory)
    number = factory.Sequence(lambda number: number + 1)
    given_name = factory.Faker("first_name")
    family_name = factory.Faker("last_name")
    email = factory.LazyAttribute(lambda patient: f"patient{patient.number}@{patient.tenant.slug}.example")
    born_on = factory.Faker("date_between_dates", date_start=date(1940, 1, 1), date_end=date(2024, 12, 31))

    class Meta:
        model = Patient
        django_get_or_create = ("tenant", "number")


class VisitKindFactory(DjangoModelFactory):
    slug = "check-up"
    name = "Check-up"
    minutes = 30

    class Meta:
        model = VisitKind
        django_get_or_create = ("slug",)


class VisitFactory(DjangoModelFactory):
    """A visit, half an hour after the one before."""

    tenant = factory.SelfAttribute("patient.tenant")
    number = factory.Sequence(lambda number: number + 1)
    patient = factory.SubFactory(PatientFactory)
    clinician = factory.SubFactory(ClinicianFactory, tenant=factory.SelfAttribute("..patient.tenant"))
    kind = factory.SubFactory(VisitKindFactory)
    starts_at = factory.Sequence(lambda number: FIRST_DAY + timedelta(days=number // 16, minutes=number % 16 * 30))

    class Meta:
        model = Visit
        django_get_or_create = ("tenant", "number")
