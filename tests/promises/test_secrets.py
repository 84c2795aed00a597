"""Promise 6: no secret is printed, whichever way it was given, and whatever fails.

A password and a secret parameter, both random, are looked for in all that is printed, in every file that
is left, in what the server tells and logs, and in the command lines of all processes meanwhile.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import random
import re
import secrets
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import attacks
import pytest
import secretive
from attacks import times

from pytest_seeddb.fingerprint.digests import Part, chain

AWKWARD = ("", "@", ":", "/", "%", "'", '"', "\\", " ", "é", "#?&=", "@/: %'\"\\é", "12/3@")
SEEDS = """
    import os
    from typing import Annotated
    from sqlalchemy import text
    from pytest_seeddb import Param, seeder

    @seeder
    def shops(session, pin: Annotated[str, Param(secret=True)] = "0000"):
        fails = os.environ.get("FAILS", "")
        url = session.get_bind().url.render_as_string(hide_password=False)
        if fails == "check":
            session.execute(text("CREATE TABLE vault (pin text CHECK (pin = 'none'))"))
            session.execute(text("INSERT INTO vault VALUES (:pin)"), {"pin": pin})
        if fails == "unique":
            session.execute(text("CREATE TABLE vault (pin text UNIQUE)"))
            session.execute(text("INSERT INTO vault VALUES (:pin), (:pin)"), {"pin": pin})
        if fails == "raise":
            raise RuntimeError(f"nobody answers at {url} with {pin!r}")
        if fails == "group":
            raise ExceptionGroup(url, [ValueError(pin), OSError(2, url, pin)])
        if fails == "exit":
            raise SystemExit(f"cannot use {url} and {pin}")
        session.execute(text("INSERT INTO shop (name) SELECT 'shop ' || n FROM generate_series(1, 40) n"))
