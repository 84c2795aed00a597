"""A small Django project in files, and runs of pytest and `seeddb` in it.

Its settings lead to a host that does not exist: whatever is not redirected fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import uuid

from command import QUICK, WITHOUT_XDIST, Command

TABLE = """
    [tool.seeddb]
    name = "clinic"
    migrations = "django"
    seeds = ["clinic.seeds"]
    [tool.pytest.ini_options]
    DJANGO_SETTINGS_MODULE = "site_.settings"
"""
MANAGE = """
    import os, sys
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_.settings")
    from django.core.management import execute_from_command_line
    if __name__ == "__main__":
        execute_from_command_line(sys.argv)
"""
SETTINGS = """
    SECRET_KEY = "x"
    INSTALLED_APPS = [
        "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.sites",
        "clinic",
    ]
    MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    NOWHERE = {"ENGINE": "django.db.backends.postgresql", "NAME": "nowhere", "HOST": "nohost.invalid"}
    DATABASES = {"default": dict(NOWHERE)}
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    ROOT_URLCONF = "site_.urls"
    ALLOWED_HOSTS = ["*"]
    STATIC_URL = "/static/"
    SITE_ID = 1
    USE_TZ = True
"""
URLS = """
    from django.http import JsonResponse
    from django.urls import path

    def count(request):
        from clinic.models import Patient
        return JsonResponse({"patients": Patient.objects.count(), "user": request.user.username})

    async def acount(request):
        from clinic.models import Patient
        return JsonResponse({"patients": await Patient.objects.acount()})

    def add(request):
        from clinic.models import Patient
        return JsonResponse({"id": Patient.objects.create(name="web").id})

    urlpatterns = [path("count", count), path("acount", acount), path("add", add)]
"""
MODELS = """
    from django.db import models

    class Ward(models.Model):
        name = models.CharField(max_length=100)

    class Patient(models.Model):
        name = models.CharField(max_length=100)

    class Visit(models.Model):
        patient = models.ForeignKey(Patient, on_delete=models.CASCADE)
"""
INITIAL = """
    import django.db.models.deletion
    from django.db import migrations, models

    def table(model, **fields):
        key = models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")
        return migrations.CreateModel(name=model, fields=[("id", key), *fields.items()])

    class Migration(migrations.Migration):
        initial = True
        dependencies = []
        operations = [
            table("Ward", name=models.CharField(max_length=100)),
            table("Patient", name=models.CharField(max_length=100)),
            table("Visit", patient=models.ForeignKey("clinic.patient", on_delete=django.db.models.deletion.CASCADE)),
        ]
"""
WARDS = """
    from django.db import migrations

    def fill(apps, schema_editor):
        model = apps.get_model("clinic", "Ward")
        for name in ("north", "south"):
            model.objects.using(schema_editor.connection.alias).create(name=name)

    class Migration(migrations.Migration):
        dependencies = [("clinic", "0001_initial")]
        operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
"""
SEEDS = """
    from pytest_seeddb import seeder
    from clinic.models import Patient, Visit

    @seeder
    def patients():
        for number in range(3):
            Visit.objects.create(patient=Patient.objects.create(name=f"patient {number}"))
"""
FILES = {
    "pyproject.toml": TABLE,
    "manage.py": MANAGE,
    "site_/__init__.py": "",
    "site_/settings.py": SETTINGS,
    "site_/urls.py": URLS,
    "clinic/__init__.py": "",
    "clinic/models.py": MODELS,
    "clinic/seeds.py": SEEDS,
    "clinic/migrations/__init__.py": "",
    "clinic/migrations/0001_initial.py": INITIAL,
    "clinic/migrations/0002_wards.py": WARDS,
}
IMPORTS = """\
import pytest, threading, subprocess, sys, urllib.request, json
from django.db import connection, connections, transaction
from django.test import LiveServerTestCase, SimpleTestCase, TestCase, TransactionTestCase
from clinic.models import Patient, Visit, Ward

def get(url):
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)

