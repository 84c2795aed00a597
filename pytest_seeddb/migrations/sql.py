"""Plain SQL files: a directory of migrations, or one file of seeds."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import BuildError, ConfigError
from pytest_seeddb.fingerprint.digests import file_part, relative_name
from pytest_seeddb.migrations.sql_statements import Statement, statements
from pytest_seeddb.plan.ledger import read
from pytest_seeddb.plan.plan import Stage, Step
from pytest_seeddb.servers.database_errors import DatabaseError, database_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import psycopg

    from pytest_seeddb.plan.plan import Mark, Target

_LISTED: Final = 5
_DIGITS: Final = re.compile(r"(\d+)")
# dbmate's, goose's and sql-migrate's marks of what belongs to which direction.
_UP: Final = re.compile(
    r"^[ \t]*--[ \t]*(?:migrate:up|\+goose[ \t]+Up|\+migrate[ \t]+Up)\b(?P<rest>[^\n]*)$", re.MULTILINE | re.IGNORECASE
)
_DOWN: Final = re.compile(
    r"^[ \t]*--[ \t]*(?:migrate:down|\+goose[ \t]+Down|\+migrate[ \t]+Down)\b", re.MULTILINE | re.IGNORECASE
)
_ALONE: Final = re.compile(
    r"^[ \t]*--[ \t]*(?:migrate:up\b.*\btransaction:[ \t]*false|\+goose[ \t]+NO[ \t]+TRANSACTION"
    r"|\+migrate[ \t]+Up\b.*\bnotransaction)\b",
    re.MULTILINE | re.IGNORECASE,
)

# What PostgreSQL refuses inside a transaction (PreventInTransactionBlock in its source), by the
# statement's words, and the use of a new enum value before its transaction is committed.
_OUTSIDE: Final = re.compile(
    r"^(?:(?:CREATE|DROP|REINDEX)\b.*\bCONCURRENTLY\b|ALTER TABLE\b.*\bDETACH PARTITION\b.*\bCONCURRENTLY\b"
    r"|VACUUM\b|REINDEX (?:SCHEMA|DATABASE|SYSTEM)\b|CLUSTER(?: VERBOSE)?$|ALTER SYSTEM\b|ALTER TYPE\b.*\bADD VALUE\b"
    r"|(?:CREATE|DROP) (?:DATABASE|TABLESPACE|SUBSCRIPTION)\b|ALTER DATABASE\b.*\bTABLESPACE\b|ALTER SUBSCRIPTION\b"
    r"|(?:COMMIT|ROLLBACK) PREPARED\b)"
)
# The same as the server says it, for what words do not tell: a procedure that commits, and so on.
_REFUSED_INSIDE: Final = frozenset({"25001", "2D000", "55P04"})
_CONTROL: Final = re.compile(
    r"^(?:BEGIN|START TRANSACTION|COMMIT|END|ABORT|ROLLBACK(?! TO\b)(?!.* TO\b)|PREPARE TRANSACTION)\b"
)
_HARMLESS_META: Final = ("\\restrict", "\\unrestrict")  # pg_dump's, since the releases of August 2025


def stage(directory: Path, root: Path, *, source: str) -> Stage:
    """The ``migrations`` stage for a directory of ``*.sql`` files, one step for each.

    Files run in natural order (``V2`` before ``V10``); ``*.down.sql`` is ignored.

    Raises:
        ConfigError: The directory has no such file.
    """
    files = _files(directory)
    if not files:
        raise ConfigError(
            "The directory of migrations has no *.sql file",
            saw=f"{directory}: {_listed(directory)}",
            source=source,
            remedy=_empty_remedy(directory),
        )
    steps = tuple(
        Step(f"migration {relative_name(file, root)}", (file_part(file, root, source=source),)) for file in files
    )

    def run(target: Target, first: int) -> None:
        done = max(first, _applied(steps, target))
        for step, file in list(zip(steps, files, strict=True))[done:]:
            if target.marks.wants(step):
                target.started(step)
                run_sql_file(file, target, step)

    return Stage("migrations", steps, run)


def _applied(steps: Sequence[Step], target: Target) -> int:
    """How many of the steps the database has already, by its own ledger: a restored dump brings one along."""
    with _connected(target, autocommit=True) as connection:
        ledger = read(connection)
    return next((number for number, step in enumerate(steps) if not ledger.is_done(step)), len(steps))


def run_sql_file(path: Path, target: Target, step: Step | None = None) -> None:
    """Run an SQL file in a connection of its own and commit.

    It runs in one transaction; statement by statement where one of them cannot run in a
    transaction or the file begins and commits transactions itself. ``-- migrate:up`` sections
    (dbmate's, and goose's and sql-migrate's equivalents) are honoured, and so are the data of
    ``COPY ... FROM STDIN``. The step is noted as ``target.marks`` says, in the same transaction where
    there is one.

    Raises:
        BuildError: Names the file, the line, the statement, its SQLSTATE and the position. Without
            a transaction, what ran before it stays.
    """
    script = _Script.read(path, target)
    if script.statements and not script.runs_alone:
        try:
            _run_together(script, target, target.marks.mark(step) if step else None)
        except _Refused as refused:
            if not refused.may_run_alone:
                raise script.failure(refused) from refused.__cause__
        else:
            return
    with target.marks.around(step) if step else nullcontext():
        _run_alone(script, target)


class _Refused(Exception):  # noqa: N818 - it is caught in this module only
    """A statement failed in the server."""

    def __init__(self, statement: Statement, error: DatabaseError) -> None:
        self.statement = statement
        self.error = error
        super().__init__(error.message)

    @property
    def may_run_alone(self) -> bool:
        return self.error.sqlstate in _REFUSED_INSIDE


class _Unmarked(Exception):  # noqa: N818 - it is caught in this module only
    """The way down is marked and the way up is not, so that nobody can tell where the one ends."""

    def __init__(self, line: int, mark: str) -> None:
        self._line, self._mark = line, mark
        super().__init__(mark)

    def explained(self, name: str) -> BuildError:
        return BuildError(
            f"{name} marks what migrates downward, and not what migrates upward",
            saw=self._mark,
            source=f"{name}:{self._line}",
            remedy="begin the other part with the mark of the same tool, such as -- migrate:up",
        )


@dataclass(frozen=True)
class _Script:
    """A file's text and what of it is run."""

    name: str
    text: str
    statements: tuple[Statement, ...]
    runs_alone: bool

    @classmethod
    def read(cls, path: Path, target: Target) -> _Script:
        name = relative_name(path, target.root)
        text = _text(path, name)
        try:
            found = tuple(_section(text))
        except _Unmarked as unmarked:
            raise unmarked.explained(name) from None
        for each in found:
            if each.is_meta:
                raise _psql_only(name, text, each)
        alone = _ALONE.search(text) is not None or any(_is_alone(each) for each in found)
        return cls(name, text, found, alone)

    def failure(self, refused: _Refused) -> BuildError:
        error = refused.error
        line = refused.statement.line_in(self.text)
        before = refused.statement.text[: max(error.position - 1, 0)]
        return BuildError(
            f"{self.name}, line {line + before.count(chr(10))}: the statement failed",
            saw=DatabaseError(error.message, error.sqlstate, refused.statement.text, error.position).describe(),
            source=f"{self.name}:{line}",
            remedy=error.remedy() or "mend the statement",
        )


def _run_together(script: _Script, target: Target, mark: Mark | None) -> None:
    with _connected(target, autocommit=False) as connection:
        for each in script.statements:
            _run_one(connection, each)
        if mark:
            connection.execute("RESET ROLE")  # the file may have taken another, which may not write there
            connection.execute(mark.statement.encode(), mark.finished())
        try:
            connection.commit()
        except Exception as error:
            raise _refused(script.statements[-1], error) from error  # a deferred constraint


def _run_alone(script: _Script, target: Target) -> None:
    from psycopg.pq import TransactionStatus

    with _connected(target, autocommit=True) as connection:
        try:
            for each in script.statements:
                _run_one(connection, each)
        except _Refused as refused:
            raise script.failure(refused) from refused.__cause__
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            raise BuildError(
                f"{script.name} begins a transaction and does not end it",
                saw="the connection is left inside a transaction; its work would be lost",
                source=script.name,
                remedy="add COMMIT, or leave BEGIN out: each file runs in a transaction anyway",
            )


def _connected(target: Target, *, autocommit: bool) -> psycopg.Connection:
    import psycopg

    return psycopg.connect(target.address.conninfo, autocommit=autocommit, client_encoding="utf8")


def _run_one(connection: psycopg.Connection, statement: Statement) -> None:
    try:
        with connection.cursor() as cursor:
            if statement.data is None:
                cursor.execute(statement.text.encode())
                return
            with cursor.copy(statement.text.encode()) as copy:
                copy.write(statement.data)
    except Exception as error:
        raise _refused(statement, error) from error


def _refused(statement: Statement, error: Exception) -> _Refused:
    return _Refused(statement, database_error(error) or DatabaseError(str(error)))


def _is_alone(statement: Statement) -> bool:
    """Whether the statement cannot run inside a transaction of ours, or is one's beginning or end."""
    words = " ".join(statement.words)
    return bool(_OUTSIDE.match(words) or _CONTROL.match(words))


def _section(text: str) -> Iterable[Statement]:
    """The statements of the part that migrates upward: all of them where nothing is marked."""
    begin = _UP.search(text)
    if begin is None and (down := _DOWN.search(text)):
        raise _Unmarked(text.count("\n", 0, down.start()) + 1, down.group().strip())
    if begin is None:
        return [each for each in statements(text) if not _is_harmless(each)]
    start = begin.end()
    down = _DOWN.search(text, start)
    # Blanks keep each offset, and so each line number, as it is in the file.
    kept = " " * start + text[start : down.start() if down else len(text)]
    return [each for each in statements(kept) if not _is_harmless(each)]


def _is_harmless(statement: Statement) -> bool:
    return statement.is_meta and statement.text.startswith(_HARMLESS_META)


def _text(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(
            f"{name} cannot be read", saw=str(error), source=str(path), remedy="save it as UTF-8"
        ) from None


def _psql_only(name: str, text: str, statement: Statement) -> BuildError:
    line = statement.line_in(text)
    return BuildError(
        f"{name}, line {line}: {statement.text.split()[0]} is a command of psql's, not SQL",
        saw=statement.text,
        source=f"{name}:{line}",
        remedy='write it in SQL, or run the file with psql: {command = "psql -f ...", inputs = [...]}',
    )


def _files(directory: Path) -> list[Path]:
    """The files that migrate upward; those one level down where Prisma's or Diesel's layout is used."""
    found = [each for each in directory.glob("*.sql") if not each.name.endswith(".down.sql")]
    if not found:
        found = [*directory.glob("*/migration.sql"), *directory.glob("*/up.sql")]
    return sorted((each for each in found if not each.is_dir()), key=lambda each: _natural(each, directory))


def _natural(path: Path, directory: Path) -> tuple[bool, list[tuple[int, int, str]], str]:
    """Digits by value, other text by character; Flyway's repeatable ``R__`` files after all others."""
    name = path.relative_to(directory).as_posix()
    pieces = [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in _DIGITS.split(name) if piece]
    return name.startswith("R__"), pieces, name


def _listed(directory: Path) -> str:
    names = sorted(f"{each.name}/" if each.is_dir() else each.name for each in directory.iterdir())
    return ", ".join([*names[:_LISTED], *(["..."] if len(names) > _LISTED else [])]) or "nothing is in it"


def _empty_remedy(directory: Path) -> str:
    if (directory / "env.py").is_file():
        return "this is Alembic's script directory: name its alembic.ini instead"
    return "put the migrations there, or name their directory"
