"""Data files that a build opened: inputs that nobody had to declare.

Python announces each file that it opens as an audit event (PEP 578). A hook for these events cannot
be taken away again, so there is one for the process, put in place by the first build, and idle
unless a recording is under way.

Not seen are files that C libraries open by themselves and those that other processes open: name
them under ``watch`` in the settings.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pytest_seeddb.fingerprint import MISSING, Part, file_digest

if TYPE_CHECKING:
    from collections.abc import Iterable

CHANGED_MEANWHILE: Final = "changed during the build"
"""The digest of a file that was not at the end what it had been when it was read."""

# Code is followed by its imports, see `pytest_seeddb.inputs.sources`.
_CODE: Final = (".py", ".pyc", ".pyo", ".pyi", ".so", ".pyd", ".dylib", ".dll", ".pth")
_IGNORED_DIRECTORIES: Final = frozenset(
    {
        *("__pycache__", "__pypackages__", "site-packages", "dist-packages", "node_modules", "htmlcov"),
        *(".git", ".hg", ".svn", ".jj", ".tox", ".nox", ".venv", ".eggs"),
        *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"),
    }
)
_IGNORED_SUFFIXES: Final = (".dist-info", ".egg-info")
_COVERAGE: Final = ".coverage"
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_State = tuple[int, int, int, int]

_lock = threading.Lock()
_recordings: tuple[OpenedFiles, ...] = ()
_hooked = False


class OpenedFiles:
    """Records which regular files under ``root`` this process reads while the context is open.

    Files that this process also opened for writing or moved into place meanwhile do not count: they
    are results, not inputs. Neither does code, nor what lies in virtual environments, caches and
    ``.git``, nor what is gone at the end. All threads are recorded; recordings may overlap. Opening
    a file never fails because of a recording.

    Args:
        root: The project's root.
    """

    def __init__(self, root: Path) -> None:
        self._roots = tuple({_slashed(os.path.abspath(root)): 1, _slashed(os.path.realpath(root)): 1})  # noqa: PTH100 - prefixes of strings
        self._read: dict[str, _State] = {}
        self._written: set[str] = set()
        self._parts: tuple[Part, ...] = ()

    def __enter__(self) -> Self:
        """Begin to record."""
        global _hooked, _recordings  # noqa: PLW0603 - one hook serves the whole process
        with _lock:
            _recordings = (*_recordings, self)
            if not _hooked:
                sys.addaudithook(_hook)
                _hooked = True
        return self

    def __exit__(self, *_: object) -> None:
        """End the recording, also after a failure, and take the digests."""
        global _recordings  # noqa: PLW0603 - see above
        with _lock:
            _recordings = tuple(other for other in _recordings if other is not self)
        self._parts = tuple(sorted(filter(None, map(self._part, self._read))))

    def parts(self) -> tuple[Part, ...]:
        """The files that were read, sorted by name; nothing before the recording has ended.

        A digest is that of the content that the build read: a file that somebody changed between
        being read and the end has `CHANGED_MEANWHILE` instead, which no content ever matches.
        """
        return self._parts

    def opened(self, path: str, *, writes: bool) -> None:
        """Take note of one opening. Called by the hook, from any thread."""
        name = self._name(os.path.abspath(path))  # noqa: PTH100 - strings: this runs for each opening
        if name is None:
            return
        if writes:
            self._written.add(name)
        elif name not in self._read:
            status = os.stat(path)  # noqa: PTH116 - as above
            if stat.S_ISREG(status.st_mode):
                self._read[name] = _state(status)

    def _name(self, path: str) -> str | None:
        if path.endswith(_CODE):
            return None
        below = next((path[len(root) :] for root in self._roots if path.startswith(root)), None)
        return None if below is None or _is_ignored(Path(below).parts) else below

    def _part(self, name: str) -> Part | None:
        if name in self._written or self._is_in_environment(name):
            return None
        path = self._roots[0] + name
        label = name.replace(os.sep, "/")
        try:
            found = file_digest(path)
            unchanged = _state(os.stat(path)) == self._read[name]  # noqa: PTH116 - as above
        except OSError:
            return None
        return Part(label, found if unchanged else CHANGED_MEANWHILE)

    def _is_in_environment(self, name: str) -> bool:
        parents = list(Path(name).parents)[:-1]
        return any(Path(self._roots[0], parent, "pyvenv.cfg").exists() for parent in parents)


def current(names: Iterable[str], root: Path) -> tuple[Part, ...]:
    """The same parts as they are now, for the names of recorded ones; sorted.

    A file that is gone, cannot be read, or is no regular file under ``root`` has the digest
    `pytest_seeddb.fingerprint.MISSING`.
    """
    return tuple(sorted(Part(name, _digest_below(root, name)) for name in set(names)))


def _digest_below(root: Path, name: str) -> str:
    path = root / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return MISSING  # names come back from a server: they must lead nowhere else
    try:
        return file_digest(path) if path.is_file() else MISSING
    except (OSError, ValueError):
        return MISSING


def _is_ignored(names: tuple[str, ...]) -> bool:
    if not _IGNORED_DIRECTORIES.isdisjoint(names) or names[-1].startswith(_COVERAGE):
        return True
    return any(name.endswith(_IGNORED_SUFFIXES) for name in names)


def _state(status: os.stat_result) -> _State:
    return (status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


def _slashed(root: str) -> str:
    return root.rstrip(os.sep) + os.sep


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    """The audit hook: every event of the process comes by here, so it looks at the name first."""
    if not _recordings or (event not in {"open", "os.rename"}):
        return
    with suppress(Exception):  # an error here would be raised by the user's own open()
        _record(event, arguments)


def _record(event: str, arguments: tuple[object, ...]) -> None:
    writes = event == "os.rename"  # what is moved into place was made somewhere else
    path = arguments[1 if writes else 0]
    if not isinstance(path, str | bytes | os.PathLike):
        return  # a descriptor: whoever opened it was seen then
    flags = arguments[2]
    writes = writes or (isinstance(flags, int) and bool(flags & _WRITES))
    for recording in _recordings:
        recording.opened(os.fsdecode(path), writes=writes)
