"""A project whose runs are forked from a process that has everything imported, and are made to be killed.

Run as a script, this is that process. A run starts in a fraction of the time that a new Python needs, so
more of them can be killed, and random moments fall on what the runs do and not on their imports.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import psycopg
from attacks import _OPEN, _PLAIN, Site
from processes import eventually, private_cache

from pytest_seeddb.servers import guard

PATIENCE = 90.0
"""Seconds after which a run counts as hanging."""

_STARTED = re.compile(r"\[(\d+)\] LOG: +starting PostgreSQL")
_LISTENS = re.compile(r'listening on Unix socket "(.+)/\.s\.PGSQL')
_MAPPED = re.compile(r"/dev/shm/PostgreSQL\.\d+")


class Run:
    """A forked process of a site; the parent of all of them reaps it and notes its exit code."""

    def __init__(self, pid, told):
        self.pid = pid
        self._told = told
        self._code = told.with_suffix(".code")

    @property
    def text(self):
        return self._told.read_text(errors="replace")

    @property
    def is_over(self):
        return self._code.exists()

    def ended(self, seconds=PATIENCE):
        """Its exit code, a negative number for the signal that ended it."""
        deadline = time.monotonic() + seconds
        while not self.is_over:
            assert time.monotonic() < deadline, f"process {self.pid} hangs\n{self.text}"
            time.sleep(0.002)
        return int(self._code.read_text())


class Mortal(Site):
    """A `Site` that knows its processes well enough to kill them, and counts what a kill may leave behind."""

    def __init__(self, place, **environment):
        super().__init__(place, **environment)
        self._told = place / "told"
        self._told.mkdir()
        self._numbers = count(1)
        self._sockets, self._postmasters, self._memory = set(), set(), set()
        self._older = {kind: {row.split()[1] for row in _of_system_v(kind)[1:]} for kind in _SYSTEM_V}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        line = [sys.executable, __file__]
        self._parent = subprocess.Popen(line, cwd=self.project, env=self.environ, text=True, **pipes)
        assert self._parent.stdout.readline() == "ready\n"

    @functools.cached_property
    def peace(self):
        """What stands after a run in peace: the first of them, so everything else must be as then."""
        self.passes()
        standing = self.standing()
        logs = [log.read_text(errors="replace") for log in self.cache.glob("pytest-seeddb/servers/*/postgres.log")]
        assert any(name.startswith("seeddb_t_") for name in standing["databases"]), "\n".join(logs)
        return standing

    def close(self):
        self._parent.communicate()

    # -- runs ------------------------------------------------------------------------------------

    def begin(self, *arguments, kind="pytest"):
        """A run that goes on by itself, in a session of its own."""
        told = self._told / f"{next(self._numbers)}.txt"
        plain = [*_PLAIN, "-q", "--seed-db", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        line = [*(plain if kind == "pytest" else []), *map(str, arguments)]
        self._parent.stdin.write(json.dumps({"kind": kind, "line": line, "told": str(told)}) + "\n")
        self._parent.stdin.flush()
        return Run(int(self._parent.stdout.readline()), told)

    def run(self, *arguments, code=0, timeout=PATIENCE):
        run = self.begin(*arguments)
        assert run.ended(timeout) == code, run.text
        return run.text

    def seeddb(self, *arguments, code=0):
        """What a `seeddb` command told."""
        run = self.begin(*arguments, kind="seeddb")
        assert run.ended() == code, run.text
        return run.text

    def ask(self, statement):
        run = self.begin(statement, kind="ask")
        assert run.ended() == 0, run.text
        return [tuple(row) for row in json.loads(run.text)]

    # -- processes -------------------------------------------------------------------------------

    def processes(self):
        found = super().processes()
        found.pop(self._parent.pid, None)
        return found

    @property
    def states(self):
        return list(self.cache.glob("pytest-seeddb/servers/*"))

    def record(self):
        return guard.record(str(self.states[0])) if self.states else {}

    def victims(self, run):
        """Who could be killed now: kinds of victims with their process numbers."""
        living = self.processes()
        postmasters = [pid for pid, line in living.items() if "postgres -D" in line and "--boot" not in line]
        self.note(postmasters)
        kinds = {
            "pytest": [] if run.is_over else [run.pid],
            "worker": [pid for pid, line in living.items() if "execnet" in line],
            "guard": [pid for pid, line in living.items() if "guard.py" in line],
            "postmaster": postmasters,
            "server": [pid for pid, line in living.items() if line.startswith("postgres: ") and "[local]" not in line],
            "backend": [pid for pid, line in living.items() if "[local]" in line],
            "initdb": [pid for pid, line in living.items() if "bin/initdb" in line or "--boot" in line],
            "pg_dump": [pid for pid, line in living.items() if "bin/pg_dump" in line],
            "all": list(living),
        }
        for other in ("guard", "postmaster"):
            kinds[f"run and {other}"] = kinds["pytest"] + kinds[other] if kinds["pytest"] and kinds[other] else []
        return {kind: pids for kind, pids in kinds.items() if pids}

    def note(self, postmasters=()):
        """Remember what servers of this place had, so that it can be looked for when they are gone."""
        if socket := self.record().get("socket"):
            self._sockets.add(socket)
        for log in self.cache.glob("pytest-seeddb/servers/*/postgres.log"):
            told = log.read_text(errors="replace")
            self._sockets.update(_LISTENS.findall(told))
            self._postmasters.update(map(int, _STARTED.findall(told)))
        for pid in postmasters:
            with contextlib.suppress(OSError):
                self._memory.update(_MAPPED.findall(Path(f"/proc/{pid}/maps").read_text()))

    def caught(self, pattern, run):
        """The backend that runs a statement like this, as soon as one does; 0 where the run ended without one."""
        connection = None
        query = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query ~ %s AND pid <> pg_backend_pid()"
        while not run.is_over:
            try:
                connection = connection or self._connected()
                if row := connection.execute(query, [pattern]).fetchone():
                    connection.close()
                    return row[0]
            except psycopg.Error:
                connection = None
                time.sleep(0.002)
        return 0

    def _connected(self):
        socket = self.record().get("socket", "/nonexistent")
        return psycopg.connect(host=socket, user="postgres", dbname="postgres", autocommit=True)

    # -- what is left ----------------------------------------------------------------------------

    def standing(self):
        """As `Site.standing`, and beside it: files anywhere, sockets of all earlier starts, shared memory."""
        found = super().standing()
        self.note()
        caches = [name for name in _files(self.cache) if "/data/" not in name]
        return {
            **found,
            "databases": sorted(_without_variant(name) for name in found["databases"]),
            **self.outside(),
            "cache": caches,
            "project": [name for name in _files(self.project) if "__pycache__" not in name],
        }

    def outside(self):
        """What servers of this place have left elsewhere: socket directories, shared memory."""
        return {
            "sockets": sorted(each for each in self._sockets if Path(each).exists()),
            "memory": sorted(each for each in self._memory if Path(each).exists()),
            "clones": list(self._directories()),
            "segments": [row for kind in _SYSTEM_V for row in self._segments(kind)],
        }

    def _directories(self):
        """The servers' directories in memory that are there; a running server has one."""
        links = [state / guard.MEMORY for state in self.states]
        return [str(link.readlink()) for link in links if link.is_symlink() and link.exists()]

    def _segments(self, kind):
        """System V's objects that were made by a postmaster of ours; the column of the maker's number differs.

        Not those that were here before: process numbers come again.
        """
        heads, *rows = _of_system_v(kind)
        if "cpid" not in heads:
            return []
        made_by = heads.split().index("cpid")
        new = [row for row in rows if row.split()[1] not in self._older[kind]]
        return [row for row in new if int(row.split()[made_by]) in self._postmasters]

    def lose_memory(self):
        """Remove the shared memory that killed servers left, as the end of the machine does."""
        self.note()
        for row in self._segments("shm"):
            subprocess.run(["ipcrm", "-m", row.split()[1]], check=True)
        for each in self._memory:
            Path(each).unlink(missing_ok=True)
        for directory in self._directories():
            shutil.rmtree(directory)

    def forget(self):
        """Remove the cache directory, as on a machine where nothing has ever run."""
        self.is_quiet()
        self.note()
        shutil.rmtree(self.cache / "pytest-seeddb", ignore_errors=True)


