"""The databases on a server: who uses each, which may go, and dropping them.

Names, ages and activity prove nothing. A clone is an orphan when nobody holds its lease, and a template is unused when
nobody holds its use: advisory locks, which the server ends with their holder's session. The server also knows which of
its processes holds one and, if our role may see it, for which client.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import psycopg

from pytest_seeddb.errors import CloneError
from pytest_seeddb.fingerprint.digests import FORMAT
from pytest_seeddb.servers.naming import Kind, lock_key, parse_name
from pytest_seeddb.servers.remedies import remedy
from pytest_seeddb.templates.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_seeddb.servers.admin import Admin, Database

KEPT_TEMPLATES: Final = 30
"""Templates of one plan that stay however long they are unused: enough to switch between a few
branches, with their layers, without building anything."""

KEPT_INNER_LAYERS: Final = 12
"""Layers of one plan in the middle of a stage that stay, the newest, as long as they are in `INNER_LAYERS_SIZE`."""

INNER_LAYERS_SIZE: Final = 2**30
"""Bytes for these layers together."""

KEPT_DATABASES: Final = 20
"""Databases of failed tests that stay on a server, from all runs together."""

KEPT_DAYS: Final = 14
"""Days without use after which a template beyond `KEPT_TEMPLATES` may go."""

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
    """A process that uses our databases. The server tells some roles nothing but ``backend``, its own process."""

    backend: int
    process: int = 0
    host: str = ""
    role: str = ""
    address: str = ""  # empty for a connection on the same machine, too
    since: str = ""  # ISO 8601


@dataclass(frozen=True)
class Entry:
    """One of our databases."""

    name: str
    kind: Kind
    size: int | None  # None if our role may not know
    connections: int = 0
    users: tuple[Owner, ...] = ()  # the holders of its lease or its use
    record: Record | None = None  # a template's, unless it is damaged
    created: str = ""  # when it was finished or kept, ISO 8601; empty if nothing says so
    used: str = ""  # the day of its last use
    plan: str = ""  # empty where nothing says which
    projects: tuple[str, ...] = ()  # that made or used it, see `project_identity`; empty where nothing says which

    def is_of(self, name: str, project: str, *, is_django: bool = False) -> bool | None:
        """Whether it belongs to the project of this name; ``None`` where nothing says so: an orphan, say."""
        if self.plan and self.plan != name and not (is_django and self.plan.startswith(f"{name}-")):
            return False
        return project in self.projects if self.projects else None

    @property
    def in_use(self) -> bool:
        """Whether it must stay: nobody owns a kept database, but somebody may be looking at it."""
        return bool(self.connections if self.kind == "kept" else self.users)

    @property
    def is_orphan(self) -> bool:
        """Whether it is a clone or an unfinished build whose worker is gone."""
        return self.kind in {"clone", "build"} and not self.users


def inventory(admin: Admin) -> list[Entry]:
    """Every database of ours by name, as it is at this moment, with a statement for the size of each."""
    entries, databases = [], admin.databases()
    holders: dict[int, list[Owner]] = defaultdict(list)
    # After the databases: a worker has its lease before it makes any.
    for key, backend, application, role, address, since in admin.run(_HOLDERS):
        client = _CLIENT.fullmatch(application)
        process, host = (int(client["process"]), client["host"]) if client else (0, "")
        begin = since.astimezone(dt.UTC).isoformat(timespec="seconds") if since else ""
        holders[key].append(Owner(backend, process, host, role, address, begin))
    for database in databases:
        with suppress(psycopg.errors.InvalidCatalogName):  # dropped since it was listed
            entries.append(_entry(admin, database, holders))
    return entries


def _entry(admin: Admin, database: Database, holders: Mapping[int, Sequence[Owner]]) -> Entry:
    name = parse_name(database.name)
    assert name  # noqa: S101 - it is one of ours
    size: int | None
    try:  # PostgreSQL tells no size of a database that it left half-dropped
        size = int(admin.run("SELECT coalesce(pg_database_size(%s::name), 0)", [database.name])[0][0])
    except psycopg.errors.InsufficientPrivilege:
        size = None
    record = Record.from_json(database.comment) if name.kind == "template" else None
    moment = ""
    with suppress(ValueError):  # the digits in its name need not be a time: anybody may rename a database
        moment = dt.datetime.strptime(f"{name.moment}+0000", "%Y%m%d%H%M%S%z").isoformat()
    users = tuple(holders.get(lock_key("lease", name.lease) if name.lease else lock_key("use", database.name), ()))
    created, used = (record.created, record.used) if record else (moment, moment[:10])
    owner = (record.plan, record.projects) if record else _owner_in(database.comment)
    return Entry(database.name, name.kind, size, database.connections, users, record, created, used, *owner)


def owner_note(plan: str, project: str) -> str:
    """The comment on the database of a failed test."""
    return json.dumps({"seeddb": FORMAT, "plan": plan, "project": project})


def _owner_in(comment: str) -> tuple[str, tuple[str, ...]]:
    try:
        note = json.loads(comment)
        return str(note["plan"]), tuple(filter(None, (str(note.get("project", "")),)))
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", ()


# -- what a run drops by itself --------------------------------------------------------------------


def sweep(admin: Admin) -> list[str]:
    """Drop every clone and unfinished build whose worker is gone; gives their names.

    Concurrency: any number may sweep at once. What the server refuses to drop is raised after the others were dropped:
    a `CloneError` where somebody stays connected, or a `psycopg.Error`.
    """
    leases: dict[str, list[str]] = defaultdict(list)
    for database in admin.databases():
        if (name := parse_name(database.name)) and name.lease:
            leases[name.lease].append(database.name)
    dropped: list[str] = []
    refusals: list[Exception] = []
    for lease, orphans in leases.items():
        with admin.try_hold(lock_key("lease", lease)) as is_free:
            for orphan in orphans if is_free else ():
                try:
                    admin.drop(orphan)
                    dropped.append(orphan)
                except (psycopg.Error, CloneError) as error:  # one orphan does not save the others
                    if admin.is_broken:
                        raise
                    refusals.append(error)
    if len(refusals) > 1:
        remedy = "see to each of them, and run: seeddb prune"
        raise CloneError("Databases cannot be dropped", saw="\n".join(map(str, refusals)), remedy=remedy)
    if refusals:
        raise refusals[0]
    return dropped


def prune(admin: Admin, plan: str, project: str) -> list[str]:
    """Drop a project's templates of a plan that nobody uses and nobody has used for long, and layers that are too many.

    Returns their names.
    """
    templates = [
        (record, database.name)
        for database in admin.databases(r"seeddb\_t\_%")
        if (record := Record.from_json(database.comment)) and record.plan == plan and project in record.projects
    ]
    templates.sort(key=lambda pair: (pair[0].used, pair[0].created), reverse=True)
    limit = _day_before(KEPT_DAYS)
    old = [name for record, name in templates[KEPT_TEMPLATES:] if record.used < limit]
    inner = sorted((pair for pair in templates if pair[0].inner), key=lambda pair: pair[0].created, reverse=True)
    sizes = accumulate(record.size for record, _ in inner)
    old += [
        name
        for number, ((_, name), size) in enumerate(zip(inner, sizes, strict=True))
        if (number >= KEPT_INNER_LAYERS or size > INNER_LAYERS_SIZE) and name not in old
    ]
    return [name for name in old if drop_unused(admin, name)]


def kept_databases(admin: Admin) -> list[Database]:
    """The databases of failed tests; the one whose clone was made last at the end, by the server's count."""
    return sorted(admin.databases(r"seeddb\_k\_%"), key=lambda database: database.number)


