"""``seeddb apply``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pytest_seeddb.cli.options import add_command, as_json, settings_of
from pytest_seeddb.cli.progress import shown_progress
from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from pytest_seeddb.cli.applying import Applied, Todo
    from pytest_seeddb.cli.options import Commands

_ABOUT = "bring a database to the plan's state: migrate it, then seed it, as far as that was not done"


def add(commands: Commands) -> None:
    """Declare it."""
    apply = add_command(commands, "apply", _apply, _ABOUT, server=False)
    apply.add_argument("--url", metavar="URL", default="", help="the database; that of DATABASE_URL by default")
    tiers = ("none", "essential", "demo")
    apply.add_argument(
        "--tier", choices=tiers, default="", help="how far to seed; none: only migrate; the profile says"
    )
    apply.add_argument("--force", action="store_true", help="run all seeders again, whatever was noted")
    apply.add_argument("--accept", action="store_true", help="note what may not run again as applied, and leave it")
    apply.add_argument("--reset", action="store_true", help="empty the database first; asks, unless --yes is there")
    apply.add_argument("--yes", action="store_true", help="do not ask")
    apply.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    apply.add_argument(
        "--wait", type=_seconds, default=0.0, metavar="SECONDS", help="wait so long for the server to come up"
    )


def _seconds(given: str) -> float:
    try:
        found = float(given)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"give a number of seconds, not {given!r}")
    return found


def _apply(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.cli.applying import Wish
    from pytest_seeddb.cli.run_apply import Request, apply

    wish = Wish(parsed.force, parsed.accept, parsed.reset, parsed.dry_run, parsed.wait)
    request = Request(wish, parsed.url, parsed.tier, _always if parsed.yes else _confirmed, _warn)
    found = apply(settings_of(parsed), request, shown_progress())
    if found is None:
        print("seeddb: nothing was done", file=sys.stderr)
        return 1
    print(as_json(found) if parsed.json else _shown(found))
    return 0


def _always(_database: str) -> bool:
    return True


def _confirmed(database: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError(
            "--reset empties the database, and nobody is there to be asked",
            saw=database,
            source="the command line",
            remedy="add --yes if that is what you want",
        )
    print(f"All that is in {database} will be dropped. Type yes to go on: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"


def _warn(text: str) -> None:
    print(f"seeddb: warning: {text}", file=sys.stderr)


def _shown(found: Applied) -> str:
    how_far = ", no seeds" if found.tier == "none" else f"/{found.profile}, {found.tier}"
    label = f"{found.database}: {found.plan}{how_far}"
    if found.up_to_date:
        return f"{label}: up to date"
    lines = [_line(each, dry_run=found.dry_run) for each in found.steps if each.action != "done"]
    done = len(found.steps) - len(lines)
    head = "would do" if found.dry_run else f"applied in {found.seconds:.1f} s"
    return "\n".join([f"{label}: {head}", *lines, *([f"  {done} steps were done before"] if done else [])])


def _line(todo: Todo, *, dry_run: bool) -> str:
    words = {"run": "run" if dry_run else "ran", "accept": "accepted, not run", "refuse": "cannot be run"}
    seconds = "" if dry_run or todo.action != "run" else f", {todo.seconds:.1f} s"
    return f"  {words[todo.action]}: {todo.step} ({todo.reason}{seconds})"
