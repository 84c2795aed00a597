"""The only administrative SQL: create, clone, rename, seal, drop, lock, list.

One `Admin` is one connection to the server's maintenance database. An advisory lock belongs to the database in which
it is taken, so all who compete for one must use the same database: that of `Server.address`.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, LiteralString, Self

import psycopg
from psycopg import sql

from pytest_seeddb.errors import CloneError, ServerError
from pytest_seeddb.servers import remedies
from pytest_seeddb.servers.naming import DROPPED_HALFWAY, MARK, is_ours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_seeddb.servers.address import Address

Strategy = Literal["FILE_COPY", "WAL_LOG"]
Statement = LiteralString | sql.SQL | sql.Composed

_POLL: Final = 0.0005
"""Seconds between looks at ``pg_stat_activity``. The server itself (DROP, CREATE from a template,
``pg_terminate_backend`` with a timeout) waits in steps of 100 ms."""
_PATIENCE: Final = 10.0
"""Seconds until a terminated backend must be gone; one in an uninterruptible call needs some."""
_RESTART: Final = 20.0
"""Seconds until a server that is being restarted must be back."""
_RETRY: Final = 0.1
"""Seconds between attempts to connect to it meanwhile."""

# A client that has been let in, and is not in pg_stat_activity yet, holds a lock on the database. The locks are read
# first: a client that has released its lock by then is in the second part. Without privileges the type of another
# role's backend is NULL, and ending one that we may not end would be an error. The views pg_locks and
# pg_stat_activity are joins of these functions, and take three times as long.
_TERMINATE: Final = """
SELECT pid, 'an unknown role', 'just connecting', false FROM pg_lock_status()
WHERE locktype = 'object' AND classid = 'pg_database'::regclass AND mode = 'RowExclusiveLock'
  AND objid = (SELECT oid FROM pg_database WHERE datname = %s) AND pid <> %s
UNION ALL
SELECT pid, pg_get_userbyid(usesysid), application_name, CASE
    WHEN current_setting('is_superuser') = 'on' OR NOT (SELECT rolsuper FROM pg_roles WHERE oid = usesysid)
        AND (pg_has_role(usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))
    THEN pg_terminate_backend(pid) END
FROM pg_stat_get_activity(NULL)
WHERE datid = (SELECT oid FROM pg_database WHERE datname = %s) AND pid <> %s
  AND backend_type IS DISTINCT FROM 'autovacuum worker'
"""

# What keeps a database from being renamed or dropped although nobody is connected, and the statement that ends it.
# Dropping a subscription would also connect to the publisher, to drop the slot there.
_HOLDS: Final = """
SELECT 'the prepared transaction ' || quote_literal(gid) || ' of ' || owner, 'ROLLBACK PREPARED ' || quote_literal(gid)
FROM pg_prepared_xacts WHERE database = %s
UNION ALL
SELECT 'the subscription ' || name || ' of ' || pg_get_userbyid(subowner), 'ALTER SUBSCRIPTION ' || name
       || ' DISABLE; ALTER SUBSCRIPTION ' || name || ' SET (slot_name = NONE); DROP SUBSCRIPTION ' || name
