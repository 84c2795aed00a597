"""Records the files and directories that a build reads: inputs that need no declaration.

Python announces each file that it opens as an audit event (PEP 578). A hook for these events cannot be removed, so the
process has one, which is idle unless something is recorded.

A module is imported once in a process, and what its import reads is read then: perhaps long before a build, by the
tests' own imports or by another profile's build. So beside the recording of each build there is one for the life of the
process, see `begin`, which notes whose code read what. The setting ``watch`` is for files that C libraries open by
themselves and those that other processes open: they are not seen.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import source_from_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pytest_seeddb.fingerprint.digests import MISSING, Part, content_part, digest
from pytest_seeddb.fingerprint.modules import is_test
from pytest_seeddb.fingerprint.sources import Code, is_code

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

CHANGED_MEANWHILE: Final = "changed during the build"
"""The digest of a file that changed between being read and the end of the build."""

# Code is followed by its imports, see `pytest_seeddb.fingerprint.sources`.
_CODE: Final = (".py", ".pyc", ".pyo", ".pyi", ".so", ".pyd", ".dylib", ".dll", ".pth")
_COMPILED: Final = ".pyc"
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
_LISTINGS: Final = frozenset({"os.listdir", "os.scandir"})
# With the positions of the paths among each event's arguments.
_EVENTS: Final = {
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
    **dict.fromkeys(("open", "os.mkdir", "os.remove", "os.rmdir", *_LISTINGS), (0,)),
}
_HERE: Final = "./"
"""The name of the root itself."""

# Code reads through these. The import system is not among them.
_MEANS: Final = frozenset({"pathlib", "io", "_pyio", "os", "codecs", "glob", "fnmatch", "contextlib", "runpy"})
_RESOURCES: Final = ("importlib.resources", "importlib.readers")
_FROZEN: Final = "<frozen "
"""The file of the interpreter's own modules, the import system among them."""
_OURSELVES: Final = __name__.partition(".")[0]

_State = tuple[int, int, int, int]
_NO_FILE: Final[_State] = (0, 0, 0, 0)

_lock = threading.Lock()
_recordings: tuple[Recording, ...] = ()
_ongoing: dict[str, Recording] = {}
_has_hook = False
_busy = threading.local()


@dataclass(frozen=True)
class _Read:
    """A file's state (``None`` if it was missing) or a directory's names at the first reading, and all its readers.

    Readers are the project's files whose code was being executed.
    """

    state: _State | None = None
    names: frozenset[str] | None = None
    readers: set[str] = field(default_factory=set)


