"""Code that was read like data, to be executed or looked at: what it imports counts with it.

Nobody but the code itself can say what is done with the text of a Python file that it reads. It is taken for
executed: then what it imports runs as well, and has perhaps been imported, and has read its own data, long before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_seeddb.fingerprint import chain, file_digest
from pytest_seeddb.inputs.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_seeddb.fingerprint import Part

_SOURCE: Final = ".py"


def is_code(name: str) -> bool:
    """Whether a file of this name is Python's."""
    return name.endswith(_SOURCE)


def code_digest(name: str, root: Path) -> str:
    """Of a Python file: its content, which files it leads to, and the versions of packages that it imports.

    The content of those files is not in it: they are told by `imported_by`, and have digests of their own.

    Raises:
        OSError: It cannot be read.
    """
    content = file_digest(root / name)
    parts = Sources(root).of_file(root / name)
    names, others = _files(parts, root), [part for part in parts if not (root / part.name).is_file()]
    return chain(content, " ".join(sorted(names)), others)


def imported_by(names: Iterable[str], root: Path) -> frozenset[str]:
    """The project's files that run when these Python files run, they themselves included, by name from the root."""
    sources = Sources(root)
    there = [root / name for name in names if is_code(name) and (root / name).is_file()]
    return frozenset().union(*(_files(sources.of_file(each), root) for each in there))


def _files(parts: Iterable[Part], root: Path) -> frozenset[str]:
    return frozenset(part.name for part in parts if (root / part.name).is_file())
