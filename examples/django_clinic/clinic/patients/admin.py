from django.contrib import admin

from clinic.patients.models import Patient


@admin.register(Patient)
class PatientAdmin(admin.ModelAdmin):
    list_display = ("number", "given_name", "family_name", "tenant")
    list_filter = ("tenant",)
    search_fields = ("family_name",)
