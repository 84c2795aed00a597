"""Many at once: checkouts that tell what they built, runs that end together, visitors that come and go by the hundred.

Run as a script, this imports everything once and then forks a visitor of the embedded server for each job that it
reads from its standard input, so that hundreds of them cost little.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psycopg
from attacks import MIGRATIONS, PASSING, SEEDS, TESTS, Site

from pytest_seeddb.servers import embedded  # noqa: F401 - imported before the forks
from pytest_seeddb.servers.binaries import choose
from pytest_seeddb.servers.naming import parse_name
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Settings
from pytest_seeddb.templates.record import Record

PROJECT = Path(__file__).resolve().parents[2]
ONCE = {**dict.fromkeys([*MIGRATIONS, "shops"], 1), "items": 2}
"""What building one plan runs: the items also for the class with an override."""

_TELLS = "COPY (SELECT '{name}') TO PROGRAM 'cat >> {told}';\n"
_TELL = """
    import os

    def tell(name):
        told = os.open({told!r}, os.O_WRONLY | os.O_APPEND)
        os.write(told, f"{{name}}\\n".encode())
        os.close(told)
"""


class Checkout(Site):
    """One directory of a project; its migrations and seeders write down each time that they run.

    Others may be made beside it, with the same cache and so on the same server.
    """

    def __init__(self, place, **environment):
        self.told = place / "told"
        self.told.touch()
        self.told.chmod(0o666)  # the server may run as another account
        super().__init__(place, **environment)
        self.plan()

    def beside(self, name):
        """Another checkout of the same project."""
        other = copy.copy(self)
        other.project = self.place / name
        shutil.copytree(self.project, other.project, ignore=shutil.ignore_patterns("__pycache__"))
        return other

    def of(self, account, cache="cache"):
        """The same checkout as another account has it, perhaps with another cache."""
        other = copy.copy(self)
        other.account, other.cache = account, self.place / cache
        other.temporary = self.place / f"tmp-of-{cache}"
        for directory in (other.cache, other.temporary):
            directory.mkdir(mode=0o755, exist_ok=True)
        return other

    def plan(self, rows=40, **more):
        """Write migrations, those in ``more`` too, seeds for so many rows, and tests that expect as many."""
        for name, text in {**MIGRATIONS, **more}.items():
            self.write(f"db/{name}.sql", _TELLS.format(name=name, told=self.told) + text)
        self.write("attacked/telling.py", _TELL.format(told=str(self.told)))
        telling = re.sub(r"( *)(def (\w+)\(.*\n)", r'\1\2\1    tell("\3")\n', SEEDS.replace("1, 40", f"1, {rows}"))
        self.write("attacked/seeds.py", "    from attacked.telling import tell\n" + telling)
        seen = TESTS.replace("(40, 400, 400)", f"({rows}, {10 * rows}, {10 * rows})").replace("(40,)", f"({rows},)")
        self.write("test_it.py", seen.replace("(80,)", f"({2 * rows},)"))

    def ran(self):
        """What was run since the last time that this was asked."""
        found = Counter(self.told.read_text().split())
        os.truncate(self.told, 0)
        return found

    def templates(self):
        return [name for name in self.databases("seeddb%") if parse_name(name).kind == "template"]

    def holds_templates_only(self):
        """Nothing but finished templates is left on the server, none of them twice."""
        names = [parse_name(name) for name in self.databases("seeddb%")]
        assert {each.kind for each in names} == {"template"}, names
        query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname LIKE 'seeddb%'"
        records = [Record.from_json(comment) for (comment,) in self.ask(query)]
        made_of = {(each.fingerprint, repr(each.ran), repr(each.opened)) for each in records}
        assert len(made_of) == len(names), names


class Runs:
    """Runs of pytest that are under way; whatever fails, none of them goes on after the block."""

    def __init__(self, *started):
        self.processes = list(started)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        for each in self.processes:
            if each.poll() is None:
                os.killpg(each.pid, signal.SIGKILL)
            each.stdout.close()
            each.wait()

    def pass_all(self, passing=PASSING, seconds=240.0):
        """Wait for all of them: each passes all of its tests and reports no trouble."""
        deadline = time.monotonic() + seconds
        for each in self.processes:
            told, _ = each.communicate(timeout=max(0, deadline - time.monotonic()))
            assert each.returncode == 0, told
            assert f"{passing} passed" in told, told
            assert "rror" not in told, told


# -- visitors ------------------------------------------------------------------------------------


class Visitors:
    """The parent of processes that visit the embedded server of a cache."""

    def __init__(self, cache):
        environ = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(PROJECT)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._parent = subprocess.Popen([sys.executable, __file__], env=environ, **pipes)
        self._inside = 0

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._parent.communicate()

    def send(self, at, stay):
        """One that asks for the server ``at`` that moment (`time.monotonic`) and has it for ``stay`` seconds."""
        self._parent.stdin.write(json.dumps({"at": at, "stay": stay}) + "\n")
        self._parent.stdin.flush()

    def make_marker(self):
        """The database that every visitor looks for."""
        self._parent.stdin.write('{"at": 0, "stay": 0, "makes": true}\n')
        self._parent.stdin.flush()
        self.came(1)
        self.all_left()

    def came(self, number):
        """What the next so many told when they had the server, in order."""
        return [self._next("came") for _ in range(number)]

    def all_left(self):
        """Wait until all who came have left."""
        while self._inside:
            self._next("left")

    def _next(self, kind):
        while True:
            found = json.loads(self._parent.stdout.readline())
            assert found["kind"] in {"came", "left"}, found
            self._inside += 1 if found["kind"] == "came" else -1
            if found["kind"] == kind:
                return found


def _tell(kind, **found):
    os.write(1, f"{json.dumps({'kind': kind, **found})}\n".encode())  # at once and whole, whoever else does


def _visit(at, stay, makes=False):
    time.sleep(max(0, at - time.monotonic()))
    with open_server(Settings(root=Path("/"))) as server:
        if makes:
            with psycopg.connect(server.address.conninfo, autocommit=True) as connection:
                connection.execute("CREATE DATABASE marker")
        began = _asked(server)
        leaving = time.monotonic() + stay
        _tell("came", server=began, leaving=leaving)
        time.sleep(stay)
        assert _asked(server) == began, "the server was not the same to the end"
    _tell("left")


def _asked(server):
    with psycopg.connect(server.address.conninfo) as connection:
        rows = connection.execute("SELECT pg_postmaster_start_time()::text FROM pg_database WHERE datname = 'marker'")
        return rows.fetchone()[0]


def _serve():
    choose(Settings(root=Path("/")))  # it asks programs for their versions: children find that done
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps
    for line in sys.stdin:
        if os.fork() == 0:
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(0)
                _visit(**json.loads(line))
            except BaseException as error:  # noqa: BLE001 - the test is to see it
                _tell("failed", error=f"{error!r} {error}")
            finally:
                os._exit(0)


if __name__ == "__main__":
    _serve()