"""
TESTS = """
    import os
    import pytest

    ALL = "seeded_url seeded_db seeded_connection seeded_engine seeded_session seeddb_settings seeddb_server"

    @pytest.fixture
    def all_of_them(request, seeddb_plan, seeddb_template):
        return {name: request.getfixturevalue(name) for name in ALL.split()}

    def test_shows_all_that_it_has(all_of_them, seeded_url, seeded_db, seeddb_settings):
        env, conninfo, address, values = seeded_db.env, seeded_db.conninfo, seeded_db.address, dict(os.environ)
        parts = [seeded_url, (conninfo, env), repr(seeded_db.address.params)]
        assert all_of_them["seeded_connection"].execute("SELECT count(*) FROM shop").fetchone() == (41,)

    def test_compares_urls(seeded_url):
        assert seeded_url == "postgresql://nobody:else@nowhere/"

    def test_fails_in_the_driver(seeded_db):
        seeded_db.connect(options="-c nonsense=1")

    def test_fails_in_sqlalchemy(seeded_url):
        import sqlalchemy
        url = seeded_url.replace("postgresql:", "postgresql+psycopg:").rpartition("/")[0] + "/no_such_database"
        sqlalchemy.create_engine(url).connect()

    @pytest.mark.seeded(isolation="rollback")
    def test_fails_in_a_rollback(seeded_session, seeded_url):
        seeded_session.execute(seeded_url)

    def test_passes(seeded_connection):
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (40,)
"""
REPORTS = (
    [],
    ["-vv", "--showlocals"],
    ["-vv", "--showlocals", "--tb=long"],
    ["--tb=native"],
    ["--tb=short", "-l", "--seed-db-report"],
    ["-n", "2", "-l", "--seed-db-report", "-v"],
    ["-n", "2", "--seed-db-report=report.html"],
    ["--seed-db-report=report.json"],
    ["-l", "--full-trace"],
    ["-rA", "--setup-show", "--durations=5", "--tb=line"],
)


@pytest.fixture(scope="module")
def server():
    with secretive.guarded_server() as server:
        yield server


@pytest.fixture
def chosen():
    """Random choices, and what they began with: printed where the test fails."""
    seed = secrets.randbits(32)
    print(f"random seed {seed}")
    return random.Random(seed)


class Case:
    """A project whose server wants a password, and whose seeder wants a pin: nobody may see either."""

    def __init__(self, site, server, role, word, pin):
        self.site, self.server, self.role, self.word, self.pin = site, server, role, word, pin
        self.typed = []
        self.written = {str(site.project / each) for each in ("pyproject.toml", "test_it.py")}
        self._home = site.place / "home"
        self._home.mkdir(mode=0o700)
        site.environment.update(HOME=str(self._home), SEEDDB_SEED_PIN=pin.word, COLUMNS="400")
        site.write("attacked/seeds.py", SEEDS)
        site.write("test_it.py", TESTS)

    @property
    def url(self):
        return self.server.url(self.role, self.word.quoted)

    def secret_file(self, name, text):
        path = self._home / name
        path.write_text(textwrap.dedent(text))
        path.chmod(0o600)
        return path

    def pytest(self, *arguments):
        """What a run prints, however it ends."""
        process = self.site.start(*arguments)
        self.typed.append(process.args)
        told, _ = process.communicate(timeout=120)
        self.look(told, process.args)
        return told

    def seeddb(self, *arguments, given="SELECT pg_sleep(0.05);\n", code=None):
        """What a command prints, however it ends; it never ends with a traceback."""
        line = [sys.executable, "-W", "error", "-m", "pytest_seeddb.cli", *map(str, arguments)]
        own = {"cwd": self.site.project, "env": self.site.environ, "input": given, "timeout": 120}
        done = subprocess.run(line, capture_output=True, text=True, check=False, **own)
        self.typed.append(line)
        told = done.stdout + done.stderr
        self.look(told, line)
        assert "Traceback" not in told, told
        assert code in {None, done.returncode}, told
        return told

    def look(self, told, line=()):
        for canary in (self.word, self.pin):
            assert canary.shown_in(told) == [], list(map(str, line))[3:]

    def look_around(self, onlooker):
        """At what is left, and at what was to be seen meanwhile."""
        left = [self.site.cache, self.site.temporary, self.site.project]
        for canary in (self.word, self.pin):
            assert set(canary.lies_in(*left)) <= self.written
        assert self.server.tells(self.word) == []
        assert onlooker.seen(*self.typed) == []
        assert onlooker.looks > 20


@contextmanager
def case(server, awkward="", attributes="LOGIN CREATEDB", way=None):
    word, pin = secretive.Canary(awkward), secretive.Canary()
    with attacks.site() as site, server.role(word, attributes) as role:
        made = Case(site, server, role, word, pin)
        (way or in_the_environment)(made)
        with secretive.Onlooker(word, pin) as onlooker:
            yield made
        made.look_around(onlooker)


# -- ways to give a password ---------------------------------------------------------------------


def in_the_environment(case):
    case.site.environment["SEEDDB_SERVER"] = case.url


def in_the_urls_query(case):
    case.site.environment["SEEDDB_SERVER"] = case.server.url(case.role, more=f"?password={case.word.quoted}")


def in_the_table(case):
    case.site.table(f"server = {json.dumps(case.url)}")


def on_the_command_line(case):
    start, command = case.site.start, case.seeddb
    case.site.start = lambda *arguments: start(f"--seed-db-server={case.url}", *arguments)
    case.seeddb = lambda name, *arguments, **options: command(name, "--server", case.url, *arguments, **options)


def in_pgpassword(case):
    case.site.environment.update(SEEDDB_SERVER=case.server.url(case.role), PGPASSWORD=case.word.word)


def _line_of_a_password_file(case):
    word = case.word.word.replace("\\", "\\\\").replace(":", "\\:")
    return f"127.0.0.1:{case.server.port}:*:{case.role}:{word}\n"


def in_a_password_file(case):
    path = case.secret_file("passwords", _line_of_a_password_file(case))
    case.site.environment.update(SEEDDB_SERVER=case.server.url(case.role), PGPASSFILE=str(path))


def in_the_urls_password_file(case):
    path = case.secret_file("passwords", _line_of_a_password_file(case))
    case.site.environment["SEEDDB_SERVER"] = case.server.url(case.role, more=f"?passfile={path}")


def in_the_homes_password_file(case):
    case.secret_file(".pgpass", _line_of_a_password_file(case))
    case.site.environment["SEEDDB_SERVER"] = case.server.url(case.role)


def in_a_service_file(case):
    text = f"[shop]\nhost=127.0.0.1\nport={case.server.port}\nuser={case.role}\npassword={case.word.word}\n"
    path = case.secret_file("services", text)
    case.site.environment.update(SEEDDB_SERVER="postgresql:///postgres?service=shop", PGSERVICEFILE=str(path))


WAYS = (
    in_the_environment, in_the_urls_query, in_the_table, on_the_command_line, in_pgpassword, in_a_password_file,
    in_the_urls_password_file, in_the_homes_password_file, in_a_service_file,
)  # fmt: skip


@pytest.mark.parametrize("number", range(times(len(WAYS), least=2)))
def test_a_password_comes_out_nowhere_whichever_way_it_was_given(server, chosen, tried, number):
    way = WAYS[number] if attacks.SCALE >= 1 else chosen.choice(WAYS)
    awkward = chosen.choice(AWKWARD)
    print(way.__name__, repr(awkward))
    with case(server, awkward, way=way) as given:
        told = given.pytest(*chosen.choice(REPORTS[1:]), f"--junitxml={given.site.project}/junit.xml")
        assert "5 failed, 1 passed" in told, told
        given.seeddb("build", "--export", "template.dump", code=0)
        for options in ((), ("--json",)):
            given.seeddb(chosen.choice(["status", "explain", "verify"]), *options, code=0)
        given.seeddb("dump", "-o", chosen.choice(["dump.sql", "dump.sql.gz", "dump.custom"]), code=0)
        given.seeddb("build", "--import", "template.dump", "--json", code=0)
        given.seeddb("shell", "--fresh", code=0)
        given.seeddb("shell", *chosen.choice([(), ("--python",)]), given="\n")
        given.seeddb("prune", "--all", code=0)
    tried("a way to give a password")


def test_a_failing_tests_report_shows_no_secret(server, chosen, tried):
    with case(server, "@/: %'\"\\é") as given:
        for options in chosen.sample(REPORTS, times(len(REPORTS), least=2)):
            told = given.pytest(*options)
            assert "5 failed, 1 passed" in told, told
            assert "***" in told or "--tb=native" in options or "--tb=line" in options
            tried("a report of failing tests")


# -- guessing ------------------------------------------------------------------------------------

OTHER_PIN = """
    import pytest

    @pytest.mark.seeded(pin="PIN")
    def test_has_another_pin(seeded_connection):
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (41,), "fails, and is reported"
"""
ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b", "blake2s", "sha3_256")


def guesses_of(pin, salts):
    """What one cheap digest makes of a secret, each at its full length and in base64."""
    words = [pin, repr(pin), f'"{pin}"', repr(int(pin)), f"pin={pin}", f"pin={pin!r}", f"PIN={pin}\n", f"pin {pin!r}"]
    identity = "attacked.seeds:shops"
    words += [f"{identity} {word}" for word in words] + [f"parameter {word}" for word in words]
    words += [f"{word}{between}{salt}" for salt in salts for between in ("", " ", "\0") for word in words[:4]]
    words += [f"{salt}{between}{word}" for salt in salts for between in ("", " ", "\0") for word in words[:4]]
    for algorithm in ALGORITHMS:
        for word in words:
            hashed = hashlib.new(algorithm, word.encode())
            yield hashed.hexdigest(), base64.b64encode(hashed.digest()).decode()


def everything_stored(server, given, *databases):
    """All that lies in files and that the catalogs and ledgers say."""
    places = (given.site.cache, given.site.temporary, given.site.project)
    paths = [path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    texts = [path.read_bytes().decode(errors="replace") for path in paths if str(path) not in given.written]
    for database in ("postgres", *databases):
        texts += [text or "" for _, text in server.ask(secretive.TEXTS, database)]
    ledger = "SELECT s::text || m::text FROM seeddb.seeddb_step s, seeddb.seeddb_marker m"
    texts += [text for database in databases for (text,) in server.ask(ledger, database)]
    return "\n".join(texts)


def test_a_six_digit_secret_cannot_be_guessed_from_all_that_is_told_and_stored(server, chosen, tried):
    pins = [str(chosen.randint(100_000, 999_999)) for _ in range(2)]
    with case(server) as given:
        given.site.environment["SEEDDB_SEED_PIN"] = pins[0]
        given.site.write("test_it.py", OTHER_PIN.replace("PIN", pins[1]))
        given.site.write(".env", f"PIN={pins[0]}\n")
        given.site.table('watch = [".env"]')
        given.written.add(str(given.site.project / ".env"))
        told = given.pytest("-l", "-vv", "--seed-db-report")
        assert "1 failed" in told, told
        database = f"target_{secrets.token_hex(4)}"
        server.ask(f"CREATE DATABASE {database} OWNER {given.role}")
        url = server.url(given.role, given.word.quoted, database)
        commands = [
            ("build", "--export", "template.dump"), ("dump", "-o", "dump.sql"), ("apply", "--url", url), ("status",),
            ("status", "--json"), ("explain",), ("explain", "--diff"), ("explain", "--digest"), ("build", "--json"),
        ]  # fmt: skip
        told += "".join(given.seeddb(*command, code=0) for command in commands)
        explained = given.seeddb("explain", "--json", code=0)
        stored = told + explained + everything_stored(server, given, database)
        server.ask(f"DROP DATABASE {database} (FORCE)")
    assert "scrypt:" in stored
    salts = set(re.findall(r'"salt": "([^"]*)"', stored.replace("\\", "")))
    assert salts
    assert not re.search(r"\*\*\*[0-9a-f]", stored)
    steps = [(step["name"], step["fingerprint"], step["parts"]) for step in json.loads(explained)["steps"]]
    for pin in pins:
        for guess, encoded in guesses_of(pin, salts):
            assert guess[:12] not in stored
            assert encoded[:12] not in stored
            for (_, before, _), (name, fingerprint, parts) in itertools.pairwise(steps):
                with_guess = [
                    Part(part["name"], guess[:16] if "pin" in part["name"] else part["digest"]) for part in parts
                ]
                assert chain(before, name, with_guess) != fingerprint or "pin" not in str(parts)
    tried("a six-digit secret")


# -- failures ------------------------------------------------------------------------------------

COMMAND = 'migrations = {command = "echo $DATABASE_URL $PGPASSWORD $SEEDDB_SEED_PIN; exit 3", inputs = ["db"]}'
ALEMBIC_ENV = """
    from alembic import context
    from sqlalchemy import create_engine
    with create_engine("postgresql+psycopg://nobody:else@nowhere/").connect() as connection:
        context.configure(connection=connection)
        raise RuntimeError(connection.engine.url.render_as_string(hide_password=False), connection.info)
