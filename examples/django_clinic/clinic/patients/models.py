from django.db import models


class Patient(models.Model):
    tenant = models.ForeignKey("tenants.Tenant", models.PROTECT, related_name="patients")
    number = models.PositiveIntegerField()
    given_name = models.CharField(max_length=80)
    family_name = models.CharField(max_length=80)
    email = models.EmailField()
    born_on = models.DateField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["tenant", "number"], name="patient_number"),)
        indexes = (models.Index(fields=["tenant", "family_name"], name="patient_by_name"),)

    def __str__(self):
        return f"{self.given_name} {self.family_name}"

    def as_json(self):
        return {"number": self.number, "name": str(self), "born_on": self.born_on.isoformat()}
