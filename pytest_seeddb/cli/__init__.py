"""The ``seeddb`` command: parsing, rendering, exit codes. The one place that prints and exits.

A module for each group of subcommands; each of them has ``add(commands)``, which declares its
options, and renders what each command returns.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli import apply, dump, init, server, shell, templates, verify
from pytest_seeddb.cli.options import Parser
from pytest_seeddb.errors import ConfigError, SeedDbError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    parsed = make_parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except ConfigError as error:
        return _fail(error, USAGE)
    except SeedDbError as error:
        return _fail(error, FAILED)
    except KeyboardInterrupt:
        print("seeddb: interrupted", file=sys.stderr)
        return INTERRUPTED


def _fail(error: SeedDbError, code: int) -> int:
    print(f"seeddb: {error}", file=sys.stderr)
    return code


def make_parser() -> argparse.ArgumentParser:
    """The parser; the documentation of the command line is made from it."""
    parser = Parser(
        prog="seeddb",
        description="Seeded PostgreSQL databases from one declaration, [tool.seeddb] in pyproject.toml or seeddb.toml.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 interrupted.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (init, apply, dump, verify, templates, shell, server):
        group.add(commands)
    return parser
