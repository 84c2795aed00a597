"""Directories that were listed: which of their names count."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from glob import escape, glob, has_magic
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.fingerprint.digests import digest
from pytest_seeddb.fingerprint.modules import is_test
from pytest_seeddb.fingerprint.places import FOREIGN_CODE, is_ignored
from pytest_seeddb.fingerprint.stack import MEANS, frames, module_of, reader, top_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LISTING: Final = re.compile(r"(?P<directory>.*/)(?: \((?P<patterns>.+)\))?")
"""The name of a listed directory; with the patterns, if not all names in it count."""
_DIRECTORIES: Final = "*/"
"""The pattern for the directories in a directory."""

_GLOB: Final = "glob.glob/2"
_RGLOB: Final = "pathlib.Path.rglob"
GLOBS: Final = frozenset({_GLOB, "pathlib.Path.glob", _RGLOB})
"""The audit events of calls that find files by a pattern."""

# These list directories to find what they were asked for by its name, or for themselves.
_FINDERS: Final = (
    *("importlib.", "_frozen_importlib.", "_frozen_importlib_external.", "zipimport.", "pkg_resources."),
    *("importlib_metadata.", "linecache.", "_pytest.", "pytest.", "pytest_", "pluggy.", "xdist.", "coverage."),
    "django.core.management.",
)

# What these libraries take of the names that they list.
_TAKES: Final = {"alembic": ("*.py", _DIRECTORIES), "yoyo": ("*.py", "*.sql")}
_MODULES: Final = ("*.py", "*.so", "*.pyd", _DIRECTORIES)


def is_finder(module: str) -> bool:
    """Whether what this module lists is not input, unless it is the project's own."""
    return f"{module}.".startswith(_FINDERS)


def names_in(directory: str, patterns: Sequence[str] = ()) -> frozenset[str]:
    """The names in a directory that match, or all but test modules; without what tools leave behind."""
    names = os.listdir(directory)  # noqa: PTH208 - names only
    return frozenset(
        name
        for name in names
        if not name.endswith(".pyc")
        and not is_ignored((name,))
        and (_matches(directory, name, patterns) if patterns else not (name.endswith(".py") and is_test(name)))
    )


def _matches(directory: str, name: str, patterns: Sequence[str]) -> bool:
    return any(
        os.path.isdir(os.path.join(directory, name)) if pattern == _DIRECTORIES else fnmatchcase(name, pattern)  # noqa: PTH112, PTH118 - strings
        for pattern in patterns
    )


def split(patterns: str | None) -> tuple[str, ...]:
    """The patterns in a name that `LISTING` matches."""
    return tuple(patterns.split(", ")) if patterns else ()


def digest_of_names(names: Iterable[str]) -> str:
    """The digest of a listing."""
    return digest("\0".join(sorted(names)))


def patterns_of(path: str) -> tuple[str, ...]:
    """Which names in the directory the code that lists it is after; empty if that cannot be told."""
    patterns: tuple[str, ...] = ()
    for frame in frames():
        module, variables = module_of(frame), frame.f_locals
        if module == "pkgutil":  # it lists a directory also to see whether that is a package
            importer = getattr(variables.get("importer"), "path", path)
            return _MODULES if Path(importer).samefile(path) else ("__init__.*",)
        if module == "glob" and isinstance(pattern := variables.get("pathname"), str):
            patterns = _last(pattern)  # of its innermost call come first
        elif module.startswith("pathlib") and isinstance(pattern := variables.get("pattern"), str):
            patterns = _last(f"**/{pattern}" if frame.f_code.co_name == "rglob" else pattern)
        elif module.partition(".")[0] not in MEANS:
            return patterns or _TAKES.get(top_of(frame), ())
    return patterns


def _last(pattern: str) -> tuple[str, ...]:
    """The patterns for the names in a directory: the last part of a path's, and directories if others are before it."""
    *before, last = pattern.rstrip("/").split("/")
    if last == "**" or any(sign in last for sign in ",()"):
        return ()
    is_deep = not has_magic(last) or any(has_magic(part) for part in before)
    return (last, *((_DIRECTORIES,) if is_deep else ()))


def missing_of_glob(event: str, arguments: tuple[object, ...]) -> Iterator[str]:
    """The missing paths that a call of `glob` asks for by their names: it lists no directory to find them."""
    caller = reader()
    if caller is None or caller.f_code.co_filename.startswith(FOREIGN_CODE):
        return
    if event == _GLOB:
        pattern, is_recursive, root, _ = arguments
    else:
        root, pattern, is_recursive = *arguments, True
    paths = [os.fsdecode(root)] if isinstance(root, str | bytes | os.PathLike) else [""]
    parts = os.fsdecode(pattern).rstrip("/").split("/") if isinstance(pattern, str | bytes | os.PathLike) else []
    if event == _RGLOB:
        parts = []
    yield from (path for path in paths if path and not os.path.lexists(path))
    if is_recursive and "**" in parts:  # all directories from there on are listed
        parts = parts[: parts.index("**")]
    while parts and has_magic(parts[-1]):
        parts.pop()
    for is_pattern, run in groupby(parts, has_magic):
        below = "/".join(run)
        if is_pattern:
            patterns = [os.path.join(escape(path), below, "") for path in paths]  # noqa: PTH118 - strings
            paths = [match for pattern in patterns for match in glob(pattern, include_hidden=True)]  # noqa: PTH207 - as above
        else:
            paths = [os.path.join(path, below) for path in paths]  # noqa: PTH118 - as above
            yield from (path for path in paths if not os.path.lexists(path))
