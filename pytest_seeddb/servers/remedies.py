"""What to do about a server's error, found by its SQLSTATE (PostgreSQL's appendix A) or by its words."""

from __future__ import annotations

import re
from typing import Final, Literal

Task = Literal["step", "seeder", "bulk", "dump", "admin"]
"""What failed: a step of a build, a seeder or a bulk load in particular, a dump's restoration, administrative SQL."""

_EXISTS: Final = (
    "the object already exists: change the statement. An earlier step or the `dump` created it. seeddb knows which "
    "migrations a dump contains only if `seeddb dump` wrote it, or if it contains the migration tool's own table"
)
_ROLE_EXISTS: Final = (
    "roles belong to the whole server and stay when a database is dropped: an earlier build created this one, or "
    "another client did. Write the statement so that it can run again: "
    "DO $$ BEGIN CREATE ROLE ...; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
)
_DATABASE_EXISTS: Final = (
    "databases and tablespaces belong to the whole server and stay: an earlier build created this one, or another "
    "client did. Create it only where it is missing, or drop it first (DROP DATABASE IF EXISTS ...)"
)
# Of two who create the same at once, one waits for the other's commit, and its error names an index.
_ROLE_TAKEN: Final = r'role "[^"]*" already exists|"pg_(authid|auth_members)_\w+_index"'
_DATABASE_TAKEN: Final = r'(database|tablespace) "[^"]*" already exists|"pg_(database|tablespace)_\w+_index"'
_BY_STATE: Final[dict[Task, dict[str, str]]] = {
    "step": {
        "25001": "run it outside a transaction: op.get_context().autocommit_block() in Alembic, "
        "`-- migrate:up transaction:false` in an SQL file",
        "42501": "grant the missing privilege to the role, or name a server where the role has it",
        "42601": "correct the SQL at the position shown",
        "42704": "create the type or role first, or add its extension to the setting `extensions`",
        "42883": "create the function first, or add its extension to the setting `extensions`",
        **dict.fromkeys(("42701", "42710", "42723", "42P06", "42P07"), _EXISTS),
        "42P01": "create the table in an earlier step, or correct its name or the search_path",
        "0A000": "the server's version or build does not support this: name another server",
        "58P01": "the extension is not installed on this server: install its package, or name another server",
        "53100": "free space on the server's disk",
    },
    "seeder": {
        "25P02": "an earlier statement failed and its error was caught: run statements that may fail in "
        "session.begin_nested(), which rolls back that statement alone",
        "23503": "create the row it refers to first; name the seeder that creates it in `after`",
        "23505": "make the value unique. If another seeder creates the same values without the factory, start the "
        "factory's sequence elsewhere: Factory.reset_sequence(1000, force=True)",
        "42703": "check that the migrations and the models agree",
        "42P01": "check that the migrations create this table, and that the setting `migrations` is there",
    },
    "bulk": {
        "23502": "let the factory give it a value",
        "23503": "let the factory refer to the object itself, by a relationship, or to one that is in the database",
        "23505": "let the factory make it unique, with factory.Sequence. If other rows use the same numbers, start "
        "the sequence elsewhere: Factory.reset_sequence(1000, force=True)",
        "0A000": "COPY cannot load this table: use create_batch",
    },
    "dump": {
        "42704": "create the role or the type on the server first, or make the dump without it",
        "42P06": "the dump creates a schema that already exists: make the dump without --create and --clean",
        "42P07": "the dump creates a table twice: check whether two dumps were joined",
        "42P01": "the dump uses a table that it does not contain: dump the whole database",
        "0A000": "use a server of the version that the dump comes from",
        "58P01": "use a server that has the extension, or make the dump without it (pg_dump --exclude-extension)",
        "22021": "make the dump again, with pg_dump --encoding=UTF8: the file is not UTF-8, perhaps after a conversion",
        "22P02": "make the dump again: the data do not fit the table; perhaps git or an editor changed it",
    },
    "admin": {
        "53100": "free space on the server's disk: drop old templates, or move data directories",
        "53300": "raise max_connections on the server, or run fewer workers (-n)",
        "53": "give the server more of the resource it lacks",
        "57P": "start the server again and repeat the run: only this run's clones are lost",
        "08": "check that the server runs, and repeat the run",
        "55006": "end the other connections to that database and repeat the run",
        "58": "read the server's log: its disk or file system failed",
        "XX": "read the server's log: this is a fault in the server",
    },
}
_BY_WORDS: Final = (
    (_ROLE_TAKEN, _ROLE_EXISTS),
    (_DATABASE_TAKEN, _DATABASE_EXISTS),
    (
        "too many clients already|remaining connection slots",
        "raise max_connections on the server, end unused connections, or run fewer workers (-n)",
    ),
    (
        "too many connections for role",
        "raise the role's limit (ALTER ROLE ... CONNECTION LIMIT), or run fewer workers (-n)",
    ),
    (
        '"template0" has a collation version mismatch',
        "as its owner: ALTER DATABASE template0 REFRESH COLLATION VERSION;  (it holds no data that could be wrong)",
    ),
    (
        "checkpoint request failed",
        "free space on the server's disk: the server could not write a file; its log names the file and the cause",
    ),
    (
        "the database system is (starting up|shutting down|in recovery|not yet accepting)",
        "wait until the server is up, and repeat the run",
    ),
)
# What libpq and psycopg say when there is no connection, and so no SQLSTATE.
_CONNECTING: Final = (
    *_BY_WORDS,
    ("password authentication failed", "correct the user or the password in the URL"),
    ("no password supplied", "write the password into the URL, or into ~/.pgpass"),
    (
        "no pg_hba.conf entry",
        "allow this host, user and database in the server's pg_hba.conf; or try ?sslmode=require",
    ),
    ('FATAL:  role "', "correct the user in the URL, or create the role"),
    ('FATAL:  database "', "name a database that exists, for example /postgres"),
    ("translate host name|failed to resolve host|Name or service not known", "correct the host in the URL"),
    ("Connection refused", "start the server, or correct the host and the port in the URL"),
    ("No such file or directory", "start the server, or correct the socket directory and the port in the URL"),
    ("does not support SSL", "use another sslmode in the URL: ?sslmode=prefer; or turn ssl on in the server"),
    ("invalid sslmode value", "correct sslmode in the URL: disable, allow, prefer, require, verify-ca or verify-full"),
    ("invalid port number", "correct the port in the URL"),
    ("timeout", "check the host, the port and the firewall; connect_timeout in the URL allows more time"),
)
# What PostgreSQL's programs say when an embedded server does not start; a new data directory would not help.
_STARTING: Final = (
    (
        r"no space left on device.*shared memory|shared memory.*no space left on device",
        "make /dev/shm larger (docker run --shm-size=256m)",
    ),
    (
        r"no space left on device|quota exceeded|file too large",
        "free some space on the disk of {state}, or set XDG_CACHE_HOME to a directory on another one",
    ),
    (
        r"could not (create|map|resize|open) [^\n]*shared memory|cannot allocate memory",
        "give it memory: it needs about 200 MB (in a container also docker run --shm-size=256m)",
    ),
    (r"could not create semaphores", "raise the kernel's limit of semaphores (kernel.sem)"),
    (
        r"error while loading shared libraries|library not loaded|symbol not found",
        "reinstall PostgreSQL ({origin}): it lacks a library that it needs",
    ),
    (
        r"permission denied|operation not permitted",
        "let the account {account} enter {state} and run the programs in {programs}",
    ),
    (r"read-only file system", "set XDG_CACHE_HOME to a writable directory"),
)


