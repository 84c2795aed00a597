"""The secrets that this process was given, so that no text shows them, whoever wrote it.

A password in a URL can be told by its place. In what a server, a driver, a seeder or a traceback says
it cannot: there it is known by its value alone. Values are noted when they are read, in every spelling
in which they come out again.
"""

from __future__ import annotations

import re
from typing import Final

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
