"""Directories that were listed: which of their names count."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.fingerprint.digests import digest
from pytest_seeddb.fingerprint.modules import is_test
from pytest_seeddb.fingerprint.places import is_ignored
from pytest_seeddb.fingerprint.stack import MEANS, frames, module_of, top_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LISTING: Final = re.compile(r"(?P<directory>.*/)(?: \((?P<patterns>.+)\))?")
"""The name of a listed directory; with the patterns, if not all names in it count."""
_DIRECTORIES: Final = "*/"
"""The pattern for the directories in a directory."""

# These list directories to find what they were asked for by its name, or for themselves.
_FINDERS: Final = (
    *("importlib.", "_frozen_importlib.", "_frozen_importlib_external.", "zipimport.", "pkg_resources."),
    *("importlib_metadata.", "linecache.", "_pytest.", "pytest.", "pytest_", "pluggy.", "xdist.", "coverage."),
)
_COMMANDS: Final = "django.core.management"
"""It lists the commands of all apps. Its commands list what they were told to look for, as `loaddata` does."""

# What these libraries take of the names that they list.
_TAKES: Final = {"alembic": ("*.py", _DIRECTORIES), "yoyo": ("*.py", "*.sql")}
_MODULES: Final = ("*.py", "*.so", "*.pyd", _DIRECTORIES)


def is_finder(module: str) -> bool:
    """Whether what this module lists is not input, unless it is the project's own."""
    return module == _COMMANDS or f"{module}.".startswith(_FINDERS)


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
