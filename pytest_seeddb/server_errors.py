"""What the server refuses us, told as what a person can do about it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psycopg

from pytest_seeddb.errors import ServerError
from pytest_seeddb.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.address import Address

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


# By what libpq and psycopg say when there is no connection; the server has no SQLSTATE for that.
_CONNECTING: Final = (
    ("password authentication failed", "correct the user or the password in the URL"),
    ("no password supplied", "write the password into the URL, or into ~/.pgpass"),
    (
        "no pg_hba.conf entry",
        "let this host, user and database in, in the server's pg_hba.conf; or try ?sslmode=require",
    ),
    ('FATAL:  role "', "correct the user in the URL, or create the role"),
    ('FATAL:  database "', "name a database that exists, for example /postgres"),
    ("translate host name", "correct the host in the URL"),
    ("failed to resolve host", "correct the host in the URL"),
    ("Name or service not known", "correct the host in the URL"),
    ("Connection refused", "start the server, or correct the host and the port in the URL"),
    ("No such file or directory", "start the server, or correct the socket directory and the port in the URL"),
    ("does not support SSL", "take another sslmode than the URL's: ?sslmode=prefer; or turn ssl on in the server"),
    ("invalid sslmode value", "correct sslmode in the URL: disable, allow, prefer, require, verify-ca or verify-full"),
    ("invalid port number", "correct the port in the URL"),
    ("timeout", "check the host, the port and the firewall; connect_timeout in the URL gives it more time"),
)

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


def connecting_remedy(error: psycopg.Error) -> str:
    """What to do about a connection that was not made; nothing where its message is none that is known."""
    told = str(error)
    return refusal(told) or next((remedy for pattern, remedy in _CONNECTING if pattern in told), "")


def _seen(error: psycopg.Error) -> str:
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return f"{str(error).strip()}{state}"


def _remedy(error: psycopg.Error, needed: str) -> str:
    if error.sqlstate == "42501":
        return f"grant the role what it lacks; {needed}"
    if remedy := refusal(str(error)) or (connecting_remedy(error) if error.sqlstate is None else ""):
        return remedy
    state = error.sqlstate or "08"
    for length in (5, 3, 2):
        if state[:length] in _REMEDIES:
            return _REMEDIES[state[:length]]
    return "read the server's message; its log may say more"
