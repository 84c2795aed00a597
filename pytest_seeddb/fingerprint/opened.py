"""Data files that a build opened: inputs that nobody had to declare.

Python announces each file that it opens as an audit event (PEP 578). A hook for these events cannot
be taken away again, so there is one for the process, and idle unless a recording is under way.

What a module reads when it is imported is read once in a process, perhaps long before a build: by
the tests' own imports, or by the build of another profile. So beside the recording of each build
there is one that goes on, see `begin`, and notes whose code did it.

Not seen are files that C libraries open by themselves and those that other processes open: name
them under ``watch`` in the settings.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import source_from_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pytest_seeddb.fingerprint.callers import is_of_own_code, is_ours, own_files
from pytest_seeddb.fingerprint.digests import MISSING, Part, digest, file_digest
from pytest_seeddb.fingerprint.executed import Code, is_code
from pytest_seeddb.fingerprint.modules import is_test

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHANGED_MEANWHILE: Final = "changed during the build"
"""The digest of a file that was not at the end what it had been when it was read."""

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
# Events by which directories change, with the positions of the names among their arguments.
_CHANGES: Final = {
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir"), (0,)),
}
_LISTINGS: Final = frozenset({"os.listdir", "os.scandir"})
_EVENTS: Final = frozenset({"open", *_CHANGES, *_LISTINGS})

_State = tuple[int, int, int, int]

_NO_FILE: Final[_State] = (0, 0, 0, 0)
_HERE: Final = "./"
"""The name of the root itself."""

_lock = threading.Lock()
_recordings: tuple[OpenedFiles, ...] = ()
_ongoing: dict[str, OpenedFiles] = {}
_hooked = False
_busy = threading.local()


@dataclass(frozen=True)
class _Read:
    """A file or directory as it was when it was first read, and whose code read it since.

    Attributes:
        state: Of a file; ``None`` where there was none.
        names: What a directory had in it; ``None`` of a file.
        readers: The project's files that were being executed.
    """

    state: _State | None
    names: frozenset[str] | None
    readers: set[str]


class OpenedFiles:
    """Records which files under ``root`` this process reads while the context is open.

    A file that was looked for and not there counts, and so does a directory whose names the project's
    own code listed: what comes into it later may be read then. Files that this process also opened for
    writing or moved into place meanwhile do not count: they are results, not inputs. Neither does code,
    unless the project's own reads it like data, nor what lies in virtual environments, caches and
    ``.git``, nor what is gone at the end. All threads are recorded; recordings may overlap. Opening
    a file never fails because of a recording.

    Args:
        root: The project's root.
    """

    def __init__(self, root: Path) -> None:
        self.roots = tuple({_slashed(os.path.abspath(root)): 1, _slashed(os.path.realpath(root)): 1})  # noqa: PTH100 - prefixes of strings
        self._read: dict[str, _Read] = {}
        self._written: set[str] = set()
        self._loaded: dict[str, _Read] = {}
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
        self._parts = self._parts_of(self._read)

    def parts(self) -> tuple[Part, ...]:
        """What was read, sorted by name; nothing before the recording has ended. Directories end in ``/``.

        A digest is that of the content that the build read: a file that somebody changed between
        being read and the end has `CHANGED_MEANWHILE` instead, which no content ever matches.
        """
        return self._parts

    def parts_read_by(self, sources: Iterable[str]) -> tuple[Part, ...]:
        """Likewise what code of these files has read so far."""
        wanted = frozenset(sources)
        names = [name for name, read in tuple(self._read.items()) if not wanted.isdisjoint(read.readers)]
        return self._parts_of(names)

    def outdated(self, sources: Iterable[str]) -> list[str]:
        """Those of the source files that are other ones now than when this process loaded them."""
        return [name for name in sources if name in self._loaded and self._loaded[name].state != self._state_of(name)]

    def loaded_by(self, sources: Iterable[str]) -> frozenset[str]:
        """The source files that were loaded while code of these was being executed, however that named them."""
        wanted = frozenset(sources)
        return frozenset(name for name, load in tuple(self._loaded.items()) if not wanted.isdisjoint(load.readers))

    # -- called by the hook, from any thread -------------------------------------------------------

    def opened(self, path: str, *, writes: bool) -> None:
        """Take note of one opening."""
        name = self._name(path)
        if name is None:
            return
        if writes:
            self._written.add(name)
        elif name.endswith(_COMPILED):
            self._load(self._name(source_from_cache(path)))
        elif is_code(name) and not is_of_own_code(sys._getframe(), self.roots):  # noqa: SLF001 - documented
            if not is_ours(sys._getframe()):  # noqa: SLF001 - as above
                self._load(name)
        else:
            self._note(name, self._regular(name))

    def listed(self, path: str) -> None:
        """Take note of one listing of a directory."""
        name = self._name(path)
        if name is not None and is_of_own_code(sys._getframe(), self.roots):  # noqa: SLF001 - as above
            self._note(_slashed(name) if name else _HERE, _Read(None, _names_in(path), set()))

    def changed(self, path: str) -> None:
        """Take note of a name that comes or goes."""
        if (name := self._name(path)) is not None:
            self._written.add(name)

    def take_over(self, part: Part) -> None:
        """Count what an earlier recording had counted."""
        name = part.name.replace("/", os.sep)
        if name.endswith(os.sep):
            self._note(name, _Read(None, _names_in(self.roots[0] + name), set()))
        else:
            self._note(name, self._regular(name))

    def _note(self, name: str, read: _Read | None) -> None:
        if read is not None:
            readers = self._read.setdefault(name, read).readers
            readers |= own_files(sys._getframe(), self.roots)  # noqa: SLF001 - as above

    def _regular(self, name: str) -> _Read | None:
        state = self._state_of(name)
        return None if state == _NO_FILE else _Read(state, None, set())

    def _load(self, name: str | None) -> None:
        state = self._state_of(name) if name is not None else None
        if name is not None and state is not None:
            loaded = self._loaded.setdefault(name, _Read(state, None, set()))
            loaded.readers.update(own_files(sys._getframe(), self.roots))  # noqa: SLF001 - documented

    # -- names and states --------------------------------------------------------------------------

    def _name(self, path: str) -> str | None:
        whole = os.path.abspath(path)  # noqa: PTH100 - strings: this runs for each opening
        below = next((whole[len(root) :] for root in self.roots if _slashed(whole).startswith(root)), None)
        if below is None:
            return None
        if below.endswith(_COMPILED):  # it stands for the file that it was made from
            return below
        is_unread = below.endswith(_CODE) and not is_code(below)
        return None if is_unread or _is_ignored(Path(below).parts) else below

    def _state_of(self, name: str) -> _State | None:
        """Of a regular file; ``None`` where there is nothing, `_NO_FILE` where there is something else."""
        try:
            status = os.stat(self.roots[0] + name)  # noqa: PTH116 - as above
        except FileNotFoundError:
            return None
        return _state(status) if stat.S_ISREG(status.st_mode) else _NO_FILE

    # -- at the end --------------------------------------------------------------------------------

    def _parts_of(self, names: Iterable[str]) -> tuple[Part, ...]:
        code = Code(Path(self.roots[0]))
        return tuple(sorted(filter(None, (self._part(name, code) for name in names))))

    def _part(self, name: str, code: Code) -> Part | None:
        read = self._read[name]
        if name in self._written or self._is_in_environment(name):
            return None
        label = name.replace(os.sep, "/")
        with suppress(OSError):
            if read.names is not None:
                return Part(label, self._listing(name, read.names))
            if read.state is None:
                return Part(label, MISSING)
            found = _digest_of_file(name, Path(self.roots[0]), code)
            return Part(label, found if self._state_of(name) == read.state else CHANGED_MEANWHILE)
        return None

    def _listing(self, name: str, before: frozenset[str]) -> str:
        """The digest of all that is there now, if only this process changed anything."""
        now = _names_in(self.roots[0] + name)
        place = "" if name == _HERE else name
        changed = [each for each in now ^ before if place + each not in self._written]
        return CHANGED_MEANWHILE if changed else _digest_of_names(now)

    def _is_in_environment(self, name: str) -> bool:
        parents = list(Path(name).parents)[:-1]
        return any(Path(self.roots[0], parent, "pyvenv.cfg").exists() for parent in parents)


def begin(root: Path) -> None:
    """Record from now on for as long as the process lives what its code reads under ``root``."""
    recording = OpenedFiles(root)
    if _ongoing.setdefault(recording.roots[0], recording) is recording:
        recording.__enter__()


def take_over(parts: Iterable[Part], root: Path) -> None:
    """Let the recordings under ``root`` count these parts of an earlier one, as they are now."""
    own = OpenedFiles(root).roots
    for recording in _recordings:
        for part in parts if recording.roots == own else ():
            recording.take_over(part)


def all_parts(own: Iterable[Part], root: Path, sources: Iterable[str]) -> tuple[Part, ...]:
    """What a build depends on beside its steps: what it read, and what its sources' code had read before.

    Args:
        own: What was read meanwhile.
        root: The project's root.
        sources: The build's source files, by name from the root. One that is another now than when this
            process loaded it is told, too, by `CHANGED_MEANWHILE`: what was built is of neither.
    """
    own, sources = tuple(own), frozenset(sources)
    ongoing = _ongoing.get(OpenedFiles(root).roots[0])
    earlier: tuple[Part, ...] = ()
    running: frozenset[str] = frozenset()
    found = sources
    while not found <= running:
        running |= found
        earlier = ongoing.parts_read_by(running) if ongoing else ()
        found = Code(root).imported_by([part.name for part in (*own, *earlier)])
        found |= ongoing.loaded_by(running) if ongoing else frozenset()
    outdated = ongoing.outdated(running) if ongoing else []
    imported = current(running - sources, root)
    return merged((*(Part(name, CHANGED_MEANWHILE) for name in outdated), *own, *earlier, *imported))


def merged(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Each name once: what was read twice and was not the same has changed meanwhile."""
    found: dict[str, str] = {}
    for part in parts:
        same = found.setdefault(part.name, part.digest) == part.digest
        found[part.name] = part.digest if same else CHANGED_MEANWHILE
    return tuple(sorted(Part(*pair) for pair in found.items()))


