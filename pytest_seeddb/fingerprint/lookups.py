"""The files that code asks for and does not open: missing ones, by ``exists``, patterns and the like; others by size.

Python announces no such question. `os.path` asks it in `genericpath`, so that module gets an ``os`` of its own, which
tells of files that are missing, and of those whose size or time is asked for. So does ``Path.stat``. `os` itself stays:
it has sets of its functions.
"""

from __future__ import annotations

import functools
import genericpath
import os
import sys
from contextlib import suppress
from glob import escape, glob, has_magic
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import passwords_in
from pytest_seeddb.fingerprint import environment
from pytest_seeddb.fingerprint.places import FOREIGN_CODE
from pytest_seeddb.fingerprint.stack import module_of, reader, top_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_GLOB: Final = "glob.glob/2"
_RGLOB: Final = "pathlib.Path.rglob"
GLOBS: Final = frozenset({_GLOB, "pathlib.Path.glob", _RGLOB})
"""The audit events of calls that find files by a pattern."""
DIRECTORY: Final = "a directory"
"""Stands for a digest where a file was looked for and a directory is."""
# They look for the files of settings that the project's code wants; see `environment` for the others.
_READERS: Final = frozenset({"dotenv", "dynaconf"})
_LOADDATA: Final = "django.core.management.commands.loaddata"
"""It looks for fixtures in the directories of all apps."""
_DETAILS: Final = frozenset({"getsize", "getmtime", "getctime", "samefile"})
"""Functions of `os.path`, and methods of a path, that want to know more of a file than whether it is there."""
_LONGEST: Final = 1000
_LONGEST_WORD: Final = 30
"""Characters of a name without a dot or a directory; longer ones are keys rather than files."""

_listeners: list[Callable[[str, str], None]] = []


def listen(listener: Callable[[str, str], None]) -> None:
    """Have each path told that code of the project may ask for, with ``misses`` or ``reads``."""
    if not _listeners:
        genericpath.os = _Os("os", os.__doc__)  # type: ignore[attr-defined]  # what it imports is not in its stub
        Path.stat = _stat_of_path  # type: ignore[method-assign]  # the same but for the telling
    _listeners[:] = [listener]


def reads_settings(frame: FrameType) -> bool:
    """Whether the frame's library looks for files on behalf of its caller."""
    module = module_of(frame)
    return top_of(frame) in _READERS or module == _LOADDATA or environment.reads_by_name(module)


def missing_of_glob(event: str, arguments: tuple[object, ...]) -> Iterator[tuple[str, str]]:
    """The missing paths, each with ``misses``, that a pattern names: no directory is listed to find them."""
    if not _may_count(reader()):
        return
    if event == _GLOB:
        pattern, is_recursive, root, _ = arguments
    else:
        root, pattern, is_recursive = *arguments, True
    paths = [os.fsdecode(root)] if isinstance(root, str | bytes | os.PathLike) else [""]
    parts = os.fsdecode(pattern).rstrip("/").split("/") if isinstance(pattern, str | bytes | os.PathLike) else []
    if event == _RGLOB:
        parts = []
    yield from ((path, "misses") for path in paths if path and not os.path.lexists(path))
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
            yield from ((path, "misses") for path in paths if not os.path.lexists(path))


def _may_count(asker: FrameType | None) -> bool:
    return asker is not None and (not asker.f_code.co_filename.startswith(FOREIGN_CODE) or reads_settings(asker))


class _Os(ModuleType):
    """`os` as it is at each moment, whoever replaces something there, and it tells of files that are asked for."""

    # Without a common function: these are called often.
    _real: Final = os
    """Not the name of the module: pyfakefs replaces `os` there, and leaves `os.path` to this class."""

    @staticmethod
    def stat(path: Any) -> os.stat_result:  # noqa: ANN401 - as the function
        __tracebackhide__ = True
        try:
            status = _Os._real.stat(path)
        except FileNotFoundError:
            _tell(path, "misses")
            raise
        if sys._getframe(1).f_code.co_name in _DETAILS:  # noqa: SLF001 - documented
            _tell(path, "reads")
        return status

    @staticmethod
    def lstat(path: Any) -> os.stat_result:  # noqa: ANN401 - as above
        __tracebackhide__ = True
        try:
            return _Os._real.lstat(path)
        except FileNotFoundError:
            _tell(path, "misses")
            raise

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as `os`
        return getattr(self._real, name)


_stat: Final = Path.stat


@functools.wraps(_stat)
def _stat_of_path(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
    __tracebackhide__ = True
    try:
        status = _stat(self, follow_symlinks=follow_symlinks)
    except FileNotFoundError:
        _tell(self, "misses")
        raise
    caller = sys._getframe(1)  # noqa: SLF001 - documented
    # Other methods of a path ask whether it is there.
    if not module_of(caller).startswith("pathlib") or caller.f_code.co_name in _DETAILS:
        _tell(self, "reads")
    return status


def _tell(path: Any, kind: str) -> None:  # noqa: ANN401 - as `os.stat`
    with suppress(Exception):  # an error here would be raised by the user's own question
        if not _may_count(reader()):
            return
        name = os.fsdecode(path)
        # Code may ask whether a setting is a file's path or the content itself.
        is_word = "/" not in name and "." not in name
        if len(name) > (_LONGEST_WORD if is_word else _LONGEST):
            return
        if not name.isprintable() or "{" in name or passwords_in(name):
            return
        if not environment.is_secret_of(name):
            _listeners[0](name, kind)
