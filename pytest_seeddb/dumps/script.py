r"""A plain dump on its way to psql: read line by line, without what must not reach the server.

Follows PostgreSQL's "Lexical Structure" and psql's own scanner (``src/fe_utils/psqlscan.l``) as far
as it takes to tell a statement and a command of psql's from what stands in quotes, comments and the
data of ``COPY``. A body of a function or a rule may be taken for several statements, which does no
harm: none of those that are left out can stand there. ``standard_conforming_strings`` is taken to
be on, as every ``pg_dump`` sets it.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_seeddb.dumps.rules import Rule

_EDGE: Final = re.compile(
    rb"""(?P<quote>(?:(?<![\w$\x80-\xff])[eE])?')
       | (?P<name>")
       | (?P<dollar>(?<![\w$\x80-\xff])\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$)
       | (?P<comment>--)
       | (?P<block>/\*)
       | (?P<end>;)
       | (?P<meta>\\)""",
    re.VERBOSE,
)
# A whole line without comments, commands and anything that goes on in the next one: most of them.
_SIMPLE: Final = re.compile(rb"(?:[^'\"$\\/;\-]++|'[^'\\]*+'|\"[^\"]*+\"|-(?!-)|/(?!\*))*+(?P<end>;)?[ \t]*\r?\n?")
_ESCAPED: Final = re.compile(rb"(?:[^'\\]++|''|\\.)*+(?P<end>')?", re.DOTALL)
_BLOCK_EDGE: Final = re.compile(rb"/\*|\*/")
_FIRST_WORD: Final = re.compile(rb"[A-Za-z]+")
_COPY: Final = re.compile(rb"COPY\b.*\bFROM\s+STDIN\b", re.IGNORECASE | re.DOTALL)
_META: Final = re.compile(rb"(?:^|(?<=\s))\\(?P<name>[A-Za-z_]+|[^\sA-Za-z_])[ \t]*(?=(?P<rest>[^\r\n]*))")
_ENDS_A_STATEMENT: Final = re.compile(rb"\\(?:g|gx|gset|gexec|gdesc|crosstabview|watch|r|reset)\b")

_HEAD: Final = b"-- PostgreSQL database dump"
_TAIL: Final = b"-- PostgreSQL database dump complete"
_CLUSTER: Final = b"-- PostgreSQL database cluster dump"
_MADE_BY: Final = re.compile(rb"-- Dumped (?P<what>from database|by pg_dump) version (?P<version>[^\s]+)")

# What reads or writes other files, runs programs, asks somebody, or leaves in the middle.
_OUTSIDE: Final = frozenset(
    {
        *("i", "ir", "include", "include_relative", "o", "out", "w", "write", "s", "cd", "!", "setenv", "getenv"),
        *("e", "edit", "ef", "ev", "lo_import", "lo_export", "prompt", "password", "watch", "q", "quit"),
    }
)
_ELSEWHERE: Final = frozenset({"c", "connect"})
_COPY_FROM_SCRIPT: Final = re.compile(rb"\bfrom\s+p?stdin\b", re.IGNORECASE)


class Unfit(Exception):  # noqa: N818 - it is caught by what restores
    """The script holds something that is not run, or ends too early.

    Attributes:
        line: Where, counted from 1.
        saw: The text there.
        remedy: What to do about it.
    """

    def __init__(self, what: str, line: int, saw: str, remedy: str) -> None:
        self.what, self.line, self.saw, self.remedy = what, line, saw, remedy
        super().__init__(what)


class Script:
    """One script, taken apart while it passes.

    Whatever is left out is replaced by as many line ends, so that psql's line numbers are the file's.

    Attributes:
        left_out: How many statements of each kind were left out.
        versions: What its head says of the server and of the ``pg_dump`` that it is from.
        copies: The lines where the data of each ``COPY`` begin and end, in order.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.left_out: Counter[str] = Counter()
        self.versions: dict[str, str] = {}
        self.copies: list[tuple[int, int]] = []
        self._rules = rules
        self._held_words = frozenset(word for rule in rules for word in rule.words) | {b"COPY"}
        self._line = 0
        self._inside: bytes | None = None
        self._depth = 0
        self._begun = False
        self._held: list[bytes] | None = None
        self._copying = False
        self._statements = 0
        self._has_head = self._has_tail = False
        self._restricted: bytes | None = None
        self._connected: bytes | None = None

    def passed(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """What psql is to be given, as the lines come.

        Raises:
            Unfit: Something in it is not run, or it ends too early.
        """
        for line in lines:
            self._line += 1
            yield self._data(line) if self._copying else self._text(line)
        self._check_end()

    def _data(self, line: bytes) -> bytes:
        if line.startswith(b"\\.") and line.strip() == b"\\.":
            self._copying = False
            self.copies[-1] = (self.copies[-1][0], self._line)
        return line

    # -- text ----------------------------------------------------------------------------------

    def _text(self, line: bytes) -> bytes:
        if self._is_simple(line):
            return line
        out: list[bytes] = []
        start = at = 0
        while at < len(line):
            if self._inside is not None:
                at = self._closed(line, at)
                continue
            if not self._begun and (first := self._first(line, at)) < len(line):
                out.append(line[start:first])
                start = at = first
                self._begin(line, first)
            edge = _EDGE.search(line, at)
            at = len(line) if edge is None else edge.end()
            if edge is None:
                break
            start, at = self._edge(edge, line, start, out)
        self._keep(line[start:], out)
        return b"".join(out)

    def _is_simple(self, line: bytes) -> bool:
        """Whether the line can pass as it is: it begins nothing that may be left out, or goes on with such."""
        if self._inside is not None or self._held is not None:
            return False
        word = None if self._begun else _FIRST_WORD.match(line)
        if not self._begun and (word is None or word.group().upper() in self._held_words):
            return False
        simple = _SIMPLE.fullmatch(line)
        if simple is None:
            return False
        self._statements += not self._begun
        self._begun = simple["end"] is None
        return True

    def _edge(self, edge: re.Match[bytes], line: bytes, start: int, out: list[bytes]) -> tuple[int, int]:
        """Go on after an edge: from where the text is still to be kept, and where to look next."""
        kind = edge.lastgroup
        if kind == "comment":
            self._comment(line[edge.start() :].strip())
            return start, len(line)
        if kind == "end":
            self._keep(line[start : edge.end()], out)
            self._end(out)
            return edge.end(), (len(line) if self._copying else edge.end())
        if kind == "meta":
            self._keep(line[start : edge.start()], out)
            self._flush(out)
            out.append(self._meta(line[edge.start() :]))
            return len(line), len(line)
        self._open(str(kind), edge.group())
        return start, edge.end()

    def _first(self, line: bytes, at: int) -> int:
        """Where the next statement begins: behind blanks, unless a comment, a command or an end is there."""
        rest = line[at:].lstrip()
        first = len(line) - len(rest)
        return len(line) if not rest or rest.startswith((b"--", b"/*", b";", b"\\")) else first

    def _begin(self, line: bytes, at: int) -> None:
        word = _FIRST_WORD.match(line, at)
        self._begun = True
        self._statements += 1
        self._held = [] if word and word.group().upper() in self._held_words else None

    def _keep(self, text: bytes, out: list[bytes]) -> None:
        (out if self._held is None else self._held).append(text)

    def _end(self, out: list[bytes]) -> None:
        self._begun = False
        if self._held is None:
            return
        statement, self._held = b"".join(self._held), None
        if _COPY.match(statement):
            self._copying = True
            self.copies.append((self._line, 0))
        out.append(self._judged(statement))

    def _judged(self, statement: bytes) -> bytes:
        for rule in self._rules:
            if rule.applies(statement):
                self.left_out[rule.name] += 1
                return rule.replacement + b"\n" * statement.count(b"\n")
        return statement

    def _flush(self, out: list[bytes]) -> None:
        if self._held is not None:
            out.extend(self._held)
            self._held = None

    # -- quotes and comments -------------------------------------------------------------------

    def _open(self, kind: str, text: bytes) -> None:
        self._inside = b"e'" if kind == "quote" and len(text) > 1 else text
        self._depth = 1

    def _closed(self, line: bytes, at: int) -> int:
        if self._inside == b"/*":
            return self._closed_comment(line, at)
        if self._inside == b"e'":
            found = _ESCAPED.match(line, at)
            end = found.end() if found and found["end"] else -1
        else:
            closing = self._inside or b""
            end = line.find(closing, at)
            end = end + len(closing) if end >= 0 else -1
        if end >= 0:
            self._inside = None
        return end if end >= 0 else len(line)

    def _closed_comment(self, line: bytes, at: int) -> int:
        while self._depth and (edge := _BLOCK_EDGE.search(line, at)):
            at = edge.end()
            self._depth += 1 if edge.group() == b"/*" else -1
        if self._depth:
            return len(line)
        self._inside = None
        return at

    def _comment(self, text: bytes) -> None:
        if text == _HEAD:
            self._has_head, self._has_tail = True, False
        elif text == _TAIL:
            self._has_tail = True
        elif text == _CLUSTER:
            raise self._unfit("It is a dump of a whole server", text, _ONE_DATABASE)
        elif found := _MADE_BY.match(text):
            self.versions.setdefault(found["what"].decode(), found["version"].decode(errors="replace"))

    # -- commands of psql's --------------------------------------------------------------------

    def _meta(self, text: bytes) -> bytes:
        """What of a line from a backslash on is given to psql."""
        if _ENDS_A_STATEMENT.match(text):
            self._begun = False
        commands = [(each["name"].decode(errors="replace"), each["rest"].strip()) for each in _META.finditer(text)]
        name, rest = commands[0] if commands else ("", b"")
        if name == "restrict" and self._restricted is None:
            self._restricted = rest
            return b"\n"
        if name == "unrestrict" and rest == self._restricted:
            self._restricted = None
            return b"\n"
        if self._restricted is not None:
            raise self._unfit("A command of psql's stands where \\restrict allows none", text, _RESTRICTED)
        if name in _ELSEWHERE:
            return self._connect(rest, text)
        for each, arguments in commands:
            self._check(each, arguments, text)
        return text

    def _check(self, name: str, arguments: bytes, text: bytes) -> None:
        is_copy = name == "copy" and not _COPY_FROM_SCRIPT.search(arguments)
        is_redirected = name in {"g", "gx"} and arguments and not arguments.startswith(b"(")
        if name in _OUTSIDE or name in _ELSEWHERE or is_copy or is_redirected:
            raise self._unfit(f"\\{name} reaches outside of the dump", text, _ITS_OWN)
        if name == "copy":
            self._copying = True
            self.copies.append((self._line, 0))

    def _connect(self, target: bytes, text: bytes) -> bytes:
        r"""Leave a ``\connect`` out. The first says of which database the dump is; a second one, of which else."""
        if target and target.split()[0] != b"-":
            if self._connected not in {None, target}:
                raise self._unfit("It holds several databases", text, _ONE_DATABASE)
            self._connected = target
        self.left_out["\\connect"] += 1
        return b"\n"

    # -- the end -------------------------------------------------------------------------------

    def _check_end(self) -> None:
        if self._copying or self._inside is not None or (self._has_head and not self._has_tail):
            what = "the data of COPY" if self._copying else "quotes" if self._inside else "the dump"
            raise self._unfit("It ends too early", b"the file ends in the middle of " + what.encode(), _AGAIN)
        if not self._statements:
            raise self._unfit("It is empty", b"no statement", _AGAIN)

    def _unfit(self, what: str, saw: bytes, remedy: str) -> Unfit:
        return Unfit(what, self._line, saw.decode(errors="replace").strip(), remedy)


_ONE_DATABASE: Final = "make the dump of one database alone: pg_dump DATABASE"
_ITS_OWN: Final = (
    "a dump is one file with all that it needs: put the contents there, or declare an own command under `migrations` "
    "or `seeds`, with its files as inputs"
)
_RESTRICTED: Final = (
    "pg_dump writes no such thing: the name of an object in that database was made to look like one. Trust neither "
    "the file nor the server that it is from"
)
_AGAIN: Final = "make the dump again; where it came through git, see that it was not cut or converted"
