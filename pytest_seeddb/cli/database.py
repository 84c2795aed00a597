"""The database that a command works on: of ``--url``, of the environment or of Django's settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_seeddb.application.django import DEFAULT, address_of, is_postgres, postgres_aliases, set_up
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.migrations.sources import DJANGO
from pytest_seeddb.servers.address import Address

if TYPE_CHECKING:
    from pytest_seeddb.settings.settings import Settings


def database_of(settings: Settings, url: str) -> Address:
    """The database of a URL; where that is empty, the one that Django's settings or the environment name.

    Raises:
        ConfigError: Neither names one, or the URL is wrong.
    """
    if url:
        return Address.parse(url, source="the option --url")
    if settings.migrations == DJANGO:
        set_up(settings.root, source=settings.source("migrations"))
        if is_postgres(DEFAULT):
            return Address(address_of(DEFAULT))
        raise ConfigError(
            "Django's default database is not a PostgreSQL database",
            saw=f"DATABASES[{DEFAULT!r}] has another backend",
            source="Django's settings",
            remedy="name a database: --url postgresql://user@host/database",
        )
    names = dict.fromkeys((*settings.env, "DATABASE_URL"))
    for name in names:
        if value := os.environ.get(name):
            return Address.parse(value, source=f"the environment variable {name}")
    raise ConfigError(
        "No database is named",
        saw=f"no URL after --url, and none of {', '.join(names)} in the environment",
        source="the command line",
        remedy="set DATABASE_URL, or give --url postgresql://user@host/database, which lists of processes show",
    )


def further_databases(settings: Settings) -> dict[str, Address]:
    """A Django project's further PostgreSQL databases, by alias, as its settings have them."""
    if settings.migrations != DJANGO:
        return {}
    return {alias: Address(address_of(alias)) for alias in postgres_aliases() if alias != DEFAULT}
