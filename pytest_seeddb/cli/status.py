"""``seeddb status``: the server, its templates, and its other databases of this package."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.cli.output import ago, show, size_text, table
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.clones.apart import own_data
from pytest_seeddb.migrations.sources import DJANGO
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.opening import describe, embedded_status, open_server
from pytest_seeddb.settings.files import project_identity
from pytest_seeddb.templates.inventory import inventory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection, Iterator, Sequence

    from pytest_seeddb.servers.embedded import EmbeddedStatus
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.inventory import Entry, Owner

    Row = dict[str, Any]
    Cells = Callable[[Row, str], tuple[str, ...]]

_STATES: Final = {
    "running": "running",
    "started": "was stopped; started for this command, and will stop again",
    "new": "never started; the first build or test run makes it",
}
_PROJECTS: Final = {True: "own", False: "other", None: "unknown"}
_MARKS: Final = {"own": "", "other": "of another project", "unknown": "of an unknown project"}


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    status = _status(settings_of(parsed), every=parsed.all)
    show(parsed, status, _lines(status), with_quiet=True)
    return 0


def _status(settings: Settings, *, every: bool) -> dict[str, Any]:
    """Look at the server that the settings name, started if it is stopped and keeps databases; changes nothing else."""
    if settings.server == "container":
        from pytest_seeddb.servers.container import is_running  # not on Windows

        if not is_running(settings):
            return _result(settings, _server("new", "container", "", describe(settings)))
    embedded = embedded_status(settings)
    if embedded and not (embedded.running or embedded.kept):
        binaries = embedded.binaries
        server = _server("new", "embedded", binaries.version, binaries.origin, str(embedded.state))
        server["storage"] = str(embedded.storage)
        return _result(settings, server, remains=_remains(embedded) if every else ())
    with open_server(settings) as opened, Admin(opened.address) as admin:
        with server_errors("The databases could not be listed", opened.address):
            entries = inventory(admin)
        own = {}
        for key, plan in own_data(opened, settings.root).items():
            with open_server(settings, key) as place, Admin(place.address) as its_admin:
                entries += inventory(its_admin)
                own[str(place.state)] = plan
        state = "running" if embedded is None or embedded.running else "started"
        origin = opened.origin if embedded else opened.address.masked
        server = _server(state, opened.kind, opened.version, origin, str(embedded.state) if embedded else "")
        server["own"] = own
        server["storage"] = str(embedded.storage) if embedded else ""
        ours = entries if every else own_entries(entries, settings)
        status = _result(settings, server, ours, _remains(embedded, own) if embedded and every else ())
        others = [entry for entry in entries if entry not in ours]
        return {**status, "others": {"number": len(others), "size": sum(entry.size or 0 for entry in others)}}


def own_entries(entries: Sequence[Entry], settings: Settings) -> list[Entry]:
    """Those of the project, and those of which nothing says whose they are; of clones in use, their users say it."""
    ownership = _ownership(entries, settings)
    may_be_own = {name for name, is_own in ownership.items() if is_own is not False}
    users: dict[bool, set[Owner]] = {True: set(), False: set()}
    for entry in entries:
        if entry.kind == "template":
            users[entry.name in may_be_own].update(entry.users)
    strangers = users[False] - users[True]
    return [entry for entry in entries if entry.name in may_be_own and strangers.isdisjoint(entry.users)]


def _ownership(entries: Sequence[Entry], settings: Settings) -> dict[str, bool | None]:
    """Whether each entry belongs to the project, by name; see `Entry.is_of`."""
    project, is_django = project_identity(settings.root), settings.migrations == DJANGO
    return {entry.name: entry.is_of(settings.name, project, is_django=is_django) for entry in entries}


def _server(state: str, kind: str, version: str, origin: str, data: str = "") -> Row:
    return {"state": state, "kind": kind, "version": version, "origin": origin, "data": data, "own": {}, "storage": ""}


def _remains(embedded: EmbeddedStatus, own: Collection[str] = ()) -> list[Row]:
    """What embedded servers of other versions or places have left in the cache directory."""
    from pytest_seeddb.servers.remains import remains  # not on Windows

    return [
        {"kind": item.kind, "place": str(item.place), "size": item.size, "used": item.used, "in_use": item.in_use}
        for item in remains()
        if item.state != embedded.state and str(item.state) not in own
    ]


def _result(
    settings: Settings, server: Row, entries: Sequence[Entry] = (), remains: Sequence[Row] = ()
) -> dict[str, Any]:
    ownership = _ownership(entries, settings)
    leased = [_clone(entry, entries) for entry in entries if entry.kind in {"clone", "build"}]
    # Those of processes that use no other template.
    clones = Counter(row["templates"] for row in leased)
    templates = [
        {**_template(entry), "clones": clones[(entry.name,)], "project": _PROJECTS[ownership[entry.name]]}
        for entry in entries
        if entry.kind == "template"
    ]
    templates.sort(key=lambda row: (row["plan"], row["profile"], not row["layer"], row["created"]))
    kept = [
        {"name": entry.name, "size": entry.size, "created": entry.created, "connections": entry.connections}
        for entry in entries
        if entry.kind == "kept"
    ]
    return {
        "server": server,
        "templates": templates,
        "clones": [row for row in leased if row["owner"]],
        "orphans": [row for row in leased if not row["owner"]],
        "kept": kept,
        "remains": remains,
        "others": {"number": 0, "size": 0},
    }


def _clone(entry: Entry, entries: Sequence[Entry]) -> Row:
    """A clone or an unfinished build, with the templates that its owner makes clones from; layers are for builds."""
    owner = entry.users[0] if entry.users else None
    templates = [
        other.name
        for other in entries
        if other.kind == "template" and owner in other.users and not (other.record and other.record.layer)
    ]
    return {
        "name": entry.name,
        "kind": entry.kind,
        "size": entry.size,
        "owner": owner,
        "templates": tuple(templates) if entry.kind == "clone" else (),
    }


def _template(entry: Entry) -> Row:
    record = entry.record
    return {
        "name": entry.name,
        "plan": record.plan if record else "",
        "profile": record.profile if record else "",
        "layer": bool(record and record.layer),
        "size": entry.size,
        "created": entry.created,
        "used": entry.used,
        "days": record.days if record else 0,
        "users": entry.users,
    }


def _lines(status: dict[str, Any]) -> Iterator[str]:
    server = status["server"]
    yield f"server     PostgreSQL {server['version']} ({server['kind']}, {server['origin']})"
    yield f"           {_STATES[server['state']]}"
    if server["data"]:
        yield f"data       {server['data']}"
    yield from (f"           {directory}, of {plan} alone" for directory, plan in server["own"].items())
    if server["storage"]:
        yield f"storage    {server['storage']}"
    headings = ("PLAN/PROFILE", "", "SIZE", "AGE", "LAST USE", "DAYS USED", "PROCESSES", "CLONES", "DATABASE", "")
    yield from _section("templates", status["templates"], headings, _template_cells)
    for name in ("clones", "orphans"):
        yield from _section(
            name,
            status[name],
            ("", "SIZE", "OWNER", "DATABASE"),
            lambda row, size: (row["kind"], size, _owner(row["owner"]), row["name"]),
        )
    yield from _section(
        "kept",
        status["kept"],
        ("SIZE", "AGE", "CLIENTS", "DATABASE"),
        lambda row, size: (size, ago(row["created"]), str(row["connections"]), row["name"]),
    )
    if status["remains"]:
        yield from _section(
            "others",
            status["remains"],
            ("", "SIZE", "LAST USE", "", "DIRECTORY"),
            lambda row, size: (row["kind"], size, row["used"], "in use" if row["in_use"] else "", row["place"]),
        )
    if number := status["others"]["number"]:
        databases = f"{number} {'database' if number == 1 else 'databases'} of other projects"
        yield f"--all      shows {databases}, too, {size_text(status['others']['size'])}"


def _section(name: str, rows: Sequence[Row], headings: tuple[str, ...], cells: Cells) -> Iterator[str]:
    if not rows:
        yield f"{name:<10} none"
        return
    yield f"{name:<10} {len(rows)}, {size_text(sum(row['size'] or 0 for row in rows))}"
    yield from table(headings, [cells(row, size_text(row["size"])) for row in rows])


def _template_cells(row: Row, size: str) -> tuple[str, ...]:
    label = f"{row['plan']}/{row['profile']}" if row["plan"] else "unknown"
    used = (ago(row["created"]), row["used"] or "?", str(row["days"]), str(len(row["users"])), str(row["clones"]))
    mark = _MARKS[row["project"]] if row["plan"] else ""
    return (label, "layer" if row["layer"] else "", size, *used, row["name"], mark)


def _owner(owner: Owner | None) -> str:
    if owner is None:
        return "gone"
    host = f" on {owner.host}" if owner.host else ""
    process = f"process {owner.process}{host}" if owner.process else f"the server's process {owner.backend}"
    address = f" from {owner.address}" if owner.address else ""
    return f"{process}, {owner.role or 'another role'}{address}, {ago(owner.since)}"
