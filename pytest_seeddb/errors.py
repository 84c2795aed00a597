"""What can go wrong, one class for each thing that a user can do about it.

Every message has the same shape, so that a reader finds the four answers in the same place:
what failed, what was seen, where the value came from, and what to do.

No message shows a secret. A password in a URL is known by its place. In the words of a server, a driver,
a seeder or a traceback it is known by its value alone, so `conceal` notes each value when it is read, in
every spelling in which it can come out again.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

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
    ``PGPASSWORD=...``, ``?password=...``), and those that `conceal` was told by their value.
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


class StoredError:
    """An error that is raised once for each test that meets it.

    A plain ``raise`` would add the frames of each test to the traceback, and make every report dearer than the last.
    """

    def __init__(self, error: SeedDbError) -> None:
        self._error = error
        self._traceback = error.__traceback__

    def raise_again(self) -> NoReturn:
        """Raise it with the traceback that it had when it was stored."""
        raise self._error.with_traceback(self._traceback)


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


# -- secrets that this process was given ----------------------------------------------------------

HIDDEN: Final = "***"
"""What stands in a secret's place."""

_LEAST: Final = 4
_LEAST_WITHIN_WORDS: Final = 8
"""A shorter secret is replaced as a word of its own only: ``shop`` is in too much that is none."""

# What everybody tries first is no secret, and stands in many a text that is not about it.
_KNOWN: Final = frozenset(
    {"admin", "changeme", "default", "demo", "example", "password", "postgres", "postgresql", "root", "secret", "test"}
)
_CUT: Final = "..."

_spellings: Final[set[str]] = set()


def conceal(secret: object, *others: str | None) -> None:
    """Let `concealed` hide a secret from now on; of a list or a table, all that is in it.

    Args:
        secret: A password, or the value of a secret parameter.
        others: What stands beside it and is none, such as the user: where it is the same, it stays readable.
    """
    if isinstance(secret, dict):
        secret = list(secret.values())
    if isinstance(secret, list | tuple | set | frozenset):
        for each in secret:
            conceal(each, *others)
        return
    text = secret.decode(errors="replace") if isinstance(secret, bytes) else str(secret)
    if len(text) >= _LEAST and text.lower() not in _KNOWN and text not in others and text not in _spellings:
        _spellings.update(_written(text))


def concealed(text: str) -> str:
    """``text`` with ``***`` in the place of every secret that is known, also of one that was cut by ``...``."""
    for spelling in sorted(_spellings, key=len, reverse=True):
        if len(spelling) >= _LEAST_WITHIN_WORDS:
            text = text.replace(spelling, HIDDEN)
        elif spelling in text:
            text = re.sub(rf"(?<!\w){re.escape(spelling)}(?!\w)", HIDDEN, text)
    return _without_stumps(text) if _CUT in text else text


def _written(text: str) -> set[str]:
    """As it is, as libpq has it, as URLs have it; each of these quoted by Python, as bytes, too, and by JSON."""
    import json
    from urllib.parse import quote, quote_plus

    escaped = re.sub(r"(['\\])", r"\\\1", text)
    plain = {text, escaped, quote(text, safe=""), quote(text), quote(text, safe=" +"), quote_plus(text)}
    quoted = {written[1:-1] for each in plain for written in (repr(each), json.dumps(each), ascii(each))}
    as_bytes = {repr(each.encode(errors="replace"))[2:-1] for each in plain}
    return plain | quoted | as_bytes


def _without_stumps(text: str) -> str:
    """What pytest has cut shows the beginning of a secret before the dots, or its end behind them."""
    first, *parts = text.split(_CUT)
    made = first
    for part in parts:
        made = made[: len(made) - _stump(made, at_end=True)] + _CUT + part[_stump(part, at_end=False) :]
    return made


def _stump(text: str, *, at_end: bool) -> int:
    """How many characters at the text's end begin a secret, or at its beginning end one."""
    longest = 0
    for spelling in _spellings:
        for length in range(len(spelling) - 1, max(longest, _LEAST - 1), -1):
            if text.endswith(spelling[:length]) if at_end else text.startswith(spelling[-length:]):
                longest = length
                break
    return longest
