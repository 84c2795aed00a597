from django.contrib import admin

from clinic.visits.models import Visit, VisitKind

admin.site.register([Visit, VisitKind])