def current(names: Iterable[str], root: Path) -> tuple[Part, ...]:
    """The same parts as they are now, for the names of recorded ones; sorted.

    A file that is gone, cannot be read, or is no regular file under ``root`` has the digest
    `pytest_seeddb.fingerprint.digests.MISSING`.
    """
    code = Code(root)
    return tuple(sorted(Part(name, _digest_below(root, name, code)) for name in set(names)))


def _digest_below(root: Path, name: str, code: Code) -> str:
    path = root / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return MISSING  # names come back from a server: they must lead nowhere else
    try:
        if name.endswith("/"):
            return _digest_of_names(_names_in(str(path)))
        return _digest_of_file(name, root, code) if path.is_file() else MISSING
    except (OSError, ValueError):
        return MISSING


def _digest_of_file(name: str, root: Path, code: Code) -> str:
    return code.digest(name) if is_code(name) else file_digest(root / name)


def _names_in(directory: str) -> frozenset[str]:
    return frozenset(name for name in os.listdir(directory) if not _comes_and_goes(name))  # noqa: PTH208 - names


def _comes_and_goes(name: str) -> bool:
    """Tests and what tools leave behind: nothing that a build is made of."""
    return name.endswith(_COMPILED) or _is_ignored((name,)) or is_test(name)


def _digest_of_names(names: Iterable[str]) -> str:
    return digest("\0".join(sorted(names)))


