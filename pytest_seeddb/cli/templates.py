"""``seeddb explain`` and ``seeddb build``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_seeddb.cli.options import add_command, as_json, settings_of
from pytest_seeddb.cli.progress import LineProgress

if TYPE_CHECKING:
    import argparse

    from pytest_seeddb.cli.options import Commands
    from pytest_seeddb.commands.templates import Built, Explanation


def add(commands: Commands) -> None:
    """Declare them."""
    add_command(
        commands, "explain", _explain, "show what determines the template, part by part, and whether there is one"
    )
    build = add_command(commands, "build", _build, "build the template now, unless there is one")
    build.add_argument("--reseed", action="store_true", default=None, help="build although there is one")


def _explain(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.commands.templates import explain

    found = explain(settings_of(parsed))
    print(as_json(found) if parsed.json else _explanation(found))
    return 0


def _build(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.commands.templates import build

    found = build(settings_of(parsed), LineProgress())
    print(as_json(found) if parsed.json else _built(found))
    return 0


def _explanation(found: Explanation) -> str:
    lines = [f"plan        {found.plan}", f"profile     {found.profile}", f"server      {found.server}"]
    lines += [f"setting     {key} from {source}" for key, source in found.settings.items()]
    for step in found.steps:
        lines += ["", f"{step.fingerprint[:12]}  {step.name}"]
        lines += [f"    {part.digest:<16}  {part.name}" for part in step.parts]
    lines += ["", f"fingerprint {found.fingerprint}"]
    lines += [
        f"template    {found.template}" if found.template else f"template    none; next run builds: {found.reason}"
    ]
    return "\n".join(lines)


def _built(found: Built) -> str:
    label = f"template {found.plan}/{found.profile}"
    if not found.built:
        return f"{label} is there already: {found.template}"
    return (
        f"{label} built in {found.seconds:.1f} s: {found.reason}\n"
        f"{found.template}, {found.size / 2**20:.1f} MB, cloned by {found.strategy}"
    )
