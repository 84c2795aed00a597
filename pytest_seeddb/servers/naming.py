"""The names of our databases, and how a database is known to be ours.

A name alone proves nothing: anybody may call a database ``seeddb_...``. What proves it is the
mark that every ``CREATE DATABASE`` of ours sets in the same statement, so that there is no moment
in which a database of ours exists without it, whenever we are killed: a connection limit of
`MARK`, a number that nobody else sets and that no server reaches.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final, Literal

from pytest_seeddb.fingerprint.digests import FORMAT

MARK: Final = 0x5EEDDB0 + FORMAT
"""``datconnlimit`` of our databases. Another format has another mark, so that two versions of
pytest-seeddb on one server leave each other's databases alone."""

DROPPED_HALFWAY: Final = -2
"""``datconnlimit`` that PostgreSQL itself sets when a ``DROP DATABASE`` was interrupted
(``DATCONNLIMIT_INVALID_DB``): such a database can be dropped and nothing else."""

MAX_BYTES: Final = 63  # NAMEDATALEN - 1

_SLUG_LENGTH: Final = 18

Kind = Literal["template", "build", "clone", "kept"]

_TEMPLATE: Final = re.compile(r"seeddb_t_(?P<slug>[a-z0-9_]*)_(?P<fingerprint>[0-9a-f]{24})_(?P<variant>[0-9a-f]{8})")
_LEASED: Final = re.compile(r"seeddb_(?P<kind>[bc])_(?P<lease>[0-9a-f]{16})_(?P<number>[0-9]+)")
_KEPT: Final = re.compile(r"seeddb_k_(?P<moment>[0-9]{14})_[0-9a-f]{8}_[0-9]+")


@dataclass(frozen=True)
class OurName:
    """A database name taken apart."""

    kind: Kind
    lease: str = ""
    fingerprint: str = ""
    variant: str = ""
    slug: str = ""
    moment: str = ""


def new_lease() -> str:
    """A lease's identity: 16 hexadecimal digits that no other process has."""
    return secrets.token_hex(8)


def template_name(plan: str, fingerprint: str, variant: str) -> str:
    """The final name of the template with this fingerprint.

    Args:
        plan: The plan's name, of any length and in any script; it is shortened for people to read.
        fingerprint: At least 24 hexadecimal digits.
        variant: At least 8 random hexadecimal digits: a fingerprint may have several templates, which
            differ in the data files that their builds opened.
    """
    return f"seeddb_t_{slug(plan)}_{fingerprint[:24]}_{variant[:8]}"


def build_name(lease: str, number: int) -> str:
    """The private name under which a template is built."""
    return f"seeddb_b_{lease}_{number}"


def clone_name(lease: str, number: int) -> str:
    """The name of the ``number``-th clone of a lease."""
    return f"seeddb_c_{lease}_{number}"


def kept_name(moment: str, clone: str) -> str:
    """The name of a clone that is kept after its test failed.

    Args:
        moment: Fourteen digits: year, month, day, hour, minute, second; UTC.
        clone: Its name as a clone.
    """
    _, _, lease, number = clone.split("_")
    return f"seeddb_k_{moment}_{lease[:8]}_{number}"


def slug(plan: str) -> str:
    """Up to 18 characters of ``plan`` in ``[a-z0-9_]``; two long plans may share one.

    That is harmless: the fingerprint tells their templates apart.
    """
    return re.sub(r"[^a-z0-9]+", "_", plan.lower()).strip("_")[:_SLUG_LENGTH].strip("_") or "plan"


def parsed(name: str) -> OurName | None:
    """Take one of our names apart; ``None`` for any other name."""
    if found := _TEMPLATE.fullmatch(name):
        return OurName("template", **found.groupdict())
    if found := _LEASED.fullmatch(name):
        return OurName("build" if found["kind"] == "b" else "clone", lease=found["lease"])
    if found := _KEPT.fullmatch(name):
        return OurName("kept", moment=found["moment"])
    return None


def is_ours(name: str, connection_limit: int) -> bool:
    """Whether the database was made by this format of pytest-seeddb.

    Args:
        name: ``pg_database.datname``.
        connection_limit: ``pg_database.datconnlimit``. One that PostgreSQL left half-dropped has
            lost the mark, holds nothing any more, and is told by its name alone.
    """
    return parsed(name) is not None and connection_limit in {MARK, DROPPED_HALFWAY}


def lock_key(*words: str) -> int:
    """The advisory lock for these words: 63 bits of their SHA-256, never negative."""
    digest = hashlib.sha256("\0".join(("seeddb", str(FORMAT), *words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
