"""Which database a command works on that is given one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_seeddb.address import Address
from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from pytest_seeddb.config import Settings


def database_of(settings: Settings, url: str) -> Address:
    """The database of a URL; where that is empty, the one that the environment names.

    Raises:
        ConfigError: Neither names one, or it is no URL.
    """
    if url:
        return Address.parse(url, source="the option --url")
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
