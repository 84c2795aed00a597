"""The JSON that the clinics' own pages are made from."""

import json
from datetime import date, datetime
from functools import wraps

from django.db import connection
from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET, require_POST

from clinic.patients.models import Patient
from clinic.tenants.models import Tenant
from clinic.visits.booking import RefusedError, book
from clinic.visits.models import Visit


@require_GET
def health(_request):
    """Whether the application runs, and reaches a database that was migrated."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM tenants_tenant")
        return JsonResponse({"tenants": cursor.fetchone()[0]})


def of_the_tenant(permission):
    """Give a view the tenant, for people of that tenant (or the administrator) who have the permission."""

    def decorated(view):
        @wraps(view)
        def checked(request, tenant):
            if not request.user.is_authenticated:
                return JsonResponse({"error": "log in first"}, status=401)
            found = get_object_or_404(Tenant, slug=tenant)
            if not request.user.works_for(found) or not request.user.has_perm(permission):
                return JsonResponse({"error": f"not for {request.user.username}"}, status=403)
            return view(request, found)

        return checked

    return decorated


@require_GET
@of_the_tenant("patients.view_patient")
def patients(request, tenant):
    """The tenant's patients; ``?q=`` is the beginning of the family name."""
    found = Patient.objects.filter(tenant=tenant, family_name__istartswith=request.GET.get("q", ""))
    return JsonResponse({"patients": [each.as_json() for each in found.order_by("number")]})


@require_POST
@of_the_tenant("visits.add_visit")
def visits(request, tenant):
    """Add a visit: ``{"patient": 1, "clinician": "clinician1", "kind": "check-up", "starts_at": "..."}``."""
    try:
        wanted = json.loads(request.body)
        starts_at = datetime.fromisoformat(wanted["starts_at"])
        visit = book(tenant, wanted["patient"], wanted["clinician"], wanted["kind"], starts_at)
    except (ValueError, KeyError, TypeError) as error:
        return JsonResponse({"error": f"{type(error).__name__}: {error}"}, status=400)
    except RefusedError as error:
        return JsonResponse({"error": str(error)}, status=409)
    return JsonResponse(visit.as_json(), status=201)


async def board(_request, tenant, day):
    """The screen in the waiting room: the day's visits by their numbers, and nobody's name."""
    try:
        wanted = date.fromisoformat(day)
    except ValueError:
        return JsonResponse({"error": f"{day} is no day"}, status=400)
    if not await Tenant.objects.filter(slug=tenant).aexists():
        return JsonResponse({"error": f"there is no {tenant}"}, status=404)
    planned = Visit.objects.filter(tenant__slug=tenant, starts_at__date=wanted, is_cancelled=False)
    return JsonResponse(
        {
            "visits": [
                each.on_the_board() async for each in planned.select_related("kind").order_by("starts_at", "number")
            ]
        }
    )
