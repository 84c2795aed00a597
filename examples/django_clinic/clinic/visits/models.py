from django.db import models


class VisitKind(models.Model):
    slug = models.SlugField(max_length=30, unique=True)
    name = models.CharField(max_length=60)
    minutes = models.PositiveSmallIntegerField()

    def __str__(self):
        return self.name


class Visit(models.Model):
    tenant = models.ForeignKey("tenants.Tenant", models.PROTECT, related_name="visits")
    number = models.PositiveIntegerField()
    patient = models.ForeignKey("patients.Patient", models.CASCADE, related_name="visits")
    clinician = models.ForeignKey("clinicians.Clinician", models.PROTECT, related_name="visits")
    kind = models.ForeignKey(VisitKind, models.PROTECT, related_name="+")
    starts_at = models.DateTimeField()
    is_cancelled = models.BooleanField(default=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["tenant", "number"], name="visit_number"),
            models.UniqueConstraint(
                fields=["clinician", "starts_at"], condition=models.Q(is_cancelled=False), name="one_visit_at_a_time"
            ),
        )
        indexes = (models.Index(fields=["tenant", "starts_at"], name="visit_by_day"),)

    def __str__(self):
        return f"{self.tenant_id}/{self.number}"

    def as_json(self):
        return {"number": self.number, "patient": self.patient.number, "starts_at": self.starts_at.isoformat()}

    def on_the_board(self):
        return {"number": self.number, "kind": self.kind.name, "starts_at": f"{self.starts_at:%H:%M}"}
