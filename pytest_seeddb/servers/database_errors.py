"""What a database error says, whichever driver it came through."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.servers.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE_WIDTH: Final = 100
_LINES_AROUND: Final = 3
_SHOWN_LINES: Final = 20

_THERE_ALREADY: Final = (
    "mend the statement: what it makes is there already. An earlier step made it, or the `dump`: which migrations "
    "that one holds is known only of dumps that `seeddb dump` made, or that bring the tool's own table along"
)
_REMEDIES: Final = {
    "25001": "run it outside a transaction: op.get_context().autocommit_block() in Alembic, "
    "`-- migrate:up transaction:false` in an SQL file",
    "42501": "grant the role what it lacks, or name a server where it may do this",
    "42601": "mend the SQL at the position shown",
    "42704": "create the type or role first, or add its extension to the setting `extensions`",
    "42883": "create the function first, or add its extension to the setting `extensions`",
    "42701": _THERE_ALREADY,
    "42710": _THERE_ALREADY,
    "42723": _THERE_ALREADY,
    "42P06": _THERE_ALREADY,
    "42P07": _THERE_ALREADY,
    "42P01": "create the table in an earlier step, or mend its name or the search_path",
    "0A000": "the server's version or build lacks this; name another server",
    "58P01": "the extension is not installed on this server: install its package, or name another server",
    "53100": "free space on the server's disk",
}
_EXTENSION_MISSING: Final = "0A000"


@dataclass(frozen=True)
class DatabaseError:
    """A server's error, taken apart.

    Attributes:
        message: The server's own words, with detail and hint.
        sqlstate: Five characters; empty where the error did not come from the server.
        statement: The SQL that failed, as it was sent; empty where nobody knows it.
        position: The character in the statement, counted from 1; 0 where the server gave none.
    """

    message: str
    sqlstate: str = ""
    statement: str = ""
    position: int = 0

    def shown(self) -> str:
        """All of it for people, with a caret below the position."""
        state = f" (SQLSTATE {self.sqlstate})" if self.sqlstate else ""
        first, *further = self.message.split("\n")
        lines = [first + state, *further]
        if self.statement.strip():
            lines.append(textwrap.indent(excerpt(self.statement, self.position), "    "))
        return "\n".join(lines)

    @property
    def remedy(self) -> str:
        """What to do about it, where the SQLSTATE tells; else nothing."""
        if self.sqlstate == _EXTENSION_MISSING and "extension" in self.message:
            return _REMEDIES["58P01"]
        return refusal(self.message) or _REMEDIES.get(self.sqlstate, "")


def seen(error: BaseException, printed: str) -> str:
    """What went wrong, and the last lines that were printed before."""
    found = database_error(error)
    saw = found.shown() if found else f"{type(error).__name__}: {error}".removesuffix(": ")
    shown = "\n".join(printed.splitlines()[-_SHOWN_LINES:])
    return saw + (f"\n\nprinted before:\n{shown}" if shown.strip() else "")


def database_error(error: BaseException) -> DatabaseError | None:
    """The database error that ``error`` is, wraps, or was raised from; ``None`` for anything else.

    Knows SQLAlchemy's wrapper and the errors of psycopg, psycopg2, asyncpg and pg8000.
    """
    statement = ""
    for each in _chain(error):
        statement = statement or str(getattr(each, "statement", None) or "")
        found = _of_driver(each)
        if found is not None:
            return DatabaseError(found.message, found.sqlstate, statement, found.position)
    return None


def excerpt(statement: str, position: int = 0) -> str:
    """The lines around the position, with a caret below it; the first lines where there is none."""
    lines = statement.expandtabs(1).splitlines()
    before = statement[: max(position - 1, 0)].expandtabs(1)
    at, column = before.count("\n"), len(before) - (before.rfind("\n") + 1)
    start = max(at - _LINES_AROUND, 0) if position else 0
    end = min(len(lines), at + 1 + (_LINES_AROUND if position else 2 * _LINES_AROUND))
    shown = [f"... ({start} lines before)"] if start else []
    for number in range(start, end):
        shift = max(column - _LINE_WIDTH * 3 // 4, 0) if number == at else 0
        shown.append(_shortened(lines[number], shift))
        if position and number == at:
            shown.append(" " * (column - shift + (3 if shift else 0)) + "^")
    return "\n".join(shown + ([f"... ({len(lines) - end} more lines)"] if end < len(lines) else []))


def _shortened(line: str, shift: int) -> str:
    shown = line[shift : shift + _LINE_WIDTH]
    return ("..." if shift else "") + shown + ("..." if shift + _LINE_WIDTH < len(line) else "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it wraps and what it was raised from, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        further = (getattr(each, "orig", None), each.__cause__)
        waiting += [one for one in further if isinstance(one, BaseException)]


def _of_driver(error: BaseException) -> DatabaseError | None:
    package = type(error).__module__.partition(".")[0]
    if package in {"psycopg", "psycopg2"}:
        return _of_libpq(error)
    if package == "asyncpg":
        return _of_asyncpg(error)
    if package == "pg8000":
        return _of_pg8000(error)
    return None


def _of_libpq(error: Any) -> DatabaseError:  # noqa: ANN401 - psycopg's or psycopg2's
    diagnostics: Any = getattr(error, "diag", None)
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""
    primary = getattr(diagnostics, "message_primary", None)
    if primary is None:
        return DatabaseError(str(error).strip(), state)
    return DatabaseError(
        _message(primary, diagnostics.message_detail, diagnostics.message_hint, diagnostics.context),
        state,
        position=int(diagnostics.statement_position or 0),
    )


def _of_asyncpg(error: Any) -> DatabaseError:  # noqa: ANN401 - a subclass of asyncpg.PostgresError
    message = getattr(error, "message", None) or str(error)
    further = (getattr(error, key, None) for key in ("detail", "hint", "context"))
    position = int(getattr(error, "position", None) or 0)
    return DatabaseError(_message(message, *further), getattr(error, "sqlstate", None) or "", position=position)


def _of_pg8000(error: Any) -> DatabaseError:  # noqa: ANN401 - pg8000 gives the protocol's fields
    fields = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    if not fields:
        return DatabaseError(str(error))
    message = _message(fields.get("M", ""), fields.get("D"), fields.get("H"), fields.get("W"))
    return DatabaseError(message, fields.get("C", ""), position=int(fields.get("P", 0)))


def _message(primary: str, detail: str | None = None, hint: str | None = None, context: str | None = None) -> str:
    further = (("DETAIL", detail), ("HINT", hint), ("CONTEXT", context))
    return "\n".join([primary, *(f"{label}: {text}" for label, text in further if text)])
