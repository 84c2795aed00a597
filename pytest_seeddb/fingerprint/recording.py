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
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import source_from_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pytest_seeddb.fingerprint import environment, lookups, tracing
from pytest_seeddb.fingerprint.digests import CHANGED_MEANWHILE, MISSING, Part, content_part, file_digest, merge
from pytest_seeddb.fingerprint.events import PATHS, files_of
from pytest_seeddb.fingerprint.listings import LISTING, digest_of_names, is_finder, names_in, patterns_of, split
from pytest_seeddb.fingerprint.places import Places, is_ignored, with_slash
from pytest_seeddb.fingerprint.sources import Code, is_code
from pytest_seeddb.fingerprint.stack import frames, module_of, reader, top_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import FrameType

# Code is followed by its imports, see `pytest_seeddb.fingerprint.sources`.
_CODE: Final = (".py", ".pyc", ".pyo", ".pyi", ".so", ".pyd", ".dylib", ".dll", ".pth")
_PROCESSES: Final = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "os.exec"}
)
_COUNTED: Final = frozenset({*PATHS, *_PROCESSES, *lookups.GLOBS})
_HERE: Final = "./"
"""The name of the root itself."""
_OURSELVES: Final = __name__.partition(".")[0]

_State = tuple[int, int, int, int]
_NO_FILE: Final[_State] = (0, 0, 0, 0)
_NO_STATE: Final[_State] = (-1, -1, -1, -1)
"""That of a file which is another now than when it was read."""

_REPLAYED: Final = "seeddb replayed: "
_REPLAY: Final = f"""
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from pathlib import Path
from {__name__} import reads_of_import
print("\\n{_REPLAYED}" + json.dumps(reads_of_import(Path(sys.argv[2]), sys.argv[3:])))
"""
_PATIENCE: Final = 60
"""Seconds for that child process."""

_lock = threading.Lock()
_recordings: tuple[Recording, ...] = ()
_ongoing: dict[str, Recording] = {}
_has_hook = False
_busy = threading.local()
_planned: list[str] = []


@dataclass(frozen=True)
class _Read:
    """A file's state (``None`` if it was missing) or a directory's names at the first reading, and all its readers.

    Readers are the project's files whose code was being executed.
    """

    state: _State | None = None
    names: frozenset[str] | None = None
    readers: set[str] = field(default_factory=set)


