"""``seeddb status``, ``seeddb prune`` and ``seeddb server``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli.options import add_command, as_json, settings_of
from pytest_seeddb.cli.words import ago, days, size, sized, table
from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from pytest_seeddb.cli.options import Commands
    from pytest_seeddb.cli.run_prune import Item, Pruned
    from pytest_seeddb.cli.run_status import CloneShown, KeptShown, RemainsShown, ServerShown, Status, TemplateShown
    from pytest_seeddb.templates.inventory import Owner

_DEFAULT_DAYS: Final = 14

_STATES: Final = {
    "running": "running",
    "started": "had stopped; started for this look, and stops again",
    "new": "never started; the first build or test run makes it",
}


def add(commands: Commands) -> None:
    """Declare them."""
    about = "show the server, its templates, and what else of pytest-seeddb's it holds"
    add_command(commands, "status", _status, about, plan=False)
    about = "drop templates, kept databases and leftovers that nobody uses; what is in use stays"
    prune = add_command(commands, "prune", _prune, about, plan=False)
    prune.add_argument(
        "--older-than",
        type=days,
        metavar="AGE",
        help="drop what was last used longer ago than this, 14d or 2w; 14d where no other choice is made",
    )
    prune.add_argument(
        "--budget", type=size, metavar="SIZE", help="drop the least recently used until the rest fits, 5GB"
    )
    prune.add_argument("--kept", action="store_true", help="drop all databases of failed tests")
    prune.add_argument("--all", action="store_true", help="drop everything")
    prune.add_argument("--dry-run", action="store_true", help="only show what would go, and drop nothing")
    about = "end the containers of pytest-seeddb's that nobody uses, with all that they hold"
    server = add_command(commands, "server", _stop, about, plan=False, server=False)
    server.add_argument("action", choices=("stop",), help="stop: remove them")


# -- server ---------------------------------------------------------------------------------------


def _stop(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.cli.run_server import stop

    found = stop(settings_of(parsed))
    if parsed.json:
        print(as_json(found))
        return 0
    for each in found.stopped:
        print(f"stopped  {each.identity}  {each.image}")
    for each in found.in_use:
        print(f"in use   {each.identity}  {each.image}")
    if not found.stopped and not found.in_use:
        print("no container of pytest-seeddb's is there")
    return 0


# -- status --------------------------------------------------------------------------------------


def _status(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.cli.run_status import status

    found = status(settings_of(parsed))
    print(as_json(found) if parsed.json else "\n".join(_shown(found)))
    return 0


def _shown(found: Status) -> Iterator[str]:
    yield from _server(found.server)
    yield from _templates(found.templates)
    yield from _leased("clones", found.clones)
    yield from _leased("orphans", found.orphans)
    yield from _kept(found.kept)
    yield from _remains(found.remains)


def _server(server: ServerShown) -> Iterator[str]:
    yield f"server     PostgreSQL {server.version} ({server.kind}, {server.origin})"
    yield f"           {_STATES[server.state]}"
    if server.data:
        yield f"data       {server.data}"


def _section(name: str, sizes: Sequence[int | None]) -> Iterator[str]:
    yield f"{name:<10} {len(sizes)}, {sized(sum(each or 0 for each in sizes))}" if sizes else f"{name:<10} none"


def _templates(templates: Sequence[TemplateShown]) -> Iterator[str]:
    yield from _section("templates", [each.size for each in templates])
    if templates:
        headings = ("PLAN/PROFILE", "", "SIZE", "AGE", "LAST USE", "DAYS USED", "PROCESSES", "CLONES", "DATABASE")
        yield from table(headings, [_template(each) for each in templates])


def _template(each: TemplateShown) -> tuple[str, ...]:
    label = f"{each.plan}/{each.profile}" if each.plan else "unknown"
    layer = "layer" if each.layer else ""
    used = (ago(each.created), each.used or "?", str(each.days), str(len(each.users)), str(each.clones))
    return (label, layer, sized(each.size), *used, each.name)


def _leased(name: str, clones: Sequence[CloneShown]) -> Iterator[str]:
    yield from _section(name, [each.size for each in clones])
    if clones:
        rows = [(each.kind, sized(each.size), _owner(each.owner), each.name) for each in clones]
        yield from table(("", "SIZE", "OWNER", "DATABASE"), rows)


def _kept(kept: Sequence[KeptShown]) -> Iterator[str]:
    yield from _section("kept", [each.size for each in kept])
    if kept:
        rows = [(sized(each.size), ago(each.created), str(each.connections), each.name) for each in kept]
        yield from table(("SIZE", "AGE", "CLIENTS", "DATABASE"), rows)


def _owner(owner: Owner | None) -> str:
    if owner is None:
        return "gone"
    host = f" on {owner.host}" if owner.host else ""
    who = f"process {owner.process}{host}" if owner.process else f"the server's process {owner.backend}"
    address = f" from {owner.address}" if owner.address else ""
    return f"{who}, {owner.role or 'another role'}{address}, {ago(owner.since)}"


def _remains(remains: Sequence[RemainsShown]) -> Iterator[str]:
    if remains:
        yield from _section("others", [each.size for each in remains])
        rows = [
            (each.kind, sized(each.size), each.used, "in use" if each.in_use else "", each.place) for each in remains
        ]
        yield from table(("", "SIZE", "LAST USE", "", "DIRECTORY"), rows)


# -- prune ---------------------------------------------------------------------------------------


def _prune(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.cli.run_prune import prune
    from pytest_seeddb.templates.pruning import Limits

    _refuse_limits_on_all(parsed)
    chosen = parsed.older_than is not None or parsed.budget is not None or parsed.kept or parsed.all
    unused = parsed.older_than if chosen else _DEFAULT_DAYS
    limits = Limits(unused, parsed.budget, kept=parsed.kept, everything=parsed.all)
    found = prune(settings_of(parsed), limits, dry_run=parsed.dry_run)
    print(as_json(found) if parsed.json else "\n".join(_pruned(found)))
    return 1 if any(each.failed for each in found.stays) else 0


def _refuse_limits_on_all(parsed: argparse.Namespace) -> None:
    limits = {"--older-than": parsed.older_than, "--budget": parsed.budget}
    given = [option for option, value in limits.items() if value is not None]
    if parsed.all and given:
        raise ConfigError(
            "These options do not go together",
            saw=f"--all with {' and '.join(given)}",
            source="the command line",
            remedy="leave --all out to drop only what the others let go, or leave them out to drop everything",
        )


def _pruned(found: Pruned) -> Iterator[str]:
    if found.gone:
        yield from table(("", "SIZE", "", "WHY", "NAME"), [_item(each) for each in found.gone])
    for each in found.stays:
        yield f"{each.name} stays: {each.reason}"
    verb = "would go" if found.dry_run else "went"
    yield f"{len(found.gone)} {verb}, {sized(found.freed)}; {sized(found.left)} stay, {_count(found.in_use)} in use"


def _item(each: Item) -> tuple[str, ...]:
    return (each.kind, sized(each.size), each.label, each.reason, each.name)


def _count(number: int) -> str:
    return "1 database" if number == 1 else f"{number} databases"
