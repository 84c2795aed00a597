"""What is on the server, whose it is, and what may go.

Names, ages and activity prove nothing: a clone is an orphan when nobody holds its lease, and a
template is unused when nobody holds its use. Both are advisory locks, which the server ends with the
session of their holder, however that died.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

import psycopg

from pytest_seeddb.errors import CloneError
from pytest_seeddb.servers.naming import lock_key, parse_name
from pytest_seeddb.templates.record import Record

if TYPE_CHECKING:
    from pytest_seeddb.servers.admin import Admin, Database

KEPT_TEMPLATES: Final = 30
"""Templates of one plan that stay however long they are unused: enough to switch between a few
branches, with their layers, without building anything."""

KEPT_DATABASES: Final = 20
"""Databases of failed tests that stay on a server, whichever run they are from."""

KEPT_DAYS: Final = 14
"""Days without use after which a template beyond those may go."""


def sweep(admin: Admin) -> list[str]:
    """Drop every clone and unfinished build whose worker is gone.

    Concurrency: any number may sweep at once. What a living worker owns is never touched.

    Returns:
        The names of the databases that were dropped.

    Raises:
        CloneError: Somebody stays connected to one of them; the others were dropped all the same.
        psycopg.Error: The server refused to drop one, for example for a prepared transaction; likewise.
    """
    owned: dict[str, list[Database]] = {}
    for database in admin.databases():
        if (name := parse_name(database.name)) and name.lease:
            owned.setdefault(name.lease, []).append(database)
    refused: list[Exception] = []
    dropped = [name for lease, each in owned.items() for name in _drop_orphans(admin, lease, each, refused)]
    if refused:
        raise refused[0]
    return dropped


def _drop_orphans(admin: Admin, lease: str, databases: list[Database], refused: list[Exception]) -> list[str]:
    with admin.try_hold(lock_key("lease", lease)) as is_free:
        return [each.name for each in databases if is_free and _is_dropped(admin, each.name, refused)]


def _is_dropped(admin: Admin, name: str, refused: list[Exception]) -> bool:
    """Drop one; a refusal is kept for later, so that one orphan does not save the others."""
    try:
        admin.drop(name)
    except (psycopg.Error, CloneError) as error:
        if admin.is_broken:
            raise
        refused.append(error)
        return False
    return True


def prune(admin: Admin, plan: str) -> list[str]:
    """Drop the templates of a plan that nobody uses and nobody has used for long.

    Returns:
        The names of the databases that were dropped.
    """
    found = [
        (record, each.name)
        for each in admin.databases(r"seeddb\_t\_%")
        if (record := Record.from_json(each.comment)) and record.plan == plan
    ]
    newest_first = sorted(found, key=lambda pair: (pair[0].used, pair[0].created), reverse=True)
    limit = (dt.datetime.now(dt.UTC) - dt.timedelta(days=KEPT_DAYS)).date().isoformat()
    old = [name for record, name in newest_first[KEPT_TEMPLATES:] if record.used < limit]
    return [name for name in old if drop_unused(admin, name)]


def kept_databases(admin: Admin) -> list[Database]:
    """The databases of failed tests, the one whose clone was made last at the end, whatever the clocks said."""
    return sorted(admin.databases(r"seeddb\_k\_%"), key=lambda each: each.number)


def drop_oldest_kept(admin: Admin) -> list[str]:
    """Drop the databases of failed tests beyond the newest `KEPT_DATABASES`, but for those that somebody looks at.

    Returns:
        The names of the databases that were dropped.
    """
    old = [each.name for each in kept_databases(admin)[:-KEPT_DATABASES] if not each.connections]
    for name in old:
        admin.drop(name)
    return old


def drop_unused(admin: Admin, template: str) -> bool:
    """Drop a template unless some process uses it; whether it was dropped."""
    return _drop_if_free(admin, template, lock_key("use", template))


def drop_orphan(admin: Admin, database: str, lease: str) -> bool:
    """Drop a clone or an unfinished build unless its worker lives; whether it was dropped."""
    return _drop_if_free(admin, database, lock_key("lease", lease))


def _drop_if_free(admin: Admin, name: str, key: int) -> bool:
    with admin.try_hold(key) as is_free:
        if is_free:
            admin.drop(name)
        return is_free
