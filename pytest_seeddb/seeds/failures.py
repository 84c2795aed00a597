"""What a failing seeder tells: where in the user's code, what the database said, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.imports import innermost_frame, is_users
from pytest_seeddb.errors import BuildError, BulkError
from pytest_seeddb.fingerprint.digests import relative_name
from pytest_seeddb.servers.database_errors import database_error

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_seeddb.seeds.kinds import Declaration

__all__ = ["failed"]

# By SQLSTATE (PostgreSQL's appendix A); where a seeder has other causes than a migration.
_REMEDIES: Final = {
    "25P02": "an earlier statement failed, and its error was caught: do what may fail in session.begin_nested(), "
    "which takes back that statement alone",
    "23503": "make the row that it refers to first; name the seeder that makes it in `after`",
    "23505": "make the value unique; where another seeder takes the same values by other means than the factory, "
    "give the factory's sequence another start: Factory.reset_sequence(1000, force=True)",
    "42703": "see that the migrations and the models agree",
    "42P01": "see that the migrations make this table, and that the setting `migrations` is there",
}


def failed(seed: Declaration, error: BaseException, root: Path) -> BuildError:
    """The error for a seeder that raised ``error``."""
    if isinstance(error, BulkError):  # knows more than the database
        saw = "\n".join(filter(None, (error.what, error.saw)))
        return BuildError(_what(seed), saw=saw, source=_place(error, root) or seed.place, remedy=error.remedy)
    found = database_error(error)
    remedy = found and (_REMEDIES.get(found.sqlstate) or found.remedy)
    return BuildError(
        _what(seed),
        saw=found.shown() if found else f"{type(error).__name__}: {error}".removesuffix(": "),
        source=_place(error, root) or seed.place,
        remedy=remedy or "mend the seeder; nothing of it was kept",
    )


def _what(seed: Declaration) -> str:
    return f"The seeder {seed.identity} failed"


def _place(error: BaseException, root: Path) -> str:
    """The innermost line of the user's own code that the error went through."""
    frame = innermost_frame(error, root)
    if frame is None or not is_users(frame.filename, root):
        return ""
    where = f"{relative_name(root / frame.filename, root)}:{frame.lineno}, in {frame.name}"
    return f"{where}: {frame.line.splitlines()[0]}" if frame.line else where