class Recording:
    """Records what this process reads of the project in ``root`` while the context is open.

    Files count that `pytest_seeddb.fingerprint.places` names. A missing file that was looked for counts, and so does a
    directory that was listed on behalf of the project's own code: what is added to it may be read next time. Files that
    this process also opened for writing or moved into place do not count: they are results, not inputs. Nor does code
    (unless the project's own code reads it like data), nor virtual environments, caches and ``.git``, nor what no
    longer exists at the end. Environment variables count that the project's code asks for by name.
    All threads are recorded; recordings may overlap. Opening a file never fails because of a recording.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.places = Places(root)
        self._reads: dict[str, _Read] = {}
        self._loads: dict[str, _Read] = {}
        self._variables: dict[str, set[str]] = {}
        self._written: set[str] = set()
        self._updated: dict[str, str] = {}
        self._parts: tuple[Part, ...] = ()
        self._environ: dict[str, str] = {}
        self._early: set[str] = set()
        self.has_children = False
        self.started = time.time_ns()

    def __enter__(self) -> Self:
        """Begin to record a build."""
        self._environ = environment.begin_build()
        self._start()
        return self

    def start(self) -> None:
        """Begin to record for the life of the process."""
        self._early = set(sys.modules)
        self._start()

    def _start(self) -> None:
        global _has_hook, _recordings  # noqa: PLW0603 - one hook serves the whole process
        with _lock:
            _recordings = (*_recordings, self)
            if not _has_hook:
                sys.addaudithook(_hook)
                _has_hook = True
        environment.listen(_note_variable)
        lookups.listen(_note_lookup)
        environment.forget_instructions()

    def __exit__(self, *_: object) -> None:
        """End the recording, also after a failure, and take the digests."""
        global _recordings  # noqa: PLW0603 - see above
        with _lock:
            _recordings = tuple(other for other in _recordings if other is not self)
        environment.end_build(self._environ)
        self._parts = merge((*self._parts_of(self._reads), *self._variables_of(self._variables, self._environ)))

    def parts(self) -> tuple[Part, ...]:
        """What was read, sorted by name; nothing before the recording has ended. Directories end in ``/``.

        A digest is that of the content that the build read. A file that another process changed before the end has
        `CHANGED_MEANWHILE` instead, which no content ever matches.
        """
        return self._parts

    def parts_read_by(self, sources: frozenset[str]) -> tuple[Part, ...]:
        """What code of these files has read so far."""
        files = [name for name, read in [*self._reads.items()] if not sources.isdisjoint(read.readers)]
        variables = [name for name, readers in [*self._variables.items()] if not sources.isdisjoint(readers)]
        return merge((*self._parts_of(files), *self._variables_of(variables)))

    def loads(self) -> Iterable[str]:
        """All source files that were loaded."""
        return [*self._loads]

    def loads_of(self, sources: frozenset[str]) -> frozenset[str]:
        """The source files that were loaded while code of these files was being executed."""
        return frozenset(name for name, load in [*self._loads.items()] if not sources.isdisjoint(load.readers))

    def changes_since_loading(self, sources: Iterable[str]) -> list[str]:
        """The source files that changed since this process loaded them."""
        return [name for name in sources if name in self._loads and self._loads[name].state != self._state(name)]

    def note(self, path: str, kind: str) -> None:
        """Note an event: something ``reads``, ``updates``, ``writes``, ``lists`` or ``misses`` the path."""
        name = self._name(path)
        if name is None:
            return
        if kind == "writes":
            self._written.add(name)
        elif kind == "lists":
            self._list(name, path)
        elif kind == "misses":
            self._miss(name)
        elif name.endswith(".pyc"):
            self._load(self._name(source_from_cache(path)))
        elif not is_code(name) or self._is_own(frame := reader()):
            self._read(name)
            if kind == "updates":
                self._updated.setdefault(name, file_digest(path))
        elif frame is None or top_of(frame) != _OURSELVES:
            self._load(name)

    def note_variable(self, name: str) -> None:
        """Note that a variable is asked for, if it is for the project's own code."""
        asker = next((frame for frame in frames() if module_of(frame) not in environment.MAPPING_MODULES), None)
        if asker is None:
            return
        if self._is_own(asker) or (environment.reads_by_name(module_of(asker)) and self._calls()):
            environment.note(name)
            self._variables.setdefault(name, set()).update(self._readers())

    def note_process(self) -> None:
        """Note that another process begins, if the project's code starts it."""
        self.has_children = self.has_children or self._calls()

    def count(self, name: str, readers: Iterable[str] = (), since: int = 0) -> None:
        """Count what was read before, as it is now; with a time in nanoseconds, unless it changed after that."""
        if environment.is_variable(name):
            environment.note(name)
            self._variables.setdefault(name, set()).update(readers)
            return
        if listing := LISTING.fullmatch(name):
            path = self._path(listing["directory"].replace("/", os.sep))
            read = _Read(names=names_in(path, split(listing["patterns"])))
        else:
            name = name.replace("/", os.sep)
            state = self._state(name)
            read = _Read(_NO_STATE if state and since and state[1] > since else state)
        if read.state != _NO_FILE:
            self._reads.setdefault(name, read).readers.update(readers)

    def replay(self, sources: frozenset[str]) -> None:
        """Learn what these files' code read when it was imported, if that was before the recording began.

        A child process imports it again.
        """
        early = {}
        for module in self._early & sys.modules.keys():
            file = getattr(sys.modules[module], "__file__", None)
            source = self.places.source_of(file, module) if isinstance(file, str) and module != "__main__" else ""
            if source in sources:
                early[module] = source
        self._early -= early.keys()
        if not early:
            return
        for source in early.values():
            state = self._state(source)
            if state is not None and state != _NO_FILE:
                self._loads.setdefault(source, _Read(_NO_STATE if state[1] > self.started else state))
        import json
        import subprocess

        command = [sys.executable, "-c", _REPLAY, json.dumps(sys.path), str(self.root), *early]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False)  # noqa: S603 - our own
        for line in done.stdout.decode(errors="replace").splitlines():
            if line.startswith(_REPLAYED):
                for name, readers in json.loads(line.removeprefix(_REPLAYED)).items():
                    self.count(name, readers, self.started)

    def readers(self) -> dict[str, list[str]]:
        """Everything that was read, with the sources whose code was being executed."""
        reads = {name.replace(os.sep, "/"): sorted(read.readers) for name, read in self._reads.items()}
        return {**reads, **{name: sorted(readers) for name, readers in self._variables.items()}}

    def _list(self, name: str, path: str) -> None:
        own = self._is_own(lister := reader())
        if lister is None or os.path.isabs(name) or (is_finder(module_of(lister)) and not own):  # noqa: PTH117 - strings
            return
        if top_of(lister) != _OURSELVES and self._calls(_planned):
            if not os.path.lexists(path):
                self._read(name)
                return
            patterns = patterns_of(path)
            listed = (with_slash(name) if name else _HERE) + (f" ({', '.join(patterns)})" if patterns else "")
            self._add(self._reads, listed, _Read(names=names_in(path, patterns)))

    def _miss(self, name: str) -> None:
        own = self._is_own(asker := reader())
        is_for_own = own or (asker and lookups.reads_settings(asker) and self._calls())
        # A name may be there although the path was not: "" and "gone/../a.json".
        if is_for_own and not os.path.isabs(name) and self._state(name) is None:  # noqa: PTH117 - strings
            self._add(self._reads, name, _Read())

    def _read(self, name: str) -> None:
        if (state := self._state(name)) != _NO_FILE:
            self._add(self._reads, name, _Read(state))

    def _load(self, name: str | None) -> None:
        if name is not None and (state := self._state(name)) is not None:
            self._add(self._loads, name, _Read(state))

    def _add(self, reads: dict[str, _Read], name: str, read: _Read) -> None:
        readers = self._readers()
        if readers or not os.path.isabs(name):  # noqa: PTH117 - strings; elsewhere only what the project's code reads
            reads.setdefault(name, read).readers.update(readers)

    def _readers(self) -> set[str]:
        """The project's files whose code is being executed."""
        return {self.places.source(frame) for frame in frames()} - {""}

    def _is_own(self, frame: FrameType | None) -> bool:
        return frame is not None and bool(self.places.source(frame))

    def _calls(self, planned: Sequence[str] = ()) -> bool:
        """Whether the project's code called what is being executed, and not this package or one of ``planned``."""
        for frame in frames():
            if self.places.source(frame):
                return True
            if top_of(frame) == _OURSELVES or module_of(frame).startswith(tuple(planned)):
                return False
        return False

    def _name(self, path: str) -> str | None:
        name = self.places.name(path)
        if name is None or (name.endswith(_CODE) and os.path.isabs(name)):  # noqa: PTH117 - strings
            return None
        if name.endswith(".pyc"):  # compiled code stands for its source
            return name
        is_unread = name.endswith(_CODE) and not is_code(name) and not self._is_own(reader())
        return None if is_unread or is_ignored(Path(name).parts) else name

    def _path(self, name: str) -> str:
        return os.path.join(self.places.roots[0], name)  # noqa: PTH118 - strings: this runs for each opening

    def _state(self, name: str) -> _State | None:
        """A regular file's state; ``None`` if nothing has the name, `_NO_FILE` if something else has."""
        try:
            status = os.stat(self._path(name))  # noqa: PTH116 - as above
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return _NO_FILE
        return (status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)

    def _parts_of(self, names: Iterable[str]) -> tuple[Part, ...]:
        root = Path(self.places.roots[0])
        code, parts = Code(root), []
        for name in names:
            # A file elsewhere counts by the link that leads to it.
            label = self.places.linked(name) if os.path.isabs(name) else name  # noqa: PTH117 - strings
            if label is None or name in self._written:
                continue
            environments = (Path(root, parent, "pyvenv.cfg") for parent in list(Path(label).parents)[:-1])
            if not any(environment.exists() for environment in environments):
                with suppress(OSError):
                    parts.append(content_part(label.replace(os.sep, "/"), self._digest(name, code)))
        return tuple(sorted(part for part in parts if part.digest))

    def _variables_of(self, names: Iterable[str], before: Mapping[str, str] | None = None) -> Iterator[Part]:
        for name in names:
            value = environment.current(name)
            is_other = before is not None and environment.part(name, before) != value
            yield Part(name, CHANGED_MEANWHILE) if is_other else value

    def _digest(self, name: str, code: Code) -> str:
        """The digest of what was read; empty if it was also written."""
        read = self._reads[name]
        if read.names is not None:
            listing = LISTING.fullmatch(name.replace(os.sep, "/"))
            directory, patterns = (listing["directory"], listing["patterns"]) if listing else (name, "")
            now = names_in(self._path(directory), split(patterns))
            place = "" if directory == _HERE else directory.replace("/", os.sep)
            others = [changed for changed in now ^ read.names if place + changed not in self._written]
            return CHANGED_MEANWHILE if others else digest_of_names(now)
        if read.state is None:
            return MISSING
        content = code.digest(name)
        if before := self._updated.get(name):
            return content if file_digest(self._path(name)) == before else ""
        return content if self._state(name) == read.state else CHANGED_MEANWHILE


