"""Data of their own for plans whose builds change what a server shares among its databases: roles, settings, databases.

On data that are used by others, such a build would fail the second time, and what it makes would be everybody's. So a
build changes globals only on data that were made for it. What else is built on its result stays on the same data.
"""

from __future__ import annotations

import json
import secrets
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from pytest_seeddb.fingerprint.atomic import beside
from pytest_seeddb.fingerprint.digests import digest
from pytest_seeddb.servers import remedies
from pytest_seeddb.servers.database_errors import database_error
from pytest_seeddb.templates.building import BuildWatch, Elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from pytest_seeddb.clones.leftovers import Leftovers
    from pytest_seeddb.errors import SeedDbError
    from pytest_seeddb.plan.plan import Plan, Progress
    from pytest_seeddb.servers.admin import Admin
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.templates.templates import Template

KEPT: Final = 4
"""How many builds of a plan keep their data; some 40 MB each, beside the databases."""
_RUN: Final = "run "
"""How the names of unfinished data begin."""
_PATIENCE: Final = 5.0
_POLL: Final = 0.01

Worker = TypeVar("Worker", bound="Founder")


@dataclass
class Notes:
    """What is known of a plan's builds, in a file of the cache directory."""

    path: Path
    plan: str
    root: str
    touches: bool = False
    """Whether a build of the plan changed globals, when it was last seen."""
    data: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The keys of the data that builds made, with their state directories: by the fingerprint of the last layer that
    changed globals, and by the run while it builds."""

    @classmethod
    def of(cls, directory: Path, plan: Plan) -> Notes:
        """A plan's; where they cannot be read, there are none."""
        path = directory / f"{digest(json.dumps([str(plan.root), plan.name]))}.json"
        return cls.read(path) or cls(path, plan.name, str(plan.root))

    @classmethod
    def read(cls, path: Path) -> Notes | None:
        """Those in a file."""
        with suppress(OSError, ValueError, TypeError):
            return cls(path, **json.loads(path.read_text(encoding="utf-8")))
        return None

    def save(self) -> None:
        """Write them, complete or not at all."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with beside(self.path, private=True) as partial:
            partial.write_text(
                json.dumps({key: value for key, value in vars(self).items() if key != "path"}), encoding="utf-8"
            )
            partial.replace(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process at a time looks for data, makes them, or removes them."""
        from pytest_seeddb.servers.processes import hold_lock  # not on Windows

        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with hold_lock(self.path.with_suffix(".lock")):
            yield

    def tidy(self, running: str) -> None:
        """Remove data that nobody uses: those that are too many, and those of builds that did not end well."""
        from pytest_seeddb.servers.remains import remove_data  # not on Windows

        unfinished = [name for name in self.data if name.startswith(_RUN) and name != running]
        finished = [name for name in self.data if not name.startswith(_RUN)]
        for name in (*unfinished, *finished[:-KEPT]):
            if remove_data(Path(self.data[name][1])):
                del self.data[name]


def own_data(server: Server, root: Path) -> dict[str, str]:
    """The keys of the data that plans of a project have beside an embedded server's, with the plans' names."""
    if server.kind != "embedded":
        return {}
    from pytest_seeddb.servers.guard import DATA  # not on Windows

    own: dict[str, str] = {}
    for path in sorted(_notes_directory(server).glob("*.json")):
        notes = Notes.read(path)
        if notes and notes.root == str(root):
            own |= {key: notes.plan for key, state in notes.data.values() if (Path(state) / DATA).is_dir()}
    return own


def _notes_directory(server: Server) -> Path:
    assert server.state  # noqa: S101 - servers that we start have one
    return server.state.parent.parent / "apart"


class Watch(BuildWatch):
    """Sees to it that no build changes globals, but on data that were made for it.

    Args:
        leftovers: What is known of the server's globals.
        apart: Where such a plan goes; ``None`` where the worker has no other server.
        progress: Hears that the build begins anew.
        refuses: Whether to raise `Elsewhere` all the same, for the caller to find another.
    """

    def __init__(self, leftovers: Leftovers, apart: Apart[Any] | None, progress: Progress, *, refuses: bool) -> None:
        self.layers: list[int] | None = None
        """The last steps of the layers that changed globals, while that is allowed."""
        self.notes: list[str] = []
        self._leftovers = leftovers
        self._apart = apart
        self._progress = progress
        self._refuses = refuses or apart is not None

    @contextmanager
    def founding(self) -> Iterator[list[int]]:
        """Let builds change globals during the block; gives the last steps of the layers that did."""
        layers: list[int] = []
        self.layers = layers
        try:
            yield layers
        finally:
            self.layers = None

    def begin(self, plan: Plan) -> None:
        """Refuse a plan of which another process has found out meanwhile."""
        if self._apart and self._apart.notes(plan).touches:
            raise Elsewhere

    def fail(self, plan: Plan, error: SeedDbError) -> None:
        """Try elsewhere what failed for a role that an earlier build, or another's test, has made."""
        if self._refuses and self.layers is None and is_taken(error):
            self._note(plan)
            self._progress.again("on data of its own: its build makes what this server has already")
            raise Elsewhere from error

    def end(self, plan: Plan, end: int, since: float) -> None:
        """Undo what the build has changed, or accept it on data of its own."""
        if not (changes := self._leftovers.changes(since)):
            return
        if self.layers is not None:
            self.layers.append(end)
            self._leftovers.accept()
        elif self._refuses:
            self._note(plan)
            self._leftovers.undo(changes)
            why = f"its build makes {', '.join(map(str, changes))}, which all databases share"
            self.notes.append(f"{plan.name}/{plan.profile} has data of its own: {why}")
            self._progress.again(f"on data of its own: {why}")
            raise Elsewhere

    def _note(self, plan: Plan) -> None:
        if self._apart:
            self._apart.note(plan, touches=True)


