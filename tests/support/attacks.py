"""What the attacks on the promises are made with: a project, its runs, and a count of all that is left of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

from command import QUICK
from processes import eventually, private_cache

SCALE = float(os.environ.get("TESTS_SCALE", "1"))
"""How often each attack is tried, as a part of the full number; CI runs a slice."""

TABLE = """
    [project]
    name = "attacked"
    [tool.seeddb]
    migrations = "db"
    seeds = ["attacked.seeds"]
"""
MIGRATIONS = {
    "001_shop": "CREATE TABLE shop (id serial PRIMARY KEY, name text NOT NULL UNIQUE);",
    "002_item": "CREATE TABLE item (id serial PRIMARY KEY, shop_id int NOT NULL REFERENCES shop, price int NOT NULL);",
    "003_index": "CREATE INDEX ON item (price);",
}
SEEDS = """
    from sqlalchemy import text
    from pytest_seeddb import seeder

    @seeder
    def shops(session):
        session.execute(text("INSERT INTO shop (name) SELECT 'shop ' || n FROM generate_series(1, 40) n"))

    @seeder(tier="demo", after=[shops])
    def items(session, items: int = 10):
        session.execute(
            text("INSERT INTO item (shop_id, price) SELECT id, n FROM shop, generate_series(1, :items) n"),
            {"items": items},
        )
"""
TESTS = """
    import pytest
    from sqlalchemy import text

    SEEDED = "SELECT (SELECT count(*) FROM shop), (SELECT count(*) FROM item), (SELECT max(id) FROM item)"

    @pytest.fixture(autouse=True)
    def as_seeded(seeded_connection):
        assert seeded_connection.execute(SEEDED).fetchone() == (40, 400, 400)
        seeded_connection.rollback()

    def test_reads(seeded_connection):
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (40,)

    @pytest.mark.parametrize("number", range(3))
    def test_inserts(seeded_session, number):
        seeded_session.execute(text("INSERT INTO shop (name) VALUES ('a new one')"))
        seeded_session.commit()

    def test_updates(seeded_connection):
        seeded_connection.execute("UPDATE item SET price = price + 1")
        seeded_connection.commit()

    def test_breaks_the_schema(seeded_connection):
        seeded_connection.execute("DROP TABLE item")
        seeded_connection.commit()

    @pytest.mark.seeded(isolation="rollback")
    def test_is_rolled_back(seeded_session):
        seeded_session.execute(text("DELETE FROM item"))
        seeded_session.commit()

    @pytest.mark.seeded(isolation="readonly")
    def test_may_only_read(seeded_connection):
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (40,)

    @pytest.mark.seeded(items=2)
    class TestOverrides:
        @pytest.fixture(autouse=True)
        def as_seeded(self, seeded_connection):
            assert seeded_connection.execute("SELECT count(*) FROM item").fetchone() == (80,)
            seeded_connection.rollback()

        def test_has_a_template_of_its_own(self, seeded_connection):
            seeded_connection.execute("DELETE FROM item")
            seeded_connection.commit()
"""
PASSING = 9
"""How many tests that module has; all of them pass."""

_OPEN = """
import json, sys
from pathlib import Path
import psycopg
from pytest_seeddb.settings.settings import load_settings
from pytest_seeddb.servers.opening import open_server
with open_server(load_settings(Path.cwd())) as server:
    with psycopg.connect(server.address.conninfo, autocommit=True) as connection:
        cursor = connection.execute(sys.argv[1])
        print(json.dumps(cursor.fetchall() if cursor.description else [], default=str))