"""
CALLABLE = """
    import os
    def migrate(url):
        raise OSError(f"cannot open {url} with {os.environ['SEEDDB_SEED_PIN']}")
"""


def _other_migrations(given, text):
    path = given.site.project / "pyproject.toml"
    path.write_text(path.read_text().replace('migrations = "db"', text))


# The server's log holds the user's own statements: no password of ours stands in them.
def fails_in_sql(given):
    given.site.write("db/004_wrong.sql", "CREATE TABLE pins (pin text CHECK (pin = ''));\n")
    given.site.write("db/005_wrong.sql", f"INSERT INTO pins VALUES ('{given.pin.word}');\n")


def fails_in_alembic(given):
    _other_migrations(given, 'migrations = "alembic.ini"')
    given.site.write("alembic.ini", "[alembic]\nscript_location = changes\n")
    given.site.write("changes/env.py", ALEMBIC_ENV)
    given.site.write("changes/versions/one.py", 'revision = "one"\ndown_revision = None\ndef upgrade(): pass\n')


def fails_in_a_callable(given):
    given.site.write("attacked/schema.py", CALLABLE)
    _other_migrations(given, 'migrations = "attacked.schema:migrate"')


def fails_in_a_command(given):
    _other_migrations(given, COMMAND)


def fails_in_a_dump(given):
    given.site.write("old.sql", f"CREATE TABLE a (b text CHECK (b = ''));\nINSERT INTO a SELECT '{given.pin.word}';")
    given.site.table('dump = "old.sql"')


def fails_in_a_seeder(given):
    given.site.environment["FAILS"] = secrets.choice(["check", "unique", "raise", "group", "exit"])
    print(given.site.environment["FAILS"])


def has_a_wrong_password(given):
    given.site.environment["SEEDDB_SERVER"] = given.server.url(given.role, "X" + given.word.quoted)


def has_a_wrong_port(given):
    given.site.environment["SEEDDB_SERVER"] = given.url.replace(f":{given.server.port}/", ":1/")


def has_a_wrong_host(given):
    given.site.environment["SEEDDB_SERVER"] = given.url.replace("127.0.0.1", "no-such-host.invalid")


def has_a_wrong_user(given):
    given.site.environment["SEEDDB_SERVER"] = given.url.replace(given.role, "nobody_known")


def has_an_unescaped_password(given):
    # Much can stand in a URL as it is; a slash must be escaped.
    password = f"{given.word.word}/{given.word.halves[0]}"
    given.site.environment["SEEDDB_SERVER"] = given.server.url(given.role, password)


def has_a_keyword_string(given):
    given.site.environment["SEEDDB_SERVER"] = f"host=127.0.0.1 user={given.role} password={given.word.word}"


def has_a_wrong_scheme(given):
    given.site.environment["SEEDDB_SERVER"] = given.url.replace("postgresql:", "mysql:")


def has_a_misspelt_variable(given):
    given.site.environment.update(SEEDDB_SERVR=given.site.environment.pop("SEEDDB_SERVER"))


def has_a_misspelt_key(given):
    del given.site.environment["SEEDDB_SERVER"]
    given.site.table(f"servr = {json.dumps(given.url)}")


def has_a_misspelt_table(given):
    given.site.table(f"[tool.seeddb.profil.demo]\npin = '{given.pin.word}'")


def has_a_table_at_the_wrong_place(given):
    given.site.table(f"[tool.seeddb.profiles]\npin = '{given.pin.word}'")


def has_a_misspelt_parameter(given):
    given.site.environment.update(SEEDDB_SEED_PIM=given.site.environment.pop("SEEDDB_SEED_PIN"))


FAILURES = (
    fails_in_sql, fails_in_alembic, fails_in_a_callable, fails_in_a_command, fails_in_a_dump, fails_in_a_seeder,
    fails_in_a_seeder, has_a_wrong_password, has_a_wrong_port, has_a_wrong_host, has_a_wrong_user,
    has_an_unescaped_password, has_a_keyword_string, has_a_wrong_scheme, has_a_misspelt_variable, has_a_misspelt_key,
    has_a_misspelt_table, has_a_table_at_the_wrong_place, has_a_misspelt_parameter,
)  # fmt: skip


def test_no_failure_shows_a_secret(server, chosen, tried):
    for failure in chosen.sample(FAILURES, times(len(FAILURES), least=3)):
        awkward = chosen.choice(["", *(each for each in AWKWARD if " " not in each)])
        print(failure.__name__, repr(awkward))
        with case(server, awkward) as given:
            failure(given)
            told = given.pytest(*chosen.choice(REPORTS))
            assert "1 passed" not in told, told
            command = chosen.choice([("build",), ("status",), ("explain", "--json"), ("verify",), ("dump", "-o", "x")])
            told = given.seeddb(*command)
            assert command[0] != "build" or "from:" in told, told
            given.written |= {str(path) for pattern in ("db/*", "old.sql") for path in given.site.project.glob(pattern)}
        tried("a failure")


def test_a_role_that_may_nothing_is_told_so_without_its_password(server, tried):
    with case(server, "@", attributes="LOGIN") as given:
        assert "may not create databases" in given.pytest("-l", "--tb=long")
        assert "may not create databases" in given.seeddb("build", code=1)
        assert "may not create schemas" in given.seeddb("apply", "--url", given.url, "--tier", "essential", code=1)
        given.site.environment["DATABASE_URL"] = given.url
        assert "may not create schemas" in given.seeddb("apply", "--json", code=1)
        given.seeddb("apply", "--ulr", given.url, code=2)
        given.seeddb("build", "--set", f"pim={given.pin.word}", code=2)
        given.seeddb("build", "--set", f"a-pin={given.pin.word}", code=2)
        given.seeddb("build", "--set", given.pin.word, code=2)
    tried("a role that may nothing")


WAITS = """
    import time
    import pytest

    @pytest.mark.parametrize("number", range(20))
    def test_waits(seeded_url, seeded_connection, seeded_db, number):
        print("WAITING", flush=True)
        time.sleep(WAITED)
        seeded_connection.execute("SELECT 1")
