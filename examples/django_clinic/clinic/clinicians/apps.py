from django.apps import AppConfig
from django.db.models.signals import post_migrate

GROUPS = ("clinicians", "reception")


def make_groups(using, **_):
    """Each database has the groups once it is migrated. What they may do is a seed: `clinic.seeds.essential`."""
    from django.contrib.auth.models import Group

    for name in GROUPS:
        Group.objects.using(using).get_or_create(name=name)


class CliniciansConfig(AppConfig):
    name = "clinic.clinicians"

    def ready(self):
        post_migrate.connect(make_groups, sender=self)