def _is_ignored(names: tuple[str, ...]) -> bool:
    if not _IGNORED_DIRECTORIES.isdisjoint(names) or (names and names[-1].startswith(_COVERAGE)):
        return True
    return any(name.endswith(_IGNORED_SUFFIXES) for name in names)


def _state(status: os.stat_result) -> _State:
    return (status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


def _slashed(root: str) -> str:
    return root.rstrip(os.sep) + os.sep


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    """The audit hook: every event of the process comes by here, so it looks at the name first."""
    if event not in _EVENTS or not _recordings or getattr(_busy, "recording", False):
        return
    _busy.recording = True
    with suppress(Exception):  # an error here would be raised by the user's own open()
        _record(event, arguments)
    _busy.recording = False


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        flags = arguments[2]
        writes = isinstance(flags, int) and bool(flags & _WRITES)
        for recording, path in _told(arguments[0]):
            recording.opened(path, writes=writes)
    elif event in _LISTINGS:
        for recording, path in _told("." if arguments[0] is None else arguments[0]):
            recording.listed(path)
    for position in _CHANGES.get(event, ()):
        for recording, path in _told(arguments[position]):
            recording.changed(path)


def _told(path: object) -> Iterator[tuple[OpenedFiles, str]]:
    """The recordings that are to be told of a path; none of a descriptor: whoever opened it was seen then."""
    if isinstance(path, str | bytes | os.PathLike):
        for recording in _recordings:
            yield recording, os.fsdecode(path)
