"""What did a test change: from counters that the server keeps anyway.

Measured on PostgreSQL 15 and 18: each connection counts as one committed transaction and as one
session when its backend exits; a transaction that is rolled back, or that its backend's end rolls
back, counts as rolled back; every insert, update and delete counts, rolled back or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_seeddb.admin import Admin

# Of the catalogs that all databases share, four are written whenever anybody creates or drops a
# database, and his counts come up to a second late: of those, what they say of this database is read.
_COUNTERS = """
SELECT pg_stat_get_db_xact_commit(oid) - pg_stat_get_db_sessions(oid),
       pg_stat_get_db_tuples_inserted(oid) + pg_stat_get_db_tuples_updated(oid) + pg_stat_get_db_tuples_deleted(oid),
       (SELECT sum(pg_stat_get_tuples_inserted(of) + pg_stat_get_tuples_updated(of) + pg_stat_get_tuples_deleted(of))
        FROM unnest('{pg_authid,pg_auth_members,pg_parameter_acl,pg_shseclabel,pg_subscription,pg_tablespace}'
                    ::regclass[]) of),
       concat_ws('/', xmin,
        (SELECT string_agg(xmin::text, ',' ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid),
        (SELECT xmin FROM pg_shdescription WHERE classoid = 'pg_database'::regclass AND objoid = d.oid)),
       concat_ws('/', pg_stat_get_db_stat_reset_time(oid), (SELECT count(*) FROM pg_prepared_xact() WHERE dbid = d.oid))
FROM pg_database d WHERE datname = %s
"""


@dataclass(frozen=True)
class Counters:
    """The server's counters for one database, read while nobody is connected to it.

    Attributes:
        committed: Transactions that sessions committed on purpose.
        tuples: Rows written in the database, whether it was committed or not.
        shared: Rows written in the catalogs of roles and such, which all databases share.
        own: What the shared catalogs say of this database: each version of it has another value.
        doubt: When the counters were last reset, and how many transactions are prepared.
    """

    committed: int
    tuples: int
    shared: int
    own: str
    doubt: str

    @classmethod
    def of(cls, admin: Admin, database: str) -> Counters:
        """Read them. A backend's counts arrive when it exits, so end the connections first."""
        return cls(*admin.run(_COUNTERS, [database])[0])

    def wrote(self, earlier: Counters) -> bool:
        """Whether any row was written since, committed or not."""
        now, before = ((each.tuples, each.shared, each.own, each.doubt) for each in (self, earlier))
        return now != before

    def committed_writes(self, earlier: Counters) -> bool:
        """Whether a write may have been committed since. In doubt, yes."""
        return self.doubt != earlier.doubt or (self.committed != earlier.committed and self.wrote(earlier))
