"""Real processes that build and hold clones, made to be killed.

Run as a script, this imports everything once and then forks a process for each job that it reads
from its standard input, so that dozens of them cost milliseconds each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.fingerprint.digests import Part
from pytest_seeddb.plan.plan import Plan, Stage, Step
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.server import Server
from pytest_seeddb.templates import building, templates


def plan_from(root, name, stages, log=None):
    """A plan from plain data: names of stages with their statements. Each statement run is a line in ``log``."""
    made = []
    for stage, statements in stages:
        steps = tuple(Step(f"{stage} {number}", (Part("sql", text),)) for number, text in enumerate(statements))
        made.append(Stage(stage, steps, _runner(statements, steps, log)))
    return Plan(name, "default", Path(root), tuple(made))


def _runner(statements, steps, log):
    def run(target, first):
        with psycopg.connect(target.address.conninfo, autocommit=True) as connection:
            for text, step in list(zip(statements, steps, strict=True))[first:]:
                target.started(step)
                if log:
                    note(log, f"{step.name}\t{text}")
                connection.execute(text)

    return run


def note(log, line):
    """Append a line at once and whole, whoever else does."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


class Processes:
    """The parent of all the processes of a test module."""

    def __init__(self, server):
        self._server = {
            "params": dict(server.address.params),
            "version": server.version,
            "version_num": server.version_num,
            "superuser": server.superuser,
            "fsync": server.fsync,
        }
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        environ = {**os.environ, "PYTHONPATH": paths}
        self._parent = subprocess.Popen([sys.executable, __file__], text=True, env=environ, **pipes)

    def start(self, **job):
        """Fork a process for the job; see `_work`."""
        self._parent.stdin.write(json.dumps({**job, "server": self._server}) + "\n")
        self._parent.stdin.flush()
        return Child(int(self._parent.stdout.readline()), Path(job["told"]))

    def close(self):
        self._parent.communicate()


class Child:
    """One forked process; its parent reaps it."""

    def __init__(self, pid, told):
        self.pid = pid
        self._told = told

    def kill(self, number=signal.SIGKILL):
        if self.alive():
            os.kill(self.pid, number)

    def alive(self):
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def lines(self):
        return self._told.read_text().splitlines() if self._told.exists() else []

    def said(self, word, seconds=30.0):
        """The rest of the first line that begins with the word, when it comes."""
        deadline = time.monotonic() + seconds
        while True:
            for line in self.lines():
                if line.startswith(word):
                    return line.removeprefix(word).strip()
            assert time.monotonic() < deadline, (word, self.lines())
            time.sleep(0.002)

    def ended(self, seconds=30.0):
        deadline = time.monotonic() + seconds
        while self.alive():
            assert time.monotonic() < deadline, self.lines()
            time.sleep(0.002)


# -- in the forked process ----------------------------------------------------------------------


def _work(job):
    """Do a job: get the template of ``stages``; take ``clones``; wait, where ``stay`` says so.

    ``die`` kills the process: [method of Admin or function that a build calls, the how-manieth call,
    "before" or "after"].
    """
    told = job["told"]
    if job.get("die"):
        _prepare_to_die(*job["die"])
    server = Server(
        kind="external",
        address=Address(job["server"]["params"]),
        origin="the test",
        **{key: value for key, value in job["server"].items() if key != "params"},
    )
    with Worker(server, run=job.get("run", "")) as worker:
        note(told, f"lease {worker._lease}")
        template = worker.template(plan_from(job["root"], job["name"], job["stages"], job.get("log")))
        note(told, f"template {int(template.built)} {template.name}")
        for _ in range(job.get("clones", 0)):
            clone = worker.clones.make(template)
            with psycopg.connect(clone.address.conninfo) as connection:
                found = connection.execute(job["query"]).fetchall()
            note(told, f"clone {clone.name} {json.dumps(found)}")
        note(told, "ready")
        while job.get("stay"):
            time.sleep(60)
    note(told, "closed")


def _prepare_to_die(method, call, when):
    owner = next(each for each in (Admin, templates, building) if hasattr(each, method))
    real = getattr(owner, method)
    calls = 0

    def dying(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = real(*arguments, **named)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, method, dying)


def _serve():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            status = 1
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(0)
                _work(json.loads(line))
                status = 0
            except BaseException as error:  # noqa: BLE001 - the test is to see it
                note(json.loads(line)["told"], f"failed {error!r} {error}")
            finally:
                os._exit(status)
        print(child, flush=True)


if __name__ == "__main__":
    _serve()