@contextmanager
def planned(*modules: str) -> Iterator[None]:
    """Do not count what these libraries list meanwhile: the plan has a step for each file."""
    _planned.extend(modules)
    try:
        yield
    finally:
        for module in modules:
            _planned.remove(module)


def begin(root: Path) -> None:
    """Record what code reads of the project in ``root``, from now on for the life of the process."""
    recording = Recording(root)
    if _ongoing.setdefault(recording.places.roots[0], recording) is recording:
        recording.start()
    tracing.start()


def take_over(parts: Iterable[Part], root: Path) -> None:
    """Let the recordings under ``root`` count these parts of an earlier one, as they are now."""
    roots, parts = Places(root).roots, tuple(parts)
    for recording in _recordings:
        for part in parts if recording.places.roots == roots else ():
            recording.count(part.name)


def reads_of_import(root: Path, modules: Iterable[str]) -> dict[str, list[str]]:
    """What these modules read while they are imported, with the sources of each read; for a process of its own."""
    from importlib import import_module

    begin(root)
    with suppress(Exception):
        if "DJANGO_SETTINGS_MODULE" in os.environ:
            import_module("django").setup()
    for module in modules:
        with suppress(Exception, SystemExit):
            import_module(module)
    return _ongoing[Places(root).roots[0]].readers()


