"""Why a dump could not be restored, from the programs' messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.dumps.formats import AGAIN
from pytest_seeddb.errors import BuildError
from pytest_seeddb.servers.database_errors import DatabaseError, excerpt

if TYPE_CHECKING:
    from pytest_seeddb.dumps.script import Script, Unfit

_PREFIX: Final = r"psql:<stdin>:(?P<line>\d+): "
_ERROR: Final = re.compile(rf"^{_PREFIX}(?:ERROR|FATAL|PANIC|error):\s+(?P<text>.*)", re.MULTILINE | re.DOTALL)
_STATEMENT: Final = re.compile(rf"\n{_PREFIX}STATEMENT:\s+(?P<text>.*)", re.DOTALL)
_STATE: Final = re.compile(r"(?P<state>[0-9A-Z]{5}): ")
_LOCATION: Final = re.compile(r"^LOCATION:.*\n?", re.MULTILINE)
_SHOWS_WHERE: Final = re.compile(r"^LINE \d+:", re.MULTILINE)
_COPY_LINE: Final = re.compile(r"^CONTEXT:\s+COPY .*?, line (?P<line>\d+)", re.MULTILINE)
_LAST_LINES: Final = 20


@dataclass(frozen=True)
class Failure:
    """Makes the errors about one dump; ``is_text`` where the script's lines are those of the file."""

    name: str
    source: str
    script: Script
    is_text: bool

    def unfit(self, error: Unfit) -> BuildError:
        """The script has something that is not run."""
        what = f"{self._place(error.line)}: {error.what[0].lower()}{error.what[1:]}"
        return BuildError(what, saw=error.saw, source=self.source, remedy=error.remedy)

    def damage(self, message: str) -> BuildError:
        """The file cannot be read to its end."""
        return BuildError(f"The dump {self.name} is damaged", saw=message, source=self.source, remedy=AGAIN)

    def archive(self, message: str) -> BuildError:
        """``pg_restore`` could not read the archive."""
        if "unsupported version" not in message:
            return self.damage(message.strip() or "pg_restore said nothing")
        return BuildError(
            f"The dump {self.name} was made by a newer PostgreSQL than this machine's pg_restore",
            saw=message.strip(),
            source=self.source,
            remedy="install the client programs of that version, or make the dump as text: pg_dump --format=plain",
        )

    def statement(self, messages: str) -> BuildError:
        """``psql`` stopped at a statement."""
        stop = _ERROR.search(messages)
        if stop is None:
            return BuildError(
                f"psql could not restore {self.name}",
                saw="\n".join(messages.strip().splitlines()[-_LAST_LINES:]) or "it said nothing",
                source=self.source,
                remedy="run it by hand: psql -X -v ON_ERROR_STOP=1 -f FILE",
            )
        sent = _STATEMENT.search(stop["text"])
        message = stop["text"][: sent.start()] if sent else stop["text"]
        statement = sent["text"].strip() if sent else ""
        state = _STATE.match(message)
        text = _LOCATION.sub("", message[state.end() if state else 0 :])
        # psql's lines after the server's error are about itself.
        lines = [line for line in text.strip().splitlines() if not line.startswith("psql:<stdin>:")]
        shown = "" if _SHOWS_WHERE.search(text) else excerpt(statement)
        error = DatabaseError("\n".join(lines), state["state"] if state else "", shown)
        line = self._line(int(stop["line"]), message, statement)
        versions = " ".join(f"{what} {version}" for what, version in self.script.versions.items())
        return BuildError(
            f"{self._place(line)}: the statement failed",
            saw=error.describe() + (f"\ndumped {versions}" if versions else ""),
            source=f"{self.name}:{line}, {self.source}" if self.is_text else self.source,
            remedy=error.remedy("dump") or "correct the dump, or make it again",
        )

    def _place(self, line: int) -> str:
        return f"{self.name}, line {line}" if self.is_text else self.name

    def _line(self, line: int, message: str, statement: str) -> int:
        """The line of the file: psql counts to the statement's end, and the server within the data of a COPY."""
        within = _COPY_LINE.search(message)
        for begin, end in self.script.lexer.copies:
            if begin <= line and (not end or line <= end + 1):
                return begin + (int(within["line"]) if within else 0)
        return max(line - statement.count("\n"), 1)
