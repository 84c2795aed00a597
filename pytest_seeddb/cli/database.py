"""Which database a command works on that is given one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.migrations.sources import DJANGO
from pytest_seeddb.servers.address import Address

if TYPE_CHECKING:
    from pytest_seeddb.settings.settings import Settings


def database_of(settings: Settings, url: str) -> Address:
    """The database of a URL; where that is empty, the one that the environment names, or Django's settings do.

    Raises:
        ConfigError: Neither names one, or it is no URL.
    """
    if url:
        return Address.parse(url, source="the option --url")
    if settings.migrations == DJANGO:
        return _of_django(settings)
    names = dict.fromkeys((*settings.env, "DATABASE_URL"))
    for name in names:
        if found := os.environ.get(name):
            return Address.parse(found, source=f"the environment variable {name}")
    raise ConfigError(
        "Which database?",
        saw=f"no URL after --url, and none of {', '.join(names)} in the environment",
        source="the command line",
        remedy="name it: in DATABASE_URL, or --url postgresql://user@host/database, which a list of processes shows",
    )


def further_databases(settings: Settings) -> dict[str, Address]:
    """A Django project's further PostgreSQL databases, by alias, as its settings have them."""
    from pytest_seeddb.application.django_connections import address_of
    from pytest_seeddb.application.django_project import DEFAULT, postgres_aliases

    if settings.migrations != DJANGO:
        return {}
    return {alias: Address(address_of(alias)) for alias in postgres_aliases() if alias != DEFAULT}


def _of_django(settings: Settings) -> Address:
    """Where its own commands would go, too: what the settings make of the environment counts."""
    from pytest_seeddb.application.django_connections import address_of
    from pytest_seeddb.application.django_project import DEFAULT, is_postgres, set_up

    set_up(settings.root, source=settings.source("migrations"))
    if is_postgres(DEFAULT):
        return Address(address_of(DEFAULT))
    raise ConfigError(
        "Django's default database is not PostgreSQL's",
        saw=f"DATABASES[{DEFAULT!r}] has another backend",
        source="Django's settings",
        remedy="name a database: --url postgresql://user@host/database",
    )
