"""An SQL file as its statements: the part that migrates upward, with the files that it includes, as psql reads them."""

from __future__ import annotations

import codecs
import mmap
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.dumps.lexer import Piece, statements
from pytest_seeddb.errors import BuildError, names_a_secret
from pytest_seeddb.fingerprint.digests import MISSING, SET, Part, content_part, digest, file_part, relative_name
from pytest_seeddb.migrations.directions import check_comments
from pytest_seeddb.migrations.parts import PLACEHOLDER, replaced, upward

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_INCLUDE: Final = re.compile(rb"^[ \t]*\\(i|include|ir|include_relative)[ \t]+([^\r\n]+)", re.MULTILINE)
_RELATIVE: Final = frozenset({"ir", "include_relative"})
_INCLUDES: Final = frozenset({"i", "include", *_RELATIVE})
# Commands that only change what psql shows; the last two are pg_dump's, since the releases of August 2025.
_HARMLESS: Final = frozenset(
    {"echo", "qecho", "warn", "pset", "timing", "t", "a", "x", "f", "H", "C", "T", "errverbose", "conninfo", "g"}
    | {"encoding", "l", "l+", "list", "z", "sf", "sv", "h", "help", "?", "restrict", "unrestrict"}
)
_DESCRIBES: Final = re.compile(r"d[A-Za-z]*[+;]*")  # \d and all that begin with it
_ENDS: Final = frozenset({b"\\q", b"\\quit"})
_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"[^\"]*\"")
_OF_PSQL: Final = frozenset(
    {"ECHO", "ECHO_HIDDEN", "FETCH_COUNT", "HISTCONTROL", "HISTFILE", "HISTSIZE", "ON_ERROR_STOP", "PROMPT1", "PROMPT2"}
    | {
        "AUTOCOMMIT",
        "ON_ERROR_ROLLBACK",
        "PROMPT3",
        "QUIET",
        "SHOW_ALL_RESULTS",
        "SHOW_CONTEXT",
        "VERBOSITY",
        "HIDE_TABLEAM",
        "HIDE_TOAST_COMPRESSION",
    }
)
_MUST_BE_ON: Final = frozenset({"AUTOCOMMIT", "ON_ERROR_STOP"})
_OFF: Final = frozenset({"0", "off", "false", "no"})
_CONNECTS: Final = frozenset({"c", "connect"})
_ENCODING: Final = re.compile(
    rb"SET\s+(?:SESSION\s+|LOCAL\s+)?(?:client_encoding\s*(?:=|\bTO\b)|NAMES\b)\s*['\"]?([\w-]+)['\"]?\s*\Z",
    re.IGNORECASE,
)
# By a statement's unquoted words. Those about roles are allowed.
_SERVER_WIDE: Final = re.compile(r"(?:CREATE|DROP) DATABASE|(?:CREATE|DROP|ALTER) TABLESPACE|ALTER SYSTEM")
_NAMES_A_DATABASE: Final = re.compile(
    r"(ALTER DATABASE)|(GRANT|REVOKE|COMMENT|SECURITY LABEL)\b.*? (ON DATABASE)\b"
    r"|(ALTER (?:ROLE|USER)) .*?(IN DATABASE)\b"
)
_UTF8: Final = frozenset({"utf8", "unicode", "default"})
# Their characters may hold the bytes of quotes and backslashes.
_NOT_FOLLOWED: Final = frozenset({"sjis", "shiftjis2004", "big5", "gbk", "gb18030", "johab", "uhc"})
_FOR_THE_SERVER: Final = "it belongs to what sets up the server"
_WHOLE: Final = 'or run the file with psql: {command = "psql -f ...", inputs = [...]}'


@dataclass(frozen=True)
class Reading:
    """How the files of a directory are read: the format, and the values of its placeholders where it has them."""

    format: str = ""
    placeholders: Mapping[str, str] | None = None
    alone: frozenset[Path] = frozenset()  # files that run without a transaction
    is_seed: bool = False  # has no way back, so a comment that looks like the mark of one is any other


