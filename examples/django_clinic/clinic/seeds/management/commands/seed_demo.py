"""The command that the project had before: it goes on working, and is a few lines over ``seeddb apply``."""

from django.conf import settings
from django.core.management import BaseCommand, CommandError
from django.db import connection

from pytest_seeddb import cli


class Command(BaseCommand):
    help = "Migrate the database of DATABASE_URL and fill it with demo clinics, once for each version of the seeds."

    def add_arguments(self, parser):
        parser.add_argument("--profile", default="demo", help="how much of everything; see pyproject.toml")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--idempotent", action="store_true", help="do nothing where it was done; the default")
        how.add_argument("--force", action="store_true", help="run all seeders again")

    def handle(self, *, profile, force, **_):
        arguments = ["apply", "--directory", str(settings.BASE_DIR), "--profile", profile, "--tier", "demo"]
        if code := cli.main([*arguments, *(["--force"] if force else [])]):
            raise CommandError("seeddb apply has failed, see above", returncode=code)
        self.stdout.write(f"seed_demo: version {_marker()}")


def _marker():
    """What the database itself says that it was brought to; another one as soon as a seed changes."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT fingerprint FROM seeddb.seeddb_marker")
        return cursor.fetchone()[0][:12]
