"""Why a server refuses something, read from its words where there is no SQLSTATE, or none that says enough."""

from __future__ import annotations

import re
from typing import Final

_REFUSALS: Final = (
    (
        "too many clients already|remaining connection slots",
        "raise max_connections on the server, end connections that nobody needs, or run fewer workers (-n)",
    ),
    (
        "too many connections for role",
        "raise the role's limit (ALTER ROLE ... CONNECTION LIMIT), or run fewer workers (-n)",
    ),
    (
        '"template0" has a collation version mismatch',
        "as its owner: ALTER DATABASE template0 REFRESH COLLATION VERSION;  (it holds nothing that could be wrong)",
    ),
    (
        "the database system is (starting up|shutting down|in recovery|not yet accepting)",
        "wait until the server is up, and repeat the run",
    ),
)
# By what libpq and psycopg say when there is no connection, and so no SQLSTATE.
_CONNECTING: Final = (
    *_REFUSALS,
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


def refusal(told: str) -> str:
    """What to do about a refusal in these words; empty where they are not known."""
    return _first(_REFUSALS, told)


def connecting_refusal(told: str) -> str:
    """The same where it is a connection that was not made."""
    return _first(_CONNECTING, told)


def _first(remedies: tuple[tuple[str, str], ...], told: str) -> str:
    return next((remedy for pattern, remedy in remedies if re.search(pattern, told)), "")
