from django.contrib import admin

from clinic.tenants.models import Tenant

admin.site.register(Tenant)
