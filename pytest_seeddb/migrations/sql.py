"""Plain SQL files: a directory of migrations, or one file of seeds."""

from __future__ import annotations

import codecs
import re
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pytest_seeddb.dumps.lexer import Piece, statements
from pytest_seeddb.errors import BuildError, ConfigError
from pytest_seeddb.fingerprint.digests import file_part, relative_name
from pytest_seeddb.plan.ledger import read
from pytest_seeddb.plan.plan import Step
from pytest_seeddb.servers.database_errors import DatabaseError, database_error

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from pytest_seeddb.plan.plan import Mark, Target, Work

_LISTED: Final = 5
_DIGITS: Final = re.compile(r"(\d+)")
# dbmate's, goose's and sql-migrate's marks of what belongs to which direction.
_UP: Final = re.compile(
    rb"^[ \t]*--[ \t]*(?:migrate:up|\+goose[ \t]+Up|\+migrate[ \t]+Up)\b(?P<rest>[^\n]*)$", re.MULTILINE | re.IGNORECASE
)
_DOWN: Final = re.compile(
    rb"^[ \t]*--[ \t]*(?:migrate:down|\+goose[ \t]+Down|\+migrate[ \t]+Down)\b", re.MULTILINE | re.IGNORECASE
)
_ALONE: Final = re.compile(
    rb"^[ \t]*--[ \t]*(?:migrate:up\b.*\btransaction:[ \t]*false|\+goose[ \t]+NO[ \t]+TRANSACTION"
    rb"|\+migrate[ \t]+Up\b.*\bnotransaction)\b",
    re.MULTILINE | re.IGNORECASE,
)

# What PostgreSQL refuses inside a transaction (PreventInTransactionBlock in its source), by the
# statement's words, and the use of a new enum value before its transaction is committed.
_OUTSIDE: Final = re.compile(
    r"^(?:(?:CREATE|DROP|REINDEX)\b.*\bCONCURRENTLY\b|ALTER TABLE\b.*\bDETACH PARTITION\b.*\bCONCURRENTLY\b"
    r"|VACUUM\b|REINDEX (?:SCHEMA|DATABASE|SYSTEM)\b|CLUSTER(?: VERBOSE)?$|ALTER SYSTEM\b|ALTER TYPE\b.*\bADD VALUE\b"
    r"|(?:CREATE|DROP) (?:DATABASE|TABLESPACE|SUBSCRIPTION)\b|ALTER DATABASE\b.*\bTABLESPACE\b|ALTER SUBSCRIPTION\b"
    r"|(?:COMMIT|ROLLBACK) PREPARED\b"
    # The file's own transactions.
    r"|(?:BEGIN|START TRANSACTION|COMMIT|END|ABORT|ROLLBACK(?! TO\b)(?!.* TO\b)|PREPARE TRANSACTION)\b)"
)
# The same as the server says it, for what words do not tell: a procedure that commits, and so on.
_REFUSED_INSIDE: Final = frozenset({"25001", "2D000", "55P04"})
_HARMLESS_COMMANDS: Final = (b"\\restrict", b"\\unrestrict")  # pg_dump's, since the releases of August 2025


def read_steps(directory: Path, root: Path, *, source: str) -> Work:
    """A step for each ``*.sql`` file of a directory, in natural order (``V2`` before ``V10``); raises `ConfigError`."""
    paths = _files(directory)
    if not paths:
        names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in directory.iterdir())
        contents = ", ".join([*names[:_LISTED], *(["..."] if len(names) > _LISTED else [])])
        is_alembic = (directory / "env.py").is_file()
        other = "this is Alembic's script directory: name its alembic.ini instead"
        raise ConfigError(
            "The directory of migrations has no *.sql file",
            saw=f"{directory}: {contents or 'nothing is in it'}",
            source=source,
            remedy=other if is_alembic else "put the migrations there, or name their directory",
        )
    parts = (file_part(path, root, source=source) for path in paths)
    steps = tuple(Step(f"migration {part.name}", (part,)) for part in parts)

    def run(target: Target, first: int) -> None:
        with _connect(target, autocommit=True) as connection:
            ledger = read(connection)  # a restored dump brings one along
        pending = (number for number, step in enumerate(steps) if not ledger.is_done(step, target.root))
        for step, path in list(zip(steps, paths, strict=True))[max(first, next(pending, len(steps))) :]:
            if target.marks.wants(step):
                target.started(step)
                run_sql_file(path, target, step)

    return steps, run


def _files(directory: Path) -> list[Path]:
    """The files that migrate upward; those one level down where Prisma's or Diesel's layout is used."""
    paths = [path for path in directory.glob("*.sql") if not path.name.endswith(".down.sql")]
    paths = paths or [*directory.glob("*/migration.sql"), *directory.glob("*/up.sql")]

    def natural(path: Path) -> tuple[bool, list[tuple[int, int, str]], str]:
        """Digits by value, other text by character; Flyway's repeatable ``R__`` files after all others."""
        name = path.relative_to(directory).as_posix()
        pieces = [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in _DIGITS.split(name) if piece]
        return name.startswith("R__"), pieces, name

    return sorted((path for path in paths if not path.is_dir()), key=natural)


