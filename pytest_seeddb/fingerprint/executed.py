"""Code that was read like data, to be executed or looked at: what it imports counts with it.

Nobody but the code itself can say what is done with the text of a Python file that it reads. It is taken for
executed: then what it imports runs as well, and has perhaps been imported, and has read its own data, long before.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from pytest_seeddb.fingerprint.digests import chain, file_digest
from pytest_seeddb.fingerprint.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_seeddb.fingerprint.digests import Part

_SOURCE: Final = ".py"


def is_code(name: str) -> bool:
    """Whether a file of this name is Python's."""
    return name.endswith(_SOURCE)


class Code:
    """What Python files under a root lead to; all that is asked of one object is of one look at them.

    Args:
        root: The project's root.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def _sources(self) -> Sources:
        return Sources(self._root)

    def digest(self, name: str) -> str:
        """Of a Python file: its content, which files it leads to, and the versions of packages that it imports.

        The content of those files is not in it: they are told by `imported_by`, and have digests of their own.

        Raises:
            OSError: It cannot be read.
        """
        content = file_digest(self._root / name)
        parts = self._sources.of_file(self._root / name)
        files = self._files(parts)
        return chain(content, " ".join(sorted(files)), [part for part in parts if part.name not in files])

    def imported_by(self, names: Iterable[str]) -> frozenset[str]:
        """The project's files that run when these Python files run, they themselves included, by name from the root."""
        there = [self._root / name for name in names if is_code(name) and (self._root / name).is_file()]
        return frozenset().union(*(self._files(self._sources.of_file(each)) for each in there))

    def _files(self, parts: Iterable[Part]) -> frozenset[str]:
        return frozenset(part.name for part in parts if (self._root / part.name).is_file())
