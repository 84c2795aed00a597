r"""Takes an SQL script apart where ``psql`` does: statements, its own commands, comments, the data of ``COPY``.

Follows psql's scanner (``src/fe_utils/psqlscan.l``): a statement ends at a semicolon outside of quotes, comments,
parentheses and the ``BEGIN ... END`` of a function body. Takes ``standard_conforming_strings`` to be on, as in dumps.
"""

from __future__ import annotations

import io
import re
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_EDGE: Final = re.compile(
    rb"""(?P<quote>(?:(?<![\w$\x80-\xff])(?:[eEbBxXnN](?=')|[uU]&(?=['"])))?['"])
       | (?P<dollar>(?<![\w$\x80-\xff])\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$)
       | (?P<comment>--[^\r\n]*)
       | (?P<block>/\*)
       | (?P<end>;)
       | (?P<command>\\)""",
    re.VERBOSE,
)
_TOKEN: Final = re.compile(rb"[()]|\$?\d[\w.]*|[A-Za-z_\x80-\xff][\w$\x80-\xff]*")
# A whole line without comments, commands and anything that goes on in the next one: most of a dump's.
_SIMPLE: Final = re.compile(rb"(?:[^'\"$\\/;\-]++|'[^'\\]*+'|\"[^\"]*+\"|-(?!-)|/(?!\*))*+(?P<end>;)?[ \t]*\r?\n?")
_ESCAPED: Final = re.compile(rb"(?:[^'\\]++|''|\\.)*+(?P<end>')?", re.DOTALL)
_BLOCK_EDGE: Final = re.compile(rb"/\*|\*/")
_BEGIN: Final = re.compile(rb"\s*+(?!--|/\*|[;\\])(?=\S)")
_FIRST_WORD: Final = re.compile(rb"[A-Za-z]+")
_FUNCTION: Final = re.compile(r"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE)\b")
_DATA_BYTES: Final = 1 << 16
_HEAD_WORDS: Final = 4  # CREATE OR REPLACE FUNCTION
_ENDS_STATEMENT: Final = re.compile(rb"\\(?:g|gx|gset|gexec|gdesc|crosstabview|watch|r|reset)\b")
# Neither takes a query for the name of a table: what follows one is no data, and must be looked at.
_COPY_OF_QUERY: Final = re.compile(rb"COPY\s*(?:\(|--|/\*)", re.IGNORECASE)
_COPY_COMMAND: Final = re.compile(
    rb"""\\copy\s+(?:"[^"]*"|[\w$.\x80-\xff])+\s*(?:\((?:"[^"]*"|[^"')])*\)\s*)?from\s+p?stdin\b""", re.IGNORECASE
)


class Piece(NamedTuple):
    r"""A part of a script. All pieces together are its text.

    A ``statement`` has its semicolon, unless the script or a command ends it. A ``command`` of psql's reaches to the
    end of the line. ``data`` are lines for a ``COPY ... FROM STDIN``; ``end`` is the line ``\.``. All else is
    ``text``, also a statement that need not be collected; a ``comment`` stands outside of collected statements.
    """

    kind: Literal["text", "comment", "statement", "command", "data", "end"]
    text: bytes
    line: int  # on which it begins, from 1
    words: tuple[str, ...] = ()  # a statement's unquoted words in capitals, without those in comments
    is_closed: bool = False  # whether a statement ends with its semicolon
    data: bytes | None = None  # given by `statements`

    @property
    def takes_data(self) -> bool:
        """Whether the data for it follow."""
        if self.kind == "command":
            return _COPY_COMMAND.match(self.text) is not None
        is_copy = self.words[:1] == ("COPY",) and not _COPY_OF_QUERY.match(self.text)
        return is_copy and ("FROM", "STDIN") in pairwise(self.words)


