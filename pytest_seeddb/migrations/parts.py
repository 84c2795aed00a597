"""The part of an SQL file that migrates upward: what each tool's marks say, and marks that nobody knows."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.dumps.lexer import statements
from pytest_seeddb.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

HEAD_BYTES: Final = 1 << 16
"""What is read of a file to recognise its tool."""
_COMMENT: Final = re.compile(rb"--[^\n]*")


def _pattern(pattern: str) -> re.Pattern[bytes] | None:
    """Of a comment from its dashes on; a space stands for any blanks, a tilde for at least one."""
    return re.compile(b"--" + _spaced(pattern), re.IGNORECASE) if pattern else None


def _spaced(pattern: str) -> bytes:
    return pattern.replace(" ", r"[ \t]*").replace("~", r"[ \t]+").encode()


@dataclass(frozen=True)
class Marks:
    """One tool's marks in a file, each a comment on a line of its own."""

    up: re.Pattern[bytes] | None
    down: re.Pattern[bytes] | None
    alone: re.Pattern[bytes] | None
    """Of one that asks for no transaction."""
    refused: re.Pattern[bytes] | None
    """Of one that only the tool itself can follow."""
    recognition: bytes
    """The pattern of what follows the dashes in a file of this tool's."""


def _marks(up: str = "", down: str = "", *, alone: str = "", refused: str = "", recognition: str = "") -> Marks:
    seen = recognition or "|".join(filter(None, (up, down)))
    return Marks(_pattern(up), _pattern(down), _pattern(alone), _pattern(refused), _spaced(seen))


