r"""A plain dump on its way to psql: read line by line, without what must not reach the server."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.dumps.lexer import Lexer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_seeddb.dumps.lexer import Piece

_ROLE: Final = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_META: Final = re.compile(rb"(?:^|(?<=\s))\\(?P<name>[A-Za-z_]+|[^\sA-Za-z_])[ \t]*(?=(?P<rest>[^\r\n]*))")
_HEAD: Final = b"-- PostgreSQL database dump"
_TAIL: Final = b"-- PostgreSQL database dump complete"
_CLUSTER: Final = b"-- PostgreSQL database cluster dump"
_MADE_BY: Final = re.compile(rb"-- Dumped (?P<what>from database|by pg_dump) version (?P<version>[^\s]+)")

# Commands that read or write other files, run programs, ask for input, or leave in the middle.
_OUTSIDE: Final = frozenset(
    {
        *("i", "ir", "include", "include_relative", "o", "out", "w", "write", "s", "cd", "!", "setenv", "getenv"),
        *("e", "edit", "ef", "ev", "lo_import", "lo_export", "prompt", "password", "watch", "q", "quit"),
    }
)
_CONNECT: Final = frozenset({"c", "connect"})
_CONDITION: Final = {"if": 1, "endif": -1}
# What psql puts in a variable's place, unless it quotes it, is read as script again: a quote there hides what follows.
_PLAIN_VALUE: Final = re.compile(rb"[\w.,:=+ -]*")
_VARIABLE: Final = re.compile(rb"(?<!:):(?=[A-Za-z_{])")
# `pg_dump --clean` drops all objects first, which a new database does not have.
_DROP: Final = re.compile(
    rb"(?:DROP\s+(?!DATABASE\b|OWNED\b|SCHEMA\s+(?:IF\s+EXISTS\s+)?\"?public\"?\s+CASCADE\b)"
    rb"|ALTER\s+(?:FOREIGN\s+)?TABLE\s.*\sDROP\s+(?:CONSTRAINT|DEFAULT|IDENTITY|EXPRESSION)\b"
    rb"|ALTER\s+(?:PUBLICATION|EXTENSION|DOMAIN)\s.*\sDROP\s"
    rb"|SELECT\s+pg_catalog\.lo_unlink\('"
    rb"|CREATE\s+OR\s+REPLACE\s+VIEW\s.*\sAS\s+SELECT\s+NULL::)",
    re.IGNORECASE | re.DOTALL,
)
_MAKES: Final = re.compile(rb"(?:CREATE|COPY)\b", re.IGNORECASE)

_ONE_DATABASE: Final = "dump a single database: pg_dump DATABASE"
_ITS_OWN: Final = (
    "a dump must be self-contained: put the contents into it, or declare a command under `migrations` "
    "or `seeds`, with its files as inputs"
)
_RESTRICTED: Final = (
    "pg_dump never writes this. An object in that database was given a name that looks like a psql command. Do not "
    "trust the file, nor the server that it comes from"
)
_NO_CONDITION: Final = "remove the condition: if it is false, psql runs the data as commands"
_NO_VARIABLE: Final = "write the value itself, or let psql quote it: :'name'"
_AGAIN: Final = "make the dump again; if it came through git, check that git did not truncate or convert it"


@dataclass(frozen=True)
class Rule:
    """One kind of statement that is left out: what people call it, its first words, and what takes its place."""

    name: str
    pattern: re.Pattern[bytes]
    words: frozenset[str]
    replacement: bytes = b""


def _rule(name: str, pattern: str, *words: str, replacement: bytes = b"") -> Rule:
    compiled = re.compile(pattern.replace(" ", r"\s+").encode(), re.IGNORECASE | re.DOTALL)
    return Rule(name, compiled, frozenset(words), replacement)


_PARAMETERS: Final = {"transaction_timeout": 17}
"""Settings in the head of a newer ``pg_dump``'s dumps, and the version that introduced them."""