SEED: Final = Reading(is_seed=True)
"""How seeds are read."""


@dataclass(frozen=True)
class Statement:
    """A statement, and the file that it stands in."""

    piece: Piece
    file: str

    @property
    def line(self) -> int:
        """On which it begins."""
        return self.piece.line


@dataclass
class _Reader:
    """Reads one file and those that it includes."""

    root: Path
    reading: Reading
    encoding: str = "utf8"
    open_files: list[Path] = field(default_factory=list)
    has_transaction: bool = True

    def read(self, path: Path) -> Iterator[Statement]:
        name = relative_name(path, self.root)
        try:
            content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        except OSError as error:
            raise _unreadable(name, path, str(error), "correct the path, or create the file") from None
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise _unreadable(name, path, "text in UTF-16", "save it as UTF-8")
        if self.reading.placeholders is not None:
            content = replaced(content, self.reading.placeholders, name)
        parts, has_transaction = upward(content, name, self.reading.format, is_included=bool(self.open_files))
        self.has_transaction &= has_transaction and path not in self.reading.alone
        self.open_files.append(path)
        for part in parts:
            comments: list[Piece] = []
            pieces = statements(part.text, comments)
            if pieces and pieces[-1].text.strip() in _ENDS:
                pieces.pop()
            if not self.reading.is_seed:
                check_comments(comments, pieces, name, part.before)
            for piece in pieces:
                yield from self._statements(piece._replace(line=part.before + piece.line), name, path)
        self.open_files.pop()

    def _statements(self, piece: Piece, name: str, path: Path) -> Iterator[Statement]:
        if piece.kind == "command":
            yield from self._command(piece, name, path)
            return
        words = " ".join(piece.words)
        if wide := _SERVER_WIDE.match(words):
            is_database = wide[0].endswith("DATABASE")
            raise _refused(
                f"{wide[0]} affects the whole server",
                piece,
                name,
                "delete the statement: "
                + ("the database already exists, and all statements run in it" if is_database else _FOR_THE_SERVER),
            )
        if named := _NAMES_A_DATABASE.match(words):
            what = " ... ".join(filter(None, named.groups()))
            raise _refused(
                f"{what} names a database, but the one that is being built has another name",
                piece,
                name,
                "delete the statement, or have it name the database that it runs in: "
                f"DO $$ BEGIN EXECUTE format('{what} %I ...', current_database()); END $$",
            )
        self._check_encoding(piece, name, path)
        yield Statement(piece, name)

    def _check_encoding(self, piece: Piece, name: str, path: Path) -> None:
        if encoding := _ENCODING.match(piece.text):
            self.encoding = encoding[1].decode().lower().replace("-", "").replace("_", "")
            if self.encoding in _NOT_FOLLOWED:
                raise _refused("sets an encoding that is not followed", piece, name, "save the file as UTF-8")
        elif self.encoding in _UTF8:
            for text in filter(None, (piece.text, piece.data)):
                try:
                    text.decode()
                except UnicodeDecodeError as error:
                    saw = f"{error}, in the statement on line {piece.line}"
                    remedy = "save it as UTF-8, or name its encoding at the top: SET client_encoding = '...'"
                    raise _unreadable(name, path, saw, remedy) from None

    def _command(self, piece: Piece, name: str, path: Path) -> Iterator[Statement]:
        """What takes the place of one of psql's commands: nothing, a statement, or those of another file."""
        text = piece.text.decode(errors="replace")
        word, *rest = text[1:].split(maxsplit=1)
        arguments = rest[0].strip() if rest else ""
        if word in _CONNECTS:
            raise _refused(
                f"\\{word} connects to another database",
                piece,
                name,
                "delete the line: the file runs in the database that is being built. Statements for another database "
                "do not belong to it",
            )
        if word in _INCLUDES:
            yield from self._include(piece, name, path, word in _RELATIVE, arguments)
        elif word == "encoding" and arguments:
            statement = f"SET client_encoding = '{arguments.strip(chr(39))}'".encode()
            yield from self._statements(piece._replace(kind="statement", text=statement), name, path)
        elif word == "copy" and piece.data is not None:
            self._check_encoding(piece, name, path)
            yield Statement(piece._replace(kind="statement", text=piece.text[1:]), name)
        elif not self._is_harmless(word, arguments) or "\\" in _QUOTED.sub("", arguments):
            raise _refused(f"\\{word} is a psql command, not SQL", piece, name, f"write it in SQL, {_WHOLE}")

    def _is_harmless(self, word: str, arguments: str) -> bool:
        if word in {"set", "unset"}:
            variable, *value = arguments.split(maxsplit=1) or [""]
            is_off = bool(value) and value[0].strip("' ").lower() in _OFF
            return not variable or (variable in _OF_PSQL and not (variable in _MUST_BE_ON and is_off))
        return bool(word in _HARMLESS or _DESCRIBES.fullmatch(word)) and not (word == "g" and arguments)

    def _include(self, piece: Piece, name: str, path: Path, is_relative: bool, arguments: str) -> Iterator[Statement]:
        included = _included(path if is_relative else None, arguments, self.root)
        if included in self.open_files:
            raise _refused(
                f"\\{piece.text.split()[0][1:].decode()} includes a file that includes this one",
                piece,
                name,
                "remove the line",
            )
        if not included.is_file():
            place = "relative to this file" if is_relative else "relative to the project's root"
            raise _refused(
                "the file to include does not exist",
                piece,
                name,
                f"correct the path, which is {place}",
                saw=str(included),
            )
        yield from self.read(included)


