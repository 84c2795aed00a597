"""Which statements of a dump are not run: what belongs to the server, and not to a database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_ROLE: Final = r'(?:"(?:[^"]|"")+"|[\w$]+)'


@dataclass(frozen=True)
class Rule:
    """One kind of statement that is left out.

    Attributes:
        name: What people call it.
        pattern: What the whole statement looks like.
        replacement: What takes its place.
    """

    name: str
    pattern: re.Pattern[bytes]
    words: frozenset[bytes]
    replacement: bytes = b""

    def applies(self, statement: bytes) -> bool:
        """Whether the statement, with its semicolon, is of this kind."""
        return self.pattern.match(statement) is not None


def _rule(name: str, pattern: str, *words: str, replacement: bytes = b"") -> Rule:
    compiled = re.compile(pattern.replace(" ", r"\s+").encode(), re.IGNORECASE | re.DOTALL)
    return Rule(name, compiled, frozenset(word.encode() for word in words), replacement)


_PARAMETERS: Final = {"transaction_timeout": 17}
"""Settings that a newer ``pg_dump`` makes in the head of every dump, and since which version there are such."""

_LEFT_OUT: Final = (
    # As `pg_restore --no-owner --no-privileges` has it: all belongs to the role that restores.
    _rule("owners", rf"ALTER .*\bOWNER TO {_ROLE}\s*;\Z", "ALTER"),
    _rule("owners", r"SET SESSION AUTHORIZATION ", "SET"),
    _rule("privileges", r"(?:GRANT|REVOKE|ALTER DEFAULT PRIVILEGES) ", "GRANT", "REVOKE", "ALTER"),
    # Roles, databases and tablespaces belong to the server, and a subscription to another one.
    _rule("roles", r"(?:CREATE|ALTER|DROP) (?:ROLE|GROUP|USER) (?!MAPPING\b)", "CREATE", "ALTER", "DROP"),
    _rule("databases", r"(?:CREATE|ALTER|DROP|COMMENT ON) DATABASE ", "CREATE", "ALTER", "DROP", "COMMENT"),
    _rule("tablespaces", r"(?:CREATE|ALTER|DROP|COMMENT ON) TABLESPACE ", "CREATE", "ALTER", "DROP", "COMMENT"),
    _rule("tablespaces", r"SET default_tablespace\s*=\s*+(?!''|\"\"|DEFAULT\b)", "SET"),
    _rule("subscriptions", r"(?:CREATE|ALTER|DROP|COMMENT ON) SUBSCRIPTION ", "CREATE", "ALTER", "DROP", "COMMENT"),
    # Both are there in every new database, and not ours to change.
    _rule("what is there", r"COMMENT ON EXTENSION \"?plpgsql\"? ", "COMMENT"),
    _rule("what is there", r"CREATE SCHEMA public\s*;", "CREATE", replacement=b"CREATE SCHEMA IF NOT EXISTS public;"),
)


def for_dumps(server: int) -> tuple[Rule, ...]:
    """What is left out of a dump that anybody made, for a server of this major version."""
    return (*_LEFT_OUT, *for_copies(server))


def for_copies(server: int) -> tuple[Rule, ...]:
    """What is left out of a copy of our own, which is to be exact: only what the server does not know."""
    unknown = [name for name, since in _PARAMETERS.items() if server < since]
    return tuple(_rule("newer settings", rf"SET {name}\s*=\s*\w+\s*;", "SET") for name in unknown)
