"""What the audit events of files say: which paths they are about, and what is done there."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

if sys.platform == "darwin":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

PATHS: Final = {
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.mkdir": ((0, 2),),
    **dict.fromkeys(("os.remove", "os.rmdir"), ((0, 1),)),
    **dict.fromkeys(("open", "sqlite3.connect", "os.listdir", "os.scandir"), ((0, None),)),
}
"""By event, where among its arguments the paths are, and the descriptors of the directories that they begin at."""

_DESCRIPTORS: Final = "/dev/fd"
_CREATES: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def files_of(event: str, arguments: tuple[object, ...]) -> Iterator[tuple[str, str]]:
    """The paths that an event is about, each with ``reads``, ``updates``, ``writes`` or ``lists``."""
    for position, beside in PATHS[event]:
        if path := _path_of(arguments[position], is_uri=event == "sqlite3.connect"):
            directories = [""] if beside is None else [_directory(arguments[beside])]
            if event == "open" and arguments[1] is None and not os.path.isabs(path):  # noqa: PTH117 - strings
                # os.open() does not say at which directory's descriptor the path begins: any that is open may be it.
                directories += _open_directories()
            paths = [os.path.join(directory, path) for directory in directories]  # noqa: PTH118 - strings
            existing = [path for path in paths if os.path.lexists(path)] if paths[1:] else ()
            for path in existing or paths:
                yield path, _kind(event, arguments, path)


def _path_of(argument: object, *, is_uri: bool) -> str:
    """The path that an argument names, also by a directory's descriptor; empty if it names none."""
    if argument is None:
        return "."
    if isinstance(argument, int):
        return _directory(argument)
    path = os.fsdecode(argument) if isinstance(argument, str | bytes | os.PathLike) else ""
    if is_uri and path.startswith("file:"):
        path = unquote(urlsplit(path).path)
    return "" if is_uri and path == ":memory:" else path


def _directory(descriptor: object) -> str:
    """The directory that is open under the descriptor; empty if there is none."""
    with suppress(OSError, ValueError):
        if isinstance(descriptor, int) and stat.S_ISDIR(os.fstat(descriptor).st_mode):
            if sys.platform == "darwin":
                return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
            return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - strings
    return ""


def _open_directories() -> list[str]:
    with suppress(OSError):
        names = os.listdir(_DESCRIPTORS)  # noqa: PTH208 - names only
        return sorted({_directory(int(name)) for name in names if name.isdecimal()} - {""})
    return []


def _kind(event: str, arguments: tuple[object, ...], path: str) -> str:
    if event in {"os.listdir", "os.scandir"}:
        return "lists"
    if event == "sqlite3.connect":
        return "updates" if os.path.exists(path) else "writes"  # noqa: PTH110 - strings
    flags = arguments[2] if event == "open" else _CREATES
    if not isinstance(flags, int) or not flags & (_CREATES | os.O_RDWR):
        return "reads"
    return "writes" if flags & _CREATES else "updates"
