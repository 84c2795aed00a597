"""Which names are those of down migrations, and which comments begin one in a file."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_seeddb.dumps.lexer import Piece

# A file whose name ends in one of these is asked about where the up migration is missing.
_CLEAR: Final = frozenset({"down", "downs", "dn", "undo", "undos", "rollback", "rollbacks", "revert", "downgrade"})
_BACK: Final = _CLEAR | {"reverse", "backward", "backwards", "backout", "teardown", "uninstall", "unapply"}
_UP: Final = dict(
    re.findall(
        r"(\w+)/(\w+)",
        "up/down ups/downs upgrade/downgrade forward/backward forwards/backwards do/undo apply/rollback "
        "commit/rollback setup/teardown deploy/revert install/uninstall",
    )
)
"""The words of up migrations, each with one of the way back."""
# Of names.
_UP_IN_NAMES: Final = frozenset({*_UP, "migrate", "create"})
# These say something only beside the same number and words without them, or with the other word of the pair.
_SHORT: Final = frozenset({"back", "rb", "rev"})
_PAIRS: Final = {"drop": frozenset({"create"}), "d": frozenset({"u"})}
_WORDS: Final = re.compile(r"\d+|[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]")
_CLEAR_ENDING: Final = re.compile(rf"[-_ ](?:{'|'.join(sorted(_CLEAR))}|roll[-_]back)\.sql", re.IGNORECASE)
# Of comments.
_LETTERS: Final = re.compile(r"[A-Za-z]+")
_BESIDE: Final = _UP.keys() | _LETTERS.findall(
    "all and begin below change changes code commands end for here if instructions manual manually migrate migration "
    "migrations needed of only part plan procedure queries query schema script scripts section sql start statement "
    "statements step steps the this to version"
)
_FILLERS: Final = _BESIDE | frozenset({"how", "run", "uncomment", "in", "case", "a", "an"})
_COMMENT_PAIRS: Final = (frozenset({"roll", "back"}), frozenset({"drop", "below"}))
_MARK_WORDS: Final = 3  # more of them are a sentence
_ATTACHED: Final = re.compile(r"[@+!#:/](?:downs?|downgrade|rollback|revert|undo)\b", re.IGNORECASE)
# In a sentence, too.
_GOES_BACK: Final = re.compile(
    rf"(?<![a-z])(?:{'|'.join(sorted(_BACK))}|roll(?:s|ed|ing)?[ _-]*backs?|revert(?:s|ed|ing)|revers(?:al|es|ed|ing)"
    r"|undo(?:es|ing)|downgrad(?:es|ed|ing)|back(?:s|ed|ing)?[ _-]*out|(?:tear|tears|tearing)[ _-]*down"
    r"|un-?appl(?:y|ies|ied|ying))(?![a-z])"
)
_LABEL: Final = re.compile(r"[\W_]*([a-z]+)\s*:")
_NEUTRAL: Final = frozenset({"BEGIN", "START", "COMMIT", "END", "SET", "RESET"})
_TARGET: Final = re.compile(r"(?:(?!\b(?:CASCADE|RESTRICT|WHERE|ON|USING)\b)[^(,;])*", re.IGNORECASE)


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
    same = [{*other} for other in others if numbers and other[: len(numbers)] == numbers and other != words]
    about = {*words[first + 1 :]}
    if same and (ends or (begins and any(about <= other for other in same))):
        return True
    return None if ends or (begins and words[first] in _CLEAR and any(about & other for other in same)) else False


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
    for up in () if word in _SHORT else _PAIRS.get(word, _UP_IN_NAMES):
        yield (*before, up, *after)


def check_comments(comments: Sequence[Piece], pieces: Sequence[Piece], name: str, before: int) -> None:
    """Raise `BuildError` where a comment before the last of the statements looks like the mark of a down part."""
    others: set[tuple[str, ...]] = set()
    last = pieces[-1].line if pieces else 0
    removal = len(pieces)  # where nothing follows that does not remove
    while removal and _removes(pieces[removal - 1]):
        removal -= 1
    for comment in comments:
        text = comment.text.strip().decode(errors="replace")
        words = tuple(_LETTERS.findall(text.lower()))
        label = _LABEL.match(text.lower())
        labels = (label[1], ":") if label else ()
        is_mark = comment.line < last and not comment.is_closed and _is_mark(text, words, others)
        is_mark |= comment.line < last and label is not None and label[1] in _BACK and labels in others
        if is_mark or (_announces(text) and _takes_back(comment, pieces, removal)):
            raise BuildError(
                f"{name}, line {before + comment.line}: this comment looks like the start of a down migration",
                saw=text,
                source=f"{name}:{before + comment.line}",
                remedy="move the down migration to its own file, NAME.down.sql. If it is not one, reword the comment",
            )
        others |= {tuple(_UP.get(word, word) for word in some) for some in (words, labels)}


def _removes(piece: Piece) -> bool:
    word = piece.words[0] if piece.words else ""
    return word in {"DROP", "DELETE", "TRUNCATE", *_NEUTRAL} or (
        word == "ALTER" and "DROP" in piece.words and "ADD" not in piece.words
    )


def _announces(comment: str) -> bool:
    """Whether a line of the comment begins or ends with a word for the way back, and holds no statement itself."""
    for line in comment.lower().splitlines():
        words = [word for word in _LETTERS.findall(_GOES_BACK.sub(" rollback ", line)) if word not in _FILLERS]
        if words and "rollback" in {words[0], words[-1]} and not line.rstrip(" */").endswith(";"):
            return True
    return False


def _takes_back(comment: Piece, pieces: Sequence[Piece], removal: int) -> bool:
    """Whether the comment stands before statements that only remove, one of them what an earlier one names."""
    if not 0 < removal < len(pieces) or comment.line + comment.is_closed <= pieces[removal - 1].line:
        return False
    earlier = [piece.text.decode(errors="replace") for piece in pieces[:removal]]
    for piece in pieces[removal:]:
        if piece.line + (not comment.is_closed) > comment.line and piece.words[0] not in _NEUTRAL:
            target = _TARGET.match(piece.text.decode(errors="replace"))
            names = re.findall(r"[\w$]+", target.group()) if target else []
            if any(re.search(rf"(?<![\w$]){re.escape(names[-1])}(?![\w$])", text, re.IGNORECASE) for text in earlier):
                return True
    return False


def _is_mark(line: str, words: tuple[str, ...], comments: set[tuple[str, ...]]) -> bool:
    pairs = {pair for pair in _COMMENT_PAIRS if pair <= set(words)}
    if not _BACK.intersection(words) and not pairs:
        return False
    rest = set(words) - _BACK - _BESIDE - frozenset().union(*pairs)
    return not rest or _ATTACHED.search(line) is not None or (words in comments and len(words) <= _MARK_WORDS)