def is_taken(error: SeedDbError) -> bool:
    """Whether a build failed because there is such a role or database already."""
    cause = database_error(error)
    text = f"{cause.message if cause else ''}\n{error}"
    return remedies.is_taken(text)


class Founder(Protocol):
    """What is needed of a worker: to look for templates, and to build them on data that are made for them."""

    server: Server

    @property
    def admin(self) -> Admin:
        """Its administrative connection."""

    def has(self, plan: Plan, end: int) -> bool:
        """Whether there is a finished template of the plan's first ``end`` steps."""

    def template(self, plan: Plan) -> Template:
        """The plan's template, built if need be."""

    def founding(self) -> AbstractContextManager[list[int]]:
        """Let builds change globals during the block; gives the last steps of the layers that did."""


class Apart(Generic[Worker]):
    """The workers of this process on data of their own, beside the one on the server that all share.

    Args:
        server: That one.
        open_data: Starts a server on the data with a key.
        work_on: Makes a worker on a server.
        run: What the processes of this run have in common.
    """

    def __init__(
        self,
        server: Server,
        open_data: Callable[[str], AbstractContextManager[Server]],
        work_on: Callable[[Server], AbstractContextManager[Worker]],
        run: str,
    ) -> None:
        self.workers: dict[str, Worker] = {}
        self._server = server
        self._open_data = open_data
        self._work_on = work_on
        self._run = f"{_RUN}{run or secrets.token_hex(6)}"
        self._stack = ExitStack()

    def notes(self, plan: Plan) -> Notes:
        """What is known of the plan's builds."""
        return Notes.of(_notes_directory(self._server), plan)

    def note(self, plan: Plan, *, touches: bool) -> None:
        """Remember whether the plan's builds change globals."""
        notes = self.notes(plan)
        notes.touches = touches
        notes.save()

    def known_worker(self, plan: Plan, prints: Sequence[str]) -> Worker | None:
        """The worker on the plan's own data, or on those of an earlier build, as they are; ``None`` without any."""
        notes = self.notes(plan)
        if not notes.touches:
            return None
        with notes.locked():
            finished = [value[0] for name, value in self.notes(plan).data.items() if not name.startswith(_RUN)]
            key = self._prefix(notes, prints)[0] or (finished[-1] if finished else "")
            is_there = key in self.workers or (key and not self._server.is_ephemeral)
            return self._worker(key) if is_there else None

    def worker_for(self, plan: Plan, prints: Sequence[str]) -> Worker:
        """The worker on the plan's own data, its template found there or built.

        Raises:
            BuildError: A step failed.
            ServerError: There is no server for it.
        """
        with self.notes(plan).locked():
            notes, last = self.notes(plan), len(prints) - 1
            notes.tidy(self._run)
            key, end = self._prefix(notes, prints)
            if key and (worker := self._worker(key)).admin.databases():
                key = ""
                with suppress(Elsewhere):
                    if worker.has(plan, end) or worker.has(plan, last):
                        worker.template(plan)
                        return worker
            # In this run's data another of its processes has tried already.
            key = key or notes.data.get(self._run, [secrets.token_hex(6)])[0]
            worker = self._worker(key)
            data = key, str(worker.server.state)
            notes.touches, notes.data[self._run] = True, data
            notes.save()
            with worker.founding() as layers:
                worker.template(plan)
            del notes.data[self._run]
            notes.touches, notes.data[prints[layers[-1] if layers else last]] = bool(layers), data
            notes.save()
            return worker

    def _prefix(self, notes: Notes, prints: Sequence[str]) -> tuple[str, int]:
        """The key of the data with the longest prefix of the plan, and its number of steps."""
        ends = (end for end in range(len(prints) - 1, -1, -1) if prints[end] in notes.data)
        return next(((notes.data[prints[end]][0], end) for end in ends), ("", 0))

    def _worker(self, key: str) -> Worker:
        if key not in self.workers:
            server = self._stack.enter_context(self._open_data(key))
            self.workers[key] = self._stack.enter_context(self._work_on(server))
        return self.workers[key]

    @contextmanager
    def throwaway(self) -> Iterator[Server]:
        """A server on new data, which go with the block."""
        from pytest_seeddb.servers.remains import remove_data  # not on Windows

        with self._open_data(secrets.token_hex(6)) as server:
            yield server
        deadline = monotonic() + _PATIENCE
        while server.state and not remove_data(server.state) and monotonic() < deadline:
            sleep(_POLL)

    def close(self) -> None:
        """End the workers and let go of their servers."""
        self._stack.close()
