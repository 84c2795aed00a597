"""Drop databases beside the tests, on another thread and connection."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING

import psycopg

from pytest_seeddb.errors import SeedDbError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_seeddb.servers.admin import Admin

    _Job = Callable[[Admin], object]


class Disposal:
    """A queue of administrative jobs that nobody waits for until `close`.

    The thread and its connection begin with the first job. If the process is killed, databases still queued stay on
    the server as orphans, for the next run's sweep. A job that fails is recorded in `failures`, and the next one runs.
    """

    def __init__(self, connect: Callable[[], Admin]) -> None:
        self.failures: list[str] = []
        self._connect = connect
        self._jobs: queue.SimpleQueue[tuple[_Job, Callable[[], object]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def drop(self, name: str) -> None:
        """Drop one of our databases soon."""
        self.do(lambda admin: admin.drop(name))

    def do(self, job: _Job, otherwise: Callable[[], object] = lambda: None) -> None:
        """Run a job after those that are queued already, or ``otherwise`` if it fails or cannot begin."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="seeddb-disposal", daemon=True)
            self._thread.start()
        self._jobs.put((job, otherwise))

    def close(self) -> None:
        """Wait until every job is done, and end the thread and its connection."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        with contextlib.ExitStack() as stack:
            admin: Admin | None = None
            while queued := self._jobs.get():
                job, otherwise = queued
                try:
                    admin = admin or stack.enter_context(self._connect())
                    if admin.is_lost:
                        admin.reconnect()
                    try:
                        job(admin)
                    except psycopg.Error:
                        if not admin.is_lost:
                            raise
                        admin.reconnect()
                        job(admin)  # once more: the connection was lost meanwhile
                except (SeedDbError, psycopg.Error) as error:
                    if str(error) not in self.failures:  # of a second sweep
                        self.failures.append(str(error))
                    otherwise()