"""
SCRIPT = """
    import copy, json, os, sys, threading, time
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.application.django import KeptRedirection, redirect_django

    outside, first, second = (Address(each) for each in json.loads(os.environ["PLACES"]))

    def lead_to(address):
        names = {"dbname": "NAME", "host": "HOST", "user": "USER", "port": "PORT", "password": "PASSWORD"}
        place = {name: address.params[key] for key, name in names.items() if key in address.params}
        return {"ENGINE": "django.db.backends.postgresql", **place}

    def set_up(**databases):
        import django
        from django.conf import settings
        settings.configure(USE_TZ=True, DATABASES={"default": lead_to(outside), **databases})
        django.setup()

    def where(alias="default"):
        from django.db import connections
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT name FROM place")
            return cursor.fetchone()[0]

    def backend(alias="default"):
        from django.db import connections
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return cursor.fetchone()[0]

    def insert(name="x"):
        from django.db import connection
        connection.cursor().execute("INSERT INTO entry VALUES (%s)", [name])

    def entries():
        from django.db import connection
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM entry")
            return cursor.fetchone()[0]

    def all_end(*backends):
        # The server needs a moment to see that a client has gone.
        from django.db import connection
        deadline = time.monotonic() + 10
        with connection.cursor() as cursor:
            while time.monotonic() < deadline:
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", [list(backends)])
                if cursor.fetchone() == (0,):
                    return True
                time.sleep(0.01)
        return False

    def in_a_thread(function):
        found = []
        def run():
            try:
                found.append(function())
            finally:
                from django.db import connections
                connections.close_all()
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return found[0]

    def refused(function):
        from django.db import OperationalError
        try:
            function()
        except OperationalError as error:
            return str(error)
        raise AssertionError("it connected")
"""
"""What a script without a project begins with: three databases, and Django set up for the first of them."""


class Clinic:
    """Files of the project, with three seeded patients and two wards that a migration makes."""

    def __init__(self, path, pytester=None):
        self.path = path
        self.pytester = pytester
        self.seeddb = Command(path)
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name, text):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def read(self, name):
        return (self.path / name).read_text()

    def table(self, text):
        """Another table of settings; what is not in it is as before."""
        self.write("pyproject.toml", TABLE.replace('    seeds = ["clinic.seeds"]\n', textwrap.indent(text, "    ")))

    def settings(self, text):
        """Lines at the end of Django's settings."""
        self.write("site_/settings.py", textwrap.dedent(SETTINGS) + textwrap.dedent(text))

    def migration(self, name, operations, after, more=""):
        """A migration of the app."""
        self.write(
            f"clinic/migrations/{name}.py",
            "from django.db import migrations, models\n\n"
            f"class Migration(migrations.Migration):\n"
            f"    dependencies = [('clinic', {after!r})]\n    operations = [{operations}]\n    {more}\n",
        )

    def own_template(self):
        """Make its migrations differ from everybody else's: templates are found by what made them."""
        self.migration("0003_own", f"migrations.RunSQL('SELECT {uuid.uuid4().int}')", "0002_wards")

    def python(self, text):
        """Run a line of Python in the project, as `manage.py` would."""
        options = {"cwd": self.path, "env": {**os.environ, "DJANGO_SETTINGS_MODULE": "site_.settings"}}
        subprocess.run([sys.executable, "-c", f"import django; django.setup(); {text}"], check=True, **options)

    def pytest(self, *options):
        """Run pytest without `pytester`, and give what it printed."""
        line = [sys.executable, "-m", "pytest", *QUICK, *WITHOUT_XDIST, "-p", "no:asyncio", "--seed-db", *options]
        done = subprocess.run(line, cwd=self.path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def test(self, text, *options, name="test_it.py", **more):
        """Write a test module and run it."""
        self.write(name, IMPORTS + textwrap.dedent(text))
        return self.run(*options, name, **more)

    def run(self, *options, enabled=True, asyncio=False):
        plugins = [*QUICK, *([] if "-n" in options else WITHOUT_XDIST), "-W", "error"]
        plugins += ["-o", "asyncio_default_fixture_loop_scope=function"] if asyncio else ["-p", "no:asyncio"]
        return self.pytester.runpytest_subprocess(*plugins, *(["--seed-db"] if enabled else []), *options)
