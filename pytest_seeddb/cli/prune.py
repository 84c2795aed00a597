"""``seeddb prune``: drop templates, kept databases and leftovers that are not in use."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.cli.output import show, size_text, table
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.cli.status import own_entries
from pytest_seeddb.clones.apart import own_data
from pytest_seeddb.errors import CloneError, ServerError
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.opening import embedded_status, open_server
from pytest_seeddb.templates.inventory import Limits, choose, drop, inventory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.inventory import Entry

_DEFAULT_DAYS: Final = 14


@dataclass(frozen=True)
class _Item:
    """A database or a directory that may go, and why; the size is ``None`` where our role may not know it."""

    kind: str
    name: str
    label: str
    size: int | None
    reason: str


@dataclass
class _Removal:
    """The items that are gone, and those that could not be removed."""

    dry_run: bool
    gone: list[_Item] = field(default_factory=list)
    stays: list[dict[str, Any]] = field(default_factory=list)

    def take(self, item: _Item, remove: Callable[[], bool]) -> None:
        """Remove it; a refusal is noted, and the others go all the same."""
        try:
            if self.dry_run or remove():
                self.gone.append(item)
            else:
                self.stays.append({"name": item.name, "reason": "it is in use by now", "failed": False})
        except (CloneError, ServerError, OSError) as error:
            self.stays.append({"name": item.name, "reason": str(error), "failed": True})


def run(parsed: argparse.Namespace) -> int:
    """Run the command: 1 if something could not be dropped."""
    selects = parsed.older_than is not None or parsed.budget is not None or parsed.kept
    unused = parsed.older_than if selects or parsed.all else _DEFAULT_DAYS
    limits = Limits(unused, parsed.budget, kept=parsed.kept, everything=parsed.all and not selects)
    removal = _Removal(parsed.dry_run)
    entries = _prune(settings_of(parsed), limits, removal, every=parsed.all)
    gone = {item.name for item in removal.gone}
    result = {
        "dry_run": removal.dry_run,
        "gone": removal.gone,
        "stays": removal.stays,
        "freed": sum(item.size or 0 for item in removal.gone),
        "left": sum(entry.size or 0 for entry in entries if entry.name not in gone),
        "in_use": sum(entry.in_use for entry in entries),
    }
    show(parsed, result, _lines(result), with_quiet=parsed.dry_run or any(item["failed"] for item in removal.stays))
    return 1 if any(item["failed"] for item in removal.stays) else 0


def _prune(settings: Settings, limits: Limits, removal: _Removal, *, every: bool) -> Sequence[Entry]:
    """Remove orphans and all beyond the limits; gives the databases before.

    That is of the project alone, or of every project, and then also what other embedded servers have left.
    """
    if settings.server == "container":
        from pytest_seeddb.servers import container  # not on Windows

        source = settings.source("server")
        unused = [running for running in container.containers(source) if not running.in_use]
        for running in unused if removal.dry_run else container.stop(source):
            removal.take(_Item("container", running.identity, running.image, None, "nobody uses it"), lambda: True)
        return ()
    entries: dict[str, tuple[Admin, Entry]] = {}
    embedded = embedded_status(settings)
    pruned = set()  # the states of servers whose databases are pruned one by one
    with ExitStack() as stack:
        if embedded is None or embedded.running or embedded.kept:
            server = stack.enter_context(open_server(settings))
            # Everything goes: the plans' own data as directories.
            own = {} if limits.everything else own_data(server, settings.root)
            for key in ("", *own):
                place = stack.enter_context(open_server(settings, key)) if key else server
                stack.enter_context(server_errors("The databases could not be pruned", place.address))
                admin = stack.enter_context(Admin(place.address))
                there = inventory(admin) if every else own_entries(inventory(admin), settings)
                entries |= {entry.name: (admin, entry) for entry in there}
                pruned.add(place.state)
            for entry, reason in choose([entry for _, entry in entries.values()], limits):
                record = entry.record
                kind = "layer" if record and record.layer else entry.kind
                label = f"{record.plan}/{record.profile}" if record else ""
                item = _Item(kind, entry.name, label, entry.size, reason)
                removal.take(item, partial(drop, entries[entry.name][0], entry))
        if embedded is not None and every:
            from pytest_seeddb.servers.remains import remains, remove  # not on Windows

            for left in remains():
                if left.state not in pruned and not left.in_use and (limits.everything or limits.is_old(left.used)):
                    reason = "nobody uses it" if limits.everything else f"last used on {left.used}"
                    removal.take(_Item(left.kind, str(left.place), "", left.size, reason), partial(remove, left))
    return [entry for _, entry in entries.values()]


def _lines(result: dict[str, Any]) -> Iterator[str]:
    if result["gone"]:
        rows = [(item.kind, size_text(item.size), item.label, item.reason, item.name) for item in result["gone"]]
        yield from table(("", "SIZE", "", "WHY", "NAME"), rows)
    yield from (f"{item['name']} stays: {item['reason']}" for item in result["stays"])
    verb = "would go" if result["dry_run"] else "went"
    databases = "1 database" if result["in_use"] == 1 else f"{result['in_use']} databases"
    freed, left = size_text(result["freed"]), size_text(result["left"])
    yield f"{len(result['gone'])} {verb}, {freed}; {left} stay, {databases} in use"
