"""The ``seeddb`` command. A module for each subcommand does its work and shows the result."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli.parser import make_parser
from pytest_seeddb.errors import ConfigError, SeedDbError

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    parsed = make_parser().parse_args(arguments)
    try:
        return int(import_module(parsed.module).run(parsed))
    except SeedDbError as error:
        print(f"seeddb: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        print("seeddb: interrupted", file=sys.stderr)
        return INTERRUPTED
