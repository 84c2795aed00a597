"""Whose code it is that opens a file: what stands on the stack at that moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# By these code reads; none of them wants to read anything itself. The import system is not among them.
_BETWEEN: Final = frozenset({"pathlib", "io", "_pyio", "os", "codecs", "glob", "fnmatch", "contextlib", "runpy"})
_RESOURCES: Final = ("importlib.resources", "importlib.readers")
_FROZEN: Final = "<frozen "
"""The file of the interpreter's own modules, the import system among them."""
_OURSELVES: Final = __name__.partition(".")[0]
_RECORDING: Final = tuple(
    f"{__package__}.{name}" for name in ("callers", "executed", "modules", "opened", "packages", "scanning", "sources")
)


def own_files(frame: FrameType, roots: tuple[str, ...]) -> frozenset[str]:
    """The files below the roots whose code is being executed, by their name from there, with ``/``."""
    return frozenset(filter(None, (_own(each, roots) for each in _outward(frame))))


def is_of_own_code(frame: FrameType, roots: tuple[str, ...]) -> bool:
    """Whether it is the project's own code that reads, by the standard library's means or directly.

    Python's import system, tools that show source lines, and other packages are not.
    """
    reader = _reader(frame)
    return reader is not None and bool(_own(reader, roots))


def is_ours(frame: FrameType) -> bool:
    """Whether it is we who read."""
    reader = _reader(frame)
    return reader is not None and _module(reader).partition(".")[0] == _OURSELVES


def _reader(frame: FrameType) -> FrameType | None:
    return next((each for each in _outward(frame) if not _is_between(each)), None)


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        if not _module(frame).startswith(_RECORDING):
            yield frame
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_between(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if file.startswith("<") and not file.startswith(_FROZEN):
        return True  # of text that somebody executes: it is he who reads
    name = _module(frame)
    return name.partition(".")[0] in _BETWEEN or name.startswith(_RESOURCES)


def _own(frame: FrameType, roots: tuple[str, ...]) -> str:
    if _module(frame).partition(".")[0] == _OURSELVES:
        return ""
    file = frame.f_code.co_filename
    return next((file[len(root) :].replace("\\", "/") for root in roots if file.startswith(root)), "")
