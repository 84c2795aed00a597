"""What tests leave on the server beside their clones: roles, databases, settings of the server.

On servers that we start it is undone after the test, if nobody else uses the server; else by the last who leaves, or by
the server's next start. On others it is named at the end of the run, with the statement that removes it.
"""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from time import time
from typing import TYPE_CHECKING, Final

import psycopg

from pytest_seeddb.clones.looks import Counters
from pytest_seeddb.servers.globals import PASSES, PRESENT, CannotUndo, Globals, undo
from pytest_seeddb.servers.server import DOUBTED, GLOBALS, LEFT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_seeddb.servers.admin import Admin
    from pytest_seeddb.servers.globals import Change
    from pytest_seeddb.servers.server import Server

_OTHERS: Final = """
SELECT count(*) > 1 FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = %s AND granted
"""


class Leftovers:
    """What one worker's tests leave on the server beside their clones.

    The worker holds `PRESENT`, shared. Whoever gets it exclusively knows that nobody else runs tests or builds, so
    that what has appeared during a test is that test's. What a fixture made before the test stays.

    Concurrency: one thread.
    """

    def __init__(self, admin: Admin, server: Server) -> None:
        self.notes: list[str] = []
        self._admin = admin
        self._server = server
        self._state = server.state
        self._left: dict[tuple[str, ...], Change] = {}
        self._start_over()
        # Globals carry the server's time.
        self._ahead = float(admin.run("SELECT extract(epoch FROM clock_timestamp())")[0][0]) - time()
        if self._state:
            if not (self._state / GLOBALS).exists():  # a container's first worker
                self._base.save(self._state)
            (self._state / DOUBTED).touch()

    def _start_over(self) -> None:
        """Take what is there for what is to be there."""
        self.mark = self._look()
        self._base = self._last = self._now()

    def _look(self) -> str:
        return Counters.of(self._admin).globals_mark

    def _now(self) -> Globals:
        return Globals.of(self._admin.run, superuser=self._server.superuser and self._server.kind != "external")

    def is_shared(self) -> bool:
        """Whether others may change globals while tests run: another process is here, or the server is not ours."""
        return self._server.kind == "external" or bool(self._admin.run(_OTHERS, [PRESENT])[0][0])

    def after_test(self, mark: str, since: float) -> None:
        """Undo what the test that began ``since`` left, if it left something. An empty ``mark`` says nothing."""
        try:
            if (mark or (mark := self._look())) != self.mark:
                self.undo(self.changes(since, mark))
        except psycopg.Error:
            if not self._admin.is_broken:  # the next test is told
                raise

    def changes(self, since: float, mark: str = "") -> list[Change]:
        """What has changed since the last look and is no older than ``since``, when a test or a build began."""
        if (mark := mark or self._look()) == self.mark:
            return []
        now, since, changes = self._now(), since + self._ahead, []
        for change in self._last.changes(now):
            if change.after is None:
                is_new = self._base.items.get(change.key) == change.before
            else:
                is_new = change.after.committed is None or change.after.committed >= since
            if is_new:
                changes.append(change)
        self._last, self.mark = now, mark
        return changes

    def accept(self) -> None:
        """What is there now is to be there."""
        self._start_over()
        if self._state:
            self._base.save(self._state)

    def undo(self, changes: Sequence[Change]) -> None:
        """Undo the changes, now or as soon as nobody else is there."""
        self._left |= {change.key: change for change in changes}
        if not self._left or self._server.kind == "external":
            return
        with self._admin.try_hold(PRESENT) as is_alone, self._failing_softly():
            if is_alone:
                for _ in range(PASSES):
                    undo(self._admin, self._still_there())
                self._left.clear()
                # Else what was undone would count as changed a second later, for the next test.
                self._admin.run("SELECT pg_stat_force_next_flush()")
        self._last, self.mark = self._now(), self._look()

    def _still_there(self) -> list[Change]:
        now = self._now()
        wanted = now.without(self._left.values())
        return [change for change in wanted.changes(now) if change.key in self._left or change.name]

    @contextmanager
    def _failing_softly(self) -> Iterator[None]:
        """Say what cannot be undone. It is left to the server's next start."""
        try:
            yield
        except (psycopg.Error, CannotUndo) as error:
            if self._admin.is_broken:
                raise
            self._left.clear()
            self._note(
                f"what tests or builds changed for the whole server cannot be undone ({str(error).splitlines()[0]}): "
                "the server's next start begins on fresh data"
            )

    def close(self) -> None:
        """Let the last who leaves undo what the tests of all have left; say what stays until then, or for good."""
        if self._admin.is_lost:
            return
        changes = self._still_there() if self._left else []
        if self._state is None:
            for change in changes:
                self._note(
                    f"{change} is on the server since a test ran. If no other client made it, run: {change.text}"
                )
            return
        if changes:
            with (self._state / LEFT).open("a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps(change.key)}\n" for change in changes)
        self._admin.unlock(PRESENT, shared=True)  # of two who end at once, one gets it alone
        with self._admin.try_hold(PRESENT) as is_alone, self._failing_softly():
            if is_alone:
                self._undo_for_all(self._state)
            elif changes:
                left = ", ".join(map(str, changes))
                self._note(f"tests left {left} on the server. The last of the processes that use it undoes that")

    def _undo_for_all(self, state: Path) -> None:
        """Undo what this and earlier processes have noted. If all is as it is to be, the next start need not look."""
        keys = set()
        with suppress(OSError):
            keys = {tuple(json.loads(line)) for line in (state / LEFT).read_text(encoding="utf-8").splitlines()}
        wanted = Globals.load(state) or self._base
        for _ in range(PASSES if keys else 0):
            undo(self._admin, [change for change in wanted.changes(self._now()) if change.key in keys or change.name])
        (state / LEFT).unlink(missing_ok=True)
        if wanted == self._now():
            (state / DOUBTED).unlink(missing_ok=True)

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
