"""Which of the project's functions ran: each is noted once when it first starts, and once more in each build.

`sys.monitoring` (Python 3.12) tells of each start of a function, until it is told that one is enough. So code costs
nothing after its first run. Where it is missing, or has no free place, `Tracing.is_exact` is false, and all files count
whole. Then a build is watched by a profiler, unless there is one already, to see at least which files took part.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import threading
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from pytest_seeddb.fingerprint import django_settings
from pytest_seeddb.fingerprint.outline import unit_of
from pytest_seeddb.fingerprint.places import FOREIGN_CODE
from pytest_seeddb.fingerprint.stack import module_of, top_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

    from pytest_seeddb.fingerprint.places import Places

_TOOLS: Final = (3, 4)
"""The numbers that Python gives no purpose: others are a debugger's, coverage's, a profiler's, an optimizer's."""
_MODULE: Final = "<module>"
_CHILDREN: Final = frozenset(
    f"multiprocessing.popen_{how}" for how in ("fork", "forkserver", "spawn_posix", "spawn_win32")
)
_OURSELVES: Final = __name__.partition(".")[0]

_Place = tuple[str, str]
"""A file's path, and the name of the module that it is."""


class Start(NamedTuple):
    """A function or module that began to run: on behalf of whose code, and while which module was imported."""

    code: CodeType
    place: _Place
    caller: _Place | None
    importing: _Place | None
    is_ours: bool


@dataclass
class Observation:
    """What ran of one project: functions by file, before the build and altogether, and what each file's import caused.

    ``whole`` are the files of which not all that ran is known, or whose text is not what ran.
    """

    earlier: dict[str, set[str]] = field(default_factory=dict)
    executed: dict[str, set[str]] = field(default_factory=dict)
    causes: dict[str, set[str]] = field(default_factory=dict)
    paths: dict[str, _Place] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)


_log: list[Start] = []
_missed: list[CodeType] = []
"""What could not be noted."""
_asked_for_apps: list[str] = []
"""The modules that asked Django for all applications."""
_armed: dict[CodeType, None] = {}
_early: dict[str, str] = {}
"""The files that were imported before anything was noted, and their modules."""
_tool: list[int | None] = []
_profilers: list[Any] = []
_tracings: list[Tracing] = []


def start() -> None:
    """Begin to note, for the life of the process."""
    if _tool:
        return
    for name, path, _ in _modules():
        _early[os.path.abspath(path)] = name  # noqa: PTH100 - strings
    _tool.append(_begin())


def _begin() -> int | None:
    if sys.version_info >= (3, 12):
        monitoring, events = sys.monitoring, sys.monitoring.events
        for tool in _TOOLS:
            if monitoring.get_tool(tool) is None:
                monitoring.use_tool_id(tool, "pytest-seeddb")
                for event in (events.PY_START, events.PY_RESUME):
                    monitoring.register_callback(tool, event, _note)
                monitoring.set_events(tool, events.PY_START | events.PY_RESUME)
                atexit.register(monitoring.set_events, tool, 0)  # this module's names go before the last functions run
                return tool
    return None


def is_exact() -> bool:
    """Whether functions are noted, and not only files."""
    return bool(_tool) and _tool[0] is not None


def _note(code: CodeType, _offset: int) -> object:
    if sys.version_info >= (3, 12):
        if code.co_qualname == django_settings.LISTS:
            caller = sys._getframe(1).f_back  # noqa: SLF001 - documented
            if django_settings.asks_for_apps(caller):
                _asked_for_apps.append(module_of(caller) if caller else "")
            return None
        try:
            if not code.co_filename.startswith(FOREIGN_CODE):
                _log.append(_start_of(code, sys._getframe(1)))  # noqa: SLF001 - documented
        except Exception:  # noqa: BLE001 - it would be raised by the user's own call: at the limit of recursion
            _missed.append(code)
            return None
        return sys.monitoring.DISABLE
    return None


def _start_of(code: CodeType, frame: FrameType) -> Start:
    _armed[code] = None
    caller = importing = None
    is_ours = False
    outer = frame.f_back
    while outer is not None and importing is None:
        module, file = module_of(outer), outer.f_code.co_filename
        if top_of(outer) == _OURSELVES:
            is_ours = caller is None
            break
        if not file.startswith(FOREIGN_CODE) and module != "__main__":
            caller = caller or (file, module)
            if outer.f_code.co_name == _MODULE:
                importing = (file, module)
        outer = outer.f_back
    return Start(code, (code.co_filename, module_of(frame)), caller, importing, is_ours)


def _arm_again() -> None:
    """Let everything be told once more, for this tool alone: `restart_events` would do it for coverage's, too."""
    tool = _tool[0] if _tool else None
    if sys.version_info >= (3, 12) and tool is not None:
        monitoring, events = sys.monitoring, sys.monitoring.events
        monitoring.set_events(tool, 0)
        for code in [*_armed]:  # code is only instrumented anew when its own events change
            monitoring.set_local_events(tool, code, events.PY_RETURN)
            monitoring.set_local_events(tool, code, 0)
        monitoring.set_events(tool, events.PY_START | events.PY_RESUME)


