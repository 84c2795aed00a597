"""Which code of a Django project a template depends on: what ran while it was built, however it came to be there."""

from __future__ import annotations

import json

import pytest
from clinic import Clinic
from taking_part import IS_EXACT

pytestmark = pytest.mark.slow

MODELS = """

class Note(models.Model):
    WORD = "written"
    text = models.TextField()

    objects = NoteManager()

    class Meta:
        managed = False

    def save(self, *args, **kwargs):
        self.text = f"{self.text} saved"
        super().save(*args, **kwargs)

    def url(self):
        from clinic.pages import address

        return address(self)
"""
MANAGER = """
class NoteManager(models.Manager):
    def create(self, **given):
        return super().create(**{**given, "text": "managed"})


"""
APPS = """
from django.apps import AppConfig


class ClinicConfig(AppConfig):
    name = "clinic"

    def ready(self):
        from clinic import receivers
"""
RECEIVERS = """
from django.db.models.signals import pre_save
from django.dispatch import receiver

WORD = "received"


@receiver(pre_save)
def note(sender, instance, **_):
    if sender.__name__ == "Note":
        instance.text += f" {WORD}"


def another():
    return 1
"""
SEEDS = """
from django.apps import apps

from pytest_seeddb import seeder


@seeder
def notes():
    apps.get_model("clinic", "Note").objects.create()
"""
EDITS = {
    "a receiver": ("receivers.py", 'f" {WORD}"', 'f" or {WORD}"', "clinic/receivers.py: note()"),
    "a constant of a receiver": ("receivers.py", '"received"', '"got"', "clinic/receivers.py: WORD"),
    "a save()": ("models.py", " saved", " kept", "clinic/models.py: Note.save()"),
    "a manager": ("models.py", '"managed"', '"made"', "clinic/models.py: NoteManager.create()"),
    "a method that did not run": ("models.py", "return address(self)", "return address(None)", ""),
    "a function that did not run": ("receivers.py", "return 1", "return 2", ""),
    "a view": ("pages.py", "/notes", "/texts", ""),
}


@pytest.fixture
def clinic(tmp_path):
    clinic = Clinic(tmp_path)
    clinic.own_template()
    return clinic


def test_code_that_ran_counts_and_code_that_did_not_makes_no_difference(clinic):
    place = clinic.path / "clinic"
    models = (place / "models.py").read_text()
    head, first, rest = models.partition("class ")
    (place / "models.py").write_text(head + MANAGER.lstrip() + first + rest + MODELS)
    for name, text in {
        "apps": APPS,
        "receivers": RECEIVERS,
        "pages": "def address(note):\n    return '/notes'\n",
    }.items():
        (place / f"{name}.py").write_text(text)
    (place / "note_seeds.py").write_text(SEEDS)
    clinic.migration(
        "0004_note",
        "migrations.RunSQL('CREATE TABLE clinic_note (id serial PRIMARY KEY, text text)')",
        "0003_own",
    )
    table = (clinic.path / "pyproject.toml").read_text()
    seeds = next(line for line in table.splitlines() if line.startswith("seeds"))
    (clinic.path / "pyproject.toml").write_text(table.replace(seeds, 'seeds = ["clinic.note_seeds"]'))
    clinic.seeddb("build")
    assert json.loads(clinic.seeddb("explain", "--json").stdout)["reason"] == ""
    why = json.loads(clinic.seeddb("explain", "--why", "clinic/receivers.py", "--json").stdout)
    note = "clinic/receivers.py: note()" if IS_EXACT else "clinic/receivers.py"
    assert note in {name for names in why.values() for name in names}
    (place / "nothing.py").touch()
    assert clinic.seeddb("explain", "--why", "clinic/nothing.py").stdout == "no step depends on clinic/nothing.py\n"
    for edit, (file, old, new, named) in EDITS.items():
        text = (place / file).read_text()
        assert old in text, edit
        (place / file).write_text(text.replace(old, new))
        reason = json.loads(clinic.seeddb("explain", "--json").stdout)["reason"]
        (place / file).write_text(text)
        if named or IS_EXACT:
            assert bool(reason) == bool(named), edit
            assert (named if IS_EXACT else f"clinic/{file}" if named else "") in reason, edit
    assert json.loads(clinic.seeddb("explain", "--json").stdout)["reason"] == ""


