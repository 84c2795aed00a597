"""What to do about a server's error, found by its SQLSTATE (PostgreSQL's appendix A) or by its words."""

from __future__ import annotations

import re
from typing import Final, Literal

Task = Literal["step", "seeder", "bulk", "dump", "admin"]
"""What failed: a step of a build, a seeder or a bulk load in particular, a dump's restoration, administrative SQL."""

_EXISTS: Final = (
    "the object already exists: an earlier step, the `dump` or another client created it. Change the statement, for "
    "example to IF NOT EXISTS or OR REPLACE. seeddb knows which migrations a database contains only if seeddb applied "
    "or dumped them, or if the database contains the migration tool's own table"
)
_TAKEN: Final = (
    "make the value unique: this step or an earlier one has written it already. If the row may be there already, write "
    "INSERT ... ON CONFLICT DO NOTHING"
)
_FACTORY: Final = (
    "If a factory numbers its rows, start its sequence elsewhere: Factory.reset_sequence(1000, force=True)"
)
_SEQUENCE: Final = (
    "If the column's own sequence gave the number, rows were written with numbers before: SELECT "
    "setval(pg_get_serial_sequence('table', 'column'), (SELECT max(column) FROM table))"
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
NO_EXTENSION: Final = (
    "connect as a superuser; for tests, the servers of the settings embedded and container have one. In a database for "
    "`seeddb apply`, a superuser can create the extension beforehand: CREATE EXTENSION IF NOT EXISTS then does nothing"
)
NO_ROLE: Final = (
    "create the role first, in a statement that can run again: "
    "DO $$ BEGIN CREATE ROLE ...; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
)
_BY_STATE: Final[dict[Task, dict[str, str]]] = {
    "step": {
        "25001": "run it outside a transaction: op.get_context().autocommit_block() in Alembic, atomic = False in "
        "Django, `-- migrate:up transaction:false` in an SQL file",
        "23502": "give the column a value, or a default",
        "23503": "create the row it refers to first, in an earlier step or statement",
        "23505": _TAKEN,
        "42501": "grant the missing privilege to the role, or connect as a role that has it",
        "42601": "correct the SQL syntax",
        "42704": "create it in an earlier step, or correct its name. If the statement drops it, write IF EXISTS",
        "42883": "create the function in an earlier step, or correct its name and the types of its arguments",
        **dict.fromkeys(("42701", "42710", "42723", "42P06", "42P07"), _EXISTS),
        "42P01": "create it in an earlier step, or correct its name or the search_path",
        "0A000": "change the statement, or name a server of a version that supports it",
        "58P01": "the extension is not installed on this server: install its package, or name another server",
        "53100": "free space on the server's disk",
    },
    "seeder": {
        "25P02": "an earlier statement failed and its error was caught: run statements that may fail in "
        "session.begin_nested(), which rolls back that statement alone",
        "23503": "create the row it refers to first; name the seeder that creates it in `after`",
        "23505": f"{_TAKEN}. {_FACTORY}",
        "42703": "check that the migrations and the models agree",
        "42P01": "check that the migrations create this table, that the setting `migrations` is there, and that "
        "`seeddb apply` has run them (--only runs none)",
    },
    "bulk": {
        "23502": "let the factory give it a value",
        "23503": "let the factory refer to the object itself, by a relationship, or to one that is in the database",
        "23505": "let the factory make it unique, with factory.Sequence. If other rows use the same numbers, start "
        "the sequence elsewhere: Factory.reset_sequence(1000, force=True)",
        "0A000": "COPY cannot load this table: use create_batch",
    },
    "dump": {
        "42704": "create it before the dump is restored, or make the dump without it",
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
_EXTENSIONS: Final = {
    "btree_gin": 'has no default operator class for access method "gin"',
    "btree_gist": 'has no default operator class for access method "gist"',
    "citext": 'type "citext" does not exist',
    "cube": 'type "cube" does not exist',
    "fuzzystrmatch": r"function (levenshtein|soundex|metaphone|dmetaphone)\w*\(",
    "hstore": 'type "hstore" does not exist',
    "intarray": '"(gin|gist)__int(big)?_ops" does not exist',
    "ltree": 'type "l(tree|query)" does not exist',
    "pg_trgm": r'"(gin|gist)_trgm_ops" does not exist|function (word_|strict_word_)?similarity\(.* does not exist',
    "pgcrypto": r"function (crypt|digest|gen_random_bytes|gen_salt|hmac|pgp_\w+)\(.* does not exist",
    "postgis": r'type "(box[23]d|geography|geometry|raster)" does not exist|function st_\w+\(.* does not exist',
    "unaccent": r'function unaccent\(.* does not exist|dictionary "unaccent" does not exist',
    "uuid-ossp": r"function uuid_generate_v\w+\(.* does not exist",
    "vector": r'type "(halfvec|sparsevec|vector)" does not exist|"(halfvec|sparsevec|vector)_\w+_ops" does not exist',
}
"""What the server says where an extension is missing."""
_BY_WORDS: Final = (
    (_ROLE_TAKEN, _ROLE_EXISTS),
    (_DATABASE_TAKEN, _DATABASE_EXISTS),
    (
        'extension "[^"]*" already exists',
        "write CREATE EXTENSION IF NOT EXISTS; the setting `extensions` creates extensions before any migration",
    ),
    ("permission denied to create extension", NO_EXTENSION),
    (
        "could not create unique index",
        "remove the duplicate rows in an earlier step, or index other columns",
    ),
    (
        "is still referenced from table",
        "delete or change the rows that refer to it first",
    ),
    (
        'column "[^"]*" of relation "[^"]*" contains null values',
        "fill the column in the rows that are there, then make it NOT NULL; or give it a default",
    ),
    (
        "operator does not exist",
        "cast one side to the other's type, or add the extension that has the operator to the setting `extensions`",
    ),
    (
        "unrecognized configuration parameter",
        "correct the parameter's name, or name a server of a version that has it",
    ),
    ('(?<!FATAL:  )role "[^"]*" does not exist', NO_ROLE),
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
        "(Peer|Ident) authentication failed",
        "name the role of your operating system's user, or connect over TCP with a password: user:password@localhost",
    ),
    (
        "no pg_hba.conf entry.*no encryption",
        "allow this host, user and database in the server's pg_hba.conf; or try ?sslmode=require",
    ),
    ("no pg_hba.conf entry", "allow this host, user and database in the server's pg_hba.conf"),
    ("is not permitted to log in", "let the role log in: ALTER ROLE ... LOGIN; or correct the user in the URL"),
    ('FATAL:  role "', "correct the user in the URL, or create the role"),
    ("FATAL:  permission denied for database", "grant the role CONNECT on the database, or correct the URL"),
    ('FATAL:  database "[^"]*" does not exist', "correct the database's name in the URL, or create the database"),
    (
        "is not currently accepting connections",
        "name another database, or let this one accept them: ALTER DATABASE ... WITH ALLOW_CONNECTIONS true",
    ),
    (
        "too many connections for database",
        "raise the database's limit (ALTER DATABASE ... CONNECTION LIMIT), or end unused connections",
    ),
    ("translate host name|failed to resolve host|Name or service not known", "correct the host in the URL"),
    ("Connection refused", "start the server, or correct the host and the port in the URL"),
    ("No such file or directory", "start the server, or correct the socket directory and the port in the URL"),
    ("does not support SSL", "use another sslmode in the URL: ?sslmode=prefer; or turn ssl on in the server"),
    ("invalid sslmode value", "correct sslmode in the URL: disable, allow, prefer, require, verify-ca or verify-full"),
    ("invalid port number", "correct the port in the URL"),
    ("timeout", "check the host, the port and the firewall; connect_timeout in the URL allows more time"),
)
# What libpq says before it asks the server, or whatever the server answers. A standby may still be promoted.
_CERTAIN: Final = (
    "channel binding|authentication method requirement|session is not read-only|server is not in hot standby|"
    "definition of service|service file|invalid (integer |[a-z_]+ )?value|invalid connection option|"
    "invalid port number|does not support (SSL|GSSAPI)|GSSAPI encryption required|certificate|requirepeer"
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
    extension = next((name for name, pattern in _EXTENSIONS.items() if re.search(pattern, message)), "")
    if extension:
        return (
            f'add "{extension}" to the setting `extensions`, or create the extension in an earlier step. If it is '
            "there, add its schema to the search_path"
        )
    by_words = _first(_BY_WORDS, message)
    if task == "dump" and by_words == NO_ROLE:
        return (
            f"{NO_ROLE}. Write it at the top of the dump (`pg_restore -f FILE` makes SQL of an archive), or run it on "
            "the server"
        )
    if by_words:
        return by_words
    states = {**(_BY_STATE["step"] if task in {"seeder", "dump"} else {}), **_BY_STATE[task]}
    by_state = next((states[sqlstate[:length]] for length in (5, 3, 2) if sqlstate[:length] in states), "")
    if sqlstate == "23505" and by_state and re.search(r"Key \(\w+\)=\(\d+\) already exists", message):
        return f"{by_state}. {_SEQUENCE}"
    return by_state


def is_taken(message: str) -> bool:
    """Whether a server's error says that something which belongs to the whole server exists already."""
    return re.search(f"{_ROLE_TAKEN}|{_DATABASE_TAKEN}", message) is not None


def connection_remedy(message: str) -> str:
    """What to do where a connection was not made; empty where the words are not known."""
    return _first(_CONNECTING, message)


def is_certain(message: str) -> bool:
    """Whether waiting does not help: this client refuses the server, and will refuse it later, too."""
    return "FATAL:" not in message and re.search(_CERTAIN, message) is not None


def start_remedy(log: str) -> str:
    """What to do where an embedded server does not start; empty where PostgreSQL's words are not known.

    Has places to be filled by `str.format`: the server's ``state`` and ``programs`` directories, its ``account``,
    and the ``origin`` of its programs.
    """
    return _first(_STARTING, log, re.IGNORECASE)


def _first(remedies: tuple[tuple[str, str], ...], words: str, flags: int = 0) -> str:
    return next((what for pattern, what in remedies if re.search(pattern, words, flags)), "")
