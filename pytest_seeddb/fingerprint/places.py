"""Where a project's files are: which count as inputs, what they are called, and whose code a frame executes.

Files count under the project's root, in the repository around it and in packages that are installed editable. Names
are relative to the root. A file elsewhere counts under the name of a link in the project that leads to it.
"""

from __future__ import annotations

import json
import os
import re
import site
import sys
import sysconfig
import tempfile
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlparse

from pytest_seeddb.fingerprint.modules import Modules, distributions, is_test

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

IGNORED_DIRECTORIES: Final = frozenset(
    {
        *("__pycache__", "__pypackages__", "site-packages", "dist-packages", "node_modules", "htmlcov"),
        *(".git", ".hg", ".svn", ".jj", ".tox", ".nox", ".venv", ".eggs"),
        *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"),
    }
)
_IGNORED_SUFFIXES: Final = (".dist-info", ".egg-info")
_COVERAGE: Final = re.compile(r"\.coverage(?:rc|[.-].*)?", re.DOTALL)
_PROJECT_FILES: Final = ("pyproject.toml", "setup.py", "setup.cfg")
_OURSELVES: Final = __name__.partition(".")[0]
_OF_PYTHON: Final = tuple(
    f"{place}{os.sep}"
    for place in {
        *(sysconfig.get_path("stdlib"), os.path.dirname(os.path.realpath(os.__file__))),  # noqa: PTH120 - strings
        *(*site.getsitepackages(), site.getusersitepackages()),
    }
)
FOREIGN_CODE: Final = ("<", *_OF_PYTHON)
"""How the names of files begin that are never the project's."""
_OF_THE_SYSTEM: Final = ("/proc/", "/dev/", "/sys/", "/etc/", "/usr/", "/lib/", "/bin/", "/run/")


class Places:
    """The places of one project; what is on disk is looked at once, when it is first needed."""

    def __init__(self, root: Path) -> None:
        absolute, real = os.path.abspath(root), os.path.realpath(root)  # noqa: PTH100 - prefixes of strings
        self.roots = tuple({with_slash(absolute): 1, with_slash(real): 1})
        self._root = root
        self._real = real
        self._sources: dict[tuple[str, str], str] = {}

    def name(self, path: str) -> str | None:
        """The file's name from the root, also if it is missing; ``None`` if it lies elsewhere.

        The path of a file elsewhere to which a link may lead is returned as it is; see `linked`.
        """
        whole = os.path.abspath(path)  # noqa: PTH100 - strings: this runs for each opening
        below = next((whole[len(root) :] for root in self.roots if with_slash(whole).startswith(root)), None)
        if below is not None:
            return below
        if whole.startswith((*_OF_PYTHON, *_OF_THE_SYSTEM, *self._temporary)):
            return None
        real = os.path.realpath(whole)
        if with_slash(real).startswith(self.roots):
            return self.name(real)
        return os.path.relpath(real, self._real) if real.startswith(self.outer) else whole

    def path(self, name: str) -> str | None:
        """Where a file of this name is; ``None`` if the name leads out of the places, or is no name."""
        if os.path.isabs(name) or "\0" in name:  # noqa: PTH117 - strings: hundreds of files
            return None
        if ".." not in name or ".." not in Path(name).parts:
            return self.roots[0] + name
        path = os.path.normpath(self._real + os.sep + name)
        return path if os.path.realpath(path).startswith(self.outer) else None

    @cached_property
    def _temporary(self) -> tuple[str, ...]:
        place = with_slash(os.path.realpath(tempfile.gettempdir()))
        return () if self._real.startswith(place) else (place,)

    @cached_property
    def outer(self) -> tuple[str, ...]:
        """The places beside the root, each with a slash at the end."""
        places = {*self._repository(), *self._editable()}
        return tuple(with_slash(place) for place in sorted(places) if place != self._real)

    def _repository(self) -> Iterator[str]:
        for parent in (Path(self._real), *Path(self._real).parents):
            if (parent / ".git").exists():
                if parent != Path.home():  # somebody keeps the home directory's settings in one
                    yield str(parent)
                return

    def _editable(self) -> Iterator[str]:
        for place in Modules(self._root).places:
            real = Path(os.path.realpath(place))
            parent = real.parent if any((real.parent / file).exists() for file in _PROJECT_FILES) else real
            holds = (self._real, os.path.realpath(tempfile.gettempdir()), sys.prefix, str(Path.home()))
            if not any(Path(path).is_relative_to(parent) for path in holds) and not real.is_relative_to(sys.prefix):
                yield str(parent)
        for metadata in distributions().values():
            with suppress(OSError, ValueError, AttributeError):
                origin = json.loads(Path(metadata, "direct_url.json").read_bytes())
                if origin.get("dir_info", {}).get("editable"):
                    yield os.path.realpath(unquote(urlparse(origin["url"]).path))

    def linked(self, path: str) -> str | None:
        """The name of a file elsewhere, by a link in the project that leads to it."""
        real = os.path.realpath(path)
        for target, name in self._links:
            if real == target:
                return name
            if real.startswith(target + os.sep):
                return name + real[len(target) :]
        return None

    @cached_property
    def _links(self) -> list[tuple[str, str]]:
        """What the project's links lead to outside of it, and their names."""
        links = []
        for directory, directories, files in os.walk(self._real):
            for name in (*directories, *files):
                path = os.path.join(directory, name)  # noqa: PTH118 - strings
                if os.path.islink(path) and not is_ignored((name,)):  # noqa: PTH114 - strings
                    links.append((os.path.realpath(path), path[len(self._real) + 1 :]))
            directories[:] = [
                name
                for name in directories
                if not is_ignored((name,)) and not os.path.exists(os.path.join(directory, name, "pyvenv.cfg"))  # noqa: PTH110, PTH118 - strings
            ]
        return [(target, name) for target, name in links if not with_slash(target).startswith(self.roots)]

    def source(self, frame: FrameType) -> str:
        """The project's file that the frame executes, named as a step's part is; "" for other code."""
        return self.source_of(frame.f_code.co_filename, str(frame.f_globals.get("__name__", "")))

    def source_of(self, file: str, module: str) -> str:
        """The project's file of this module, named as a step's part is; "" for other files."""
        key = (file, module)
        if key not in self._sources:
            self._sources[key] = self._source(file, module)
        return self._sources[key]

    def _source(self, file: str, module: str) -> str:
        if module.partition(".")[0] == _OURSELVES or file.startswith(FOREIGN_CODE):
            return ""
        for root in self.roots:
            if file.startswith(root):
                below = file[len(root) :].replace("\\", "/")
                return "" if is_ignored(tuple(below.split("/"))) else below
        path = Path(file)
        if module == "__main__":  # a script of another project, which cannot be found again by that name
            return ""
        if is_test(path.name) or is_ignored(path.parts) or not os.path.realpath(file).startswith(self.outer):
            return ""
        suffix = "/__init__.py" if path.stem == "__init__" else path.suffix
        return module.replace(".", "/") + suffix


def is_ignored(names: tuple[str, ...]) -> bool:
    """Whether one of these parts of a name says that tools made the file, or that it is installed."""
    is_coverage = bool(names) and bool(_COVERAGE.fullmatch(names[-1]))
    return is_coverage or not IGNORED_DIRECTORIES.isdisjoint(names) or any(n.endswith(_IGNORED_SUFFIXES) for n in names)


def with_slash(path: str) -> str:
    """The path with one slash at its end."""
    return path.rstrip(os.sep) + os.sep
