"""The only administrative SQL: create, clone, rename, seal, drop, lock, list.

One `Admin` is one connection to the server's maintenance database. Advisory locks belong to the
database in which they are taken, so everybody who is to meet at a lock must come through the same
one; `Server.address` sees to that.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager
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
"""Seconds between looks at ``pg_stat_activity``. The server's own waits (DROP, CREATE from a
template, ``pg_terminate_backend`` with a timeout) go in steps of 100 ms."""

_PATIENCE: Final = 10.0
"""Seconds that a terminated backend gets to go; a backend in an uninterruptible call needs some."""


# A client that has been let in, and is not in pg_stat_activity yet, holds a lock on the database. The
# locks are read first: whoever has given his up by then is seen by the second look. Without privileges
# the type of another role's backend is NULL, and ending one that we may not end would be an error.
# The views pg_locks and pg_stat_activity are joins of these functions, and take three times as long.
_TERMINATED: Final = """
SELECT pid, 'somebody', 'just connecting', false FROM pg_lock_status()
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

_CATALOGS: Final = "pg_database, pg_db_role_setting, pg_shdepend, pg_shdescription"
"""Where each database that comes and goes leaves dead rows, for all databases of the server."""

_DEAD_ROWS: Final = 500
"""Above so many they are worth a millisecond or two: they take 14 kB, and as much in the indexes."""

_DEAD: Final = f"""
SELECT sum(pg_stat_get_dead_tuples(name::regclass)) > {_DEAD_ROWS}
FROM unnest(string_to_array('{_CATALOGS}', ', ')) name
"""


_RESTART: Final = 20.0
"""Seconds that a server which is being restarted gets to come back."""

_RETRY: Final = 0.1
"""Seconds between attempts to connect to it meanwhile."""


@dataclass(frozen=True)
class Database:
    """One of our databases, as the server lists it.

    Attributes:
        number: Counted up by the server, whatever its clock or ours says: the higher, the younger.
        altered: The transaction that last altered it: each ALTER DATABASE but SET, and each GRANT on it, has
            another number. Nobody gets into a sealed database without one. Comments and vacuuming leave it.
    """

    number: int
    name: str
    connection_limit: int
    comment: str
    connections: int
    altered: int