READING_SEEDS = """
from django.contrib.auth.hashers import make_password
from django.conf import settings
from clinic.models import Patient
from pytest_seeddb import seeder


@seeder
def patients():
    make_password("x")
    Patient.objects.create(name=f"{settings.GREETING} {getattr(settings, 'TITLE', '')}")
"""
CONSTANTS = """
GREETING = "hello"
PAGE_SIZE = 10
PAGES = {"size": PAGE_SIZE}
COLUMNS = ["a", 2]
"""
SETTINGS_EDITS = {
    "a constant that nothing read": ("COLUMNS = ['a', 2]", "COLUMNS = ['b']", False),
    "one that a seeder reads": ('GREETING = "hello"', 'GREETING = "bye"', True),
    "one that Django reads for a seeder": ("hashers.MD5PasswordHasher", "hashers.ScryptPasswordHasher", True),
    "one that another setting is made of": ("PAGE_SIZE = 10", "PAGE_SIZE = 20", True),
    "one that is not spelled out any more": ("COLUMNS = ['a', 2]", "COLUMNS = list('ab')", True),
    "one that is gone": ("COLUMNS = ['a', 2]", "", True),
    "a new one": ("GREETING", "TITLE = 'Dr'\nGREETING", True),
    "our application": ('"clinic",\n', '"clinic", "pytest_seeddb.django",\n', False),
    "another application": ('"clinic",\n', '"clinic", "django.contrib.messages",\n', True),
    "an application of plain code": ('"clinic",\n', '"clinic", "plain",\n', False),
    "one that does something when it is loaded": ('"clinic",\n', '"clinic", "loud",\n', True),
}
APPLICATION = """
from django.apps import AppConfig

class Plain(AppConfig):
    name = "plain"
"""


def test_a_setting_counts_where_it_is_read(clinic):
    clinic.settings(CONSTANTS.replace('"a"', "'a'"))
    clinic.write("clinic/seeds.py", READING_SEEDS)
    for name in ("plain", "loud"):
        clinic.write(f"{name}/__init__.py", "")
        ready = "\n    def ready(self): pass\n" if name == "loud" else ""
        clinic.write(f"{name}/apps.py", APPLICATION.replace("plain", name) + ready)
    clinic.seeddb("build")
    place = clinic.path / "site_" / "settings.py"
    text = place.read_text()
    for edit, (old, new, is_other) in SETTINGS_EDITS.items():
        assert old in text, edit
        place.write_text(text.replace(old, new))
        reason = json.loads(clinic.seeddb("explain", "--json").stdout)["reason"]
        assert bool(reason) == (is_other or not IS_EXACT), (edit, reason)
    place.write_text(text)
    assert json.loads(clinic.seeddb("explain", "--json").stdout)["reason"] == ""


@pytest.mark.parametrize("lists", ["seeds", "library"])
def test_all_applications_count_where_code_lists_them(clinic, lists, monkeypatch):
    clinic.settings(CONSTANTS)
    asks = "from django.apps import apps\n\ndef names():\n    return {}\n"
    texts = {"seeds": asks.format("[*apps.app_configs]"), "library": asks.format("[*apps.get_app_configs()]")}
    place = clinic.path / "lib" / "site-packages"
    monkeypatch.setenv("PYTHONPATH", str(place))
    library = clinic.write("lib/site-packages/listing.py", texts["library"])
    clinic.write("clinic/listing.py", texts["seeds"])
    module = "clinic.listing" if lists == "seeds" else library.stem
    clinic.write("clinic/seeds.py", READING_SEEDS.replace('make_password("x")', f"import {module}; {module}.names()"))
    for name, text in {"__init__": "", "apps": APPLICATION}.items():
        clinic.write(f"plain/{name}.py", text)
    clinic.seeddb("build")
    settings = clinic.path / "site_" / "settings.py"
    settings.write_text(settings.read_text().replace('"clinic",\n', '"clinic", "plain",\n'))
    done = clinic.seeddb("build", "--json")
    reason = json.loads(done.stdout)["reason"]
    assert "list of Django's applications changed" in reason if IS_EXACT else reason
    assert "migration " not in done.stderr or not IS_EXACT


def test_our_application_runs_no_migration_again(clinic):
    clinic.seeddb("build")
    place = clinic.path / "site_" / "settings.py"
    place.write_text(place.read_text().replace('"clinic",\n', '"clinic", "pytest_seeddb.django",\n'))
    said = clinic.seeddb("build").stderr
    assert "migration " not in said
    assert bool(said) != IS_EXACT, "Python 3.11 compares the settings module's whole text"