"""


@contextmanager
def waiting(given, waited, *arguments):
    """A run that is in the midst of a test."""
    given.site.write("test_it.py", WAITS.replace("WAITED", str(waited)))
    process = given.site.start("-s", *arguments)
    given.typed.append(process.args)
    begun = secretive.wait_for_text(process, "WAITING")
    yield process
    told, _ = process.communicate(timeout=120)
    given.look(begun + told)


def test_an_interrupted_run_shows_no_secret(server, chosen, tried):
    for _ in range(times(4)):
        options = chosen.choice([("-l",), ("--full-trace",), ("--full-trace", "-l", "-vv")])
        with case(server, chosen.choice(AWKWARD)) as given, waiting(given, 60, *options) as process:
            process.send_signal(signal.SIGINT)
        tried("Ctrl-C in a test")


def test_a_server_that_goes_away_in_mid_run_shows_no_secret(server, chosen, tried):
    for _ in range(times(4)):
        options = chosen.choice([("-l", "-x"), ("--tb=native",), ("--tb=long", "-l", "-vv")])
        with case(server, chosen.choice(AWKWARD)) as given:
            with waiting(given, 0.3, *options):
                server.stop(chosen.choice([signal.SIGINT, signal.SIGQUIT]))
            given.seeddb("status")
            given.seeddb("build", code=1)
            server.start()
        tried("a server that goes away")