def run_sql_file(path: Path, target: Target, step: Step | None = None) -> None:
    """Run an SQL file in a connection of its own and commit; raises `BuildError`, which names the line.

    It runs in one transaction, with the step's mark in it; statement by statement where one cannot run in a
    transaction, or the file has transactions of its own. Then after a failure, what ran before stays.
    """
    script = _Script.read(path, relative_name(path, target.root))
    if script.statements and not script.runs_alone:
        try:
            script.run_together(target, target.marks.mark(step) if step else None)
        except _Refused as refused:
            if refused.error.sqlstate not in _REFUSED_INSIDE:
                raise script.failure(refused) from refused.__cause__
        else:
            return
    with target.marks.around(step) if step else nullcontext():
        script.run_alone(target)


class _Refused(Exception):  # noqa: N818 - it is caught in this module only
    def __init__(self, statement: Piece, error: Exception) -> None:
        self.statement = statement
        self.error = database_error(error) or DatabaseError(str(error))
        super().__init__(self.error.message)


@dataclass(frozen=True)
class _Script:
    """A file's statements that migrate upward."""

    name: str
    statements: tuple[Piece, ...]
    runs_alone: bool

    @classmethod
    def read(cls, path: Path, name: str) -> _Script:
        try:
            content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
            content.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise BuildError(
                f"{name} cannot be read", saw=str(error), source=str(path), remedy="save it as UTF-8"
            ) from None
        part, before = _upward(content, name)
        script = tuple(
            statement._replace(line=before + statement.line)
            for statement in statements(part)
            if not (statement.kind == "command" and statement.text.startswith(_HARMLESS_COMMANDS))
        )
        for statement in script:
            if statement.kind == "command":
                raise BuildError(
                    f"{name}, line {statement.line}: {statement.text.split()[0].decode()} is a psql command, not SQL",
                    saw=statement.text.decode(),
                    source=f"{name}:{statement.line}",
                    remedy='write it in SQL, or run the file with psql: {command = "psql -f ...", inputs = [...]}',
                )
        lines = (" ".join(statement.words) for statement in script)
        alone = _ALONE.search(content) is not None or any(_OUTSIDE.match(words) for words in lines)
        return cls(name, script, alone)

    def run_together(self, target: Target, mark: Mark | None) -> None:
        """Run in one transaction, with the step's mark."""
        with _connect(target, autocommit=False) as connection:
            for statement in self.statements:
                _run(connection, statement)
            if mark:
                connection.execute("RESET ROLE")  # the file may have taken another, which may not write there
                connection.execute(mark.statement.encode(), mark.finished())
            try:
                connection.commit()
            except Exception as error:
                raise _Refused(self.statements[-1], error) from error  # a deferred constraint

    def run_alone(self, target: Target) -> None:
        """Run each statement in a transaction of its own, or in those of the file."""
        from psycopg.pq import TransactionStatus

        with _connect(target, autocommit=True) as connection:
            try:
                for statement in self.statements:
                    _run(connection, statement)
            except _Refused as refused:
                raise self.failure(refused) from refused.__cause__
            if connection.info.transaction_status is not TransactionStatus.IDLE:
                raise BuildError(
                    f"{self.name} begins a transaction and does not end it",
                    saw="the connection is left inside a transaction; its work would be lost",
                    source=self.name,
                    remedy="add COMMIT, or leave BEGIN out: each file runs in a transaction anyway",
                )

    def failure(self, refused: _Refused) -> BuildError:
        error, line, text = refused.error, refused.statement.line, refused.statement.text.decode()
        lines_before = text[: max(error.position - 1, 0)].count("\n")
        return BuildError(
            f"{self.name}, line {line + lines_before}: the statement failed",
            saw=replace(error, statement=text).describe(),
            source=f"{self.name}:{line}",
            remedy=error.remedy() or "correct the statement",
        )


def _upward(script: bytes, name: str) -> tuple[bytes, int]:
    """The part of a script that migrates upward, all of it where nothing is marked; and the number of lines before."""
    up = _UP.search(script)
    down = _DOWN.search(script, up.end() if up else 0)
    if down and not up:
        line = script.count(b"\n", 0, down.start()) + 1
        raise BuildError(
            f"{name} marks what migrates downward, and not what migrates upward",
            saw=down.group().strip().decode(),
            source=f"{name}:{line}",
            remedy="begin the other part with the mark of the same tool, such as -- migrate:up",
        )
    start = up.end() if up else 0
    return script[start : down.start() if down else len(script)], script.count(b"\n", 0, start)


def _connect(target: Target, *, autocommit: bool) -> psycopg.Connection:
    import psycopg

    return psycopg.connect(target.address.conninfo, autocommit=autocommit, client_encoding="utf8")


def _run(connection: psycopg.Connection, statement: Piece) -> None:
    try:
        with connection.cursor() as cursor:
            if statement.data is None:
                cursor.execute(statement.text)
                return
            with cursor.copy(statement.text) as copy:
                copy.write(statement.data)
    except Exception as error:
        raise _Refused(statement, error) from error
