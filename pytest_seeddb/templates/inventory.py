"""What is on a server: each database of ours, and who uses it.

The locks tell: a clone belongs to whoever holds its lease, a template is used by whoever holds its
use. The server knows which of its processes that is, and, where we may see it, for which client.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg

from pytest_seeddb.servers.naming import Kind, OurName, lock_key, parse_name
from pytest_seeddb.templates.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_seeddb.servers.admin import Admin, Database

# A lock with one key of 64 bits has its halves in two columns, and 1 in the third (PostgreSQL's
# documentation of pg_locks). Without privileges the columns of other roles' backends are NULL.
_HOLDERS: Final = """
SELECT (classid::bigint << 32) | objid::bigint, pid, coalesce(application_name, ''), coalesce(usename, ''),
       coalesce(host(client_addr), ''), backend_start
FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND objsubid = 1 AND granted
  AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY pid
"""
_CLIENT: Final = re.compile(r"pytest-seeddb (?P<process>\d+)@(?P<host>.+)")


@dataclass(frozen=True)
class Owner:
    """A process that uses databases of ours, as the server knows it.

    Attributes:
        backend: The number of the server's own process that serves it.
        process: Its number on its machine; 0 where the server does not tell us.
        host: Its machine's name; empty where the server does not tell us.
        role: The role that it is connected as; likewise.
        address: The machine's address; empty also for a connection on the same machine.
        since: When it connected, ISO 8601; likewise.
    """

    backend: int
    process: int = 0
    host: str = ""
    role: str = ""
    address: str = ""
    since: str = ""


@dataclass(frozen=True)
class Entry:
    """One of our databases.

    Attributes:
        name: The database.
        kind: What it is.
        size: Bytes; ``None`` where our role may not know.
        connections: Clients that are connected to it now.
        users: Who holds its lease or its use.
        record: What it says of itself: a template's; ``None`` also where that is damaged.
        created: When it was finished or kept, ISO 8601; empty where nothing tells.
        used: The day of its last use, ISO 8601; likewise.
    """

    name: str
    kind: Kind
    size: int | None
    connections: int = 0
    users: tuple[Owner, ...] = ()
    record: Record | None = None
    created: str = ""
    used: str = ""

    @property
    def in_use(self) -> bool:
        """Whether it must stay: nobody owns a kept database, but somebody may be looking at it."""
        return bool(self.connections if self.kind == "kept" else self.users)

    @property
    def is_orphan(self) -> bool:
        """Whether it is a clone or an unfinished build whose worker is gone."""
        return self.kind in {"clone", "build"} and not self.users


def inventory(admin: Admin) -> list[Entry]:
    """Every database of ours, sorted by name, as it is at this moment: others come and go meanwhile.

    Costs a statement for each database, to learn its size.
    """
    found, databases = [], admin.databases()
    holders = _holders(admin)  # after the databases: a worker has its lease before it makes any
    for database in databases:
        with suppress(psycopg.errors.InvalidCatalogName):  # dropped since it was listed
            found.append(_entry(admin, database, holders))
    return found


def _entry(admin: Admin, database: Database, holders: Mapping[int, Sequence[Owner]]) -> Entry:
    name = parse_name(database.name)
    assert name  # noqa: S101 - it is one of ours
    record = Record.from_json(database.comment) if name.kind == "template" else None
    moment = _moment(name)
    key = lock_key("lease", name.lease) if name.lease else lock_key("use", database.name)
    return Entry(
        name=database.name,
        kind=name.kind,
        size=_size(admin, database.name),
        connections=database.connections,
        users=tuple(holders.get(key, ())),
        record=record,
        created=record.created if record else moment,
        used=record.used if record else moment[:10],
    )


def _moment(name: OurName) -> str:
    """When a kept database was kept; empty where the digits in its name are no time: anybody may rename one."""
    try:
        return dt.datetime.strptime(f"{name.moment}+0000", "%Y%m%d%H%M%S%z").isoformat()
    except ValueError:
        return ""


def _size(admin: Admin, name: str) -> int | None:
    """Bytes; 0 of a database that PostgreSQL left half-dropped."""
    try:
        return int(admin.run("SELECT coalesce(pg_database_size(%s::name), 0)", [name])[0][0])
    except psycopg.errors.InsufficientPrivilege:
        return None


def _holders(admin: Admin) -> dict[int, list[Owner]]:
    """Who holds which of our locks."""
    found: dict[int, list[Owner]] = defaultdict(list)
    for key, backend, application, role, address, since in admin.run(_HOLDERS):
        client = _CLIENT.fullmatch(application)
        owner = Owner(
            backend,
            int(client["process"]) if client else 0,
            client["host"] if client else "",
            role,
            address,
            since.astimezone(dt.UTC).isoformat(timespec="seconds") if since else "",
        )
        found[key].append(owner)
    return found
