"""The stack at the moment of a reading: whose code reads."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Code reads through these. The import system is not among them.
MEANS: Final = frozenset(
    {"pathlib", "io", "_pyio", "os", "codecs", "glob", "fnmatch", "contextlib", "runpy", "pkgutil", "genericpath"}
    | {"posixpath", "shutil", "gettext", "filecmp"}
)
_RESOURCES: Final = ("importlib.resources", "importlib.readers")
_FROZEN: Final = "<frozen "
"""The file of the interpreter's own modules, the import system among them."""
_RECORDERS: Final = f"{__name__.rpartition('.')[0]}."


def frames() -> Iterator[FrameType]:
    """The stack from the inside outward, without the frames that record it."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - documented
    while frame is not None:
        if not module_of(frame).startswith(_RECORDERS):
            yield frame
        frame = frame.f_back


def module_of(frame: FrameType) -> str:
    """The dotted name of the frame's module."""
    return str(frame.f_globals.get("__name__", ""))


def top_of(frame: FrameType) -> str:
    """The first part of it."""
    return module_of(frame).partition(".")[0]


def reader() -> FrameType | None:
    """The code that reads, by the standard library's means or directly."""
    for frame in frames():
        file, module = frame.f_code.co_filename, module_of(frame)
        # Executed text is not the reader; the code that executes it is.
        is_text = file.startswith("<") and not file.startswith(_FROZEN)
        if not (is_text or module.partition(".")[0] in MEANS or module.startswith(_RESOURCES)):
            return frame
    return None
