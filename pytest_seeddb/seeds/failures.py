"""What a failing seeder tells: where in the user's code, what the database said, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_seeddb.application.imports import innermost_frame, is_users
from pytest_seeddb.errors import BuildError, BulkError
from pytest_seeddb.fingerprint.digests import relative_name
from pytest_seeddb.servers.database_errors import describe_failure, failure_remedy

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_seeddb.seeds.kinds import Declaration

__all__ = ["failed"]


def failed(seed: Declaration, error: BaseException, root: Path) -> BuildError:
    """The error for a seeder that raised ``error``."""
    if isinstance(error, BulkError):  # knows more than the database
        saw = "\n".join(filter(None, (error.what, error.saw)))
        return BuildError(_what(seed), saw=saw, source=_place(error, root) or seed.place, remedy=error.remedy)
    return BuildError(
        _what(seed),
        saw=describe_failure(error),
        source=_place(error, root) or seed.place,
        remedy=failure_remedy(error, "seeder") or "correct the seeder; nothing of it was kept",
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