def read_script(path: Path, root: Path, reading: Reading) -> tuple[list[Statement], bool]:
    """The statements of a file to run, in order, and whether it may run in one transaction; raises `BuildError`."""
    reader = _Reader(root, reading)
    return list(reader.read(path)), reader.has_transaction


def script_parts(
    path: Path, root: Path, reading: Reading, *, source: str, content: bytes | None = None
) -> tuple[Part, ...]:
    """What determines the statements of a file: itself, those that it includes, and the values that it uses.

    Its ``content`` is read unless it is given.
    """
    if content:
        parts = [content_part(relative_name(path, root), digest(content))]
        if not reading.placeholders and b"\\i" not in content:
            return tuple(parts)
    else:
        parts = [file_part(path, root, source=source)]
    paths = [path]
    for known in paths:  # it grows
        with known.open("rb") as stream:
            if not os.fstat(stream.fileno()).st_size:
                continue
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
                for match in _INCLUDE.finditer(text) if text.find(b"\\i") >= 0 else ():
                    is_relative = match[1].decode() in _RELATIVE
                    included = _included(known if is_relative else None, match[2].decode(errors="replace"), root)
                    if included.is_file() and included not in paths:
                        paths.append(included)
                        parts.append(file_part(included, root, source=source))
                    elif not included.is_file():
                        parts.append(Part(relative_name(included, root), MISSING))
                used = (
                    {match[1].decode().lower() for match in PLACEHOLDER.finditer(text)} if reading.placeholders else ()
                )
        parts += [
            Part(f"placeholder {key}", SET, value) if names_a_secret(key) else Part(f"placeholder {key}", digest(value))
            for key, value in (reading.placeholders or {}).items()
            if key.lower() in used
        ]
    return tuple(dict.fromkeys(parts))


def _included(beside: Path | None, arguments: str, root: Path) -> Path:
    try:
        words = shlex.split(arguments)
    except ValueError:
        words = [arguments]
    return Path(os.path.normpath((beside.parent if beside else root) / (words[0] if words else arguments).rstrip(";")))


def _unreadable(name: str, path: Path, saw: str, remedy: str) -> BuildError:
    return BuildError(f"{name} cannot be read", saw=saw, source=str(path), remedy=remedy)


def _refused(what: str, piece: Piece, name: str, remedy: str, *, saw: str = "") -> BuildError:
    return BuildError(
        f"{name}, line {piece.line}: {what}",
        saw=saw or piece.text.decode(errors="replace"),
        source=f"{name}:{piece.line}",
        remedy=remedy,
    )
