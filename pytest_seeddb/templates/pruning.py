"""Which of our databases may go when somebody wants the space back, and dropping them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from pytest_seeddb.errors import CloneError
from pytest_seeddb.servers.naming import parse_name
from pytest_seeddb.templates.registry import drop_orphan, drop_unused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_seeddb.servers.admin import Admin
    from pytest_seeddb.templates.inventory import Entry


@dataclass(frozen=True)
class Limits:
    """What somebody wants to be rid of. Whatever is in use stays in any case; orphans always go.

    Attributes:
        unused_days: What was last used more days ago than this.
        budget: As much, least recently used first, as it takes for the rest to fit in so many bytes.
        kept: All databases of failed tests.
        everything: Everything.
    """

    unused_days: int | None = None
    budget: int | None = None
    kept: bool = False
    everything: bool = False

    def is_old(self, used: str) -> bool:
        """Whether the day ``used`` is so long ago. A day that nothing tells is not."""
        if self.unused_days is None or not used:
            return False
        return used < (dt.datetime.now(dt.UTC) - dt.timedelta(days=self.unused_days)).date().isoformat()


@dataclass(frozen=True)
class Choice:
    """A database that may go, and why."""

    entry: Entry
    reason: str


def chosen(entries: Sequence[Entry], limits: Limits) -> list[Choice]:
    """The databases that may go, least recently used first."""
    free = sorted((each for each in entries if not each.in_use), key=lambda each: (each.used, each.created, each.name))
    found = [Choice(each, reason) for each in free if (reason := _reason(each, limits))]
    if limits.budget is not None:
        found += _over_budget(entries, free, found, limits.budget)
    return found


def _reason(entry: Entry, limits: Limits) -> str:
    if entry.is_orphan:
        return "its worker is gone"
    if limits.everything:
        return "nobody uses it"
    if limits.kept and entry.kind == "kept":
        return "of a failed test"
    return f"last used on {entry.used}" if limits.is_old(entry.used) else ""


def _over_budget(
    entries: Sequence[Entry], free: Sequence[Entry], going: Sequence[Choice], budget: int
) -> Iterator[Choice]:
    gone = {each.entry.name for each in going}
    left = sum(each.size or 0 for each in entries if each.name not in gone)
    for each in free:
        if left > budget and each.name not in gone:
            left -= each.size or 0
            yield Choice(each, "over the budget")


def drop(admin: Admin, entry: Entry) -> bool:
    """Drop a database unless it is in use by now; whether it was dropped.

    Raises:
        CloneError: The server refuses, or somebody stays connected to it whom our role may not end.
        psycopg.Error: The connection was lost.
    """
    try:
        return _drop(admin, entry)
    except psycopg.Error as error:
        if admin.is_broken:
            raise
        raise CloneError(
            f"The database {entry.name} cannot be dropped",
            saw=str(error).strip(),
            source=admin.address.masked,
            remedy="drop it as a role that may: its owner, or a superuser",
        ) from error


def _drop(admin: Admin, entry: Entry) -> bool:
    name = parse_name(entry.name)
    if entry.kind == "template":
        return drop_unused(admin, entry.name)
    if name and name.lease:
        return drop_orphan(admin, entry.name, name.lease)
    return _drop_kept(admin, entry.name)


def _drop_kept(admin: Admin, name: str) -> bool:
    """Nobody owns it, but somebody may be looking at it; whether it was dropped."""
    if any(each.name == name and each.connections for each in admin.databases(r"seeddb\_k\_%")):
        return False
    admin.drop(name)
    return True