_LEFT_OUT: Final = (
    # As `pg_restore --no-owner --no-privileges` has it: all belongs to the role that restores.
    _rule("owners", rf"ALTER .*\bOWNER TO {_ROLE}\s*;\Z", "ALTER"),
    _rule("owners", r"SET SESSION AUTHORIZATION ", "SET"),
    _rule("privileges", r"(?:GRANT|REVOKE|ALTER DEFAULT PRIVILEGES) ", "GRANT", "REVOKE", "ALTER"),
    # Roles, databases and tablespaces belong to the server, and a subscription to another one.
    _rule("roles", r"(?:CREATE|ALTER|DROP) (?:ROLE|GROUP|USER) (?!MAPPING\b)", "CREATE", "ALTER", "DROP"),
    _rule("databases", r"(?:CREATE|ALTER|DROP|COMMENT ON) DATABASE ", "CREATE", "ALTER", "DROP", "COMMENT"),
    _rule("tablespaces", r"(?:CREATE|ALTER|DROP|COMMENT ON) TABLESPACE ", "CREATE", "ALTER", "DROP", "COMMENT"),
    _rule("tablespaces", r"SET default_tablespace\s*=\s*+(?!''|\"\"|DEFAULT\b)", "SET"),
    _rule("subscriptions", r"(?:CREATE|ALTER|DROP|COMMENT ON) SUBSCRIPTION ", "CREATE", "ALTER", "DROP", "COMMENT"),
    # A template is analysed, and servers before PostgreSQL 18 have no such functions.
    _rule("statistics", r"SELECT \* FROM pg_catalog\.pg_restore_\w+_stats\(", "SELECT"),
    # Every new database has both already.
    _rule("what is there", r"COMMENT ON EXTENSION \"?plpgsql\"? ", "COMMENT"),
    _rule("what is there", r"CREATE SCHEMA public\s*;", "CREATE", replacement=b"CREATE SCHEMA IF NOT EXISTS public;"),
)


def rules_for_dumps(server: int) -> tuple[Rule, ...]:
    """Rules for anybody's dump, for a server of this major version: leave out what belongs to a server."""
    return (*_LEFT_OUT, *rules_for_copies(server))


def rules_for_copies(server: int) -> tuple[Rule, ...]:
    """Rules for an exact copy: leave out only what a server of this major version does not know."""
    unknown = [name for name, since in _PARAMETERS.items() if server < since]
    return tuple(_rule("newer settings", rf"SET {name}\s*=\s*\w+\s*;", "SET") for name in unknown)


class Unfit(Exception):  # noqa: N818 - it is caught by what restores
    """The script has something that is not run, or ends too early: ``saw`` on the ``line``."""

    def __init__(self, what: str, line: int, saw: str, remedy: str) -> None:
        self.what, self.line, self.saw, self.remedy = what, line, saw, remedy
        super().__init__(what)


