"""Clinics to look at and to test with. Each parameter is a number for the profile or ``SEEDDB_SEED_<NAME>``."""

import random

from django.contrib.auth.models import Group

from clinic.clinicians.models import Clinician
from clinic.seeds.essential import roles, visit_kinds
from clinic.seeds.factories import ClinicianFactory, PatientFactory, TenantFactory, VisitFactory
from clinic.tenants.models import Tenant
from clinic.visits.models import VisitKind
from pytest_seeddb import seeder


@seeder(tier="demo", idempotent=True)
def tenants(tenants: int = 3):
    TenantFactory.create_batch(tenants)


@seeder(tier="demo", idempotent=True, after=[roles, tenants])
def staff():
    """Each clinic has two clinicians and somebody at the reception."""
    for tenant in _tenants():
        for role in ("clinicians", "clinicians", "reception"):
            ClinicianFactory(tenant=tenant).groups.add(Group.objects.get(name=role))


@seeder(tier="demo", idempotent=True, after=[tenants])
def patients(patients: int = 12):
    """All clinics number their patients alike."""
    for tenant in _tenants():
        for number in range(patients):
            PatientFactory(tenant=tenant, number=number + 1)


@seeder(tier="demo", idempotent=True, after=[staff, patients, visit_kinds])
def visits(visits: int = 20):
    kinds = list(VisitKind.objects.order_by("slug"))
    for tenant in _tenants():
        people = list(tenant.patients.order_by("number"))
        seen_by = list(Clinician.objects.filter(tenant=tenant, groups__name="clinicians").order_by("pk"))
        for number in range(visits):
            VisitFactory(
                number=number + 1,
                patient=random.choice(people),
                clinician=random.choice(seen_by),
                kind=random.choice(kinds),
            )


def _tenants():
    """Those that the demo made: the migration's own is left to whoever moves in."""
    return Tenant.objects.filter(slug__regex=r"^clinic\d+$").order_by("pk")
