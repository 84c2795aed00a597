"""Settings, without a database."""

import importlib

import pytest
from clinic import settings
from clinic.database_url import database
from django.core.exceptions import ImproperlyConfigured


def test_a_url_becomes_djangos_settings():
    found = database("postgresql://me:p%40ss@db.example:5433/clinic?sslmode=require")
    place = [found[key] for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT")]
    assert place == ["clinic", "me", "p@ss", "db.example", "5433"]
    assert found["OPTIONS"] == {"sslmode": "require"}


def test_a_socket_has_no_host_name():
    assert database("postgresql:///clinic?host=/run/postgresql")["HOST"] == "/run/postgresql"


def test_production_needs_a_secret_key_of_its_own(monkeypatch):
    monkeypatch.setenv("ENVIRONMENT", "production")
    with pytest.raises(ImproperlyConfigured, match="SECRET_KEY needs a value of its own"):
        importlib.reload(settings)

    monkeypatch.setenv("SECRET_KEY", "b7f1c0")
    assert importlib.reload(settings).ENVIRONMENT == "production"
