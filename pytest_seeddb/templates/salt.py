"""The salt of a plan's secrets: the same for everybody who shares the server, another on each server."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from pytest_seeddb.fingerprint.atomic import beside
from pytest_seeddb.fingerprint.digests import digest

if TYPE_CHECKING:
    from pytest_seeddb.servers.admin import Admin


def salt_of(plan: str, origin: str) -> str:
    """The salt for a plan of this name."""
    return digest(f"{origin} {plan}")


def server_origin(admin: Admin) -> str:
    """The number that the server drew when it was made. Empty where our role may not read it: the name is left."""
    with suppress(psycopg.errors.InsufficientPrivilege):
        return str(admin.run("SELECT system_identifier FROM pg_control_system()")[0][0])
    return ""


def user_origin() -> str:
    """A number in the user's cache directory, drawn once: dumps of servers that do not last are found again by it."""
    from pytest_seeddb.servers.places import cache_place, own_account  # not on Windows, where such servers are not

    path = cache_place(own_account()) / "dumps" / "salt"
    with suppress(OSError):
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with beside(path) as partial:
                partial.write_text(secrets.token_hex(16))
                os.link(partial, path)  # whoever comes second takes the first one's
    with suppress(OSError):
        return path.read_text()
    return ""