"""


def times(full, least=1):
    """How often to try what the full suite tries ``full`` times."""
    return max(least, round(full * SCALE))


class Site:
    """A project in a directory of its own, with a cache and a temporary directory that nobody else uses.

    All of its paths begin with `place`, so that whatever it leaves behind can be found.
    """

    def __init__(self, place, **environment):
        self.place = place
        self.project, self.cache, self.temporary = (place / name for name in ("project", "cache", "tmp"))
        for directory in (self.project, self.cache, self.temporary):
            directory.mkdir(mode=0o755, parents=True)
        self.environment = environment
        self.account = ()  # the beginning of a command line, where it is to run as another account
        self.write("pyproject.toml", TABLE)
        for name, text in MIGRATIONS.items():
            self.write(f"db/{name}.sql", text)
        self.write("attacked/__init__.py", "")
        self.write("attacked/seeds.py", SEEDS)
        self.write("test_it.py", TESTS)

    def write(self, name, text):
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def table(self, text):
        """Add lines to the table in pyproject.toml."""
        self.write("pyproject.toml", TABLE + textwrap.indent(textwrap.dedent(text), "    "))

    @property
    def environ(self):
        own = {"XDG_CACHE_HOME": str(self.cache), "TMPDIR": str(self.temporary)}
        # Not what tells a process that it is a worker of an xdist run: these are not.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        return {**kept, **own, **self.environment}

    def start(self, *arguments, **options):
        """A pytest run that goes on by itself; in a session of its own, as of a terminal."""
        line = [*self.account, sys.executable, "-m", "pytest", "-q", "--seed-db", *_PLAIN, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "text": True}
        own = {"cwd": self.project, "env": self.environ, "start_new_session": True}
        return subprocess.Popen(line, **{**pipes, **own, **options})

    def run(self, *arguments, code=0, timeout=120):
        """What a pytest run printed, which ends with ``code``."""
        process = self.start(*arguments)
        try:
            told, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.returncode == code, told
        return told

    def passes(self, *arguments):
        """A run in which nothing is amiss: all tests pass, and it reports no trouble."""
        told = self.run(*arguments)
        assert f"{PASSING} passed" in told, told
        assert "rror" not in told, told
        return told

    def command(self, *arguments, code=0, given=None, timeout=120):
        """A finished `seeddb` command."""
        line = [*self.account, sys.executable, "-W", "error", "-m", "pytest_seeddb.cli", *map(str, arguments)]
        own = {"cwd": self.project, "env": self.environ, "input": given}
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=timeout, **own)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def ask(self, statement):
        """The statement's rows on the project's own server, which is started for it."""
        own = {"cwd": self.project, "env": self.environ}
        line = [*self.account, sys.executable, "-c", _OPEN, statement]
        done = subprocess.run(line, capture_output=True, text=True, check=True, **own)
        return [tuple(row) for row in json.loads(done.stdout)]

    def databases(self, pattern="%"):
        return sorted(name for (name,) in self.ask(f"SELECT datname FROM pg_database WHERE datname LIKE '{pattern}'"))

    def processes(self):
        """Processes that have this place's cache directory, by their number."""
        return {pid: command for pid, command in _running().items() if self._is_of_ours(pid, command)}

    def is_quiet(self, seconds=20.0):
        """Wait until no process of this place is left."""
        eventually(lambda: not self.processes(), seconds)

    def standing(self):
        """All that there is of this place when nothing of it runs: to be compared with what was there before."""
        self.is_quiet()
        # The databases of failed tests are meant to stay, and a test may fail when its server is killed.
        names = [name for name in self.databases() if not name.startswith("seeddb_k_")]
        self.is_quiet()
        return {
            "databases": names,
            "locks": _files(self.cache, "*.lock"),
            "sockets": sorted(str(each) for each in _sockets(self.cache)),
            "temporary": _files(self.temporary, "*"),
            "unfinished": _files(self.cache, "*.tmp") + _files(self.cache, "*.part"),
        }

    def _is_of_ours(self, pid, command):
        own = Path("/proc", str(pid))
        environ = _read(lambda: (own / "environ").read_bytes().decode(errors="replace"))
        # A backend writes its title over its environment, and works in its data directory.
        return any(str(self.place) in text for text in (command, environ, _read(lambda: str((own / "cwd").readlink()))))


def _read(what):
    try:
        return what()
    except OSError:  # the process is gone by now
        return ""


_PLAIN = (*QUICK, "-p", "no:asyncio", "-p", "no:django")


def _running():
    told = subprocess.run(["ps", "-axww", "-o", "pid=,stat=,command="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in told.stdout.splitlines()]
    return {int(pid): command for pid, stat, command in rows if stat[0] != "Z" and int(pid) != os.getpid()}


def _files(place, pattern):
    found = sorted(str(each.relative_to(place)) for each in place.rglob(pattern) if "/data/" not in str(each))
    return [each for each in found if not each.startswith("pytest-of-")]  # what xdist leaves


def _sockets(cache):
    from pytest_seeddb.servers import guard

    named = [guard.record(str(each)).get("socket", "") for each in cache.glob("pytest-seeddb/servers/*")]
    return [Path(each) for each in named if each and Path(each).exists()]


@contextmanager
def site(**environment):
    """A `Site` for the length of a block; nothing of it may run or lie about afterwards."""
    with private_cache() as place:
        made = Site(place, **environment)
        yield made
        made.is_quiet()


class Tried:
    """Counts what an attack tried; the numbers are shown at the end of the run."""

    def __init__(self, properties):
        self._properties = properties
        self._counts = {}

    def __call__(self, what, times=1):
        if what in self._counts:
            self._properties.remove(("tried", (what, self._counts[what])))
        self._counts[what] = self._counts.get(what, 0) + times
        self._properties.append(("tried", (what, self._counts[what])))
