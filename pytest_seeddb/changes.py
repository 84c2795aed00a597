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

_COUNTERS = """
SELECT sum(xact_commit - sessions) FILTER (WHERE datname = %s),
       sum(tup_inserted + tup_updated + tup_deleted) FILTER (WHERE datname = %s),
       sum(tup_inserted + tup_updated + tup_deleted) FILTER (WHERE datid = 0)
FROM pg_stat_database WHERE datname = %s OR datid = 0
"""


@dataclass(frozen=True)
class Counters:
    """The server's counters for one database, read while nobody is connected to it.

    Attributes:
        committed: Transactions that sessions committed on purpose.
        tuples: Rows written in the database, whether it was committed or not.
        shared: Rows written in the catalogs that all databases share: roles, settings.
    """

    committed: int
    tuples: int
    shared: int

    @classmethod
    def of(cls, admin: Admin, database: str) -> Counters:
        """Read them. A backend's counts arrive when it exits, so end the connections first."""
        return cls(*(int(value or 0) for value in admin.run(_COUNTERS, [database] * 3)[0]))

    def wrote(self, earlier: Counters) -> bool:
        """Whether any row was written since, committed or not."""
        return (self.tuples, self.shared) != (earlier.tuples, earlier.shared)

    def committed_writes(self, earlier: Counters) -> bool:
        """Whether a write may have been committed since. In doubt, yes."""
        return self.committed != earlier.committed and self.wrote(earlier)
