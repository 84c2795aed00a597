r"""Taking an SQL script apart into statements, as ``psql`` does.

Follows PostgreSQL's "Lexical Structure" and, for what ends a statement, the rules of psql's own
scanner (``src/fe_utils/psqlscan.l``): a semicolon outside of quotes, comments, parentheses and the
``BEGIN ... END`` of an SQL-standard function body. ``standard_conforming_strings`` is taken to be on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN: Final = re.compile(
    r"""
      (?P<space>   \s+ )
    | (?P<comment> --[^\n\r]* )
    | (?P<block>   /\* )
    | (?P<string>  [eE]'(?:[^'\\]++|\\.|'')*+'?
                 | (?:[bBxXnN]|[uU]&)?'(?:[^']++|'')*+'?
                 | (?:[uU]&)?"(?:[^"]++|"")*+"? )
    | (?P<dollar>  \$(?:[^\W\d]\w*)?\$ )
    | (?P<word>    [^\W\d][\w$]* )
    | (?P<number>  \$?\d[\w.]* )
    | (?P<meta>    \\ )
    | (?P<other>   . )
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE: Final = re.compile(r"/\*|\*/")
_END_OF_DATA: Final = re.compile(r"^\\\.[ \t]*\r?$", re.MULTILINE)
_REST_OF_LINE: Final = re.compile(r"[^\n]*\n?")
_HEADS_OF_FUNCTIONS: Final = re.compile(r"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE)\b")
_BEYOND_HEAD: Final = 4  # CREATE OR REPLACE FUNCTION


@dataclass(frozen=True)
class Statement:
    r"""One statement of a script.

    Attributes:
        text: From its first word up to, without, the semicolon. For a command of psql's, the line.
        offset: Where ``text`` begins in the script.
        words: Its unquoted words in capitals, in order; without those in comments.
        data: What follows a ``COPY ... FROM STDIN``, without the closing ``\.`` line.
        is_meta: Whether it is a command of psql's, such as ``\connect``.
    """

    text: str
    offset: int
    words: tuple[str, ...] = ()
    data: str | None = None
    is_meta: bool = False

    def starts(self, *words: str) -> bool:
        """Whether it begins with these words."""
        return self.words[: len(words)] == words

    def line_in(self, script: str) -> int:
        """The number, from 1, of the line on which it begins."""
        return script.count("\n", 0, self.offset) + 1


def statements(script: str) -> Iterator[Statement]:
    """The statements of a script, in order. Empty ones are left out.

    An unclosed quote or comment makes the rest of the script one statement; the server will say so.
    """
    scanner = _Scanner(script)
    while (found := scanner.next()) is not None:
        yield found


class _Scanner:
    def __init__(self, script: str) -> None:
        self._script = script
        self._at = 0
        self._begin()

    def _begin(self) -> None:
        self._start: int | None = None
        self._words: list[str] = []
        self._parentheses = 0
        self._bodies = 0

    def next(self) -> Statement | None:
        self._begin()
        while (token := _TOKEN.match(self._script, self._at)) is not None:
            kind = str(token.lastgroup)
            if kind == "meta":
                return self._meta()
            self._at = token.end()
            if kind == "block":
                self._skip_comment()
            elif kind == "dollar":
                self._skip_dollar(token.group())
            if kind in {"space", "comment", "block"}:
                continue
            if self._ends(token.group()):
                if self._start is not None:
                    return self._finished(token.start())
                continue
            self._start = token.start() if self._start is None else self._start
            self._note(kind, token.group())
        return None if self._start is None else self._finished(len(self._script))

    def _ends(self, text: str) -> bool:
        return text == ";" and self._parentheses == 0 and self._bodies == 0

    def _note(self, kind: str, text: str) -> None:
        if kind == "word":
            self._words.append(text.upper())
            self._note_body(self._words[-1])
        elif text == "(":
            self._parentheses += 1
        elif text == ")":
            self._parentheses = max(self._parentheses - 1, 0)

    def _note_body(self, word: str) -> None:
        """Count the nested ``BEGIN`` and, inside one, ``CASE`` that an ``END`` closes."""
        if self._parentheses or not _HEADS_OF_FUNCTIONS.match(" ".join(self._words[:_BEYOND_HEAD])):
            return
        if word == "BEGIN" or (word == "CASE" and self._bodies):
            self._bodies += 1
        elif word == "END":
            self._bodies = max(self._bodies - 1, 0)

    def _skip_comment(self) -> None:
        depth = 1
        while depth and (edge := _BLOCK_EDGE.search(self._script, self._at)) is not None:
            depth += 1 if edge.group() == "/*" else -1
            self._at = edge.end()
        if depth:
            self._at = len(self._script)

    def _skip_dollar(self, tag: str) -> None:
        end = self._script.find(tag, self._at)
        self._at = len(self._script) if end < 0 else end + len(tag)

    def _meta(self) -> Statement:
        start = self._at
        line = _REST_OF_LINE.match(self._script, start)
        self._at = line.end() if line else len(self._script)
        return Statement(self._script[start : self._at].strip(), start, is_meta=True)

    def _finished(self, end: int) -> Statement:
        start = self._start or 0
        text = self._script[start:end].rstrip()
        data = self._data() if _reads_data(self._words) else None
        return Statement(text, start, tuple(self._words), data)

    def _data(self) -> str:
        r"""The lines from the one after the semicolon to the one that is ``\.``."""
        line = _REST_OF_LINE.match(self._script, self._at)
        start = line.end() if line else len(self._script)
        end = _END_OF_DATA.search(self._script, start)
        self._at = end.end() if end else len(self._script)
        return self._script[start : end.start() if end else len(self._script)]


def _reads_data(words: list[str]) -> bool:
    return words[:1] == ["COPY"] and ("FROM", "STDIN") in pairwise(words)
