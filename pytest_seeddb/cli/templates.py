"""``seeddb explain`` and ``seeddb build``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_seeddb.cli.options import add_command, as_json, settings_of
from pytest_seeddb.cli.progress import shown_progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_seeddb.cli.options import Commands
    from pytest_seeddb.cli.run_templates import Built, Compared, Explanation
    from pytest_seeddb.fingerprint.digests import Difference


def add(commands: Commands) -> None:
    """Declare them."""
    about = "show what determines the template, part by part, and whether there is one"
    explain = add_command(commands, "explain", _explain, about)
    only = explain.add_mutually_exclusive_group()
    only.add_argument(
        "--diff", action="store_true", help="only what differs from the last build of this plan and profile"
    )
    only.add_argument("--digest", action="store_true", help="only the fingerprint: a key for a cache in CI")
    build = add_command(commands, "build", _build, "build the template now, unless there is one")
    fresh = build.add_mutually_exclusive_group()
    fresh.add_argument("--reseed", action="store_true", default=None, help="build although there is one")
    fresh.add_argument(
        "--import",
        dest="imported",
        type=Path,
        metavar="FILE",
        help="restore what an earlier build exported; build where it is of another plan, damaged or not there",
    )
    build.add_argument(
        "--export", dest="exported", type=Path, metavar="FILE", help="write the template into a file, for --import"
    )


def _explain(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.cli.run_templates import compare, explain

    if parsed.diff:
        compared = compare(settings_of(parsed))
        print(as_json(compared) if parsed.json else "\n".join(_comparison(compared)))
        return 0
    found = explain(settings_of(parsed))
    print(found.fingerprint if parsed.digest else as_json(found) if parsed.json else _explanation(found))
    return 0


def _build(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.cli.run_templates import Files, build

    base = parsed.directory or Path.cwd()
    files = Files(*(base / each if each else None for each in (parsed.imported, parsed.exported)))
    found = build(settings_of(parsed), shown_progress(), files)
    if found.not_imported:
        print(f"seeddb: nothing was imported: {found.not_imported}", file=sys.stderr)
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


def _comparison(found: Compared) -> Iterator[str]:
    yield f"plan        {found.plan}"
    yield f"profile     {found.profile}"
    if not found.built:
        yield "last build  none: the next run builds this plan and profile for the first time"
        return
    yield f"last build  {found.built[:19].replace('T', ' ')} UTC"
    yield from (_difference(each) for each in found.differences)
    if not found.differences:
        yield "no difference"


def _difference(each: Difference) -> str:
    arrow = " -> " if each.before and each.after else ""
    values = f": {each.before}{arrow}{each.after}" if each.before or each.after else ""
    others = f" and {len(each.steps) - 1} more" if len(each.steps) > 1 else ""
    steps = f"  ({each.steps[0]}{others})" if each.steps else ""
    return f"{each.kind:<11} {each.name}{values}{steps}"


def _built(found: Built) -> str:
    label = f"template {found.plan}/{found.profile}"
    exported = f"\nexported to {found.exported}" if found.exported else ""
    if not found.built:
        return f"{label} is there already: {found.template}{exported}"
    return (
        f"{label} built in {found.seconds:.1f} s: {found.reason}\n"
        f"{found.template}, {found.size / 2**20:.1f} MB, cloned by {found.strategy}{exported}"
    )