def note_module(name: str) -> None:
    """Let a module take part in the step that is under way, if any: it made what the step works with."""
    path = getattr(sys.modules.get(name), "__file__", None)
    if _tracings and path:
        code = compile("", path, "exec")
        _log.append(Start(code, (path, name), caller=None, importing=None, is_ours=False))


class Tracing:
    """Notes what runs in a build, by step: use it as a context, and call `begin` as each step begins."""

    def __init__(self) -> None:
        self._marks: list[tuple[str, int]] = []
        self._files: dict[str, set[str]] = {}
        self.scripts: dict[str, str] = {}
        """Files that the build runs as programs, as `env.py`: only what they import from this directory counts."""
        self.is_partial = False
        """Whether something ran of which nothing is known: the project's code started other processes."""
        self.has_apps = False
        """Whether a step names those of Django's applications that count even if nothing lists them."""

    def __enter__(self) -> Self:
        start()
        _tracings.append(self)
        _arm_again()
        django_settings.forget_apps()
        self._marks = [("", len(_log))]
        if not is_exact() and sys.getprofile() is None:
            self._profile()
        return self

    def __exit__(self, *_: object) -> None:
        _tracings.remove(self)
        self._take()
        self.is_partial = bool(_missed) or not _CHILDREN.isdisjoint(sys.modules)
        for profiler in _profilers:
            profiler.disable()
        if not is_exact():
            threading.setprofile(None)
        _profilers.clear()
        self._marks.append(("", len(_log)))

    @property
    def lists_apps(self) -> bool:
        """Whether something asked Django for all applications, or may have."""
        return self.is_partial or not is_exact() or bool(_asked_for_apps)

    def begin(self, step: str) -> None:
        """From here on, what runs belongs to this step."""
        self._take()
        self._marks.append((step, len(_log)))

    def _profile(self, *_: object) -> None:
        import _lsprof

        profiler = _lsprof.Profiler(subcalls=False, builtins=False)
        _profilers.append(profiler)
        profiler.enable()
        threading.setprofile(self._profile)

    def _take(self) -> None:
        """Keep what the profilers have seen for the step before."""
        step = self._marks[-1][0]
        for profiler in _profilers:
            for entry in profiler.getstats():
                code = entry.code
                if not isinstance(code, str) and not code.co_filename.startswith(FOREIGN_CODE):
                    self._files.setdefault(step, set()).add(code.co_filename)
            profiler.clear()

    def steps(self, places: Places) -> Iterator[tuple[str, set[str], dict[str, set[str]]]]:
        """The steps in their order, each with the files whose code it ran, and all functions that began in it, by file.

        What ran before the first step belongs to that.
        """
        files: set[str] = set()
        executed: dict[str, set[str]] = {}
        modules = {path: name for name, path, _ in _modules()}
        for (step, begin), (_, end) in itertools.pairwise(self._marks):
            for start in _log[begin:end]:
                file = places.source_of(*start.place)
                executed.setdefault(file, set()).add(unit_of(start.code.co_qualname))
                if self._counts(start, places):
                    files.add(file)
            if step:
                profiled = self._files.get(step, set()) & modules.keys()
                files |= {places.source_of(path, modules[path]) for path in profiled}
                yield step, files - {""}, executed
                files, executed = set(), {}

    def _counts(self, start: Start, places: Places) -> bool:
        """Whether it ran by itself, and not because of a file's import, which is followed."""
        if start.code.co_name == _MODULE:
            return start.caller is None and not start.is_ours
        return start.importing is None or places.source_of(*start.importing) in self.scripts

    def observation(self, places: Places) -> Observation:
        """All that has run in this process."""
        observation = Observation()
        for at, start in enumerate(_log):
            if not (file := places.source_of(*start.place)):
                continue
            unit = unit_of(start.code.co_qualname)
            observation.paths.setdefault(file, start.place)
            observation.executed.setdefault(file, set()).add(unit)
            if at < self._marks[0][1]:
                observation.earlier.setdefault(file, set()).add(unit)
            cause = start.caller if start.code.co_name == _MODULE else start.importing
            if cause and (causing := places.source_of(*cause)) not in {"", file}:
                observation.causes.setdefault(causing, set()).add(file)
        for name, path, _ in _modules():
            observation.paths.setdefault(places.source_of(path, name), (path, name))
        for path, name in _early.items():
            if file := places.source_of(path, name):
                observation.paths.setdefault(file, (path, name))
                observation.whole.add(file)
        for name, path, loader in _modules():  # pytest's rewriting of assertions, and other makers of code
            if type(loader) is not SourceFileLoader:
                observation.whole.add(places.source_of(path, name))
        return observation


def loaded(places: Places) -> Iterator[str]:
    """The project's files that this process has as modules."""
    for name, path, _ in _modules():
        if file := places.source_of(path, name):
            yield file


def _modules() -> Iterator[tuple[str, str, object]]:
    """The name, file and loader of each module that may be the project's."""
    for name, module in [*sys.modules.items()]:
        path: object = getattr(module, "__file__", None)
        if isinstance(path, str) and not path.startswith(FOREIGN_CODE):
            yield name, path, getattr(module, "__loader__", None)
