"""SQL files: a directory of migrations in any tool's format, one file of them, or one of seeds."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import BuildError, conceal, names_a_secret
from pytest_seeddb.fingerprint.digests import file_part, relative_name
from pytest_seeddb.migrations.formats import PLAIN, Directory
from pytest_seeddb.migrations.parts import HEAD_BYTES
from pytest_seeddb.migrations.script import Reading, read_script, script_parts
from pytest_seeddb.plan.ledger import read
from pytest_seeddb.plan.plan import Note, Step, Work
from pytest_seeddb.servers.database_errors import DatabaseError, database_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import psycopg

    from pytest_seeddb.migrations.script import Statement
    from pytest_seeddb.plan.plan import Mark, Target

_LISTED: Final = 5

# What PostgreSQL refuses inside a transaction (PreventInTransactionBlock in its source), by the
# statement's words; but for what is refused in any case, see `pytest_seeddb.migrations.script`.
_OUTSIDE: Final = re.compile(
    r"^(?:(?:CREATE|DROP|REINDEX)\b.*\bCONCURRENTLY\b|ALTER TABLE\b.*\bDETACH PARTITION\b.*\bCONCURRENTLY\b"
    r"|VACUUM\b|REINDEX (?:SCHEMA|DATABASE|SYSTEM)\b|CLUSTER(?: VERBOSE)?$"
    r"|(?:CREATE|DROP|ALTER) SUBSCRIPTION\b|(?:COMMIT|ROLLBACK) PREPARED\b)"
)
# Where the file's own transactions begin and end.
_EDGE: Final = re.compile(
    r"(?P<begin>BEGIN|START TRANSACTION)\b"
    r"|(?:COMMIT|END|ABORT|ROLLBACK)\b(?! PREPARED)(?!.*\bTO\b)(?:.*(?P<chain>(?<!NO) CHAIN))?|PREPARE TRANSACTION\b"
)
# The same as the server says it, for what words do not tell: a procedure that commits, the use of an enum's value
# before the transaction that adds it is committed, and so on.
_REFUSED_INSIDE: Final = frozenset({"25001", "2D000", "55P04"})


def read_steps(
    path: Path,
    root: Path,
    *,
    source: str,
    format_: str = "",
    placeholders: Sequence[tuple[str, str]] | None = (),
) -> Work:
    """A step for each file of a directory of SQL migrations that its tool runs, or for one file; raises `ConfigError`.

    ``placeholders`` are those of the format; ``None`` where none are to be replaced.
    """
    values = None if placeholders is None else dict(placeholders)
    for key, value in (values or {}).items():
        if names_a_secret(key):
            conceal(value)
    is_file = path.is_file()
    directory = Directory(path.parent if is_file else path, root, source, format_, path.name if is_file else "")
    chosen = directory.chosen()
    if values and not chosen.has_placeholders:
        raise directory.refusal(
            f"{chosen.title} has no placeholders",
            f"placeholders = {{{', '.join(values)}}}",
            'remove them, or say which format it is: {directory = "...", format = "flyway", placeholders = {...}}',
        )
    reading = Reading(chosen.name, values if chosen.has_placeholders else None)
    if is_file:
        return _work([path], {}, {}, root, reading, source)
    arranged = directory.arranged()
    if not arranged.used:
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in path.iterdir())
        contents = ", ".join([*names[:_LISTED], *(["..."] if len(names) > _LISTED else [])])
        is_alembic = (path / "env.py").is_file()
        other = "this is Alembic's script directory: name its alembic.ini instead"
        raise directory.refusal(
            "The directory of migrations has no *.sql file"
            if arranged.format == PLAIN.name
            else f"The directory has no file that {arranged.title} would run",
            f"{path}: {contents or 'nothing is in it'}",
            other if is_alembic else "put the migrations there, or name their directory",
        )
    reading = replace(reading, alone=frozenset(file.path for file in arranged.used if file.alone))
    beside = {file.path: file.beside for file in arranged.used if file.beside}
    count = f"{len(arranged.used)} file{'s' if len(arranged.used) > 1 else ''}"
    text = f"{relative_name(path, root)}: {arranged.title}, {'as set' if format_ else 'recognised'}, {count}"
    whole = {file.path: head for file in arranged.used if len(head := directory.heads.get(file.name, b"")) < HEAD_BYTES}
    work = _work([file.path for file in arranged.used], beside, whole, root, reading, source)
    included = {part.name for step in work.steps for part in step.parts}
    left_out = {relative_name(path / name, root): why for name, why in sorted(arranged.left_out.items())}
    further = [Note(f"not run: {name}: {why}") for name, why in left_out.items() if name not in included]
    return work._replace(notes=(Note(text, is_usual=arranged.format == PLAIN.name and not further), *further))


def _work(
    paths: Sequence[Path],
    beside: Mapping[Path, Path],
    contents: Mapping[Path, bytes],
    root: Path,
    reading: Reading,
    source: str,
) -> Work:
    steps = []
    for path in paths:
        parts = script_parts(path, root, reading, source=source, content=contents.get(path))
        further = (file_part(beside[path], root, source=source),) if path in beside else ()
        check = partial(SqlFile.read, path, root, reading)
        steps.append(Step(f"migration {parts[0].name}", (*parts, *further), check=check))

    def run(target: Target, first: int) -> None:
        with _connect(target, autocommit=True) as connection:
            ledger = read(connection)  # a restored dump brings one along
        pending = (number for number, step in enumerate(steps) if not ledger.is_done(step, target.root))
        for step, path in list(zip(steps, paths, strict=True))[max(first, next(pending, len(steps))) : target.end]:
            if target.marks.wants(step):
                target.started(step)
                run_sql_file(path, target, step, reading)

    return Work(tuple(steps), run, stops=range(1, len(steps)))


def run_sql_file(path: Path, target: Target, step: Step | None = None, reading: Reading = Reading()) -> None:  # noqa: B008 - frozen
    """Run an SQL file in a connection of its own and commit; raises `BuildError`, which names the line.

    It runs in one transaction, with the step's mark in it; statement by statement where one cannot run in a
    transaction, or the file has transactions of its own. Then after a failure, what ran before stays.
    """
    script = SqlFile.read(path, target.root, reading)
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
    def __init__(self, statement: Statement, error: Exception) -> None:
        self.statement = statement
        self.error = database_error(error) or DatabaseError(str(error))
        super().__init__(self.error.message)


@dataclass(frozen=True)
class SqlFile:
    """A file's statements that migrate upward."""

    name: str
    statements: tuple[Statement, ...]
    runs_alone: bool

    @classmethod
    def read(cls, path: Path, root: Path, reading: Reading) -> SqlFile:
        """Raises the `BuildError` of a file that cannot be read whole, or that leaves a transaction open."""
        script, has_transaction = read_script(path, root, reading)
        name, begun = relative_name(path, root), None
        runs_alone = not has_transaction
        for statement in script:
            words = " ".join(statement.piece.words)
            if edge := _EDGE.match(words):
                begun = statement if edge["begin"] or edge["chain"] else None
            runs_alone |= bool(edge or _OUTSIDE.match(words))
        if begun:
            raise BuildError(
                f"{name} begins a transaction and does not end it",
                saw=f"{begun.file}, line {begun.line}: {begun.piece.text.decode(errors='replace')}",
                source=name,
                remedy="add COMMIT, or leave BEGIN out: each file runs in a transaction anyway",
            )
        return cls(name, tuple(script), runs_alone)

    def run_together(self, target: Target, mark: Mark | None) -> None:
        """Run in one transaction, with the step's mark."""
        with _connect(target, autocommit=False) as connection:
            for statement in self.statements:
                _run(connection, statement)
            if mark:
                # The file may have taken another role, which may not write there.
                connection.execute("RESET ROLE; SET client_encoding = 'UTF8'")
                connection.execute(mark.statement.encode(), mark.finished())
            try:
                connection.commit()
            except Exception as error:
                raise _Refused(self.statements[-1], error) from error  # a deferred constraint

    def run_alone(self, target: Target) -> None:
        """Run each statement in a transaction of its own, or in those of the file."""
        with _connect(target, autocommit=True) as connection:
            try:
                for statement in self.statements:
                    _run(connection, statement)
            except _Refused as refused:
                raise self.failure(refused) from refused.__cause__

    def failure(self, refused: _Refused) -> BuildError:
        """The error of a statement, with its line."""
        error, line, name = refused.error, refused.statement.line, refused.statement.file
        text = refused.statement.piece.text.decode(errors="replace")
        lines_before = text[: max(error.position - 1, 0)].count("\n")
        return BuildError(
            f"{name}, line {line + lines_before}: the statement failed",
            saw=replace(error, statement=text).describe(),
            source=f"{name}:{line}" + (f", included by {self.name}" if name != self.name else ""),
            remedy=error.remedy() or "correct the statement",
        )


def _connect(target: Target, *, autocommit: bool) -> psycopg.Connection:
    return target.address.connect(autocommit=autocommit, client_encoding="utf8")


def _run(connection: psycopg.Connection, statement: Statement) -> None:
    text, data = statement.piece.text, statement.piece.data
    try:
        with connection.cursor() as cursor:
            if data is None:
                cursor.execute(text)
                return
            with cursor.copy(text) as copy:
                copy.write(data)
    except Exception as error:
        raise _Refused(statement, error) from error