class Script:
    """One script; line ends take the place of what is left out, so that psql's line numbers are the file's."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.left_out: Counter[str] = Counter()  # of each kind
        self.versions: dict[str, str] = {}  # those in its head: "from database" and "by pg_dump"
        drops_first = any(rule.name == "privileges" for rule in rules)
        own = {"COPY", "SELECT"} if drops_first else {"COPY"}
        self.lexer = Lexer(frozenset(own.union(*(rule.words for rule in rules))))
        self._rules = rules
        self._is_cut = False
        self._restricted: bytes | None = None
        self._connected: bytes | None = None
        self._conditions = 0  # how many \\if are open
        self._has_quotes = False  # whether a variable may hold quotes
        self._is_sure = True  # whether psql takes the same for quotes, comments and data
        self._is_empty = drops_first  # whether nothing has been made so far

    def filter(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Give the text for psql, as the lines come; raises `Unfit`."""
        for piece in self.lexer.read(lines):
            if self._conditions or self._has_quotes:
                self._see_that_nothing_hides(piece)
            if piece.kind in {"data", "text"}:
                yield piece.text
                continue
            if piece.kind == "statement" and piece.is_closed:
                yield self._judge(piece.text)
            elif piece.kind == "command":
                yield self._command(piece)
            else:
                if piece.kind == "comment":
                    self._read_comment(piece.text.strip())
                yield piece.text
        if self.lexer.open or self._is_cut:
            where = self.lexer.open or "the dump"
            raise self._unfit("It ends too early", f"the file ends in the middle of {where}", _AGAIN)
        if not self.lexer.statements:
            raise self._unfit("It is empty", "no statement", _AGAIN)

    def _see_that_nothing_hides(self, piece: Piece) -> None:
        """Raise `Unfit` where psql may take data for script, or script for data."""
        if piece.takes_data and self._conditions:
            raise self._unfit("The data of a COPY stand inside of \\if", piece.text, _NO_CONDITION, piece.line)
        self._is_sure &= not (self._has_quotes and piece.kind != "data" and _VARIABLE.search(piece.text))
        if not self._is_sure and piece.kind in {"text", "comment", "statement", "data"} and b"\\" in piece.text:
            raise self._unfit(
                "A backslash follows a variable that may hold quotes", piece.text, _NO_VARIABLE, piece.line
            )

    def _judge(self, statement: bytes) -> bytes:
        if self._is_empty and _DROP.match(statement):
            self.left_out["drops"] += 1
            return b"\n" * statement.count(b"\n")
        for rule in self._rules:
            if rule.pattern.match(statement):
                self.left_out[rule.name] += 1
                return rule.replacement + b"\n" * statement.count(b"\n")
        self._is_empty &= _MAKES.match(statement) is None
        return statement

    def _read_comment(self, text: bytes) -> None:
        if text == _CLUSTER:
            raise self._unfit("It is a dump of a whole server", text, _ONE_DATABASE)
        if text in {_HEAD, _TAIL}:
            self._is_cut = text == _HEAD
        elif made := _MADE_BY.match(text):
            self.versions.setdefault(made["what"].decode(), made["version"].decode(errors="replace"))

    def _command(self, piece: Piece) -> bytes:
        """The part of a line from a backslash on that psql gets."""
        text = piece.text
        commands = [(match["name"].decode(errors="replace"), match["rest"].strip()) for match in _META.finditer(text)]
        name, rest = commands[0] if commands else ("", b"")
        if name == "restrict" and self._restricted is None:
            self._restricted = rest
            return b"\n"
        if name == "unrestrict" and rest == self._restricted:
            self._restricted = None
            return b"\n"
        if self._restricted is not None:
            raise self._unfit("A psql command stands where \\restrict allows none", text, _RESTRICTED)
        if name in _CONNECT:
            # The first one names the dump's database, a second one another.
            if rest and rest.split()[0] != b"-":
                if self._connected not in {None, rest}:
                    raise self._unfit("It holds several databases", text, _ONE_DATABASE)
                self._connected = rest
            self.left_out["\\connect"] += 1
            return b"\n"
        for name, arguments in commands:
            self._conditions = max(self._conditions + _CONDITION.get(name, 0), 0)
            self._has_quotes |= name == "gset" or (name == "set" and not _PLAIN_VALUE.fullmatch(arguments))
            is_copy = name == "copy" and not piece.takes_data
            is_redirected = name in {"g", "gx"} and arguments and not arguments.startswith(b"(")
            if name in _OUTSIDE or name in _CONNECT or is_copy or is_redirected:
                raise self._unfit(f"\\{name} reaches outside the dump", text, _ITS_OWN)
        return text

    def _unfit(self, what: str, saw: bytes | str, remedy: str, line: int = 0) -> Unfit:
        text = saw.decode(errors="replace") if isinstance(saw, bytes) else saw
        return Unfit(what, line or self.lexer.line, text.strip(), remedy)
