"""A server that runs already: probed with one connection, then used as it is."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.binaries import OLDEST
from pytest_seeddb.servers.remedies import connection_remedy
from pytest_seeddb.servers.server import Server

if TYPE_CHECKING:
    from pytest_seeddb.settings.settings import Settings

_MAINTENANCE: Final = "postgres"
_CONNECT_TIMEOUT_SECONDS: Final = "10"
# A server's refusal has its severity and two spaces ("FATAL:  ...", in any language); a failure to reach the server
# has not.
_REFUSED: Final = re.compile(r"failed: [^\s:]+:  ")
_PROBE: Final = """
    SELECT rolname, rolsuper, rolcreatedb, pg_is_in_recovery(), current_setting('fsync') = 'on',
           current_setting('server_version'), version(), pg_backend_pid()
    FROM pg_roles WHERE rolname = current_user
"""


class Probe(NamedTuple):
    """What the server tells about itself and about our role."""

    version_num: int
    role: str
    superuser: bool
    createdb: bool
    replica: bool
    fsync: bool
    version: str
    banner: str
    pooled: str = ""
    """The evidence that a pooler lends us the connection; empty where it is our own."""


def probe_server(settings: Settings) -> Server:
    """Connect once to the server that the settings name, and see what our role can do there.

    It connects to the database ``postgres``, or to the URL's own where the role may not. Raises `ConfigError` where the
    URL cannot be read, and `ServerError` where the server cannot be reached or used (see `objection`).
    """
    import psycopg

    given = Address.parse(settings.server, source=settings.source("server"))
    address = given.with_database(_MAINTENANCE)
    try:
        try:
            answer = probe(address)
        except psycopg.Error as error:
            if given.database in {"", _MAINTENANCE} or not _REFUSED.search(str(error)):
                raise
            address = given
            answer = probe(address)
    except psycopg.Error as error:
        raise ServerError(
            "The server cannot be used: connecting failed",
            saw=f"{error}\n{given.masked}",
            source=settings.source("server"),
            remedy=connection_remedy(str(error)) or "correct the URL, or leave it out to have a server started",
        ) from None
    origin = f"{given.masked}, {settings.source('server')}"
    if refusal := objection(answer, settings, origin):
        raise refusal
    version = answer.version.split()[0]
    return Server("external", address, version, answer.version_num, origin, answer.superuser, answer.fsync)


def probe(address: Address) -> Probe:
    """Ask a server what it is, and what our role may do there, or raise `Error`."""
    if "PGCONNECT_TIMEOUT" not in os.environ:
        address = address.having(**{"connect_timeout": _CONNECT_TIMEOUT_SECONDS, **address.params})
    with address.connect(autocommit=True) as connection:
        row: tuple[Any, ...] = connection.execute(_PROBE).fetchone() or ("", *[False] * 3, True, "unknown", "", 0)
        announced, actual = connection.info.backend_pid, row[-1]  # a pooler makes up the process number
        pooled = f"the connection is announced as process {announced}, the server's is {actual}"
        return Probe._make([connection.info.server_version, *row[:-1], "" if announced == actual else pooled])


def objection(probe: Probe, settings: Settings, source: str) -> ServerError | None:
    """Why the server cannot be used; ``None`` where it can."""
    major = probe.version_num // 10_000
    if major < OLDEST:
        what = f"The server is too old: PostgreSQL {OLDEST} is the oldest that works"
        saw = probe.banner or f"version {probe.version}"
        remedy = f"upgrade it, or name a server with PostgreSQL {OLDEST} or newer"
    elif settings.postgres is not None and settings.postgres != major:
        what = f"The server is PostgreSQL {probe.version}, but the settings require {settings.postgres}"
        saw = f"postgres = {settings.postgres}, {settings.source('postgres')}"
        remedy = f"name a server with PostgreSQL {settings.postgres}, or change the setting postgres"
    elif probe.pooled:
        what = "The server is behind a connection pooler, which lends one session, with its locks, to several clients"
        saw = probe.pooled
        remedy = "name the server itself, by its own host and port: PgBouncer's settings have them under [databases]"
    elif probe.replica:
        what, saw = "The server is a read-only replica: no database can be created there", "pg_is_in_recovery() is true"
        remedy = "name the primary server"
    elif not (probe.createdb or probe.superuser):
        from psycopg import sql

        role = sql.Identifier(probe.role).as_string()
        what = f"The role {probe.role!r} may not create databases on this server"
        saw = "it has neither CREATEDB nor SUPERUSER"
        remedy = f"as a superuser: ALTER ROLE {role} CREATEDB;  (or name another role in the URL)"
    else:
        return None
    return ServerError(what, saw=saw, source=source, remedy=remedy)