class Recording:
    """Records which files under ``root`` this process reads while the context is open.

    A missing file that was looked for counts, and so does a directory that the project's own code listed: what is
    added to it may be read next time. Files that this process also opened for writing or moved into place do not
    count: they are results, not inputs. Nor does code (unless the project's own code reads it like data), nor virtual
    environments, caches and ``.git``, nor what no longer exists at the end. All threads are recorded; recordings may
    overlap. Opening a file never fails because of a recording.
    """

    def __init__(self, root: Path) -> None:
        self.roots = tuple({_with_slash(os.path.abspath(root)): 1, _with_slash(os.path.realpath(root)): 1})  # noqa: PTH100 - prefixes of strings
        self._reads: dict[str, _Read] = {}
        self._loads: dict[str, _Read] = {}
        self._written: set[str] = set()
        self._parts: tuple[Part, ...] = ()

    def __enter__(self) -> Self:
        """Begin to record."""
        global _has_hook, _recordings  # noqa: PLW0603 - one hook serves the whole process
        with _lock:
            _recordings = (*_recordings, self)
            if not _has_hook:
                sys.addaudithook(_hook)
                _has_hook = True
        return self

    def __exit__(self, *_: object) -> None:
        """End the recording, also after a failure, and take the digests."""
        global _recordings  # noqa: PLW0603 - see above
        with _lock:
            _recordings = tuple(other for other in _recordings if other is not self)
        self._parts = self._parts_of(self._reads)

    def parts(self) -> tuple[Part, ...]:
        """What was read, sorted by name; nothing before the recording has ended. Directories end in ``/``.

        A digest is that of the content that the build read. A file that another process changed before the end has
        `CHANGED_MEANWHILE` instead, which no content ever matches.
        """
        return self._parts

    def parts_read_by(self, sources: frozenset[str]) -> tuple[Part, ...]:
        """What code of these files has read so far."""
        return self._parts_of([name for name, read in [*self._reads.items()] if not sources.isdisjoint(read.readers)])

    def loads_of(self, sources: frozenset[str]) -> frozenset[str]:
        """The source files that were loaded while code of these files was being executed."""
        return frozenset(name for name, load in [*self._loads.items()] if not sources.isdisjoint(load.readers))

    def changes_since_loading(self, sources: Iterable[str]) -> list[str]:
        """The source files that changed since this process loaded them."""
        return [name for name in sources if name in self._loads and self._loads[name].state != self._state(name)]

    def note(self, event: str, path: str, *, writes: bool) -> None:
        """Note an event; the hook calls this, from any thread."""
        name = self._name(path)
        if name is None:
            return
        if writes:
            self._written.add(name)
        elif event in _LISTINGS:
            if self._is_own(_reader()):
                self._add(self._reads, _with_slash(name) if name else _HERE, _Read(names=_names_in(path)))
        elif name.endswith(_COMPILED):
            self._load(self._name(source_from_cache(path)))
        elif not is_code(name) or self._is_own(reader := _reader()):
            self._read(name)
        elif reader is None or _top(reader) != _OURSELVES:
            self._load(name)

    def take_over(self, part: Part) -> None:
        """Count a part of an earlier recording."""
        name = part.name.replace("/", os.sep)
        if name.endswith(os.sep):
            self._add(self._reads, name, _Read(names=_names_in(self.roots[0] + name)))
        else:
            self._read(name)

    def _read(self, name: str) -> None:
        if (state := self._state(name)) != _NO_FILE:
            self._add(self._reads, name, _Read(state))

    def _load(self, name: str | None) -> None:
        if name is not None and (state := self._state(name)) is not None:
            self._add(self._loads, name, _Read(state))

    def _add(self, reads: dict[str, _Read], name: str, read: _Read) -> None:
        reads.setdefault(name, read).readers.update(filter(None, (_own_file(frame, self.roots) for frame in _frames())))

    def _is_own(self, reader: FrameType | None) -> bool:
        return reader is not None and bool(_own_file(reader, self.roots))

    def _name(self, path: str) -> str | None:
        whole = os.path.abspath(path)  # noqa: PTH100 - strings: this runs for each opening
        below = next((whole[len(root) :] for root in self.roots if _with_slash(whole).startswith(root)), None)
        if below is None or below.endswith(_COMPILED):  # compiled code stands for its source
            return below
        is_unread = below.endswith(_CODE) and not is_code(below)
        return None if is_unread or _is_ignored(Path(below).parts) else below

    def _state(self, name: str) -> _State | None:
        """A regular file's state; ``None`` if nothing has the name, `_NO_FILE` if something else has."""
        try:
            status = os.stat(self.roots[0] + name)  # noqa: PTH116 - as above
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return _NO_FILE
        return (status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)

    def _parts_of(self, names: Iterable[str]) -> tuple[Part, ...]:
        root = Path(self.roots[0])
        code, parts = Code(root), []
        for name in names:
            environments = (Path(root, parent, "pyvenv.cfg") for parent in list(Path(name).parents)[:-1])
            if name not in self._written and not any(environment.exists() for environment in environments):
                with suppress(OSError):
                    parts.append(content_part(name.replace(os.sep, "/"), self._digest(name, code)))
        return tuple(sorted(parts))

    def _digest(self, name: str, code: Code) -> str:
        read = self._reads[name]
        if read.names is not None:
            now = _names_in(self.roots[0] + name)
            place = "" if name == _HERE else name
            others = [changed for changed in now ^ read.names if place + changed not in self._written]
            return CHANGED_MEANWHILE if others else _digest_of_names(now)
        if read.state is None:
            return MISSING
        content = code.digest(name)
        return content if self._state(name) == read.state else CHANGED_MEANWHILE


def begin(root: Path) -> None:
    """Record what code reads under ``root``, from now on for the life of the process."""
    recording = Recording(root)
    if _ongoing.setdefault(recording.roots[0], recording) is recording:
        recording.__enter__()


def take_over(parts: Iterable[Part], root: Path) -> None:
    """Let the recordings under ``root`` count these parts of an earlier one, as they are now."""
    roots, parts = Recording(root).roots, tuple(parts)
    for recording in _recordings:
        for part in parts if recording.roots == roots else ():
            recording.take_over(part)


