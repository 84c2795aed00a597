"""``seeddb dump``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_seeddb.cli.options import add_command, as_json, settings_of
from pytest_seeddb.cli.progress import shown_progress

if TYPE_CHECKING:
    import argparse

    from pytest_seeddb.cli.options import Commands
    from pytest_seeddb.cli.run_dump import Dumped

_ABOUT = "write the plan's state, or another database, into a file that psql or pg_restore reads"


def add(commands: Commands) -> None:
    """Declare it."""
    dump = add_command(commands, "dump", _dump, _ABOUT)
    dump.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help="the file or directory; the settings' own `dump` by default"
    )
    dump.add_argument(
        "--format",
        choices=("plain", "custom", "directory", "tar"),
        default="",
        help="that which the name tells by default: .sql and .sql.gz are plain, .dump is custom",
    )
    dump.add_argument(
        "--url",
        metavar="URL",
        nargs="?",
        const="",
        help="a database to dump instead of the plan's state; that of DATABASE_URL where no URL follows",
    )
    dump.add_argument(
        "--in-order", action="store_true", help="with --url: rows in the order of their keys, through a private copy"
    )
    dump.add_argument("--privileges", action="store_true", help="with owners and privileges, which are left out else")
    dump.add_argument(
        "--from-scratch", action="store_true", help="migrate and seed from the beginning, without the settings' `dump`"
    )


def _dump(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.cli.run_dump import Request, dump

    directory = parsed.directory or Path.cwd()
    output = directory / parsed.output if parsed.output else None
    request = Request(output, parsed.format, parsed.url, parsed.in_order, parsed.privileges, parsed.from_scratch)
    found = dump(settings_of(parsed), request, shown_progress())
    print(as_json(found) if parsed.json else _shown(found))
    return 0


def _shown(found: Dumped) -> str:
    here = Path.cwd()
    path = found.path.relative_to(here) if found.path.is_relative_to(here) else found.path
    return f"{path}: {found.of}, {found.format}, {found.size / 2**20:.2f} MB, in {found.seconds:.1f} s"