def loaded(root: Path) -> frozenset[str]:
    """The project's files that this process has imported, or did before they were removed."""
    ongoing = _ongoing.get(Places(root).roots[0])
    return frozenset((*tracing.loaded(Places(root)), *(ongoing.loads() if ongoing else ())))


def all_parts(
    own: Iterable[Part], root: Path, sources: Iterable[str], ignored: Iterable[str] = (), *, follow: bool = True
) -> tuple[Part, ...]:
    """The inputs of a build beside its steps: what it read itself, and what its sources' code had read before.

    ``own`` are the parts of the build's recording, ``sources`` its source files by name from the root, ``ignored``
    patterns of environment variables that do not count. With ``follow``, what was imported while the sources' code was
    being executed counts, too. A source that changed since this process loaded it has
    `CHANGED_MEANWHILE`: the build is neither of the old nor of the new file.
    """
    own, sources = tuple(own), frozenset(sources)
    ongoing = _ongoing.get(Places(root).roots[0])
    earlier: tuple[Part, ...] = ()
    running: frozenset[str] = frozenset()
    reached = sources
    while not reached <= running:
        running |= reached
        if ongoing:
            ongoing.replay(running)
        earlier = ongoing.parts_read_by(running) if ongoing else ()
        reached = Code(root).imports_of([part.name for part in (*own, *earlier)])
        reached |= ongoing.loads_of(running) if ongoing and follow else frozenset()
    outdated = ongoing.changes_since_loading(running) if ongoing else []
    imported = current(running - sources, root)
    parts = merge((*(Part(name, CHANGED_MEANWHILE) for name in outdated), *own, *earlier, *imported))
    return counted(parts, ignored)


def counted(parts: Iterable[Part], ignored: Iterable[str]) -> tuple[Part, ...]:
    """The parts without the environment variables that do not count."""
    ignored = tuple(ignored)
    return tuple(
        part
        for part in parts
        if not (environment.is_variable(part.name) and environment.is_ignored(part.name, ignored))
    )


def current(names: Iterable[str], root: Path) -> tuple[Part, ...]:
    """The parts of these recorded names as they are now, sorted; `MISSING` if not readable files of the project."""
    code, places, parts = Code(root), Places(root), []
    for name in set(names):
        value = MISSING
        if environment.is_variable(name):
            parts.append(environment.current(name))
            continue
        if listing := LISTING.fullmatch(name):
            # A server returns names: they must not lead out.
            with suppress(OSError, ValueError):
                if path := places.path(listing["directory"]):
                    value = digest_of_names(names_in(path, split(listing["patterns"])))
        else:
            with suppress(OSError, ValueError):
                if (path := places.path(name)) and os.path.isfile(path):  # noqa: PTH113 - strings
                    value = code.digest(name)
                elif path and os.path.isdir(path):  # noqa: PTH112 - as above
                    value = lookups.DIRECTORY
        parts.append(content_part(name, value))
    return tuple(sorted(parts))


def _hook(event: str, arguments: tuple[object, ...], *, counted: frozenset[str] = _COUNTED) -> None:
    """The audit hook: it gets every event of the process, so it looks at the name first.

    It is called when the interpreter ends as well, and finds no names of this module any more.
    """
    if event not in counted or not _recordings or getattr(_busy, "recording", False):
        return
    _busy.recording = True
    try:
        with suppress(Exception):  # an error here would be raised by the user's own open()
            if event in _PROCESSES:
                for recording in _recordings:
                    recording.note_process()
                return
            for path, kind in (lookups.missing_of_glob if event in lookups.GLOBS else files_of)(event, arguments):
                for recording in _recordings:
                    recording.note(path, kind)
    finally:  # a time limit of pytest's may interrupt it
        _busy.recording = False


def _note_variable(name: str) -> None:
    _note(lambda recording: recording.note_variable(name))


def _note_lookup(path: str, kind: str) -> None:
    _note(lambda recording: recording.note(path, kind))


def _note(note: Callable[[Recording], None]) -> None:
    if not getattr(_busy, "recording", False):
        _busy.recording = True
        try:
            for recording in _recordings:
                note(recording)
        finally:
            _busy.recording = False
