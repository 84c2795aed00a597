"""Canaries: secrets that are given in every way there is, and looked for wherever they could come out."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from processes import eventually, free_port
from psycopg import sql

from pytest_seeddb.servers.binaries import choose
from pytest_seeddb.servers.places import cache_directory, runnable, server_account
from pytest_seeddb.settings.settings import Settings

_HBA = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
_LOGGED = ("log_statement=all", "log_connections=on", "log_disconnections=on", "log_min_messages=info")
TEXTS = """
    SELECT 'pg_shdescription', description FROM pg_shdescription
    UNION ALL SELECT 'pg_description', description FROM pg_description
    UNION ALL SELECT 'pg_db_role_setting', array_to_string(setconfig, ' ') FROM pg_db_role_setting
    UNION ALL SELECT 'pg_database', datname FROM pg_database
    UNION ALL SELECT 'pg_stat_activity', concat(application_name, ' ', query) FROM pg_stat_activity
"""


class Canary:
    """A random secret. Either half of it gives it away, and so does its base64.

    With ``awkward`` characters between the halves it looks another way in a URL, in a shell and in JSON.
    """

    def __init__(self, awkward=""):
        self.halves = secrets.token_hex(8), secrets.token_hex(8)
        self.word = awkward.join(self.halves)
        encoded = base64.b64encode(self.word.encode()).decode()
        self.traces = (*self.halves, encoded[:20], encoded[-20:].rstrip("="))

    @property
    def quoted(self):
        return quote(self.word, safe="")

    def shown_in(self, text):
        """The lines that give it away."""
        return [line for line in text.splitlines() if any(trace in line for trace in self.traces)]

    def lies_in(self, *places):
        """The files below the places that give it away, but for what says itself that it holds secrets."""
        found = (path for place in places for path in Path(place).rglob("*"))
        return sorted(str(path) for path in found if path.is_file() and not path.is_symlink() and self._is_in(path))

    def _is_in(self, path):
        told = path.read_bytes()
        return any(trace.encode() in told for trace in self.traces)


class GuardedServer:
    """A server on TCP that wants passwords, and writes every statement into its log."""

    def __init__(self, where, program, port):
        self.where, self.port, self.program = where, port, program
        self.log = where / "log"
        self._process = None

    def start(self):
        flags = ["-D", self.where / "data", "-k", self.where, "-p", str(self.port), "-c", "fsync=off"]
        flags += [part for each in _LOGGED for part in ("-c", each)]
        with self.log.open("ab") as log:
            own = server_account().spawn_options()
            self._process = subprocess.Popen(
                [self.program("postgres"), *flags], stdout=log, stderr=log, start_new_session=True, **own
            )
        eventually(self._answers, 30)

    def stop(self, number=signal.SIGINT):
        self._process.send_signal(number)
        self._process.wait(20)

    def _answers(self):
        try:
            self.ask("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def ask(self, statement, database="postgres", parameters=None):
        """As its superuser, who comes through the socket without a password."""
        own = {"host": str(self.where), "port": self.port, "user": "postgres", "dbname": database}
        with psycopg.connect(**own, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def role(self, canary, attributes="LOGIN CREATEDB"):
        """A role whose password is the canary; all that it made goes with it."""
        name = f"app_{secrets.token_hex(4)}"
        with psycopg.connect(host=str(self.where), port=self.port, user="postgres", dbname="postgres") as connection:
            hashed = connection.pgconn.encrypt_password(canary.word.encode(), name.encode(), b"scram-sha-256")
            made = sql.SQL("CREATE ROLE {} " + attributes + " PASSWORD {}")
            connection.execute(made.format(sql.Identifier(name), sql.Literal(hashed.decode())))
        try:
            yield name
        finally:
            self._forget(name)

    def _forget(self, role):
        # The service's last connections end a moment after its client.
        for (name,) in self.ask("SELECT datname FROM pg_database WHERE datdba = %s::regrole", parameters=[role]):
            self.ask("UPDATE pg_database SET datistemplate = false WHERE datname = %s", parameters=[name])
            self.ask(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))
        self.ask(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
        self.ask(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    def url(self, role, password="", database="postgres", more=""):
        return f"postgresql://{role}{password and ':' + password}@127.0.0.1:{self.port}/{database}{more}"

    def tells(self, canary):
        """Where the server itself gives a canary away: its log, and whatever text its catalogs hold."""
        found = [f"log: {line}" for line in canary.shown_in(self.log.read_text(errors="replace"))]
        for (name,) in self.ask("SELECT datname FROM pg_database WHERE datallowconn"):
            for where, text in self.ask(TEXTS, name):
                found += [f"{where} in {name}: {line}" for line in canary.shown_in(text or "")]
        return found


@contextmanager
def guarded_server():
    account = server_account()
    named = os.environ.get("SEEDDB_BINARIES")
    major = int(os.environ.get("SEEDDB_POSTGRES", "0")) or None
    wanted = Settings(root=Path("/"), postgres=major, binaries=Path(named) if named else None)
    program = runnable(choose(wanted), account, cache_directory(account)).program
    where = Path(tempfile.mkdtemp(prefix="sdt-", dir="/tmp"))
    account.take(where)
    initdb = [program("initdb"), "-D", where / "data", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
    try:
        subprocess.run([*initdb, "--locale=C"], check=True, stdout=subprocess.DEVNULL, **account.spawn_options())
        (where / "data" / "pg_hba.conf").write_text(_HBA)
        server = GuardedServer(where, program, free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(where)


class Onlooker:
    """Looks at the command lines of all processes, again and again, as `ps` lets every user do."""

    def __init__(self, *canaries):
        self.looks = 0
        self._seen = set()
        self._traces = [trace.encode() for each in canaries for trace in each.traces]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._over.set()
        self._thread.join()

    def seen(self, *typed):
        """Command lines in which a canary stood, but for those that the user typed so."""
        own = {b"\0".join(os.fsencode(str(each)) for each in line) + b"\0" for line in typed}
        return sorted(line.replace(b"\0", b" ").decode(errors="replace") for line in self._seen - own)

    def _look(self):
        while not self._over.wait(0.004):
            self.looks += 1
            for pid in (each for each in Path("/proc").iterdir() if each.name.isdigit()):
                try:
                    line = (pid / "cmdline").read_bytes()
                except OSError:
                    continue
                if any(trace in line for trace in self._traces):
                    self._seen.add(line)


def wait_for_text(process, text, seconds=120):
    """Read a process's output until it holds the text; what was read."""
    told, deadline = "", time.monotonic() + seconds
    while text not in told:
        assert time.monotonic() < deadline, told
        line = process.stdout.readline()
        assert line, told
        told += line
    return told
