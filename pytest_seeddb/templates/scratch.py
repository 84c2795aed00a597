"""Private databases for the length of a block."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Self

from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.naming import build_name, lock_key, new_lease

if TYPE_CHECKING:
    from pytest_seeddb.servers.address import Address


class Scratch:
    """Makes empty databases, and copies of them, for the block; after a kill, the next run drops them by the lease."""

    def __init__(self, address: Address) -> None:
        self._admin = Admin(address)
        self._lease = new_lease()
        self._numbers = count(1)
        self._made: list[str] = []
        self._admin.lock(lock_key("lease", self._lease))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            for name in self._made:
                if not self._admin.is_broken:
                    self._admin.drop(name)
        finally:
            self._admin.close()

    def empty(self) -> Address:
        """An empty database."""
        name = self._name()
        with server_errors("A private database could not be made", self._admin.address):
            self._admin.create(name)
        return self._admin.address.with_database(name)

    def copy(self, source: Address) -> Address:
        """A copy of one of them. Connections to that one are ended."""
        name = self._name()
        with server_errors("A private database could not be copied", self._admin.address):
            self._admin.evict(source.database)
            self._admin.clone(source.database, name, "FILE_COPY")
        return self._admin.address.with_database(name)

    def drop(self, address: Address) -> None:
        """Drop one before the block ends."""
        self._admin.drop(address.database)

    def _name(self) -> str:
        self._made.append(build_name(self._lease, next(self._numbers)))
        return self._made[-1]
