"""The lines of a file that differ between a build and now, where git has the file as the build had it."""

from __future__ import annotations

import ast
import difflib
import io
import re
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import HIDDEN, mask, mentions_a_secret
from pytest_seeddb.fingerprint.digests import digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_seeddb.templates.record import Record

_SHOWN: Final = 20
_VERSIONS: Final = 30
"""Commits of a file to look at, the newest."""
_PATIENCE: Final = 10
_COPIES: Final = re.compile(r"\bCOPY\b.*\bFROM\s+STDIN\b", re.IGNORECASE | re.DOTALL)
_CODE: Final = (".py", ".sql")
"""Others hold data, and these may be secrets."""


def changed_lines(name: str, before: Record, root: Path) -> tuple[str, ...]:
    """The lines of a part's file, or of its function or constant, that went (``- ``) and came (``+ ``).

    None where git does not have the file as it was. A statement that names a secret is not shown.
    """
    file, _, unit = name.partition(": ")
    parts = [part for _, own in before.steps for part in own] + [*before.opened]
    known = before.ran.contents.get(file) or next((part.digest for part in parts if part.name == file), "")
    if not file.endswith(_CODE) or not known:
        return ()
    old = next((data for data in _versions(file, root) if digest(data) == known), None)
    try:
        new = (root / file).read_bytes()
    except OSError:
        new = None
    if old is None or new is None:
        return ()
    lines = difflib.unified_diff(_lines(old, file, unit), _lines(new, file, unit), lineterm="", n=0)
    shown = [f"{line[0]} {line[1:]}" for line in [*lines][2:] if line[0] in "-+"]
    more = len(shown) - _SHOWN
    return (*shown[:_SHOWN], *([f"... and {more} more"] if more > 0 else []))


def _versions(file: str, root: Path) -> Iterator[bytes]:
    """The file's contents as git has them: what was added last, then what was committed, the newest first."""
    yield _git(root, "cat-file", "blob", f":./{file}")
    for commit in _git(root, "log", f"-{_VERSIONS}", "--format=%H", "--", file).decode().split():
        yield _git(root, "cat-file", "blob", f"{commit}:./{file}")


def _git(root: Path, *arguments: str) -> bytes:
    """What git prints; nothing where it fails, or is not there."""
    with suppress(OSError, subprocess.TimeoutExpired):
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False).stdout  # noqa: S603 - no shell
    return b""


def _lines(data: bytes, file: str, unit: str) -> list[str]:
    """The lines of a function, class or constant, or all; `HIDDEN` stands for statements that name a secret."""
    text = io.StringIO(data.decode(errors="replace"), newline=None)
    lines = [line.removesuffix("\n") for line in text]  # as `ast` counts them; `splitlines` also ends one at \f
    kept = range(len(lines))
    statements = _python_statements(data) if file.endswith(".py") else _sql_statements(lines)
    if unit:
        kept = range(0)
        for qualified, start, end in statements:
            if qualified == unit.removesuffix("()").removesuffix("(...)"):
                kept = range(min(start, kept.start) if kept else start, end)
    secret = {
        number
        for qualified, start, end in statements
        if not qualified and mentions_a_secret("\n".join(lines[start:end]))
        for number in range(start, end)
    }
    return [HIDDEN if n in secret or mentions_a_secret(lines[n]) else mask(lines[n]) for n in kept]


_Statement = tuple[str, int, int]
"""What a statement defines, or nothing where it is looked at for secrets, and its lines."""


def _python_statements(data: bytes) -> list[_Statement]:
    statements: list[_Statement] = []

    def collect(node: ast.AST, prefix: str) -> None:
        for inner in ast.iter_child_nodes(node):
            place = prefix
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                first = min([inner.lineno, *(decorator.lineno for decorator in inner.decorator_list)])
                statements.append((f"{prefix}{inner.name}", first - 1, inner.end_lineno or first))
                place = f"{prefix}{inner.name}."
            elif isinstance(inner, ast.stmt) and not hasattr(inner, "body"):
                span = inner.lineno - 1, inner.end_lineno or inner.lineno
                statements.append(("", *span))
                targets = getattr(inner, "targets", [getattr(inner, "target", None)])
                statements.extend((f"{prefix}{name.id}", *span) for name in targets if isinstance(name, ast.Name))
            collect(inner, place)

    with suppress(SyntaxError, ValueError, RecursionError):
        collect(ast.parse(data), "")
    return statements


def _sql_statements(lines: list[str]) -> list[_Statement]:
    """Each ends with a line's ``;``. The rows of a ``COPY`` belong to it: it names their columns."""
    ends, has_rows = [0], False
    for number, line in enumerate(lines, 1):
        if has_rows:
            ends += [number] if line == "\\." else []
            has_rows = line != "\\."
        elif line.rstrip().endswith(";"):
            has_rows = bool(_COPIES.search("\n".join(lines[ends[-1] : number])))
            ends += [] if has_rows else [number]
    return [("", start, end) for start, end in zip(ends, [*ends[1:], len(lines)], strict=True)]
