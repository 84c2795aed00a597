"""Is this production? There demo data, resets and forced seeds are refused."""

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

# Letters of other scripts that look like those of the words, and share their keys on some keyboards.
_ALIKE: Final = {
    "p": "\u0440\u03c1", "o": "\u043e\u03bf", "d": "\u0501", "u": "\u03c5", "c": "\u0441\u03f2", "t": "\u0442\u03c4",
    "i": "\u0456\u03b9\u0131", "n": "\u03bd", "l": "\u04cf", "v": "\u03bd\u0475", "e": "\u0435\u03b5",
}  # fmt: skip
_WORDS: Final = ("production", "prod", "prd", "live")
_SPELT: Final = "|".join("".join(f"[{letter}{_ALIKE.get(letter, '')}]" for letter in word) for word in _WORDS)
# A whole word anywhere in the name; "pre-production" and "non-prod" are not production.
_PRODUCTION: Final = re.compile(rf"(?<![^\W\d_])(?P<but_not>(?:pre|non|not)[\W_]*)?(?:{_SPELT})(?![^\W\d_])")
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NO: Final = frozenset({"0", "false", "no", "off", "n", "f"})


@dataclass(frozen=True)
class Environment:
    """An environment's name (``production``, ``staging``; "" if nothing names it), and what gave that name."""

    name: str = ""
    source: str = ""

    @property
    def is_production(self) -> bool:
        """Whether a word of the name is ``production``, ``prod``, ``prd`` or ``live``: ``Prod``, ``eu-live``.

        Quotes that a shell or a file left around the name make no difference, nor do letters of another width or
        script, accents and invisible characters.
        """
        for name in (self.name, _HUMP.sub("-", self.name)):
            # Lowered before and after: some letters have no small form until they are decomposed.
            letters = unicodedata.normalize("NFKD", name.casefold()).casefold()
            plain = "".join(letter for letter in letters if unicodedata.category(letter) not in {"Mn", "Me", "Cf"})
            if any(not match["but_not"] for match in _PRODUCTION.finditer(plain)):
                return True
        return False


NOWHERE: Final = Environment()


def environment_of(settings: Settings, environ: Mapping[str, str] | None = None) -> Environment:
    """The environment that the variables of the setting ``environment`` name; production if any of them does.

    Capitals in a variable's name make no difference.
    """
    environ = os.environ if environ is None else environ
    named, misplaced = [], []
    for name in settings.environment:
        alike = [variable for variable, value in environ.items() if value and variable.upper() == name.upper()]
        alike.sort(key=lambda variable: variable != name)
        named += [
            Environment(environ[variable], f"the environment variable {variable}={environ[variable]}")
            for variable in alike
        ]
        # The setting may say "production" itself instead of naming a variable; but IS_PROD=false is a variable.
        if environ.get(name, "").strip().lower() not in _NO:
            misplaced.append(Environment(name, f"{settings.source('environment')}, which says {name}"))
    production = (environment for environment in (*named, *misplaced) if environment.is_production)
    return next(production, named[0] if named else NOWHERE)


def refusal(what: str, environment: Environment, *, saw: str, remedy: str) -> ConfigError:
    """The error for an action that production does not allow."""
    return ConfigError(
        f"{what} is refused in production; no option allows it", saw=saw, source=environment.source, remedy=remedy
    )