def all_parts(own: Iterable[Part], root: Path, sources: Iterable[str]) -> tuple[Part, ...]:
    """The inputs of a build beside its steps: what it read itself, and what its sources' code had read before.

    ``own`` are the parts of the build's recording, ``sources`` its source files by name from the root. A source that
    changed since this process loaded it has `CHANGED_MEANWHILE`: the build is neither of the old nor of the new file.
    """
    own, sources = tuple(own), frozenset(sources)
    ongoing = _ongoing.get(Recording(root).roots[0])
    earlier: tuple[Part, ...] = ()
    running: frozenset[str] = frozenset()
    reached = sources
    while not reached <= running:
        running |= reached
        earlier = ongoing.parts_read_by(running) if ongoing else ()
        reached = Code(root).imports_of([part.name for part in (*own, *earlier)])
        reached |= ongoing.loads_of(running) if ongoing else frozenset()
    outdated = ongoing.changes_since_loading(running) if ongoing else []
    imported = current(running - sources, root)
    return merge((*(Part(name, CHANGED_MEANWHILE) for name in outdated), *own, *earlier, *imported))


def merge(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Each name once: what was read twice with different contents has changed meanwhile."""
    merged: dict[str, Part] = {}
    for part in parts:
        if merged.setdefault(part.name, part) != part:
            merged[part.name] = Part(part.name, CHANGED_MEANWHILE)
    return tuple(sorted(merged.values()))


def current(names: Iterable[str], root: Path) -> tuple[Part, ...]:
    """The parts of these recorded names as they are now, sorted; `MISSING` if not readable files under ``root``."""
    code, parts = Code(root), []
    for name in set(names):
        value = MISSING
        if (
            not Path(name).is_absolute() and ".." not in Path(name).parts
        ):  # a server returns names: they must not lead out
            with suppress(OSError, ValueError):
                if name.endswith("/"):
                    value = _digest_of_names(_names_in(str(root / name)))
                elif (root / name).is_file():
                    value = code.digest(name)
        parts.append(content_part(name, value))
    return tuple(sorted(parts))


def _names_in(directory: str) -> frozenset[str]:
    """The names in a directory, without tests and what tools leave behind: no build is made of them."""
    names = os.listdir(directory)  # noqa: PTH208 - names only
    return frozenset(name for name in names if not (name.endswith(_COMPILED) or _is_ignored((name,)) or is_test(name)))


def _digest_of_names(names: Iterable[str]) -> str:
    return digest("\0".join(sorted(names)))


def _is_ignored(names: tuple[str, ...]) -> bool:
    is_coverage = bool(names) and names[-1].startswith(_COVERAGE)
    return (
        is_coverage or not _IGNORED_DIRECTORIES.isdisjoint(names) or any(n.endswith(_IGNORED_SUFFIXES) for n in names)
    )


def _with_slash(path: str) -> str:
    return path.rstrip(os.sep) + os.sep


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    """The audit hook: it gets every event of the process, so it looks at the name first."""
    if event not in _EVENTS or not _recordings or getattr(_busy, "recording", False):
        return
    _busy.recording = True
    with suppress(Exception):  # an error here would be raised by the user's own open()
        flags = arguments[2] if event == "open" else 0
        writes = isinstance(flags, int) and bool(flags & _WRITES) if event == "open" else event not in _LISTINGS
        for position in _EVENTS[event]:
            path = "." if arguments[position] is None else arguments[position]
            if isinstance(path, str | bytes | os.PathLike):  # not a descriptor, whose opening was seen
                for recording in _recordings:
                    recording.note(event, os.fsdecode(path), writes=writes)
    _busy.recording = False


# -- whose code reads: the stack at that moment ----------------------------------------------------


def _reader() -> FrameType | None:
    """The code that reads, by the standard library's means or directly."""
    for frame in _frames():
        file, module = frame.f_code.co_filename, _module(frame)
        # Executed text is not the reader; the code that executes it is.
        is_text = file.startswith("<") and not file.startswith(_FROZEN)
        if not (is_text or module.partition(".")[0] in _MEANS or module.startswith(_RESOURCES)):
            return frame
    return None


def _frames() -> Iterator[FrameType]:
    """The stack from the inside outward, without this module's own frames."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - documented
    while frame is not None:
        if _module(frame) != __name__:
            yield frame
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _top(frame: FrameType) -> str:
    return _module(frame).partition(".")[0]


def _own_file(frame: FrameType, roots: tuple[str, ...]) -> str:
    """The project's file that the frame executes, by its name from the root with ``/``; "" for other code."""
    if _top(frame) == _OURSELVES:
        return ""
    file = frame.f_code.co_filename
    return next((file[len(root) :].replace("\\", "/") for root in roots if file.startswith(root)), "")
