"""The names of our databases, and the mark that proves a database is ours.

A name alone proves nothing: anybody may call a database ``seeddb_...``. The proof is its connection limit, `MARK`, a
number that nobody else sets and that no server reaches. Each of our ``CREATE DATABASE`` statements sets it, so none of
our databases ever exists without it, whenever we are killed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final, Literal

from pytest_seeddb.fingerprint.digests import FORMAT

MARK: Final = 0x5EEDDB0 + FORMAT
"""``datconnlimit`` of our databases. Each format has its own, so that two versions of pytest-seeddb on one server leave
each other's databases alone."""
ANY_FORMAT: Final = range(0x5EEDDB0, 0x5EEDDB0 + 0x1000)
"""The marks of all versions."""
DROPPED_HALFWAY: Final = -2
"""``datconnlimit`` that PostgreSQL sets when a ``DROP DATABASE`` was interrupted (``DATCONNLIMIT_INVALID_DB``): such a
database can only be dropped."""
MAX_BYTES: Final = 63  # NAMEDATALEN - 1
_SLUG_LENGTH: Final = 18

Kind = Literal["template", "build", "clone", "kept"]

_TEMPLATE: Final = re.compile(r"seeddb_t_(?P<slug>[a-z0-9_]*)_(?P<fingerprint>[0-9a-f]{24})_(?P<variant>[0-9a-f]{8})")
# A clone's may have more around it: the setting `clone_name`.
_LEASED: Final = re.compile(
    r"(?:[a-z0-9_]*_)?seeddb_(?P<kind>[bc])_(?P<lease>[0-9a-f]{16})_(?P<number>[0-9]+)(?:_[a-z0-9_]*)?"
)
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
    """The final name of a template with this fingerprint, of 24 or more hexadecimal digits.

    ``variant`` is 8 random digits: a fingerprint may have several templates, which differ in the data files that
    their builds opened.
    """
    return f"seeddb_t_{slug(plan)}_{fingerprint[:24]}_{variant[:8]}"


def build_name(lease: str, number: int) -> str:
    """The private name under which a template is built."""
    return f"seeddb_b_{lease}_{number}"


def clone_name(lease: str, number: int, form: str = "{clone}") -> str:
    """The name of the ``number``-th clone of a lease, in the form that the setting `clone_name` has."""
    return form.replace("{clone}", f"seeddb_c_{lease}_{number}")


def kept_name(moment: str, clone: str) -> str:
    """The name of a clone that is kept after its test failed, at a moment in UTC, ``YYYYMMDDhhmmss``."""
    lease, number = re.findall(r"seeddb_c_([0-9a-f]{16})_([0-9]+)", clone)[-1]
    return f"seeddb_k_{moment}_{lease[:8]}_{number}"


def slug(plan: str) -> str:
    """Up to 18 characters of ``plan`` in ``[a-z0-9_]``. Two plans may share one: their fingerprints differ."""
    return re.sub(r"[^a-z0-9]+", "_", plan.lower()).strip("_")[:_SLUG_LENGTH].strip("_") or "plan"


def parse_name(name: str) -> OurName | None:
    """Take one of our names apart; ``None`` for any other name."""
    if match := _TEMPLATE.fullmatch(name):
        return OurName("template", **match.groupdict())
    if match := _LEASED.fullmatch(name):
        return OurName("build" if match["kind"] == "b" else "clone", lease=match["lease"])
    if match := _KEPT.fullmatch(name):
        return OurName("kept", moment=match["moment"])
    return None


def is_ours(name: str, connection_limit: int) -> bool:
    """Whether this format of pytest-seeddb made the database with this ``datname`` and ``datconnlimit``.

    One that PostgreSQL left half-dropped has lost the mark, and all data: there the name alone decides.
    """
    return parse_name(name) is not None and connection_limit in {MARK, DROPPED_HALFWAY}


def lock_key(*words: str) -> int:
    """The advisory lock for these words: 63 bits of their SHA-256, never negative."""
    digest = hashlib.sha256("\0".join(("seeddb", str(FORMAT), *words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
