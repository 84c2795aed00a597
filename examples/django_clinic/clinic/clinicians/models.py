from django.contrib.auth.models import AbstractUser
from django.db import models


class Clinician(AbstractUser):
    """A user; the administrator is of no particular tenant."""

    tenant = models.ForeignKey("tenants.Tenant", models.PROTECT, null=True, blank=True, related_name="clinicians")
    room = models.CharField(max_length=10, blank=True)

    def works_for(self, tenant):
        return self.is_superuser or self.tenant_id == tenant.pk