FROM pg_subscription, quote_ident(subname) name WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = %s)
UNION ALL
SELECT 'the replication slot ' || slot_name, 'SELECT pg_drop_replication_slot(' || quote_literal(slot_name) || ')'
FROM pg_replication_slots WHERE database = %s AND NOT temporary
"""
_FREEING: Final = "-c default_transaction_read_only=off -c statement_timeout=10s -c lock_timeout=10s"

_CATALOGS: Final = "pg_database, pg_db_role_setting, pg_shdepend, pg_shdescription"
"""The shared catalogs, in which each database that comes and goes leaves dead rows."""
_DEAD_ROWS: Final = 500
"""More are worth a millisecond or two: they take 14 kB, and as much in the indexes."""
_DEAD: Final = f"""
SELECT sum(pg_stat_get_dead_tuples(name::regclass)) > {_DEAD_ROWS}
FROM unnest(string_to_array('{_CATALOGS}', ', ')) name
"""


@dataclass(frozen=True)
class Database:
    """One of our databases, as the server lists it."""

    number: int
    """Its oid. The server counts up, so the higher is the younger; clocks do not matter."""
    name: str
    connection_limit: int
    comment: str
    connections: int
    altered: int
    """The transaction that last altered it: by ALTER DATABASE (except SET), or a GRANT on it.

    Nobody gets into a sealed database without one. Comments and vacuuming leave the number.
    """


class Admin:
    """One connection for administrative work, in autocommit.

    Its locks end with it: at `close`, or when the process ends in any way. Several threads may use it. Statements run
    one at a time, so while one thread waits for a lock, the others wait, too.
    """

    def __init__(self, address: Address, find_end: Callable[[], ServerError | None] = lambda: None) -> None:
        self.address = address
        self._find_end = find_end
        self._statements = threading.Lock()
        self._restart = _RESTART
        try:
            self._connection = _connect(address)
        except psycopg.OperationalError as error:
            raise _unreachable("The PostgreSQL server cannot be reached", address, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and with it every lock that it holds."""
        self._connection.close()

    @property
    def is_broken(self) -> bool:
        """Whether a statement failed because the connection was lost: the server stopped, or our backend was ended."""
        return self._connection.broken or self._connection.closed

    @property
    def is_lost(self) -> bool:
        """Whether the connection is lost, even if no statement has failed yet. Reads our socket only: microseconds."""
        if self.is_broken:
            return True
        with self._statements:
            try:
                self._connection.pgconn.consume_input()  # what the server's last word was
                self._connection.pgconn.consume_input()  # that there is no more to come
            except psycopg.OperationalError:
                return True
        return self.is_broken

    @property
    def is_superuser(self) -> bool:
        """Whether our role is a superuser now, as the server has told by itself."""
        return self._connection.info.parameter_status("is_superuser") == "on"

    def reconnect(self) -> None:
        """Make a new connection, which holds none of the old one's locks, or raise `ServerError`.

        Waits up to 20 seconds for a server that restarts; after it has failed once, it does not wait again. A server
        that is known to have ended is not waited for: ``find_end`` gives the error.
        """
        deadline = time.monotonic() + self._restart
        self._restart = 0.0
        self._connection.close()
        while self._connection.closed:
            if ended := self._find_end():
                raise ended
            try:
                self._connection = _connect(self.address)
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    what = "The connection to the PostgreSQL server was lost, and there is no new one"
                    raise _unreachable(what, self.address, error) from None
                time.sleep(_RETRY)
        self._restart = _RESTART

    def run(self, statement: Statement, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows, if it has any."""
        query = sql.SQL(statement) if isinstance(statement, str) else statement
        with self._statements:
            cursor = self._connection.execute(query, params or None)
            return cursor.fetchall() if cursor.description else []

    # -- databases ---------------------------------------------------------------------------

    def create(self, name: str) -> None:
        """Create an empty database from ``template0``, which is the same on every server of a version."""
        self.run(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 CONNECTION LIMIT {}").format(
                sql.Identifier(name), sql.Literal(MARK)
            )
        )

    def clone(self, source: str, name: str, strategy: Strategy, tablespace: str = "") -> None:
        """Make ``name`` a copy of ``source``, without its settings and grants (`pytest_seeddb.templates.grants`).

        Nobody may be connected to ``source``. Several clones of one source can be made at once. Without a
        ``tablespace`` it is in that of ``source``. After a failure there is no database ``name``.
        """
        place = sql.SQL("TABLESPACE {}").format(sql.Identifier(tablespace)) if tablespace else sql.SQL("")
        self.run(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY {} CONNECTION LIMIT {} {}").format(
                sql.Identifier(name), sql.Identifier(source), sql.Identifier(strategy.lower()), sql.Literal(MARK), place
            )
        )

    def take_to(self, tablespace: str, name: str) -> None:
        """Copy a database's files into a tablespace, if they are in another one. Nobody may be connected to it."""
        new, database = sql.Identifier(tablespace), sql.Identifier(name)
        statement = sql.SQL("ALTER DATABASE {} SET TABLESPACE {}").format(database, new)
        try:
            self.run(statement)
        except psycopg.errors.ObjectNotInPrerequisiteState:  # tables of it are there already
            query = "SELECT spcname FROM pg_tablespace t JOIN pg_database d ON dattablespace = t.oid WHERE datname = %s"
            old = sql.Identifier(self.run(query, [name])[0][0])
            with self.address.with_database(name).connect(autocommit=True, options=_FREEING) as connection:
                for kind in map(sql.SQL, ("TABLE", "INDEX", "MATERIALIZED VIEW")):
                    move = sql.SQL("ALTER {} ALL IN TABLESPACE {} SET TABLESPACE {}").format(kind, new, old)
                    connection.execute(move)
            self.evict(name)
            self.run(statement)

    def rename(self, name: str, new: str) -> None:
        """Give a database another name. Nobody may be connected to it."""
        self.run(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(new)))

    def move(self, name: str, new: str, *, is_settled: bool = False) -> None:
        """Give a database another name. What `drop` ends is ended, too, but for ``is_settled``: then there is none.

        Raises:
            CloneError: A client stays connected that our role may not end, or something of these stays.
        """
        self.refuse_connections(name)
        try:
            if not is_settled:
                self._free(name)
            self.evict(name)
            statements = "ALTER DATABASE {} RENAME TO {}; ALTER DATABASE {} WITH ALLOW_CONNECTIONS true"
            self.run(sql.SQL(statements).format(*map(sql.Identifier, (name, new, new))))
        except (psycopg.Error, CloneError):
            with suppress(psycopg.Error):
                self.admit_connections(name)
            raise

    def publish(self, name: str, final: str, comment_of: Callable[[int], str]) -> int:
        """Seal a database: in one transaction, give it its final name and a comment, and let nobody connect any more.

        Nobody may be connected to it, and then not even superusers can. Every role that may create databases may clone
        it. The comment is made from the number of this transaction, which is returned: the new `Database.altered`.
        """
        old, new = sql.Identifier(name), sql.Identifier(final)
        with self._statements, self._connection.transaction():
            row = self._connection.execute("SELECT pg_current_xact_id()::xid::text::bigint").fetchone()
            altered = int(row[0]) if row else 0
            self._connection.execute(
                sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false IS_TEMPLATE true").format(old)
            )
            self._connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(old, new))
            comment = sql.Literal(comment_of(altered))
            self._connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(new, comment))
        return altered

    def admit_connections(self, name: str) -> None:
        """Let everybody connect again."""
        self.run(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(sql.Identifier(name)))

    def refuse_connections(self, name: str) -> None:
        """Refuse new connections; those that are open stay open."""
        self.run(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(sql.Identifier(name)))

    def comment(self, name: str, text: str) -> None:
        """Keep ``text`` with the database."""
        self.run(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(text)))

    def make_read_only(self, name: str) -> None:
        """Let new connections start in read-only transactions."""
        self.run(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(sql.Identifier(name)))

    def drop(self, name: str) -> None:
        """Drop one of our databases, even if clients are connected to it. One that is not there is not an error.

        Its prepared transactions are rolled back, its subscriptions and replication slots dropped. If it cannot be
        dropped, it is open to whoever must see to that.

        Raises:
            CloneError: A client stays connected that our role may not end, or something of these stays.
        """
        rows = self.run("SELECT datconnlimit FROM pg_database WHERE datname = %s", [name])
        if not rows or not is_ours(name, rows[0][0]):
            return
        try:
            # Nothing can be altered in a database that PostgreSQL left half-dropped, and nobody can enter it.
            if rows[0][0] != DROPPED_HALFWAY:
                alter = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false IS_TEMPLATE false")
                self.run(alter.format(sql.Identifier(name)))
                self._free(name)
            self.evict(name)
            self.run(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
        except psycopg.errors.InvalidCatalogName:
            return  # another process dropped it in between
        except (psycopg.Error, CloneError):
            with suppress(psycopg.Error):
                self.admit_connections(name)
            raise

    def _free(self, name: str) -> None:
        """End what keeps a database, to which nobody can connect, from being renamed or dropped."""
        if not self.run(_HOLDS, [name] * 3):
            return
        self.admit_connections(name)
        with (
            suppress(psycopg.Error),
            self.address.with_database(name).connect(autocommit=True, options=_FREEING) as connection,
        ):
            self.refuse_connections(name)
            self.evict(name, spare=connection.info.backend_pid)
            for _, statement in self.run(_HOLDS, [name] * 3):
                with suppress(psycopg.Error):
                    connection.execute(statement)
        self.refuse_connections(name)
        if left := self.run(_HOLDS, [name] * 3):
            statements = "; ".join(statement for _, statement in left)
            raise CloneError(
                f"The database {name} cannot be dropped or renamed",
                saw=", ".join(what for what, _ in left),
                source=self.address.masked,
                remedy=f"connect to {name} as a superuser, and run: {statements}. Then run: seeddb prune",
            )

    def evict(self, name: str, *, spare: int = 0) -> None:
        """End every connection to the database and wait until their backends are gone, or raise `CloneError`.

        The backend with the process number ``spare`` may stay.
        """
        deadline = time.monotonic() + _PATIENCE
        while backends := self.run(_TERMINATE, [name, spare] * 2):
            if time.monotonic() > deadline:
                raise CloneError(
                    f"Connections to the database {name} do not end",
                    saw=", ".join(
                        f"process {pid} of {user} ({client or 'no name'})" for pid, user, client, _ in backends
                    ),
                    source=self.address.masked,
                    remedy=f"end them: SELECT pg_terminate_backend({backends[0][0]}). A superuser's connection takes a "
                    f"superuser; for others, GRANT pg_signal_backend TO {self.role()}",
                )
            time.sleep(_POLL)

    def databases(self, pattern: str = r"%seeddb\_%") -> list[Database]:
        """Those of our databases whose names are like the SQL pattern; the setting `clone_name` may put text before."""
        rows = self.run(
            "SELECT oid, datname, datconnlimit, coalesce(shobj_description(oid, 'pg_database'), ''),"
            " (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid), d.xmin::text::bigint"
            " FROM pg_database d WHERE datname LIKE %s ORDER BY datname",
            [pattern],
        )
        return [Database(*row) for row in rows if is_ours(row[1], row[2])]

    def tidy_catalogs(self) -> None:
        """Free the space of the rows that dropped databases left in the server's catalogs, if there are many.

        For a superuser on a server without autovacuum. It waits for no lock.
        """
        if self.run(_DEAD)[0][0]:
            self.run(f"VACUUM (SKIP_LOCKED) {_CATALOGS}")

    def exists(self, name: str) -> bool:
        """Whether there is such a database."""
        return bool(self.run("SELECT 1 FROM pg_database WHERE datname = %s", [name]))

    def size(self, name: str) -> int:
        """Bytes on disk."""
        return int(self.run("SELECT pg_database_size(%s::name)", [name])[0][0])

    def role(self) -> str:
        """The current role, as a quoted identifier."""
        return str(self.run("SELECT quote_ident(current_user)")[0][0])

    # -- locks -------------------------------------------------------------------------------

    def lock(self, key: int, *, shared: bool = False) -> None:
        """Take the lock; wait for it as long as it takes."""
        self.run(f"SELECT pg_advisory_lock{'_shared' if shared else ''}(%s)", [key])

    def try_lock(self, key: int) -> bool:
        """Take the lock exclusively, if it is free."""
        return bool(self.run("SELECT pg_try_advisory_lock(%s)", [key])[0][0])

    def unlock(self, key: int, *, shared: bool = False) -> None:
        """Release the lock."""
        self.run(f"SELECT pg_advisory_unlock{'_shared' if shared else ''}(%s)", [key])

    @contextmanager
    def try_hold(self, key: int) -> Iterator[bool]:
        """Hold the lock exclusively for a block, if it is free; whether it was."""
        got = self.try_lock(key)
        try:
            yield got
        finally:
            if got and not self.is_broken:
                self.unlock(key)

    @contextmanager
    def hold(self, key: int) -> Iterator[None]:
        """Hold the lock exclusively for a block."""
        self.lock(key)
        try:
            yield
        finally:
            if not self.is_broken:
                self.unlock(key)


def _connect(address: Address) -> psycopg.Connection[Any]:
    # The server knows its own processes by number; the name tells `seeddb status` which client a process serves.
    name = f"pytest-seeddb {os.getpid()}@{socket.gethostname()}"
    connection = address.connect(autocommit=True, application_name=name, prepare_threshold=None)
    # A role or a server may have timeouts set for its applications; waiting for a lock has none.
    connection.execute(
        "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_session_timeout = 0; "
        "SET default_transaction_read_only = off"
    )
    return connection


def _unreachable(what: str, address: Address, error: psycopg.Error) -> ServerError:
    remedy = remedies.remedy(str(error), task="admin") or "check that the server runs, and that the role may connect"
    return ServerError(what, saw=str(error), source=address.masked, remedy=remedy)
