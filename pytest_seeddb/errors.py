"""What can go wrong, one class for each thing that a user can do about it.

Every message has the same shape, so that a reader finds the four answers in the same place:
what failed, what was seen, where the value came from, and what to do.
"""

from __future__ import annotations

import re
from typing import Final

from pytest_seeddb.concealment import HIDDEN, concealed

# ``//user:password@`` of any URL. The user may be ``name@server`` (Azure's are). The password may itself
# hold "@" unescaped (people do that), so the greedy part runs to the last "@" before the path; or "/" and
# "?", unless what stands there is a port.
_URL_PASSWORD: Final = re.compile(
    r"(?P<before>[a-z][a-z0-9+.-]*://[^:/\s]*:)(?!\d*(?:[/?\s]|$))(?P<value>[^/\s]*|\S*)(?=@)", re.IGNORECASE
)
# ``password=...``, ``PGPASSWORD=...`` and ``sslpassword=...``, as in libpq strings, URLs and environments.
_KEY_PASSWORD: Final = re.compile(
    r"(?P<before>(?:pg|ssl)?password['\"]?\s*[=:]\s*)(?P<value>'(?:[^'\\]|\\.)*'|\"[^\"]*\"|[^\s&'\",;)}]+)",
    re.IGNORECASE,
)


# What is called like this is shown nowhere.
_SECRET_NAME: Final = re.compile(r"passw|secret|token|api_?key|credential", re.IGNORECASE)


def names_a_secret(name: str) -> bool:
    """Whether a parameter, a column or an input is called like something that nobody should see."""
    return bool(_SECRET_NAME.search(name))


def masked(text: str) -> str:
    """Return ``text`` with every password in it replaced by ``***``.

    Knows URLs (``scheme://user:password@host``) and key-value forms (``password=...``,
    ``PGPASSWORD=...``, ``?password=...``), and those that `pytest_seeddb.concealment` was told by their value.
    """
    # By value first: a pattern may take a quote within a password for its end, and leave the rest unknown.
    text = _URL_PASSWORD.sub(rf"\g<before>{HIDDEN}", concealed(text))
    return _KEY_PASSWORD.sub(rf"\g<before>{HIDDEN}", text)


def passwords_in(text: str) -> set[str]:
    """Return what `masked` replaces in ``text``, so that it can be looked for in what others say of it."""
    return {found["value"] for pattern in (_URL_PASSWORD, _KEY_PASSWORD) for found in pattern.finditer(text)} - {""}


class SeedDbError(Exception):
    """The base of all errors that pytest-seeddb raises on purpose.

    Args:
        what: What failed, as one sentence without a full stop.
        saw: What was seen: the value, the server's message, a command's output. May have many lines.
        source: Where the value came from: a key and its file, an option, an environment variable.
        remedy: What to do about it.

    Passwords are masked in every part before anything else can see them.
    """

    def __init__(self, what: str, *, saw: str = "", source: str = "", remedy: str = "") -> None:
        self.what = masked(what)
        self.saw = masked(saw)
        self.source = masked(source)
        self.remedy = masked(remedy)
        super().__init__(self._text())

    def _text(self) -> str:
        answers = (("saw", self.saw), ("from", self.source), ("do", self.remedy))
        lines = [self.what]
        lines += [f"  {label + ':':<6}{_indented(answer)}" for label, answer in answers if answer]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the parts: the default would call ``__init__`` with the finished text."""
        return (_rebuilt, (type(self), self.what, self.saw, self.source, self.remedy))


def _rebuilt(kind: type[SeedDbError], what: str, saw: str, source: str, remedy: str) -> SeedDbError:
    return kind(what, saw=saw, source=source, remedy=remedy)


def _indented(answer: str) -> str:
    return answer.strip("\n").replace("\n", "\n        ")


class ConfigError(SeedDbError):
    """A setting, an option, a marker or a seeder's declaration is wrong: edit it."""


class ServerError(SeedDbError):
    """No usable PostgreSQL: start, install or name one, or grant what the role lacks."""


class BuildError(SeedDbError):
    """A migration or a seed failed while a template was being built: mend that code."""


class CloneError(SeedDbError):
    """A test's own database could not be made, reset or given back."""


class BulkError(SeedDbError):
    """``bulk_create`` cannot load what a factory builds: mend the factory, or the call."""
