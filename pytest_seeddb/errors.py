"""The errors, one class for each thing that a user can do about one.

Every message says, in this order: what failed, what was seen, where the value came from, and what to do.

No message shows a secret. A password in a URL is recognised by its place. In a message of a server, a driver, a seeder
or a traceback only its value can be recognised, so `conceal` keeps each value that was read, in every spelling in
which it can appear.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final, NoReturn, Self

# ``//user:password@`` of any URL. The user may be ``name@server`` (Azure's are). The password may itself
# hold "@" unescaped (people do that), so the greedy part runs to the last "@" before the path; or "/" and
# "?", unless what stands there is a port.
_URL_PASSWORD: Final = re.compile(
    r"(?P<before>[a-z][a-z0-9+.-]*://[^:/\s]*:)(?!\d*(?:[/?\s]|$))(?P<value>[^/\s]*|\S*)(?=@)", re.IGNORECASE
)
# ``password=...``, ``PGPASSWORD=...`` and ``sslpassword=...``, as in libpq strings, URLs and environments. A value
# without quotes may hold a quote, a comma or "&" (libpq ends it at a space only), but does not end with one.
_KEY_PASSWORD: Final = re.compile(
    r"""(?P<before>(?:pg|ssl)?password['"]?\s*[=:]\s*)
        (?P<value>(?:'(?:[^'\\]|\\.)*'|"[^"]*")(?![^\s&'",;)}]) | (?:(?:['",;)}]|&(?!\w+=))*(?:\\.|[^\s&'",;)}]))+)""",
    re.IGNORECASE | re.VERBOSE,
)
_SECRET_NAME: Final = re.compile(
    r"passw|passphrase|passcode|secret|token|(?:api|access|private)[_-]?key|credential|mnemonic|seed_?phrase",
    re.IGNORECASE,
)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SECRET_WORDS: Final = frozenset(
    {
        *("pass", "passwd", "dbpass", "userpass", "pgpass", "pwd", "pin", "pincode", "otp", "totp", "psk"),
        *("salt", "pepper", "cred", "creds", "jwt", "hmac"),
    }
)
_LAST_SECRET_WORDS: Final = frozenset({"auth", "cert"})
"""What follows one makes it something else: ``AUTH_USER_MODEL``."""
_PLAIN_KEYS: Final = frozenset(
    {
        *("primary", "foreign", "natural", "unique", "index", "parent", "object"),
        *("sort", "sorting", "order", "ordering", "group", "grouping", "partition", "shard", "routing", "cache"),
        *("dict", "lookup", "map", "json", "field", "column", "row", "public", "translation", "message", "idempotency"),
    }
)
"""The keys of these are not secret."""


class SeedDbError(Exception):
    """The base of all errors that pytest-seeddb raises on purpose.

    Args:
        what: What failed, as one sentence without a full stop.
        saw: What was seen: the value, the server's message, a command's output. May have many lines.
        source: Where the value came from: a key and its file, an option, an environment variable.
        remedy: What to do about it.

    Passwords in all four parts are masked at once.
    """

    def __init__(self, what: str, *, saw: str = "", source: str = "", remedy: str = "") -> None:
        self.what = mask(what)
        self.saw = mask(saw)
        self.source = mask(source)
        self.remedy = mask(remedy)
        answers = {"saw:": self.saw, "from:": self.source, "do:": self.remedy}
        lines = [f"  {label:<6}" + answer.strip("\n") for label, answer in answers.items() if answer]
        super().__init__("\n".join([self.what, *(line.replace("\n", "\n        ") for line in lines)]))

    def with_source(self, source: str) -> Self:
        """The same error, with another source."""
        return type(self)(self.what, saw=self.saw, source=source, remedy=self.remedy)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the parts: the default would call ``__init__`` with the finished text."""
        return (partial(type(self), saw=self.saw, source=self.source, remedy=self.remedy), (self.what,))


class StoredError:
    """An error that is raised once for each test that meets it.

    A plain ``raise`` would add the frames of each test to the traceback, and each report would cost more than the last.
    """

    def __init__(self, error: SeedDbError) -> None:
        self._error = error
        self._traceback = error.__traceback__

    def raise_again(self) -> NoReturn:
        """Raise it with the traceback that it had when it was stored."""
        raise self._error.with_traceback(self._traceback)


class ConfigError(SeedDbError):
    """A setting, an option, a marker or a seeder's declaration is wrong: edit it."""


class ServerError(SeedDbError):
    """No usable PostgreSQL: start, install or name one, or grant what the role lacks."""


class BuildError(SeedDbError):
    """A migration or a seed failed while a template was being built: fix that code."""


class CloneError(SeedDbError):
    """A test's own database could not be created, reset or given back."""


class BulkError(SeedDbError):
    """``bulk_create`` cannot load what a factory builds: fix the factory, or the call."""


def names_a_secret(name: str) -> bool:
    """Whether the name of a parameter, a column or an input says that its value is a secret."""
    if _SECRET_NAME.search(name):
        return True
    words = re.findall("[a-z]+", _HUMP.sub("_", name).lower())
    if not words:
        return False
    is_key = words[-1] in {"key", "keys"} and len(words) > 1 and words[-2] not in _PLAIN_KEYS
    return is_key or words[-1] in _LAST_SECRET_WORDS or not _SECRET_WORDS.isdisjoint(words)


def mentions_a_secret(text: str) -> bool:
    """Whether a name in a text says that its value is a secret; Python's ``pass`` does not."""
    return any(names_a_secret(name) for name in re.findall(r"[\w-]+", text) if name != "pass")


def mask(text: str) -> str:
    """Return ``text`` with every password in it replaced by ``***``.

    Knows URLs (``scheme://user:password@host``), key-value forms (``password=...``, ``PGPASSWORD=...``,
    ``?password=...``), and the values that were given to `conceal`.
    """
    # By value first: a pattern may take a quote within a password for its end, and leave the rest unmasked.
    text = _URL_PASSWORD.sub(rf"\g<before>{HIDDEN}", hide_secrets(text))
    return _KEY_PASSWORD.sub(rf"\g<before>{HIDDEN}", text)


def passwords_in(text: str) -> set[str]:
    """Return what `mask` replaces in ``text``, so that it can be looked for in messages about it."""
    return {match["value"] for pattern in (_URL_PASSWORD, _KEY_PASSWORD) for match in pattern.finditer(text)} - {""}


# -- secrets that this process was given ----------------------------------------------------------

HIDDEN: Final = "***"
"""Stands in a secret's place."""
_LEAST: Final = 4
_LEAST_WITHIN_WORDS: Final = 8
"""A shorter secret is replaced only as a word of its own: many words contain ``shop``."""
# Defaults that everybody tries are not secret, and appear in texts that are not about them.
_DEFAULTS: Final = frozenset(
    {"admin", "changeme", "default", "demo", "example", "password", "postgres", "postgresql", "root", "secret", "test"}
)
_CUT: Final = "..."
_spellings: Final[set[str]] = set()


def conceal(secret: object, *others: str | None) -> None:
    """Let `hide_secrets` hide a secret from now on.

    Args:
        secret: A password, or the value of a secret parameter; of a list or a table, all that it contains.
        others: Values beside it that are not secret, such as the user. A secret that equals one stays readable.
    """
    if isinstance(secret, dict):
        secret = list(secret.values())
    if isinstance(secret, list | tuple | set | frozenset):
        for part in secret:
            conceal(part, *others)
        return
    text = secret.decode(errors="replace") if isinstance(secret, bytes) else str(secret)
    if len(text) >= _LEAST and text.lower() not in _DEFAULTS and text not in others and text not in _spellings:
        _spellings.update(_spell(text))


def hide_secrets(text: str) -> str:
    """``text`` with ``***`` in the place of every secret given to `conceal`, even if ``...`` cuts it short."""
    for spelling in sorted(_spellings, key=len, reverse=True):
        if len(spelling) >= _LEAST_WITHIN_WORDS:
            text = text.replace(spelling, HIDDEN)
        elif spelling in text:
            text = re.sub(rf"(?<!\w){re.escape(spelling)}(?!\w)", HIDDEN, text)
    # Where pytest has cut a text, a secret's beginning may stand before the dots, or its end after them.
    first, *parts = text.split(_CUT)
    for part in parts:
        first = first[: len(first) - _stump(first, at_end=True)] + _CUT + part[_stump(part, at_end=False) :]
    return first


def _spell(text: str) -> set[str]:
    """The text as it is, as libpq and as URLs write it; each of these as Python quotes it, also as bytes, and JSON."""
    import json
    from urllib.parse import quote, quote_plus

    escaped = re.sub(r"(['\\])", r"\\\1", text)
    plain = {text, escaped, quote(text, safe=""), quote(text), quote(text, safe=" +"), quote_plus(text)}
    quoted = {literal[1:-1] for form in plain for literal in (repr(form), json.dumps(form), ascii(form))}
    return plain | quoted | {repr(form.encode(errors="replace"))[2:-1] for form in plain}


def _stump(text: str, *, at_end: bool) -> int:
    """How many characters at the text's end begin a secret, or at its beginning end one."""
    lengths = (
        length
        for spelling in _spellings
        for length in range(_LEAST, len(spelling))
        if (text.endswith(spelling[:length]) if at_end else text.startswith(spelling[-length:]))
    )
    return max(lengths, default=0)
