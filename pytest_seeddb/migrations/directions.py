"""Which names are those of down migrations."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# A file whose name ends in one of these is asked about where the up migration is missing.
_CLEAR: Final = frozenset({"down", "downs", "dn", "undo", "undos", "rollback", "rollbacks", "revert", "downgrade"})
_BACK: Final = _CLEAR | {"reverse", "backward", "backwards", "backout", "teardown", "uninstall", "unapply"}
# These say something only beside the same number and words without them, or with the other word of the pair.
_SHORT: Final = frozenset({"back", "rb", "rev"})
_PAIRS: Final = {"drop": frozenset({"create"}), "d": frozenset({"u"})}
_UP: Final = frozenset(
    {"up", "ups", "do", "apply", "deploy", "forward", "forwards", "upgrade", "migrate", "create", "install", "setup"}
)
_WORDS: Final = re.compile(r"\d+|[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]")
_CLEAR_ENDING: Final = re.compile(rf"[-_ ](?:{'|'.join(sorted(_CLEAR))}|roll[-_]back)\.sql", re.IGNORECASE)


def names_a_way_back(segment: str) -> bool:
    """Whether a directory, or what stands between two dots, is called like down migrations."""
    return re.sub(r"[-_ ]", "", segment.lower()) in _BACK


def is_down(file: str, beside: frozenset[str]) -> bool | None:
    """Whether an SQL file is a down migration by its name and those ``beside`` it; `None` where nobody can tell."""
    if any(map(names_a_way_back, file.split(".")[:-1])):
        return True
    words = _words(file)
    places = [place for place, word in enumerate(words) if word in _BACK or word in _SHORT or word in _PAIRS]
    if not places:
        return False
    others = _others(beside)
    if any(not others.isdisjoint(_counterparts(words, place)) for place in places):
        return True
    numbers = _numbers(words)
    first = len(numbers)
    ends = bool(_CLEAR_ENDING.search(file))
    begins = first < len(words) and words[first] in _BACK
    if not numbers and begins and words[0] in _CLEAR and words[1:] and words[1].isdecimal():
        numbers, ends = words[1:2], True
    same = [other for other in others if numbers and other[: len(numbers)] == numbers and other != words]
    if same and (ends or (begins and any(set(words[first + 1 :]) <= set(other) for other in same))):
        return True
    return None if ends or (same and begins and words[first] in _CLEAR) else False


@lru_cache(maxsize=16)
def _others(beside: frozenset[str]) -> frozenset[tuple[str, ...]]:
    """The words of the names that do not end like a down migration's."""
    return frozenset(_words(other) for other in beside if not _CLEAR_ENDING.search(other))


def _words(file: str) -> tuple[str, ...]:
    """The words of a name and its numbers without leading zeros; ``roll_back`` is one word."""
    words: list[str] = []
    for word in _WORDS.findall(re.sub(r"\.sql$", "", file, flags=re.IGNORECASE)):
        if words and words[-1] + word.lower() in _BACK:
            words[-1] += word.lower()
        else:
            words.append(str(int(word)) if word.isdecimal() else word.lower())
    return tuple(words)


def _numbers(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(takewhile(str.isdecimal, words))


def _counterparts(words: tuple[str, ...], place: int) -> Iterator[tuple[str, ...]]:
    """The name without the word, and with a word of the up migration in its place."""
    before, word, after = words[:place], words[place], words[place + 1 :]
    if word not in _PAIRS and (word in _CLEAR or _numbers(words)):
        yield (*before, *after)
    for up in () if word in _SHORT else _PAIRS.get(word, _UP):
        yield (*before, up, *after)