def remedy(message: str, sqlstate: str = "", task: Task = "step") -> str:
    """What to do about a server's error; empty where nothing is known that helps."""
    if sqlstate == "0A000" and "extension" in message and task in {"step", "seeder", "dump"}:
        sqlstate = "58P01"  # PostgreSQL before 18 has the other for a missing extension
    if by_words := _first(_BY_WORDS, message):
        return by_words
    states = {**(_BY_STATE["step"] if task in {"seeder", "dump"} else {}), **_BY_STATE[task]}
    return next((states[sqlstate[:length]] for length in (5, 3, 2) if sqlstate[:length] in states), "")


def is_taken(message: str) -> bool:
    """Whether a server's error says that something which belongs to the whole server exists already."""
    return re.search(f"{_ROLE_TAKEN}|{_DATABASE_TAKEN}", message) is not None


def connection_remedy(message: str) -> str:
    """What to do where a connection was not made; empty where the words are not known."""
    return _first(_CONNECTING, message)


def start_remedy(log: str) -> str:
    """What to do where an embedded server does not start; empty where PostgreSQL's words are not known.

    Has places to be filled by `str.format`: the server's ``state`` and ``programs`` directories, its ``account``,
    and the ``origin`` of its programs.
    """
    return _first(_STARTING, log, re.IGNORECASE)


def _first(remedies: tuple[tuple[str, str], ...], words: str, flags: int = 0) -> str:
    return next((what for pattern, what in remedies if re.search(pattern, words, flags)), "")
