"""Servers of a test's own under poor circumstances, reached over TCP, and what stands between them and their users."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from processes import eventually, free_port
from psycopg import sql

from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.binaries import Binaries, choose
from pytest_seeddb.servers.places import cache_directory, runnable, server_account
from pytest_seeddb.settings.settings import Settings

_OTHERS = ("randomly", "cacheprovider", "asyncio", "django")
_FAKETIME = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), *Path("/usr/lib/faketime").glob("libfaketime.so.1")]
QUICK = {"fsync": "off", "max_wal_size": "1GB", "checkpoint_timeout": "1h"}


def programs_in(directory, version):
    """The programs of a directory, where PostgreSQL's account can run them."""
    return _runnable(Binaries(directory, version, str(directory)))


def _programs(major=None):
    """The programs of the installed PostgreSQL, where its account can run them."""
    named = os.environ.get("SEEDDB_BINARIES")
    wanted = Settings(
        root=Path("/"),
        postgres=major or int(os.environ.get("SEEDDB_POSTGRES", "0")) or None,
        binaries=Path(named) if named else None,
    )
    return _runnable(choose(wanted))


def _runnable(binaries):
    account = server_account()
    return runnable(binaries, account, cache_directory(account)).program


class PoorServer:
    """A PostgreSQL with chosen settings, which the test starts, stops and breaks.

    Args:
        place: A directory of its own.
        program: Gives the path of a program by its name.
        settings: What postgresql.conf is to say, beside `QUICK`.
    """

    def __init__(self, place, program, inside=(), **settings):
        self.place, self.program, self.inside = place, program, list(inside)
        self.data, self.log = place / "data", place / "log"
        self.port = free_port()
        self.settings = {**QUICK, **settings}
        self._as_account = {} if inside else server_account().spawn_options()
        self._process = None

    def make(self, *options, text="local all all trust\nhost all all all trust\n"):
        """A new data directory; ``options`` are initdb's."""
        given = ["-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", *options]
        self.call("initdb", *given)
        self._write("pg_hba.conf", text + "local replication all trust\nhost replication all all trust\n")
        return self

    def _write(self, name, text):
        line = [*self.inside, "sh", "-c", 'cat > "$0"', self.data / name]
        subprocess.run(line, input=text, text=True, check=True, **self._as_account)

    def call(self, name, *arguments, **options):
        """Run one of PostgreSQL's programs, as the account that the server has."""
        as_account = {**self._as_account, "cwd": "/", "stdin": subprocess.DEVNULL, **options}
        done = subprocess.run(
            [*self.inside, self.program(name), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            **as_account,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, **settings):
        self.settings.update(settings)
        own = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.place}
        flags = [f"--{name}={value}" for name, value in {**own, **self.settings}.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.inside, self.program("postgres"), "-D", self.data, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **self._as_account,
            )
        return self.recovered()

    def recovered(self):
        eventually(self._answers, 60)
        return self

    def _answers(self):
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        try:
            psycopg.connect(self.address().conninfo).close()
        except psycopg.OperationalError as error:
            return "too many" in str(error)
        return True

    def stop(self, mode="fast"):
        """Stop it as ``pg_ctl -m`` does; with ``immediate`` it has to recover at its next start."""
        if self._process is not None:
            self._process.send_signal({"fast": 2, "immediate": 3}[mode])
            self._process.wait(30)
            self._process = None

    def restart(self, mode="fast", **settings):
        self.stop(mode)
        return self.start(**settings)

    def address(self, user="postgres", database="postgres", password=None, port=None):
        params = {"host": "127.0.0.1", "port": str(port or self.port), "user": user, "dbname": database}
        return Address({**params, **({"password": password} if password else {})})

    def url(self, **given):
        return self.address(**given).url

    def do(self, *statements, **given):
        """The rows of the last statement, as a superuser."""
        rows = []
        with psycopg.connect(self.address(**given).conninfo, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def role(self, name, attributes, password=None):
        secret = sql.SQL(" PASSWORD {}").format(sql.Literal(password)) if password else sql.SQL("")
        self.do(sql.SQL("CREATE ROLE {} LOGIN " + attributes).format(sql.Identifier(name)) + secret)
        return self.url(user=name, password=password)

    def databases(self, pattern="%"):
        return sorted(name for (name,) in self.do("SELECT datname FROM pg_database") if _like(name, pattern))

    def half_made(self):
        """What nobody should find after a run: clones, builds, locks and connections of ours."""
        with suppress(AssertionError):  # a backend has a moment to end
            eventually(lambda: not self._half_made(), 2)
        return self._half_made()

    def _half_made(self):
        names = [each for each in self.databases("seeddb_") if not each.startswith(("seeddb_t_", "seeddb_k_"))]
        locks = self.do("SELECT objid FROM pg_locks WHERE locktype = 'advisory'")
        ours = self.do("SELECT datname, application_name FROM pg_stat_activity WHERE application_name ~ 'seeddb'")
        return names + locks + ours


def _like(name, pattern):
    return pattern == "%" or name.startswith(pattern)


@contextmanager
def server_place(within="/var/tmp"):
    """A directory for a server, of the account that runs it."""
    place = Path(tempfile.mkdtemp(prefix="sdt-", dir=within))
    place.chmod(0o755)
    server_account().take(place)
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextmanager
def poor_server(*options, program=None, hba=None, **settings):
    """A running server with these settings; ``options`` are initdb's."""
    with server_place() as place:
        server = PoorServer(place, program or _programs(), **settings)
        server.make(*options, **({"text": hba} if hba else {})).start()
        try:
            yield server
        finally:
            server.stop("immediate")


@contextmanager
def standby_of(primary):
    """A read-only replica of a server whose ``wal_level`` is ``replica``."""
    with server_place() as place:
        copy = PoorServer(place, primary.program)
        primary.call("pg_basebackup", "-D", copy.data, "-d", primary.address().conninfo, "-R", "-X", "stream")
        copy.start()
        try:
            yield copy
        finally:
            copy.stop("immediate")


# -- what stands between a server and its users ---------------------------------------------------


class Proxy:
    """Forwards each connection to a server, byte by byte; it can cut all of them."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.served = 0
        self._target = port
        self._pairs = []
        self._all = [self.listener]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.served += 1
                server = socket.create_connection(("127.0.0.1", self._target))
                self._pairs.append((client, server))
                self._all += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=_forward, args=(source, target), daemon=True).start()

    def cut(self):
        """End every connection, as a firewall or a restarted proxy does."""
        while self._pairs:
            for each in self._pairs.pop():
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for each in self._all:
            each.close()


def _forward(source, target):
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(server):
    made = Proxy(server.port)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def pooler(server, mode, **settings):
    """PgBouncer before a server, for all of its databases; gives its port."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    assert program, "PgBouncer is not installed: apt-get install pgbouncer"
    with server_place() as place:
        port = free_port()
        given = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": mode,
            "logfile": place / "log",
            "max_client_conn": 200,
            "default_pool_size": 20,
            **settings,
        }
        lines = [f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in given.items()]
        (place / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        account = server_account().spawn_options()
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([program, place / "pgbouncer.ini"], cwd="/", **quiet, **account)
        try:
            eventually(lambda: process.poll() is not None or _listens(port))
            assert process.poll() is None, (place / "log").read_text()
            yield port
        finally:
            process.terminate()
            process.wait(20)


def _listens(port):
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


@contextmanager
def visitor(server, pause=0.02):
    """Connects again and again to each database that there is, as monitoring does; gives its counts.

    It stays a while in each, in the middle of a query or idle.
    """
    ended, counts = threading.Event(), {"visits": 0, "refused": 0, "ours": 0}

    def visit(name):
        address = server.address(database=name)
        with psycopg.connect(address.conninfo, autocommit=True, application_name="visitor") as connection:
            counts["visits"] += 1
            counts["ours"] += name.startswith("seeddb_")
            connection.execute("SELECT count(*) FROM pg_class")
            time.sleep(0.01)

    def visit_all():
        while not ended.is_set():
            for (name,) in server.do("SELECT datname FROM pg_database WHERE datallowconn"):
                try:
                    visit(name)
                except psycopg.Error:
                    counts["refused"] += 1
                time.sleep(pause)

    thread = threading.Thread(target=visit_all, daemon=True)
    thread.start()
    try:
        yield counts
    finally:
        ended.set()
        thread.join(30)


@contextmanager
def on_request(site, act):
    """Does something to the server whenever the site's tests ask for it, and lets them go on; gives each time it did.

    They ask by making the file that the variable ``REQUEST`` names, and wait until it is gone.
    """
    asked, ended, served = site.place / "request", threading.Event(), []
    site.environment["REQUEST"] = str(asked)

    def serve():
        while not ended.wait(0.005):
            if asked.exists():
                act()
                served.append(time.monotonic())
                asked.unlink()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        ended.set()
        thread.join(60)


# -- poor machines --------------------------------------------------------------------------------

_OPTIONS = ("-m", "pytest", "-q", "--seed-db", *(part for name in _OTHERS for part in ("-p", f"no:{name}")))


@contextmanager
def in_a_world_of_its_own(site, script, user=None):
    """Runs of the site's tests where the script has mounted something that nobody else sees.

    Gives ``run(*arguments)``, which returns the exit code and what was printed. The world ends with
    its last process, and what is mounted with it.
    """
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"{script} && echo ready && exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "ready\n"
    inside = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", f"--wd={site.project}"]

    def run(*arguments):
        return _finished([*inside, *_as(user)], site, arguments)

    try:
        yield run
    finally:
        holder.communicate()


@contextmanager
def as_user(site, user):
    yield lambda *arguments: _finished(_as(user), site, arguments)


def _as(user):
    """Another account that may read everything, so that it can run a Python below a closed home directory."""
    if user is None:
        return []
    account = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return ["setpriv", *account, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def _finished(prefix, site, arguments):
    line = [*prefix, sys.executable, *_OPTIONS, *map(str, arguments)]
    own = {"cwd": site.project, "env": site.environ, "stdin": subprocess.DEVNULL, "start_new_session": True}
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **own)
    return done.returncode, done.stdout


@contextmanager
def server_on_small_disk(size):
    """A server whose data directory is a file system of its own, of that size."""
    with server_place() as place:
        data, account = place / "data", server_account()
        data.mkdir()
        mount = f"mount -t tmpfs -o size={size},mode=700,uid={account.uid},gid={account.gid} none '{data}'"
        holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", f"{mount} && echo ready && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout.readline() == "ready\n"
        inside = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", *_as_account(account)]
        server = PoorServer(place, _programs(), inside=inside, wal_level="minimal", max_wal_senders=0)
        try:
            server.make(f"--waldir={place / 'wal'}").start()  # the log has room: without any the server would not last
            yield server
        finally:
            server.stop("immediate")
            holder.communicate()


def _as_account(account):
    return ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]


@contextmanager
def clock(site, days):
    """The clock of the site's processes is that many days off; that of a server elsewhere is not.

    All of their clocks are: libfaketime 0.9.10 breaks sleeping where the monotonic one is left alone.
    """
    library = next((each for each in _FAKETIME if each.exists()), None)
    assert library, "libfaketime is not installed: apt-get install faketime"
    before = dict(site.environment)
    if days:
        site.environment |= {"LD_PRELOAD": str(library), "FAKETIME": f"{days:+d}d"}
    try:
        yield
    finally:
        site.environment.clear()
        site.environment |= before