class Admin:
    """One connection for administrative work, in autocommit.

    Lifetime: until `close`; the locks that it holds end with it, or with the process, however
    that ends. Safe to use from several threads (statements are serialised), but a lock that one
    thread waits for makes the others wait too.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._statements = threading.Lock()
        self._restart = _RESTART
        try:
            self._connection = _connected(address)
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
    def broken(self) -> bool:
        """Whether a statement found the connection lost: the server stopped, or somebody ended our backend."""
        return self._connection.broken or self._connection.closed

    @property
    def lost(self) -> bool:
        """The same, also where no statement has found out yet. Asks our own socket only, so it takes microseconds."""
        if self.broken:
            return True
        with self._statements:
            try:
                self._connection.pgconn.consume_input()  # what the server's last word was
                self._connection.pgconn.consume_input()  # that there is no more to come
            except psycopg.OperationalError:
                return True
        return self.broken

    def reconnect(self) -> None:
        """Go on with a new connection, which holds none of the locks that the lost one held.

        A server that is being restarted gets 20 seconds to come back. One that did not is not waited for again.

        Raises:
            ServerError: There is no new connection.
        """
        deadline = time.monotonic() + self._restart
        self._restart = 0.0
        self._connection.close()
        while self._connection.closed:
            try:
                self._connection = _connected(self.address)
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    what = "The connection to the PostgreSQL server was lost, and there is no new one"
                    raise _unreachable(what, self.address, error) from None
                time.sleep(_RETRY)
        self._restart = _RESTART

    def run(self, statement: Statement, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows, none where it has none."""
        query = sql.SQL(statement) if isinstance(statement, str) else statement
        with self._statements:
            cursor = self._connection.execute(query, params or None)
            return cursor.fetchall() if cursor.description else []

    # -- databases ---------------------------------------------------------------------------

    def create(self, name: str) -> None:
        """Make an empty database. From ``template0``, which is the same on every server of a version."""
        self.run(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 CONNECTION LIMIT {}").format(
                sql.Identifier(name), sql.Literal(MARK)
            )
        )

    def clone(self, source: str, name: str, strategy: Strategy) -> None:
        """Make ``name`` a copy of ``source``, without its settings and grants (`pytest_seeddb.templates.grants`).

        Nobody may be connected to ``source``. Several clones of one source can be made at once.
        After a failure there is no database ``name``.
        """
        self.run(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY {} CONNECTION LIMIT {}").format(
                sql.Identifier(name), sql.Identifier(source), sql.Identifier(strategy.lower()), sql.Literal(MARK)
            )
        )

    def rename(self, name: str, new: str) -> None:
        """Give a database another name. Nobody may be connected to it."""
        self.run(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(new)))

    def publish(self, name: str, final: str, comment_of: Callable[[int], str]) -> int:
        """Give a database its final name and let nobody connect any more, superusers included.

        Every role that may create databases may clone it. All of it happens at once, with the comment.

        Args:
            name: The database. Nobody may be connected to it.
            final: Its new name.
            comment_of: Gives its comment, told the transaction that did this.

        Returns:
            That transaction: `Database.altered` from now on.
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
        """Let nobody new connect; who is connected stays so."""
        self.run(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(sql.Identifier(name)))

    def comment(self, name: str, text: str) -> None:
        """Keep ``text`` with the database."""
        self.run(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(text)))

    def make_read_only(self, name: str) -> None:
        """Let new connections start in read-only transactions."""
        self.run(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(sql.Identifier(name)))

    def drop(self, name: str) -> None:
        """Drop one of our databases, whoever is connected to it. One that is not there is no error.

        Raises:
            CloneError: Somebody stays connected whom our role may not end.
        """
        try:
            if not self._shut(name):
                return
            self.evict(name)
            self.run(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
        except psycopg.errors.InvalidCatalogName:
            return  # another process dropped it in between

    def _shut(self, name: str) -> bool:
        """Stop newcomers; whether the database is there and ours."""
        rows = self.run("SELECT datconnlimit FROM pg_database WHERE datname = %s", [name])
        if not rows or not is_ours(name, rows[0][0]):
            return False
        # Nothing can be altered in a database that PostgreSQL left half-dropped, and nobody can enter it.
        if rows[0][0] != DROPPED_HALFWAY:
            self.run(
                sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false IS_TEMPLATE false").format(sql.Identifier(name))
            )
        return True

    def evict(self, name: str, *, spare: int = 0) -> None:
        """End every connection to the database and wait until their backends are gone.

        Args:
            name: The database.
            spare: The process number of a backend that may stay.

        Raises:
            CloneError: One is still there after 10 seconds.
        """
        deadline = time.monotonic() + _PATIENCE
        while backends := self._terminated(name, spare):
            if time.monotonic() > deadline:
                raise CloneError(
                    f"Connections to the database {name} do not end",
                    saw=", ".join(backends),
                    source=self.address.masked,
                    remedy="end them, or let the role end them: GRANT pg_signal_backend TO " + self.role(),
                )
            time.sleep(_POLL)

    def _terminated(self, name: str, spare: int) -> list[str]:
        rows = self.run(_TERMINATED, [name, spare] * 2)
        return [f"process {pid} of {user} ({application or 'no name'})" for pid, user, application, _ in rows]

    def ours(self, pattern: str = r"seeddb\_%") -> list[Database]:
        """Every database of ours whose name is like the SQL pattern."""
        rows = self.run(
            "SELECT oid, datname, datconnlimit, coalesce(shobj_description(oid, 'pg_database'), ''),"
            " (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid), d.xmin::text::bigint"
            " FROM pg_database d WHERE datname LIKE %s ORDER BY datname",
            [pattern],
        )
        return [Database(*row) for row in rows if is_ours(row[1], row[2])]

    def tidy_catalogs(self) -> None:
        """Free the room of the rows that dropped databases have left in the server's catalogs, where there are many.

        For a superuser on a server without autovacuum. Waits for nobody, and nobody waits for it.
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
        """The role that we are, as a quoted identifier."""
        return str(self.run("SELECT quote_ident(current_user)")[0][0])

    # -- locks -------------------------------------------------------------------------------

    def lock(self, key: int) -> None:
        """Hold the lock alone; wait for it as long as it takes."""
        self.run("SELECT pg_advisory_lock(%s)", [key])

    def try_lock(self, key: int) -> bool:
        """Hold the lock alone, if nobody else has it."""
        return bool(self.run("SELECT pg_try_advisory_lock(%s)", [key])[0][0])

    def share_lock(self, key: int) -> None:
        """Hold the lock together with others who share it."""
        self.run("SELECT pg_advisory_lock_shared(%s)", [key])

    def unlock(self, key: int) -> None:
        """Give back a lock that was held alone."""
        self.run("SELECT pg_advisory_unlock(%s)", [key])

    def unshare_lock(self, key: int) -> None:
        """Give back a shared lock."""
        self.run("SELECT pg_advisory_unlock_shared(%s)", [key])

    @contextmanager
    def tried(self, key: int) -> Iterator[bool]:
        """Hold the lock alone for a block, if nobody else has it; whether that is so."""
        got = self.try_lock(key)
        try:
            yield got
        finally:
            if got and not self.broken:
                self.unlock(key)

    @contextmanager
    def locked(self, key: int) -> Iterator[None]:
        """Hold the lock alone for a block."""
        self.lock(key)
        try:
            yield
        finally:
            if not self.broken:
                self.unlock(key)


def _connected(address: Address) -> psycopg.Connection[Any]:
    # The server knows its own processes by number; this tells `seeddb status` whose they are.
    name = f"pytest-seeddb {os.getpid()}@{socket.gethostname()}"
    connection = psycopg.connect(address.conninfo, autocommit=True, application_name=name, prepare_threshold=None)
    # A role or a server may have limits set for its applications; a lock is waited for without any.
    connection.execute("SET statement_timeout = 0; SET lock_timeout = 0; SET idle_session_timeout = 0")
    return connection


def _unreachable(what: str, address: Address, error: psycopg.Error) -> ServerError:
    remedy = remedies.remedy(str(error), task="admin") or "see that it runs and that the role may connect"
    return ServerError(what, saw=str(error), source=address.masked, remedy=remedy)
