"""The database that a command works on."""

from __future__ import annotations

import pytest

from pytest_seeddb.cli import database
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.settings.settings import load_settings


@pytest.mark.parametrize("place", [{"service": "shop"}, {"service": "none"}, {"host": "db.example"}])
def test_a_command_that_writes_refuses_django_settings_that_name_no_database(tmp_path, monkeypatch, place):
    (tmp_path / "services").write_text("[shop]\nhost=db.example\nuser=postgres\n[named]\ndbname=shop\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    (tmp_path / "seeddb.toml").write_text('migrations = "django"')
    settings = load_settings(tmp_path)
    monkeypatch.setattr(database, "set_up", lambda *_, **__: None)
    monkeypatch.setattr(database, "is_postgres", lambda _alias: True)
    monkeypatch.setattr(database, "address_of", lambda _alias: place)
    with pytest.raises(ConfigError, match="Django's default database names a server, but no database") as caught:
        database.database_of(settings, "", ())
    assert caught.value.remedy == "write the database's name into DATABASES['default']['NAME']"
    assert database.database_of(settings, "").params == place
    monkeypatch.setattr(database, "address_of", lambda _alias: {"service": "named"})
    assert database.database_of(settings, "", ()).params == {"service": "named"}
