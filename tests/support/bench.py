"""A good project that is made anew for each case of bad input, and a server that stays up under all of them."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import ExitStack, contextmanager

import attacks
import psycopg
from processes import eventually
from separate import separate_server

SECRET = "s3cret"
"""Every password in a case, right or wrong: so no text may hold it."""

GOOD = {
    "migrations": '"db"',
    "seeds": '["attacked.seeds"]',
    "keep": '"none"',
}
TEST = """
    import pytest

    @pytest.mark.seeded{marker}
    def test_it():
        pass
"""
_HOLD = """
import sys
from pathlib import Path
from pytest_seeddb.settings.settings import load_settings
from pytest_seeddb.servers.opening import open_server
with open_server(load_settings(Path.cwd())) as server:
    print(server.address.conninfo, flush=True)
    sys.stdin.read()
"""
_PATTERNS = (
    (re.compile(r"(?<![0-9A-Za-z])(?=[0-9]*[a-f])(?:[0-9a-f]{8}|[0-9a-f]{12,})(?![0-9A-Za-z])"), "<digest>"),
    (re.compile(r" at 0x[0-9a-f]+"), " at <digest>"),
    (re.compile(r"\S*pytest_seeddb/(?:\w+/)*(\w+\.py):\d+:  def (\w+)\(.*"), r"<pytest-seeddb>/\1: def \2"),
    (re.compile(r"\b(PostgreSQL\)?|Python|pg_dump|pg_restore|psql) \d+(\.\d+)+( \([^)]*\))?"), r"\1 <version>"),
    (re.compile(r"\b\d+\.\d+ ?s\b"), "<seconds> s"),
)
_HALVES = ("saw:", "from:", "do:")


def amiss(told, code):
    """What is wrong with any text of an error, whichever it is."""
    found = [word for word in ("Traceback", "INTERNALERROR", "pytest_seeddb/", SECRET) if word in told]
    is_usage = re.search(r"^(?:ERROR: )?usage: .*\n(.*\n)*.*error: ", told)
    is_explained = re.search(r"^-+ seeddb -+\n.", told, re.MULTILINE)
    if code not in {0, 130} and not is_usage and not is_explained:
        found += [f"no {each}" for each in _HALVES if not re.search(rf"^(E  )? +{each}", told, re.MULTILINE)]
    return found


class Bench:
    """Where a case is tried."""

    def __init__(self, site, conninfo, places):
        self.site, self.conninfo = site, conninfo
        self.places = {"<project>": site.project, "<tmp>": site.temporary, "<cache>": site.cache, **places}
        self._files = {}
        self._first = self._standing()

    def tries(self, case):
        """The exit code and the text of a case's command."""
        shutil.rmtree(self.site.project)
        self.site.project.mkdir(mode=0o755)
        for name, text in self._project(case).items():
            self._write(name, text)
        if case.before:
            subprocess.run(self._filled(case.before), shell=True, check=True, cwd=self.site.project)
        self._files = _contents(self.site.project)
        line, environ = self._line(case.run), {**self._environ(), **_variables(self._filled(case.environment))}
        done = subprocess.run(
            line, cwd=self.site.project, env=environ, timeout=60, check=False, start_new_session=True, **_PIPES
        )
        return done.returncode, self._plain(done.stdout.decode(errors="replace"))

    def leavings(self):
        """What a case left behind that was not there before it."""
        now = self._standing()
        return [f"{key}: {now[key]}, before: {self._first[key]}" for key in now if now[key] != self._first[key]] + [
            f"changed: {name}"
            for name, _ in sorted(self._files.items() ^ _contents(self.site.project).items(), key=str)
        ]

    # -- the project -------------------------------------------------------------------------------

    def _project(self, case):
        marker = f"({case.marker})" if case.marker is not None else ""
        good = {
            "pyproject.toml": _table(case.table),
            **{f"db/{name}.sql": text for name, text in attacks.MIGRATIONS.items()},
            "attacked/__init__.py": "",
            "attacked/seeds.py": attacks.SEEDS,
            "test_it.py": TEST.format(marker=marker),
        }
        return {name: text for name, text in {**good, **case.files}.items() if text is not None}

    def _write(self, name, text):
        path = self.site.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else self._filled(textwrap.dedent(text)).encode())

    def _line(self, run):
        program, *arguments = shlex.split(self._filled(run))
        if program == "pytest":
            return [sys.executable, "-m", "pytest", "-q", "--seed-db", *attacks._PLAIN, *arguments]
        assert program == "seeddb", run
        return [sys.executable, "-W", "error", "-m", "pytest_seeddb.cli", *arguments]

    def _environ(self):
        kept = {name: value for name, value in self.site.environ.items() if not name.startswith(("SEEDDB_", "PG"))}
        # Both streams end up in one text, in the order of a terminal, whatever the surroundings say of buffers.
        return {**kept, "COLUMNS": "100", "TERM": "dumb", "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"}

    def _filled(self, text):
        for token, place in self.places.items():
            text = text.replace(token, str(place))
        return text

    def _plain(self, text):
        for token, place in sorted(self.places.items(), key=lambda each: -len(str(each[1]))):
            text = text.replace(str(place), token)
        for pattern, token in _PATTERNS:
            text = pattern.sub(token, text)
        return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")

    # -- what there is -----------------------------------------------------------------------------

    def _standing(self):
        return {
            "databases": eventually(self._databases, 5),
            "roles": self._ask("SELECT rolname FROM pg_roles ORDER BY 1"),
            "temporary": attacks._files(self.site.temporary, "*"),
            "cache": sorted({each for each in attacks._files(self.site.cache, "*") if "/servers/" not in f"/{each}"}),
            "processes": self._processes(),
        }

    def _databases(self):
        """All but finished templates: those are what a build is for, as far as it came."""
        return self._ask(
            "SELECT datname FROM pg_database WHERE datallowconn OR datname NOT LIKE 'seeddb\\_t\\_%' ORDER BY 1"
        )

    def _processes(self):
        found = self.site.processes().values()
        return sorted(each for each in found if not each.startswith("postgres: "))

    def _ask(self, statement):
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            return [name for (name,) in connection.execute(statement)]


