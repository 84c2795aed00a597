"""Is this production? There demo data, resets and forced seeds are refused."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, cast

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.settings.converters import is_import_path
from pytest_seeddb.settings.settings import KEYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_seeddb.settings.dotenv import Variable
    from pytest_seeddb.settings.settings import Settings

# Letters of other scripts that look like those of the words, and share their keys on some keyboards.
_ALIKE: Final = {
    "p": "\u0440\u03c1", "o": "\u043e\u03bf", "d": "\u0501", "u": "\u03c5", "c": "\u0441\u03f2", "t": "\u0442\u03c4",
    "i": "\u0456\u03b9\u0131", "n": "\u03bd", "l": "\u04cf", "v": "\u03bd\u0475", "e": "\u0435\u03b5",
}  # fmt: skip
_PRODUCTIONS: Final = (
    *("production", "prod", "prd"),
    *("produktion", "produktiv", "produccion", "producao", "produzione", "productie"),
)


def _spelt(*words: str) -> str:
    return "|".join("".join(f"[{letter}{_ALIKE.get(letter, '')}]" for letter in word) for word in words)


# A whole word anywhere in the name, or the end of one ("euprod"), but not "pre-production", "nonprod", "reproduction".
_PRODUCTION: Final = re.compile(
    rf"""(?: (?<![^\W\d_])(?P<but_not>(?:pre|non|not)[\W_]*)?(?:{_spelt(*_PRODUCTIONS, "live")})
    | (?<=[^\W\d_])(?<!pre|non|not)(?<!(?<![^\W\d_])re)(?:{_spelt(*_PRODUCTIONS)}) )(?![^\W\d_])""",
    re.VERBOSE,
)
# Usual names of variables that may say production. What else they say is not asked for.
_NAMES_ENVIRONMENT: Final = re.compile(
    r"(?!SEEDDB_|VIRTUAL_ENV$|CONDA_)(?:.*_)?(?:ENV|ENVIRONMENT|STAGE|CONFIGURATION)", re.IGNORECASE
)
_SETTINGS_MODULE: Final = "DJANGO_SETTINGS_MODULE"
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ELSEWHERE: Final = frozenset(
    {"demo", "dev", "development", "local", "test", "testing", "ci", "qa", "sandbox", "review", "preview", "staging"}
)
"""What the setting may say itself, in place of the name of a variable. Written like this, so no variable's name."""
_NO: Final = frozenset({"0", "false", "no", "off", "n", "f"})


@dataclass(frozen=True)
class Environment:
    """An environment's name (``production``, ``staging``; "" if nothing names it), and what gave that name.

    ``doubt`` says why the name cannot be known.
    """

    name: str = ""
    source: str = ""
    doubt: str = ""

    @property
    def is_production(self) -> bool:
        """Whether a word of the name is ``production``, ``prod``, ``prd`` or ``live``: ``Prod``, ``eu-live``.

        A word may also end in one of the first three (``euprod``), or be that of another language (``produktion``).

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


def environment_of(
    settings: Settings,
    environ: Mapping[str, str] | None = None,
    dotenv: Iterable[Variable] = (),
    application: Callable[[str], Environment] = lambda _path: NOWHERE,
) -> Environment:
    """The environment that the setting ``environment`` leads to; production if anything in it says so.

    Capitals in a variable's name make no difference.

    Args:
        settings: Name the variables, and the application's own values.
        environ: The environment; by default the process's own.
        dotenv: The variables of ``.env``.
        application: Gives the application's own value for its import path.
    """
    environ = os.environ if environ is None else environ
    variables = [(name, value, f"the environment variable {name}={value}") for name, value in environ.items()]
    variables += [(line.name, line.value, f"{line.name}={line.value} in {line.place}") for line in dotenv]
    named = [application(path) for path in settings.environment if is_import_path(path)]
    doubtful = [environment for environment in named if environment.doubt]
    names = [name for name in settings.environment if not is_import_path(name)]
    # A word or the application's own value comes beside the variables; only other variables take their place.
    defaults = () if set(names) - _ELSEWHERE else KEYS["environment"].default
    for name in (*names, *cast("tuple[str, ...]", defaults)):
        alike = [variable for variable in variables if variable[0].upper() == name.upper() and variable[1]]
        alike.sort(key=lambda variable: variable[0] != name)
        named += [Environment(value, source) for _, value, source in alike]
        # The setting may say "production" itself instead of naming a variable; but IS_PROD=false is a variable.
        own = Environment(name, f"{settings.source('environment')}, which says {name}")
        switches = {value.strip().lower() for variable, value, _ in alike if variable == name}
        if (own.is_production and not (switches and switches <= _NO)) or (name in _ELSEWHERE and not alike):
            named.append(own)
    if defaults or settings.environment == KEYS["environment"].default:
        for name, value, source in variables:
            if name == _SETTINGS_MODULE:
                usual = Environment(value.rpartition(".")[2], source)
            else:
                is_usual = _NAMES_ENVIRONMENT.fullmatch(name) and not {"/", "\\"} & {*value}
                usual = Environment(value, source) if is_usual else NOWHERE
            named += [usual] if usual.is_production else []
    production = [environment for environment in named if environment.is_production]
    return next((environment for environment in (*production, *doubtful, *named) if environment != NOWHERE), NOWHERE)


def environment_from(value: object, path: str, source: str) -> Environment:
    """The environment that the application's own value names: text, a member of an Enum, or ``is_production``."""
    if isinstance(value, Enum):
        value = value.name if Environment(value.name).is_production or not isinstance(value.value, str) else value.value
    if value is None or (isinstance(value, str) and not value.strip()):
        return NOWHERE
    switch = Environment(re.split("[:.]", path)[-1])
    if not isinstance(value, str) and not (isinstance(value, bool | int) and switch.is_production):
        reason = f"its type is {type(value).__name__}, which does not name an environment"
        return Environment("", f"{source}: {path}", reason)
    is_on = switch.is_production and str(value).strip().lower() not in _NO
    return Environment(switch.name if is_on else str(value), f"{source}: {path} is {str(value)!r}")


def refusal(what: str, environment: Environment, *, saw: str, remedy: str) -> ConfigError:
    """The error for an action that production does not allow, or that may be one in production."""
    if environment.is_production:
        reason = "in production; no option allows it"
    else:
        reason = "because this may be production"
        saw, remedy = environment.doubt, f"correct what the setting `environment` names, or {remedy}"
    return ConfigError(f"{what} is refused {reason}", saw=saw, source=environment.source, remedy=remedy)