MARKS: Final[Mapping[str, Marks]] = {
    "dbmate": _marks(r" migrate:up\b", r" migrate:down\b", alone=r" migrate:up\b.*\btransaction: false\b"),
    "goose": _marks(
        r" \+goose~Up\b", r" \+goose~Down\b", alone=r" \+goose~NO~TRANSACTION\b", refused=r" \+goose~ENVSUB~ON\b"
    ),
    "sql-migrate": _marks(r" \+migrate~Up\b", r" \+migrate~Down\b", alone=r" \+migrate~Up\b.*\bnotransaction\b"),
    "aerich": _marks(r" upgrade --", r" downgrade --"),
    "pogo-migrate": _marks(r" migrate:~apply\b", r" migrate:~rollback\b", alone=r" transaction: false\b"),
    "tern": _marks(down=r"-- create above / drop below ----", alone=r"-- tern: disable-tx ----"),
    "node-pg-migrate": _marks(r"[\s-]*up~migration\b", r"[\s-]*down~migration\b"),
    # Their files hold one direction.
    "yoyo": _marks(alone=r" transactional: false\b", recognition=r" depends: \S"),
    "sqlx": _marks(alone=r" no-transaction\b"),
    "atlas": _marks(alone=r" atlas:txmode~none\b", refused=r" atlas:delimiter\b"),
    "liquibase": _marks(recognition=r" liquibase~formatted~sql\b"),
}
"""By the name of the tool."""
# Their tools refuse a file without marks.
_MUST_MARK: Final = {"dbmate": "-- migrate:up", "goose": "-- +goose Up", "sql-migrate": "-- +migrate Up"}
_TOLD: Final = {tool.replace("-", "_"): marks.recognition for tool, marks in MARKS.items() if marks.recognition}
# All of them at once: a group for each, behind the dashes that a search looks for first.
_RECOGNIZED: Final = re.compile(
    b"--(?:%b)" % b"|".join(b"(?P<%b>%b)" % (group.encode(), pattern) for group, pattern in _TOLD.items()),
    re.IGNORECASE,
)
_ANY: Final = re.compile(
    b"|".join(
        pattern.pattern
        for marks in MARKS.values()
        for pattern in (marks.up, marks.down, marks.alone, marks.refused)
        if pattern
    ),
    re.IGNORECASE,
)
# An author may have blanks. Liquibase stops at a line that looks like this and names no author or no id.
_CHANGESET: Final = re.compile(
    rb"^[ \t]*--[ \t]*changeset(?=\s)(?P<id>[ \t]+(?:\"[^\"\n]+\"|[^:\n]+):[ \t]*(?:\"[^\"\n]+\"|\S+))?"
    rb"(?P<attributes>[^\n]*)$",
    re.MULTILINE | re.IGNORECASE,
)
# Liquibase takes the lines out, wherever they stand.
_CHANGESET_BACK: Final = re.compile(
    rb"^[ \t]*--[ \t]*rollback\b[^\n]*|^[ \t]*/\*\s*liquibase\s+rollback\b.*?\*/",
    re.MULTILINE | re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE: Final = re.compile(rb"(\w+):(\"[^\"]*\"|'[^']*'|\S+)")
_ONLY_LIQUIBASE: Final = re.compile(
    rb"^[ \t]*--[ \t]*(?:precondition|ignoreLines|property|include)[^\n]*$", re.MULTILINE | re.IGNORECASE
)


def read_head(path: Path) -> bytes:
    """The beginning of a file, where its marks are; nothing where it cannot be read, which its reader tells."""
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return b""


def tools_in(head: bytes) -> frozenset[str]:
    """The tools whose marks are in the beginning of a file."""
    head = head.removeprefix(codecs.BOM_UTF8)
    return frozenset(
        mark.lastgroup.replace("_", "-")
        for mark in _RECOGNIZED.finditer(head)
        if mark.lastgroup and not head[head.rfind(b"\n", 0, mark.start()) + 1 : mark.start()].strip()
    )


@dataclass(frozen=True)
class Part:
    """A part of a script to run, and the number of lines before it."""

    text: bytes
    before: int


def upward(script: bytes, name: str, format_: str = "", *, is_included: bool = False) -> tuple[list[Part], bool]:
    """The parts of a script that migrate upward, all of it where nothing is marked; and whether it wants a transaction.

    Raises `BuildError` where the marks are of several tools, where a statement has none, or where the tool itself is
    needed.
    """
    if "liquibase" in tools_in(script[:HEAD_BYTES]):
        return _changesets(script, name)
    found: list[tuple[str, Mark]] = []
    has_transaction = True
    for comment in _comments(script):
        line = comment.group()
        for tool, marks in MARKS.items() if _ANY.match(line) else ():
            if marks.refused and marks.refused.match(line):
                raise _only_the_tool(tool, name, _line(script, comment.start()), line)
            has_transaction &= not (marks.alone and marks.alone.match(line))
            if (is_up := bool(marks.up and marks.up.match(line))) or (marks.down and marks.down.match(line)):
                found.append((tool, Mark(comment.start(), comment.end(), is_up, line.strip())))
    tools = dict(reversed(found))
    if len(tools) > 1:
        raise BuildError(
            f"{name} contains the marks of several migration tools",
            saw="\n".join(f"line {_line(script, mark.start)}: {mark.text.decode()}" for mark in tools.values()),
            source=name,
            remedy="keep those of one tool",
        )
    tool = next(iter(tools), format_)
    if tool == "tern" and (at := script.find(b"{{")) >= 0:
        raise _only_the_tool(tool, name, _line(script, at), script[at : at + 40].partition(b"\n")[0])
    if not found and tool in _MUST_MARK and not is_included and (lost := statements(script)):
        raise BuildError(
            f"{name} has no {_MUST_MARK[tool]}",
            saw=_first_line(lost[0].text),
            source=f"{name}:{lost[0].line}",
            remedy=f"write it above the statements: {tool} does not run a file without it. If no tool runs these "
            'files, set migrations = {directory = "...", format = "plain"}',
        )
    return list(_parts(script, name, [mark for _, mark in found], begins_upward=tool == "tern")), has_transaction


@dataclass(frozen=True)
class Mark:
    """A mark in a script: where its comment begins and ends, and which direction it begins."""

    start: int
    end: int
    is_up: bool
    text: bytes


def _comments(script: bytes) -> Iterator[re.Match[bytes]]:
    """The comments on lines of their own."""
    for comment in _COMMENT.finditer(script):
        if not script[script.rfind(b"\n", 0, comment.start()) + 1 : comment.start()].strip():
            yield comment


def _parts(script: bytes, name: str, marks: Sequence[Mark], *, begins_upward: bool) -> Iterator[Part]:
    if marks and not marks[0].is_up and not begins_upward:
        raise BuildError(
            f"{name} marks a down migration, but no up migration",
            saw=marks[0].text.decode(errors="replace"),
            source=f"{name}:{_line(script, marks[0].start)}",
            remedy="mark the start of the up migration as the same tool does, for example -- migrate:up",
        )
    if marks and not begins_upward:
        _check_before(script[: marks[0].start], name, marks[0].text)
    starts = [0] if begins_upward or not marks else []
    for mark in marks:
        if starts:
            yield Part(script[starts[0] : mark.start], script.count(b"\n", 0, starts[0]))
        starts = [mark.end] if mark.is_up else []
    if starts:
        yield Part(script[starts[0] :], script.count(b"\n", 0, starts[0]))


def _check_before(script: bytes, name: str, mark: bytes) -> None:
    """Raise `BuildError` where a statement stands before the first mark, so that no tool would run it."""
    if lost := statements(script):
        text = mark.strip().decode(errors="replace")
        raise BuildError(
            f"{name}, line {lost[0].line}: this statement would not run, because it stands before the first mark",
            saw=_first_line(lost[0].text),
            source=f"{name}:{lost[0].line}",
            remedy=f"move it below the line {text!r}",
        )


def _first_line(text: bytes) -> str:
    return text.partition(b"\n")[0].strip().decode(errors="replace")


def _line(script: bytes, at: int) -> int:
    return script.count(b"\n", 0, at) + 1


def _only_the_tool(tool: str, name: str, line: int, saw: bytes) -> BuildError:
    return BuildError(
        f"{name}, line {line}: only {tool} itself can run this file",
        saw=saw.strip().decode(errors="replace"),
        source=f"{name}:{line}",
        remedy='write it without, or run the tool: {command = "...", inputs = [...]}',
    )


def _changesets(script: bytes, name: str) -> tuple[list[Part], bool]:
    """The changesets of Liquibase's formatted SQL that are for PostgreSQL."""
    script = _CHANGESET_BACK.sub(lambda back: b"\n" * back.group().count(b"\n"), script)
    sets = list(_CHANGESET.finditer(script))
    parts, has_transaction = [], True
    refused = _ONLY_LIQUIBASE.search(script)
    for change in sets:
        if change["id"] is None:
            raise BuildError(
                f"{name}, line {_line(script, change.start())}: the changeset has no author and id",
                saw=change.group().strip().decode(errors="replace"),
                source=f"{name}:{_line(script, change.start())}",
                remedy="write --changeset AUTHOR:ID. If the line is a comment, begin it with another word",
            )
    _check_before(script[: sets[0].start() if sets else None], name, b"--changeset AUTHOR:ID")
    ends = [*(change.start() for change in sets[1:]), len(script)]
    for change, end in zip(sets, ends, strict=False):
        attributes = {
            key.decode().lower(): value.strip(b"\"'").decode(errors="replace").lower()
            for key, value in _ATTRIBUTE.findall(change["attributes"])
        }
        if {"enddelimiter", "runorder"} & attributes.keys() and attributes.get("enddelimiter") != ";":
            refused = refused or change
        dbms = [word.strip() for word in attributes.get("dbms", "").split(",") if word.strip()]
        is_meant = not dbms or bool({"postgresql", "all"} & set(dbms))
        is_meant |= bool(dbms) and all(word.startswith("!") and word != "!postgresql" for word in dbms)
        has_transaction &= attributes.get("runintransaction") != "false"
        if is_meant and attributes.get("ignore") != "true":
            parts.append(Part(script[change.end() : end], script.count(b"\n", 0, change.end())))
    if refused:
        raise _only_the_tool("Liquibase", name, _line(script, refused.start()), refused.group())
    return parts, has_transaction


PLACEHOLDER: Final = re.compile(rb"\$\{([\w:.\-]+)\}")
"""A placeholder in the formats that have them."""


def replaced(script: bytes, values: Mapping[str, str], name: str) -> bytes:
    """The script with the values of its placeholders; raises `BuildError` where one has none."""
    known = {key.lower(): value for key, value in values.items()}

    def value(match: re.Match[bytes]) -> bytes:
        key = match[1].decode()
        if key.lower() not in known:
            raise BuildError(
                f"{name}, line {_line(script, match.start())}: the placeholder {match.group().decode()} has no value",
                saw=f"placeholders: {', '.join(sorted(values)) or 'none'}",
                source=name,
                remedy=f'give it a value: migrations = {{directory = "...", placeholders = {{"{key}" = "..."}}}}; '
                "placeholders = false leaves all placeholders as they are",
            )
        return known[key.lower()].encode()

    return PLACEHOLDER.sub(value, script)