_PIPES = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


@contextmanager
def bench():
    """One for a module."""
    with ExitStack() as stack:
        site = stack.enter_context(attacks.site())
        conninfo = stack.enter_context(_held(site))
        places = {
            "<socket>": psycopg.conninfo.conninfo_to_dict(conninfo)["host"],
            "<server>": stack.enter_context(_strict_server()),
            "<closed>": stack.enter_context(_closed_port()),
            "<plain>": stack.enter_context(_port_without_ssl()),
            "<python>": sys.prefix,
        }
        site.passes("test_it.py")  # what a good run leaves behind is there before the first case
        yield Bench(site, conninfo, places)


@contextmanager
def _held(site):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environ = {name: value for name, value in site.environ.items() if not name.startswith("SEEDDB_")}
    with subprocess.Popen([sys.executable, "-c", _HOLD], cwd=site.project, env=environ, **pipes) as holder:
        yield holder.stdout.readline().strip()
        holder.stdin.close()


@contextmanager
def _strict_server():
    """The socket's directory of a server that wants passwords, with a role that may little."""

    def prepare(data):
        (data / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")

    with separate_server() as start:
        address = start(prepare)
        with psycopg.connect(address.conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE weak LOGIN PASSWORD '{SECRET}'")
            connection.execute(f"CREATE ROLE app LOGIN CREATEDB PASSWORD '{SECRET}'")
            connection.execute("CREATE DATABASE shop")
        yield address.params["host"]


@contextmanager
def _closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        yield taken.getsockname()[1]


@contextmanager
def _port_without_ssl():
    """The port of a server that answers each wish for an encrypted connection with no."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(8)
                    connection.sendall(b"N")

        threading.Thread(target=refuse, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _table(given):
    """The good project's table, with what the case says of it."""
    plain, bracket, headings = f"\n{given}".partition("\n[")
    keys = [line.partition("=")[0].strip() for line in plain.splitlines()]
    kept = [f"{key} = {value}" for key, value in GOOD.items() if key not in keys]
    lines = [
        '[project]\nname = "attacked"\n[tool.seeddb]',
        *kept,
        plain.strip("\n"),
        f"{bracket}{headings}".strip("\n"),
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _variables(text):
    return dict(line.split("=", 1) for line in text.splitlines())


def _contents(project):
    paths = [path for path in project.rglob("*") if "__pycache__" not in path.parts]
    return {str(path.relative_to(project)): path.read_bytes() if path.is_file() else b"" for path in paths}