_SYSTEM_V = ("shm", "sem", "msg")


def _of_system_v(kind):
    """Its objects as the system lists them: the heads of the columns first."""
    try:
        return Path(f"/proc/sysvipc/{kind}").read_text().splitlines()
    except OSError:
        return [""]


def _files(place):
    return sorted(str(each.relative_to(place)) for each in place.rglob("*") if each.is_symlink() or not each.is_dir())


def _without_variant(name):
    """A template's name without the part that is another one each time that it is built."""
    return name.rpartition("_")[0] if name.startswith("seeddb_t_") else name


def strike(pids, number=signal.SIGKILL):
    """Signal all of them; whether one was there."""
    hit = False
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            hit = True
    return hit


@contextlib.contextmanager
def mortal_site(**environment):
    """A `Mortal` for the length of a block; nothing of it may run or lie about afterwards.

    Its clones are in memory on every machine: there more can be left behind, and `auto` decides otherwise from run to
    run where the disk is about as quick as it demands.
    """
    with private_cache() as place:
        made = Mortal(place, SEEDDB_STORAGE="memory", **environment)
        try:
            yield made
            made.is_quiet()
        finally:
            made.close()
            for pid in made.processes():  # else a failure leaves what the next test stumbles over
                strike([pid])
            eventually(lambda: not made.processes())


# -- the parent of all runs ----------------------------------------------------------------------


def _serve():
    _import_all()
    signal.signal(signal.SIGCHLD, _reap)
    print("ready", flush=True)
    while line := sys.stdin.readline():
        job = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if not pid:
            _become(job)
        _children[pid] = Path(job["told"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        print(pid, flush=True)


_children = {}
_EARLY = (
    "pytest",
    "sqlalchemy.orm",
    "sqlalchemy.dialects.postgresql.psycopg",
    "pytest_seeddb.cli",
    "pytest_seeddb.cli.apply",
    "pytest_seeddb.cli.dump",
    "pytest_seeddb.cli.build",
    "pytest_seeddb.plugin.fixtures",
    "pytest_seeddb.servers.embedded",
    "pytest_seeddb.clones.worker",
)


def _import_all():
    """What each run imports: none of it may do more than to be there."""
    for name in _EARLY:
        importlib.import_module(name)


def _reap(*_):
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            told = _children.pop(pid)
            noted = told.with_suffix(".part")
            noted.write_text(str(os.waitstatus_to_exitcode(status)))
            noted.rename(told.with_suffix(".code"))


def _become(job):
    """Be the run, in a session of its own as of a terminal, and end as any Python does."""
    for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # whoever started us in the background ignores some of them
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    output = os.open(job["told"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(output, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.path.insert(0, str(Path.cwd()))
    if job["kind"] == "pytest":
        import pytest

        sys.exit(int(pytest.main(job["line"])))
    if job["kind"] == "seeddb":
        from pytest_seeddb.cli import main

        sys.exit(main(job["line"]))
    sys.argv = ["ask", *job["line"]]
    exec(_OPEN, {"__name__": "asking"})
    sys.exit(0)


if __name__ == "__main__":
    _serve()
