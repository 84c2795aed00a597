"""``seeddb explain``: what determines a template, and what differs from the last build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_seeddb.cli.lines import changed_lines
from pytest_seeddb.cli.output import show
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.clones.opening import open_worker
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import relative_name
from pytest_seeddb.fingerprint.environment import is_variable
from pytest_seeddb.fingerprint.participation import file_of
from pytest_seeddb.seeds.inputs import static_digest
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.settings.converters import did_you_mean

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_seeddb.plan.plan import Plan
    from pytest_seeddb.templates.templates import Look


def run(parsed: argparse.Namespace) -> int:
    """Run the command. Builds nothing."""
    if parsed.diff:
        return _compare(parsed)
    settings = settings_of(parsed)
    if parsed.digest:
        digest = static_digest(settings)
        show(parsed, {"digest": digest}, [digest], with_quiet=True)
        return 0
    plan = plan_of(settings)
    with open_worker(settings) as worker:
        server = worker.server
        look = worker.look(plan)
    code = dict(look.code)
    if parsed.why:
        file = relative_name((parsed.directory or Path.cwd()) / parsed.why, plan.root)
        uses = _uses(file, plan, look)
        if not uses and not (plan.root / file).exists():
            raise _missing(file, plan, look)
        lines = [line for name, names in uses.items() for line in (name, *(f"    {used}" for used in names))]
        show(parsed, uses, lines or [f"no step depends on {file}"], with_quiet=True)
        return 0
    result: dict[str, Any] = {
        "plan": plan.name,
        "profile": plan.profile,
        "server": f"PostgreSQL {server.version} ({server.kind}, {server.origin})",
        "fingerprint": look.fingerprints[-1],
        "template": look.template,
        "reason": look.reason,
        "settings": {key: settings.source(key) for key in settings.sources},
        "notes": [note.text for stage in plan.stages for note in stage.notes],
        "steps": [
            {
                "name": name,
                "fingerprint": fingerprint,
                "parts": [{"name": part.name, "digest": part.text} for part in (*parts, *code.get(name, ()))],
            }
            for (name, parts), fingerprint in zip(look.steps, look.fingerprints, strict=True)
        ],
        # Variables without values, and without what a value could be guessed from.
        "read": [{"name": part.name, "digest": "" if is_variable(part.name) else part.text} for part in look.opened],
    }
    show(parsed, result, _lines(result), with_quiet=True)
    return 0


def _uses(file: str, plan: Plan, look: Look) -> dict[str, list[str]]:
    """The steps that depend on a file: what the first ones need of it, and through which file the others reach it."""
    code, steps = dict(look.code), {step.name: step for step in plan.steps}
    inputs = [*((name, (*parts, *code.get(name, ()))) for name, parts in look.steps), ("the build", look.opened)]
    needs = {name: [part.name for part in parts if file_of(part.name) == file] for name, parts in inputs}
    takes_part = any(needs.values())
    for name, step in steps.items():
        if takes_part and not needs[name] and file in step.code:
            needs[name] = [f"{file}, through {' or '.join(root.file for root in step.roots)}"]
    return {name: names for name, names in needs.items() if names}


def _missing(file: str, plan: Plan, look: Look) -> ConfigError:
    parts = (part for _, some in (*look.steps, *look.code) for part in some)
    files = {file_of(part.name) for part in parts}.union(*(step.code for step in plan.steps))
    files |= {relative_name(path, plan.root) for path in (plan.root / file).parent.glob("*")}
    return ConfigError(
        f"There is no file {file}",
        saw=f"it is not in {plan.root}, and no step depends on it. {did_you_mean(file, files)}".strip(),
        source="the option --why",
        remedy="name a file by its path from the directory where the command is started",
    )


def _lines(result: dict[str, Any]) -> Iterator[str]:
    yield from (f"{key:<11} {result[key]}" for key in ("plan", "profile", "server"))
    yield from (f"setting     {key} from {source}" for key, source in result["settings"].items())
    yield from (f"note        {note}" for note in result["notes"])
    for step in result["steps"]:
        yield ""
        yield f"{step['fingerprint'][:12]}  {step['name']}"
        yield from (f"    {part['digest']:<16}  {part['name']}" for part in step["parts"])
    if result["read"]:
        yield ""
        yield "read by the build"
        yield from (f"    {read['digest']:<16}  {read['name']}" for read in result["read"])
    template = result["template"] or f"none; next run builds: {result['reason']}"
    yield ""
    yield f"fingerprint {result['fingerprint']}"
    yield f"template    {template}"


def _compare(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    plan = plan_of(settings)
    with open_worker(settings) as worker:
        comparison = worker.compare(plan)
    result = {
        "plan": plan.name,
        "profile": plan.profile,
        "built": comparison.before.created if comparison else "",
        "differences": [
            {**vars(difference), "lines": changed_lines(difference.name, comparison.before, plan.root)}
            for difference in comparison.differences
        ]
        if comparison
        else (),
    }
    show(parsed, result, _difference_lines(result), with_quiet=True)
    return 0


def _difference_lines(result: dict[str, Any]) -> Iterator[str]:
    yield from (f"{key:<11} {result[key]}" for key in ("plan", "profile"))
    if not result["built"]:
        yield "last build  none: the server knows no build of this plan and profile by this project"
        return
    yield f"last build  {result['built'][:19].replace('T', ' ')} UTC"
    for difference in result["differences"]:
        values = " -> ".join(filter(None, (difference["before"], difference["after"])))
        first, *others = difference["steps"] or ("",)
        steps = f"  ({first}{f' and {len(others)} more' if others else ''})" if first else ""
        yield f"{difference['kind']:<11} {difference['name']}{f': {values}' if values else ''}{steps}"
        yield from (f"            {line}" for line in difference["lines"])
    if not result["differences"]:
        yield "no difference"