class Lexer:
    """Reads one script, line by line, so that its size does not matter."""

    def __init__(self, collected: frozenset[str] | None = None) -> None:
        """Collect the statements that begin with one of these words; by default all."""
        self._collected = collected
        self.copies: list[tuple[int, int]] = []  # the lines before the first and of the last line of data; 0 so far
        self.statements = 0  # how many have begun
        self.line = 0  # that was read last, from 1
        self._inside = b""
        self._depth = 0
        self._waiting = 0
        self._is_begun = False
        self._start = 0
        self._parts: list[bytes] | None = None
        self._words: list[str] = []
        self._parentheses = self._bodies = 0

    @property
    def open(self) -> str:
        """What the script is in the middle of: ``the data of COPY``, ``quotes`` or nothing."""
        return "the data of COPY" if self._waiting else "quotes" if self._inside else ""

    def read(self, lines: Iterable[bytes]) -> Iterator[Piece]:
        """The pieces, as the lines come. An unclosed quote or comment makes the rest of the script one statement."""
        rest = iter(lines)
        for line in rest:
            self.line += 1
            if self._waiting:
                yield from self._data(line, rest)
            elif self._collected is not None and self._passes(line):
                yield Piece("text", line, self.line)
            else:
                waiting = 0
                for piece in self._pieces(line):
                    yield piece
                    waiting += piece.takes_data
                self._expect_data(waiting)
        yield self._finish(b"", is_closed=False)

    def _data(self, first: bytes, rest: Iterator[bytes]) -> Iterator[Piece]:
        """The data of one ``COPY``, in pieces of many lines: most of a dump's lines are these."""
        lines: list[bytes] = []
        start, size = self.line, 0
        for line in chain([first], rest):
            self.line = start + len(lines)
            if line.startswith(b"\\.") and line.strip() == b"\\.":
                yield Piece("data", b"".join(lines), start)
                yield Piece("end", line, self.line)
                self.copies[-1] = (self.copies[-1][0], self.line)
                self._expect_data(self._waiting - 1)
                return
            lines.append(line)
            size += len(line)
            if size >= _DATA_BYTES:
                yield Piece("data", b"".join(lines), start)
                lines, start, size = [], self.line + 1, 0
        yield Piece("data", b"".join(lines), start)

    def _expect_data(self, waiting: int) -> None:
        """The data of several ``COPY`` on one line follow it in turn."""
        self._waiting = waiting
        if waiting:
            self.copies.append((self.line, 0))

    def _passes(self, line: bytes) -> bool:
        """Whether the line begins no statement that is to be collected, and all of it can pass at once."""
        if self._inside or self._parts is not None:
            return False
        word = None if self._is_begun else _FIRST_WORD.match(line)
        if not self._is_begun and (word is None or self._collects(word.group())):
            return False
        simple = _SIMPLE.fullmatch(line)
        if simple is None:
            return False
        self.statements += not self._is_begun
        self._is_begun = simple["end"] is None
        return True

    def _collects(self, word: bytes) -> bool:
        return self._collected is None or word.decode().upper() in self._collected

    def _pieces(self, line: bytes) -> Iterator[Piece]:
        start = at = 0
        while at < len(line):
            if self._inside:
                at = self._closing(line, at)
                continue
            if not self._is_begun and (blanks := _BEGIN.match(line, at)):
                at = blanks.end()
                yield Piece("text", line[start:at], self.line)
                start = at
                word = _FIRST_WORD.match(line, at)
                self._is_begun = True
                self.statements += 1
                self._start, self._words = self.line, []
                self._parts = [] if self._collects(word.group() if word else b"") else None
            edge = _EDGE.search(line, at)
            self._note(line[at : edge.start() if edge else len(line)])
            if edge is None:
                break
            at = edge.end()
            kind = edge.lastgroup
            if kind == "end" and not self._parentheses and not self._bodies:
                yield self._finish(line[start:at], is_closed=True)
                self._is_begun, start = False, at
            elif kind == "comment" and self._parts is None:
                yield Piece("comment", line[start:at], self.line)
                start = at
            elif kind == "command":
                yield self._finish(line[start : edge.start()], is_closed=False)
                self._is_begun &= self._collected is not None and not _ENDS_STATEMENT.match(line, edge.start())
                yield Piece("command", line[edge.start() :], self.line)
                return
            elif kind in {"quote", "dollar", "block"}:
                opening = edge.group()
                is_plain = kind == "quote" and opening not in {b"e'", b"E'"}
                self._inside, self._depth = opening[-1:] if is_plain else opening.replace(b"E'", b"e'"), 1
        if self._parts is None:
            yield Piece("text", line[start:], self.line)
        else:
            self._parts.append(line[start:])

    def _finish(self, rest: bytes, *, is_closed: bool) -> Piece:
        if self._parts is None:
            return Piece("text", rest, self.line)
        text = b"".join([*self._parts, rest])
        self._parts, self._parentheses, self._bodies = None, 0, 0
        return Piece("statement", text, self._start, tuple(self._words), is_closed)

    def _closing(self, line: bytes, at: int) -> int:
        """Where the quotes or the comment end that the line is in, or the end of the line."""
        if self._inside == b"/*":
            while self._depth and (edge := _BLOCK_EDGE.search(line, at)):
                at = edge.end()
                self._depth += 1 if edge.group() == b"/*" else -1
            end = -1 if self._depth else at
        elif self._inside == b"e'":
            escaped = _ESCAPED.match(line, at)
            end = escaped.end() if escaped and escaped["end"] else -1
        else:
            end = line.find(self._inside, at)
            end += len(self._inside) if end >= 0 else 0
        if end < 0:
            return len(line)
        self._inside = b""
        return end

    def _note(self, code: bytes) -> None:
        for token in _TOKEN.findall(code) if self._parts is not None else ():
            if token == b"(":
                self._parentheses += 1
            elif token == b")":
                self._parentheses = max(self._parentheses - 1, 0)
            elif token[:1] != b"$" and not token[:1].isdigit():
                self._words.append(token.decode(errors="replace").upper())
                if self._words[-1] in {"BEGIN", "CASE", "END"} and not self._parentheses:
                    self._note_body(self._words[-1])

    def _note_body(self, word: str) -> None:
        """Count a function's ``BEGIN`` and, inside one, ``CASE``; an ``END`` closes either."""
        if not _FUNCTION.match(" ".join(self._words[:_HEAD_WORDS])):
            return
        if word == "END":
            self._bodies = max(self._bodies - 1, 0)
        elif word == "BEGIN" or self._bodies:
            self._bodies += 1


