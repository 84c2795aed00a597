from django.db import migrations


def add(apps, schema_editor):
    tenants = apps.get_model("tenants", "Tenant").objects.using(schema_editor.connection.alias)
    tenants.get_or_create(slug="main", defaults={"name": "Main clinic"})


def remove(apps, schema_editor):
    apps.get_model("tenants", "Tenant").objects.using(schema_editor.connection.alias).filter(slug="main").delete()


class Migration(migrations.Migration):
    """Whoever installs this has one clinic to begin with."""

    dependencies = (("tenants", "0001_initial"),)
    operations = (migrations.RunPython(add, remove),)
