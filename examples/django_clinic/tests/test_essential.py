"""The essential tier alone: what a new production database holds, and what a later deployment leaves alone."""

import pytest
from clinic.clinicians.models import Clinician
from clinic.patients.models import Patient
from clinic.seeds.essential import admin, roles, visit_kinds
from clinic.tenants.models import Tenant
from clinic.visits.models import VisitKind
from django.contrib.auth.models import Group
from django.core.management import call_command

pytestmark = pytest.mark.seeded("essential")


def permissions(group):
    return set(Group.objects.get(name=group).permissions.values_list("codename", flat=True))


def test_there_are_roles_kinds_and_an_admin_and_nobody_to_treat():
    assert "add_visit" in permissions("reception")
    assert "add_visit" not in permissions("clinicians")
    assert VisitKind.objects.count() == 3
    assert Clinician.objects.get().username == "admin"
    assert Tenant.objects.get().slug == "main"  # a migration's
    assert not Patient.objects.exists()


@pytest.mark.seeded(admin_password="correct horse")  # noqa: S106 - a test's own
def test_the_admin_logs_in_with_the_password_of_the_deployment(client):
    assert client.login(username="admin", password="correct horse")  # noqa: S106 - likewise
    assert not client.login(username="admin", password="admin")  # noqa: S106 - likewise


def test_what_people_have_changed_outlives_a_later_deployment():
    Clinician.objects.update(email="somebody@clinic.example")
    VisitKind.objects.filter(slug="check-up").update(minutes=45)
    Group.objects.get(name="reception").permissions.clear()

    for seeder in (roles, visit_kinds, admin):
        seeder()

    assert Clinician.objects.get().email == "somebody@clinic.example"
    assert VisitKind.objects.get(slug="check-up").minutes == 45
    assert "add_visit" in permissions("reception")  # these are the code's


def test_migrations_and_models_agree(capsys):
    call_command("makemigrations", check=True, dry_run=True)
    assert "No changes detected" in capsys.readouterr().out
