"""Why a server refuses something, read from its words where there is no SQLSTATE, or none that says enough."""

from __future__ import annotations

import re
from typing import Final

_REMEDIES: Final = (
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


def refusal(told: str) -> str:
    """What to do about a refusal in these words; empty where they are not known."""
    return next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, told)), "")