def drop_oldest_kept(admin: Admin) -> list[str]:
    """Drop the databases of failed tests beyond the newest `KEPT_DATABASES`, but none that somebody looks at."""
    old = [database.name for database in kept_databases(admin)[:-KEPT_DATABASES] if not database.connections]
    for name in old:
        admin.drop(name)
    return old


def drop_unused(admin: Admin, template: str) -> bool:
    """Drop a template unless some process uses it; whether it was dropped."""
    return _drop_if_free(admin, template, lock_key("use", template))


def _drop_if_free(admin: Admin, name: str, key: int) -> bool:
    with admin.try_hold(key) as is_free:
        if is_free:
            admin.drop(name)
        return is_free


def _day_before(days: int) -> str:
    return (dt.datetime.now(dt.UTC) - dt.timedelta(days=days)).date().isoformat()


# -- what a person wants to be rid of ---------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """The databases that a person wants to drop. What is in use stays in any case; orphans always go."""

    unused_days: int | None = None  # what was last used more days ago
    budget: int | None = None  # the least recently used, until the rest fits in so many bytes
    kept: bool = False  # all databases of failed tests
    everything: bool = False

    def reason(self, entry: Entry) -> str:
        """Why the database may go, whatever its size; empty if it may not."""
        if entry.is_orphan:
            return "its worker is gone"
        if self.everything:
            return "nobody uses it"
        if self.kept and entry.kind == "kept":
            return "of a failed test"
        return f"last used on {entry.used}" if self.is_old(entry.used) else ""

    def is_old(self, used: str) -> bool:
        """Whether the day ``used`` is so long ago; a database without such a day is not old."""
        return self.unused_days is not None and bool(used) and used < _day_before(self.unused_days)


def choose(entries: Sequence[Entry], limits: Limits) -> list[tuple[Entry, str]]:
    """The databases that may go, and why, least recently used first."""
    free = sorted(
        (entry for entry in entries if not entry.in_use), key=lambda entry: (entry.used, entry.created, entry.name)
    )
    choices = [(entry, reason) for entry in free if (reason := limits.reason(entry))]
    if limits.budget is not None:
        gone = {entry.name for entry, _ in choices}
        left = sum(entry.size or 0 for entry in entries if entry.name not in gone)
        for entry in free:
            if left > limits.budget and entry.name not in gone:
                left -= entry.size or 0
                choices.append((entry, "over the budget"))
    return choices


def drop(admin: Admin, entry: Entry) -> bool:
    """Drop a database unless it is in use by now; whether it was dropped. Raises `CloneError` where that is refused."""
    name = parse_name(entry.name)
    try:
        if entry.kind == "template":
            return drop_unused(admin, entry.name)
        if name and name.lease:
            return _drop_if_free(admin, entry.name, lock_key("lease", name.lease))
        # Nobody owns a database that was kept, but somebody may be looking at it.
        if any(database.name == entry.name and database.connections for database in kept_databases(admin)):
            return False
        admin.drop(entry.name)
    except psycopg.Error as error:
        if admin.is_broken:
            raise
        may = "drop it as a role that may: its owner, or a superuser"
        other = remedy(str(error), error.sqlstate or "", "admin") or "end what the server names, and prune again"
        raise CloneError(
            f"The database {entry.name} cannot be dropped",
            saw=str(error).strip(),
            source=admin.address.masked,
            remedy=may if error.sqlstate == "42501" else other,
        ) from error
    return True
