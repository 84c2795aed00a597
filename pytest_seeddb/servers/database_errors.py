"""What a database error says, whichever driver it came through."""

from __future__ import annotations

import textwrap
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers import remedies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.servers.address import Address

_LINE_WIDTH: Final = 100
_LINES_AROUND: Final = 3
_PRINTED_LINES: Final = 20


@dataclass(frozen=True)
class DatabaseError:
    """A server's error: its words with detail and hint, and, where they are known, its statement and the position."""

    message: str
    sqlstate: str = ""
    statement: str = ""
    position: int = 0  # from 1

    def describe(self) -> str:
        """All of it for people, with a caret below the position."""
        state = f" (SQLSTATE {self.sqlstate})" if self.sqlstate else ""
        first, *further = self.message.split("\n")
        lines = [first + state, *further]
        if self.statement.strip():
            lines.append(textwrap.indent(excerpt(self.statement, self.position), "    "))
        return "\n".join(lines)

    def remedy(self, task: remedies.Task = "step") -> str:
        """What to do about it; empty where that is not known."""
        return remedies.remedy(self.message, self.sqlstate, task)


@contextmanager
def server_errors(
    what: str, address: Address, *, needed: str = "CREATEDB is needed, superuser is not"
) -> Iterator[None]:
    """Turn an error of the server inside the block into a `ServerError`.

    Args:
        what: What failed, as the first line of the error: "The clone could not be made".
        address: Where; it is shown without its password.
        needed: Which rights it takes, for a role that lacks some.
    """
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        words, state = str(error), error.sqlstate or ""
        if state == "42501":
            remedy = f"grant the missing privilege to the role; {needed}"
        else:
            remedy = "" if state else remedies.connection_remedy(words)
            remedy = remedy or remedies.remedy(words, state or "08", "admin")
        raise ServerError(
            what,
            saw=words.strip() + (f" (SQLSTATE {state})" if state else ""),
            source=address.masked,
            remedy=remedy or "read the server's message; its log may say more",
        ) from error


def describe_failure(error: BaseException, printed: str = "") -> str:
    """What went wrong, and the last lines that were printed before."""
    cause = database_error(error)
    saw = cause.describe() if cause else f"{type(error).__name__}: {error}".removesuffix(": ")
    last = "\n".join(printed.splitlines()[-_PRINTED_LINES:])
    return saw + (f"\n\nprinted before:\n{last}" if last.strip() else "")


def failure_remedy(error: BaseException, task: remedies.Task = "step") -> str:
    """What to do about it; empty where it is no database error, or that is not known."""
    cause = database_error(error)
    return cause.remedy(task) if cause else ""


def database_error(error: BaseException) -> DatabaseError | None:
    """The database error that ``error`` is, wraps, or was raised from; ``None`` for anything else.

    Knows SQLAlchemy's wrapper and the errors of psycopg, psycopg2, asyncpg and pg8000.
    """
    statement = ""
    waiting, visited = [error], set[int]()
    while waiting:
        link = waiting.pop(0)
        if id(link) in visited:
            continue
        visited.add(id(link))
        statement = statement or str(getattr(link, "statement", None) or "")
        reader = _READERS.get(type(link).__module__.partition(".")[0])
        if reader is not None:
            return replace(reader(link), statement=statement)
        causes = (getattr(link, "orig", None), link.__cause__)
        waiting += [cause for cause in causes if isinstance(cause, BaseException)]
    return None


def excerpt(statement: str, position: int = 0) -> str:
    """The lines around the position, with a caret below it; the first lines where there is none."""
    lines = statement.expandtabs(1).splitlines()
    before = statement[: max(position - 1, 0)].expandtabs(1)
    at, column = before.count("\n"), len(before) - (before.rfind("\n") + 1)
    start = max(at - _LINES_AROUND, 0) if position else 0
    end = min(len(lines), at + 1 + (_LINES_AROUND if position else 2 * _LINES_AROUND))
    excerpted = [f"... ({start} lines before)"] if start else []
    for number in range(start, end):
        line = lines[number]
        shift = max(column - _LINE_WIDTH * 3 // 4, 0) if number == at else 0
        cut = "..." if shift + _LINE_WIDTH < len(line) else ""
        excerpted.append(("..." if shift else "") + line[shift : shift + _LINE_WIDTH] + cut)
        if position and number == at:
            excerpted.append(" " * (column - shift + (3 if shift else 0)) + "^")
    return "\n".join(excerpted + ([f"... ({len(lines) - end} more lines)"] if end < len(lines) else []))


def _read_libpq(error: Any) -> DatabaseError:  # noqa: ANN401 - psycopg's or psycopg2's
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


def _read_asyncpg(error: Any) -> DatabaseError:  # noqa: ANN401 - a subclass of asyncpg.PostgresError
    message = getattr(error, "message", None) or str(error)
    further = (getattr(error, key, None) for key in ("detail", "hint", "context"))
    position = int(getattr(error, "position", None) or 0)
    return DatabaseError(_message(message, *further), getattr(error, "sqlstate", None) or "", position=position)


def _read_pg8000(error: Any) -> DatabaseError:  # noqa: ANN401 - pg8000 gives the protocol's fields
    fields = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    if not fields:
        return DatabaseError(str(error))
    message = _message(fields.get("M", ""), fields.get("D"), fields.get("H"), fields.get("W"))
    return DatabaseError(message, fields.get("C", ""), position=int(fields.get("P", 0)))


_READERS: Final = {"psycopg": _read_libpq, "psycopg2": _read_libpq, "asyncpg": _read_asyncpg, "pg8000": _read_pg8000}


def _message(primary: str, detail: str | None = None, hint: str | None = None, context: str | None = None) -> str:
    further = (("DETAIL", detail), ("HINT", hint), ("CONTEXT", context))
    return "\n".join([primary, *(f"{label}: {text}" for label, text in further if text)])
