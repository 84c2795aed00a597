"""What the server refuses us, told as what a person can do about it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psycopg

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers.refusals import connecting_refusal, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.servers.address import Address

# By SQLSTATE, or by its class of two characters (PostgreSQL's appendix A).
_REMEDIES: Final = {
    "53100": "free space on the server's disk: old templates can be dropped, data directories moved",
    "53300": "raise max_connections on the server, or run fewer workers (-n)",
    "53": "give the server more of what it lacks",
    "57P": "start the server again and repeat the run: nothing of it is lost but this run's clones",
    "08": "see that the server runs and repeat the run",
    "55006": "end the other connections to that database and repeat the run",
    "58": "look into the server's log: its disk or file system refused it something",
    "XX": "look into the server's log: this is a fault of the server",
}

_CLONING: Final = "CREATEDB is needed, superuser is not"


@contextmanager
def explained(what: str, address: Address, *, needed: str = _CLONING) -> Iterator[None]:
    """Turn an error of the server inside the block into a `ServerError`.

    Args:
        what: What failed, as the first line of the error: "The clone could not be made".
        address: Where; it is shown without its password.
        needed: Which rights it takes, for a role that lacks some.
    """
    try:
        yield
    except psycopg.Error as error:
        raise ServerError(what, saw=_seen(error), source=address.masked, remedy=_remedy(error, needed)) from error


def _seen(error: psycopg.Error) -> str:
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return f"{str(error).strip()}{state}"


def _remedy(error: psycopg.Error, needed: str) -> str:
    if error.sqlstate == "42501":
        return f"grant the role what it lacks; {needed}"
    if remedy := (refusal if error.sqlstate else connecting_refusal)(str(error)):
        return remedy
    state = error.sqlstate or "08"
    for length in (5, 3, 2):
        if state[:length] in _REMEDIES:
            return _REMEDIES[state[:length]]
    return "read the server's message; its log may say more"
