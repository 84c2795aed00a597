"""A server that somebody else runs: probed with one connection, then taken as it is."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.binaries import OLDEST
from pytest_seeddb.servers.server import Server

if TYPE_CHECKING:
    import psycopg

    from pytest_seeddb.settings.settings import Settings

_MAINTENANCE: Final = "postgres"
_CONNECT_TIMEOUT_SECONDS: Final = "10"
# A server's refusal has its severity and two spaces ("FATAL:  ...", in any language); a failure to
# reach the server has not.
_ANSWERED: Final = re.compile(r"failed: [^\s:]+:  ")
_PROBE: Final = """
    SELECT rolname, rolsuper, rolcreatedb, pg_is_in_recovery(), current_setting('fsync') = 'on',
           current_setting('server_version'), version(), pg_backend_pid()
    FROM pg_roles WHERE rolname = current_user
"""


class Probe(NamedTuple):
    """What the server tells about itself and about our role.

    Attributes:
        pooled: How it is known that somebody else's connections are lent to us; empty where it is our own.
    """

    version_num: int
    role: str
    superuser: bool
    createdb: bool
    replica: bool
    fsync: bool
    version: str
    banner: str
    pooled: str = ""


class Finding(NamedTuple):
    """A reason why a server is of no use."""

    what: str
    saw: str
    remedy: str


def probed(settings: Settings) -> Server:
    """Connect once to the server that the settings name, and see what can be done there.

    Raises:
        ConfigError: The URL cannot be read.
        ServerError: It cannot be reached, or is of no use: too old, a replica, not the wanted major,
            a role that may not create databases.
    """
    given = Address.parse(settings.server, source=settings.source("server"))
    address, found = _asked(given, settings)
    origin = f"{given.masked}, {settings.source('server')}"
    if finding := objection(found, settings):
        raise ServerError(finding.what, saw=finding.saw, source=origin, remedy=finding.remedy)
    version = found.version.split()[0]
    return Server("external", address, version, found.version_num, origin, found.superuser, found.fsync)


def _asked(given: Address, settings: Settings) -> tuple[Address, Probe]:
    """Ask in the database ``postgres``, or in the URL's own where that one is closed to us."""
    import psycopg

    maintenance = given.with_database(_MAINTENANCE)
    try:
        return maintenance, probe(maintenance)
    except psycopg.Error as error:
        if given.database in {"", _MAINTENANCE} or not _ANSWERED.search(str(error)):
            raise _unreachable(given, settings, error) from None
    try:
        return given, probe(given)
    except psycopg.Error as error:
        raise _unreachable(given, settings, error) from None


def probe(address: Address) -> Probe:
    """Ask a server what it is, and what our role may do there.

    Raises:
        psycopg.Error: It cannot be reached.
    """
    import psycopg

    params = dict(address.params)
    if "PGCONNECT_TIMEOUT" not in os.environ:
        params.setdefault("connect_timeout", _CONNECT_TIMEOUT_SECONDS)
    with psycopg.connect(Address(params).conninfo, autocommit=True) as connection:
        row: tuple[Any, ...] = connection.execute(_PROBE).fetchone() or ("", *[False] * 3, True, "unknown", "", 0)
        pooled = _other_backend(connection.info.backend_pid, row[-1])
        return Probe._make([connection.info.server_version, *row[:-1], pooled])


def _other_backend(announced: int, asked: int) -> str:
    """How it is known that the connection is not one to the server: a pooler makes up the process number."""
    return "" if announced == asked else f"the connection is announced as process {announced}, the server's is {asked}"


def objection(probe: Probe, settings: Settings) -> Finding | None:
    """Why the server is of no use; ``None`` where it is of use."""
    major = probe.version_num // 10_000
    if major < OLDEST:
        return _too_old(probe)
    if settings.postgres is not None and settings.postgres != major:
        return _other_major(probe, settings)
    if probe.pooled:
        return _pooler(probe)
    if probe.replica:
        return _replica()
    if not (probe.createdb or probe.superuser):
        return _powerless(probe)
    return None


def _too_old(probe: Probe) -> Finding:
    return Finding(
        f"The server is too old: PostgreSQL {OLDEST} is the oldest that works",
        probe.banner or f"version {probe.version}",
        f"upgrade it, or name a server with PostgreSQL {OLDEST} or newer",
    )


def _other_major(probe: Probe, settings: Settings) -> Finding:
    return Finding(
        f"The server is PostgreSQL {probe.version}, but the settings want {settings.postgres}",
        f"postgres = {settings.postgres}, {settings.source('postgres')}",
        f"name a server with PostgreSQL {settings.postgres}, or change the setting postgres",
    )


def _pooler(probe: Probe) -> Finding:
    return Finding(
        "There is a connection pooler before the server: it lends the same session to several users, and locks with it",
        probe.pooled,
        "name the server itself, by its own host and port; PgBouncer has them under [databases] in its settings",
    )


def _replica() -> Finding:
    return Finding(
        "The server is a read-only replica: no database can be created there",
        "pg_is_in_recovery() is true",
        "name the primary server",
    )


def _powerless(probe: Probe) -> Finding:
    from psycopg import sql

    role = sql.Identifier(probe.role).as_string()
    return Finding(
        f"The role {probe.role!r} may not create databases on this server",
        "it has neither CREATEDB nor SUPERUSER",
        f"as a superuser: ALTER ROLE {role} CREATEDB;  (or name another role in the URL)",
    )


def _unreachable(given: Address, settings: Settings, error: psycopg.Error) -> ServerError:
    from pytest_seeddb.servers.remedies import connection_remedy

    return ServerError(
        "The server cannot be used: connecting failed",
        saw=f"{error}\n{given.masked}",
        source=settings.source("server"),
        remedy=connection_remedy(str(error)) or "correct the URL, or leave it out to have a server started",
    )
