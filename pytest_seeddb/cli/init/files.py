"""The files of a project that was never seen before: its own, without environments, caches and tests."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_ITS_OWN: Final = frozenset(
    {
        *("__pycache__", "__pypackages__", "site-packages", "node_modules", "build", "dist", "htmlcov", "vendor"),
        *("test", "tests", "testing", "docs", "doc", "examples", "benchmarks"),
    }
)
_ENVIRONMENTS: Final = ("pyvenv.cfg", "conda-meta")
_MOST: Final = 20_000
"""Files that are looked at; who has more keeps something else than code there."""


@dataclass(frozen=True)
class Files:
    """The files below a directory.

    Attributes:
        root: The directory.
        names: All files, with ``/`` and relative to the root, those nearest to it first.
    """

    root: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, root: Path) -> Files:
        """Those that there are now. Hidden directories are left out, and links are not followed."""
        found = sorted(_below(root), key=lambda name: (name.count("/"), name))
        return cls(root, tuple(found))

    def called(self, *names: str) -> list[str]:
        """The files with one of these names."""
        return [each for each in self.names if each.rpartition("/")[2] in names]

    def ending(self, *suffixes: str) -> list[str]:
        """The files with one of these suffixes."""
        return [each for each in self.names if each.endswith(suffixes)]

    def beginning(self, name: str, size: int) -> bytes:
        """The first bytes of a file; nothing where it cannot be read."""
        try:
            with (self.root / name).open("rb") as file:
                return file.read(size)
        except OSError:
            return b""

    @cached_property
    def modules(self) -> dict[str, str]:
        """The modules that can be imported from the root or from ``src``, each with its file."""
        found = {module: name for name in self.ending(".py") if (module := self._module(name))}
        return dict(sorted(found.items()))

    @cached_property
    def unreachable(self) -> list[str]:
        """Top directories that are no packages but have some: those are imported from there, not from the root."""
        inner = [name for name in self.called("__init__.py") if name.count("/") > 1 and not self._module(name)]
        return sorted({name.split("/")[0] for name in inner})

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)

    def _module(self, name: str) -> str:
        """What a file is imported as; empty where it cannot be."""
        parts = name.removeprefix("src/").removesuffix(".py").split("/")
        source = "src/" if name.startswith("src/") else ""
        if not all(each.isidentifier() for each in parts):
            return ""
        packages = ["/".join(parts[: end + 1]) for end in range(len(parts) - 1)]
        regular = [f"{source}{each}/__init__.py" in self._known for each in packages]
        if any(regular) and not regular[0]:
            return ""
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _below(root: Path) -> Iterator[str]:
    left = _MOST
    for place, directories, names in os.walk(root):
        directories[:] = [each for each in directories if _is_its_own(Path(place), each)]
        below = Path(place).relative_to(root)
        for name in names[:left]:
            yield (below / name).as_posix()
        left -= len(names)
        if left <= 0:
            return


def _is_its_own(place: Path, name: str) -> bool:
    if name in _NOT_ITS_OWN or name.startswith(".") or name.endswith((".egg-info", ".dist-info")):
        return False
    return not any((place / name / each).exists() for each in _ENVIRONMENTS)
