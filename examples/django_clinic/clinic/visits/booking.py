"""Booking a visit: one transaction, and a mail once it is committed."""

from functools import partial

from django.core.mail import send_mail
from django.db import transaction
from django.db.models import Max

from clinic.clinicians.models import Clinician
from clinic.patients.models import Patient
from clinic.tenants.models import Tenant
from clinic.visits.models import Visit, VisitKind


class RefusedError(Exception):
    """The clinic does not do this; the text says why."""


@transaction.atomic
def book(tenant, patient, clinician, kind, starts_at):
    """Book a visit of the tenant's patient (a number) with one of its clinicians (a user name).

    Raises:
        RefusedError: The tenant takes no visits, has no such patient or clinician, or the clinician is busy then.
    """
    tenant = Tenant.objects.select_for_update().get(pk=tenant.pk)  # the next one waits: no number is given twice
    if not tenant.takes_visits:
        raise RefusedError(f"{tenant} takes no visits now")
    visit = Visit(
        tenant=tenant,
        number=(tenant.visits.aggregate(last=Max("number"))["last"] or 0) + 1,
        patient=_the(Patient, f"patient {patient}", tenant=tenant, number=patient),
        clinician=_the(Clinician, f"clinician {clinician}", tenant=tenant, username=clinician),
        kind=_the(VisitKind, f"kind {kind}", slug=kind),
        starts_at=starts_at,
    )
    if Visit.objects.filter(clinician=visit.clinician, starts_at=starts_at, is_cancelled=False).exists():
        raise RefusedError(f"{clinician} is busy at {starts_at:%H:%M}")
    visit.save()
    transaction.on_commit(partial(_confirm, visit))
    return visit


def _the(model, what, **which):
    try:
        return model.objects.get(**which)
    except model.DoesNotExist:
        raise RefusedError(f"there is no {what}") from None


def _confirm(visit):
    send_mail(f"Your visit at {visit.tenant}", f"{visit.starts_at:%d %B, %H:%M}", None, [visit.patient.email])
