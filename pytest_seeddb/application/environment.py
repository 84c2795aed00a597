"""Environment variables that hold a database's URL for a while."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_seeddb.servers.address import Address

_SCHEME: Final = re.compile(r"(?P<scheme>postgres(?:ql)?(?:\+[a-z0-9_]+)?)://", re.IGNORECASE)


def url_variables(names: Iterable[str], address: Address) -> dict[str, str]:
    """The variables with the address's URL in the scheme that each has now.

    An application that expects ``postgresql+asyncpg://`` in its ``DATABASE_URL`` has that in its
    environment; where the variable is unset or no PostgreSQL URL, the scheme is ``postgresql``.
    """
    return {name: address.url_for(_scheme_of(os.environ.get(name, ""))) for name in names}


def _scheme_of(url: str) -> str:
    found = _SCHEME.match(url)
    return found["scheme"] if found else "postgresql"


@contextmanager
def url_in_environment(names: Iterable[str], address: Address) -> Iterator[None]:
    """Set the variables for a block, in this process; afterwards they are as they were."""
    wanted = url_variables(names, address)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