def statements(script: bytes, comments: list[Piece] | None = None) -> list[Piece]:
    """The statements of a script and psql's commands, in order: without semicolons, but with the data of ``COPY``.

    The comments between them are added to ``comments``; ``is_closed`` is one behind a statement on its line.
    """
    complete: list[Piece] = []
    copies: list[int] = []
    lexer, ended, goes_on = Lexer(), 0, False
    for piece in lexer.read(io.BytesIO(script)):
        if piece.kind in {"statement", "command"}:
            if piece.takes_data:
                copies.append(len(complete))
            text = piece.text[:-1] if piece.is_closed else piece.text
            complete.append(piece._replace(text=text.rstrip(), data=b"" if piece.takes_data else None))
            ended = lexer.line
        elif piece.kind == "data":
            copy = complete[copies[0]]
            complete[copies[0]] = copy._replace(data=(copy.data or b"") + piece.text)
        elif piece.kind == "end":
            del copies[0]
        elif comments is not None:
            if goes_on:
                comments[-1] = comments[-1]._replace(text=comments[-1].text + piece.text)
            elif piece.text.lstrip()[:2] in {b"--", b"/*"}:
                comments.append(piece._replace(is_closed=piece.line == ended))
            else:
                continue
            goes_on = bool(lexer.open)
    return complete
