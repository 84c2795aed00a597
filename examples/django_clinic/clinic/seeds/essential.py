"""What the clinics cannot run without. Each deployment runs these again when they have changed."""

from typing import Annotated

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission
from django.db.models import Q

from clinic.clinicians.models import Clinician
from clinic.visits.models import VisitKind
from pytest_seeddb import Param, seeder

ROLES = {
    "clinicians": ["patients.view_patient", "visits.view_visit", "visits.change_visit"],
    "reception": ["patients.view_patient", "patients.add_patient", "visits.view_visit", "visits.add_visit"],
}
KINDS = {"check-up": ("Check-up", 30), "consultation": ("Consultation", 15), "vaccination": ("Vaccination", 10)}


@seeder(idempotent=True)
def roles():
    """What a group may do is the code's: it goes before what the database says.

    The groups are made by a receiver of ``post_migrate``; only when all of those have run are all
    permissions there, and seeds come after.
    """
    for name, permissions in ROLES.items():
        wanted = Q()
        for each in permissions:
            app, _, codename = each.partition(".")
            wanted |= Q(content_type__app_label=app, codename=codename)
        Group.objects.get(name=name).permissions.set(Permission.objects.filter(wanted).order_by("pk"))


@seeder(idempotent=True)
def visit_kinds():
    """Kinds that the clinics have changed stay as they are."""
    for slug, (name, minutes) in KINDS.items():
        VisitKind.objects.get_or_create(slug=slug, defaults={"name": name, "minutes": minutes})


@seeder(idempotent=True)
def admin(
    admin_username: str = "admin",
    admin_password: Annotated[str, Param(secret=True)] = "admin",  # noqa: S107 - refused in production
):
    """Add the first administrator, who is to change the password; then that one stays."""
    if not Clinician.objects.filter(username=admin_username).exists():
        Clinician.objects.create(
            username=admin_username,
            email=f"{admin_username}@clinic.example",
            # A salt of its own, but not a random one: the same seeds make the same rows.
            password=make_password(admin_password, salt=f"first-{admin_username}"),
            is_staff=True,
            is_superuser=True,
            date_joined="2025-01-01T00:00Z",
        )
