"""Why a dump could not be restored, from what the programs said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import BuildError
from pytest_seeddb.servers.database_errors import DatabaseError, excerpt

if TYPE_CHECKING:
    from pytest_seeddb.dumps.script import Script, Unfit

_SAYS: Final = r"psql:<stdin>:(?P<line>\d+): "
_ERROR: Final = re.compile(rf"^{_SAYS}(?:ERROR|FATAL|PANIC|error):\s+(?P<text>.*)", re.MULTILINE | re.DOTALL)
_STATEMENT: Final = re.compile(rf"\n{_SAYS}STATEMENT:\s+(?P<text>.*)", re.DOTALL)
_STATE: Final = re.compile(r"(?P<state>[0-9A-Z]{5}): ")
_LOCATION: Final = re.compile(r"^LOCATION:.*\n?", re.MULTILINE)
_SHOWS_WHERE: Final = re.compile(r"^LINE \d+:", re.MULTILINE)
_COPY_LINE: Final = re.compile(r"^CONTEXT:\s+COPY .*?, line (?P<line>\d+)", re.MULTILINE)
_SHOWN_LINES: Final = 20


@dataclass(frozen=True)
class Failure:
    """What an error about a dump has to say, whatever went wrong.

    Attributes:
        name: The dump's name.
        source: Where that came from.
        script: What was read of it.
        is_text: Whether its lines are those of the file.
    """

    name: str
    source: str
    script: Script
    is_text: bool

    def place(self, line: int) -> str:
        """Where in the dump, for people."""
        return f"{self.name}, line {line}" if self.is_text else self.name

    @property
    def versions(self) -> str:
        """What the dump says of its making; empty where it says nothing."""
        said = self.script.versions
        made = [f"{what} {version}" for what, version in said.items()]
        return f"dumped {' '.join(made)}" if made else ""


def unfit(failure: Failure, error: Unfit) -> BuildError:
    """The script holds something that is not run."""
    return BuildError(
        f"{failure.place(error.line)}: {error.what[0].lower()}{error.what[1:]}",
        saw=error.saw,
        source=failure.source,
        remedy=error.remedy,
    )


def damaged(failure: Failure, said: str) -> BuildError:
    """The file cannot be read to its end."""
    return BuildError(
        f"The dump {failure.name} is damaged",
        saw=said,
        source=failure.source,
        remedy="make it again: seeddb dump, or pg_dump",
    )


def archive_failed(failure: Failure, said: str) -> BuildError:
    """``pg_restore`` could not read the archive."""
    if "unsupported version" in said:
        return BuildError(
            f"The dump {failure.name} is of a newer PostgreSQL than the pg_restore that was found",
            saw=said.strip(),
            source=failure.source,
            remedy="install the client programs of that version, or make the dump as text: pg_dump --format=plain",
        )
    return damaged(failure, said.strip() or "pg_restore said nothing")


def failed_statement(failure: Failure, said: str) -> BuildError:
    """``psql`` stopped at a statement."""
    found = _ERROR.search(said)
    if found is None:
        return BuildError(
            f"psql could not restore {failure.name}",
            saw="\n".join(said.strip().splitlines()[-_SHOWN_LINES:]) or "it said nothing",
            source=failure.source,
            remedy="run it by hand: psql -X -v ON_ERROR_STOP=1 -f FILE",
        )
    sent = _STATEMENT.search(found["text"])
    message = found["text"][: sent.start()] if sent else found["text"]
    statement = sent["text"].strip() if sent else ""
    error = _error(message, statement)
    line = _line(failure, int(found["line"]), message, statement)
    return BuildError(
        f"{failure.place(line)}: the statement failed",
        saw="\n".join(filter(None, (error.describe(), failure.versions))),
        source=f"{failure.name}:{line}, {failure.source}" if failure.is_text else failure.source,
        remedy=error.remedy("dump") or "correct the dump, or make it again",
    )


def _error(message: str, statement: str) -> DatabaseError:
    state = _STATE.match(message)
    text = _LOCATION.sub("", message[state.end() if state else 0 :])
    # What psql says after the server's error is about itself.
    lines = [each for each in text.strip().splitlines() if not each.startswith("psql:<stdin>:")]
    shown = "" if _SHOWS_WHERE.search(text) else excerpt(statement)
    return DatabaseError("\n".join(lines), state["state"] if state else "", shown)


def _line(failure: Failure, line: int, message: str, statement: str) -> int:
    """The line of the file: psql counts to the statement's end, and the server within the data of a COPY."""
    within = _COPY_LINE.search(message)
    for begin, end in failure.script.lexer.copies:
        if begin <= line and (not end or line <= end + 1):
            return begin + (int(within["line"]) if within else 0)
    return max(line - statement.count("\n"), 1)
