"""Is this production? Then demo data, resets and forced seeds are refused, whatever else was said."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_seeddb.config import Settings

_PRODUCTION: Final = re.compile(r"(?:prod|production|live)(?:[-_. :/].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Environment:
    """What the surroundings call themselves.

    Attributes:
        name: ``production``, ``staging``; empty where nothing says.
        source: Who says so.
    """

    name: str = ""
    source: str = ""

    @property
    def is_production(self) -> bool:
        """Whether the name says production: ``production``, ``prod``, ``live``, ``prod-eu``."""
        return bool(_PRODUCTION.fullmatch(self.name.strip()))


NOWHERE: Final = Environment()


def environment_of(settings: Settings, environ: Mapping[str, str] | None = None) -> Environment:
    """What the variables say that the setting ``environment`` names; production if any of them does."""
    environ = os.environ if environ is None else environ
    said = [
        Environment(environ[name], f"the environment variable {name}={environ[name]}")
        for name in settings.environment
        if environ.get(name)
    ]
    return next((each for each in said if each.is_production), said[0] if said else NOWHERE)


def refused(what: str, environment: Environment, remedy: str) -> ConfigError:
    """The error for what production does not allow."""
    return ConfigError(
        f"{what} in production is refused, whatever the options", source=environment.source, remedy=remedy
    )
