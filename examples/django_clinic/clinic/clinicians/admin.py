from django.contrib import admin
from django.contrib.auth.admin import UserAdmin

from clinic.clinicians.models import Clinician

admin.site.register(Clinician, UserAdmin)
