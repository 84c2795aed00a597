"""``seeddb init``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli.options import add_command, as_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_seeddb.cli.init import Initialised, Written
    from pytest_seeddb.cli.options import Commands

_ABOUT: Final = "look at a project, and write the settings and a first seeds module for it; overwrites nothing"


def add(commands: Commands) -> None:
    """Declare it."""
    init = add_command(commands, "init", _init, _ABOUT, plan=False, server=False)
    init.add_argument("--dry-run", action="store_true", help="only show what would be written")


def _init(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.cli.init import init

    found = init((parsed.directory or Path.cwd()).resolve(), dry_run=parsed.dry_run)
    print(as_json(found) if parsed.json else "\n".join(_shown(found)))
    return 0


def _shown(found: Initialised) -> Iterator[str]:
    width = max(len(each.what) for each in found.found)
    yield from (f"found    {each.what:<{width}}  {each.where}" for each in found.found)
    yield from (f"note     {each}" for each in found.notes)
    for each in found.files:
        yield from _written(each, dry_run=found.dry_run)
    yield ""
    yield from (f"next     {each}" for each in found.next)


def _written(file: Written, *, dry_run: bool) -> Iterator[str]:
    """Which file; its text where that is all that there is of it, and the settings in any case."""
    would = "would be " if dry_run else ""
    yield ""
    yield f"{file.file}, {would}{'made' if file.action == 'create' else 'added at its end'}" + (
        "" if file.file.endswith(".py") and not dry_run else ":"
    )
    if dry_run or not file.file.endswith(".py"):
        yield from (f"    {line}".rstrip() for line in file.text.strip().splitlines())
