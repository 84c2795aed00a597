"""Is this production? Then demo data, resets and forced seeds are refused, whatever else was said."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_seeddb.settings.settings import Settings

# Letters of other scripts that look like those of the words, and on some keyboards are on the same key.
_ALIKE: Final = {
    "p": "\u0440\u03c1",
    "o": "\u043e\u03bf",
    "d": "\u0501",
    "u": "\u03c5",
    "c": "\u0441\u03f2",
    "t": "\u0442\u03c4",
    "i": "\u0456\u03b9\u0131",
    "n": "\u03bd",
    "l": "\u04cf",
    "v": "\u03bd\u0475",
    "e": "\u0435\u03b5",
}
_WORDS: Final = ("production", "prod", "prd", "live")
_SPELT: Final = "|".join("".join(f"[{letter}{_ALIKE.get(letter, '')}]" for letter in word) for word in _WORDS)
# A word of its own, whatever stands around it; "pre-production" and "non-prod" say that it is not.
_PRODUCTION: Final = re.compile(rf"(?<![^\W\d_])(?P<but_not>(?:pre|non|not)[\W_]*)?(?:{_SPELT})(?![^\W\d_])")
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NO: Final = frozenset({"0", "false", "no", "off", "n", "f"})


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
        """Whether a word of the name is ``production``, ``prod``, ``prd`` or ``live``: ``Prod``, ``eu-live``.

        A name that may be meant so counts: quotes that a shell or a file left around it, letters of
        another width or script, and invisible ones make no difference.
        """
        return any(_says_production(name) for name in (self.name, _HUMP.sub("-", self.name)))


NOWHERE: Final = Environment()


def environment_of(settings: Settings, environ: Mapping[str, str] | None = None) -> Environment:
    """What the variables say that the setting ``environment`` names; production if any of them does.

    Capitals in a variable's name make no difference.
    """
    environ = os.environ if environ is None else environ
    said = [each for name in settings.environment for each in _said_by(name, environ)]
    misplaced = (_instead_of_a_variable(name, settings, environ) for name in settings.environment)
    production = (each for each in (*said, *misplaced) if each.is_production)
    return next(production, said[0] if said else NOWHERE)


def _said_by(name: str, environ: Mapping[str, str]) -> list[Environment]:
    """The variable itself first, then others that differ in capitals only."""
    found = [each for each, value in environ.items() if value and each.upper() == name.upper()]
    found.sort(key=lambda each: each != name)
    return [Environment(environ[each], f"the environment variable {each}={environ[each]}") for each in found]


def _instead_of_a_variable(name: str, settings: Settings, environ: Mapping[str, str]) -> Environment:
    """Of a setting that says ``production`` where it was to name a variable, production; else nothing."""
    if environ.get(name, "").strip().lower() in _NO:  # there is such a variable: IS_PROD=false
        return NOWHERE
    return Environment(name, f"{settings.source('environment')}, which says {name}")


def refused(what: str, environment: Environment, *, saw: str, remedy: str) -> ConfigError:
    """The error for what production does not allow."""
    return ConfigError(
        f"{what} in production is refused, whatever the options",
        saw=saw,
        source=environment.source,
        remedy=remedy,
    )


def _says_production(name: str) -> bool:
    return any(not found["but_not"] for found in _PRODUCTION.finditer(_plain(name)))


def _plain(name: str) -> str:
    """The name in small letters of normal width, without accents and what is not seen."""
    # Lowered before and after: some letters have no small form until they are taken apart.
    taken_apart = unicodedata.normalize("NFKD", name.casefold()).casefold()
    return "".join(each for each in taken_apart if unicodedata.category(each) not in {"Mn", "Me", "Cf"})
