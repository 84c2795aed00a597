"""The ``seeddb`` command. A module for each subcommand does its work and shows the result."""

from __future__ import annotations

import json
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli.output import parts_of, say, silence, stream_for_the_result
from pytest_seeddb.cli.parser import WrongUsage, make_parser
from pytest_seeddb.errors import ConfigError, SeedDbError, mask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 failed, 2 wrong usage, 3 pending, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        # What is to be alone on standard output must be so even if the options are wrong.
        is_alone = not {"--json", "--digest"}.isdisjoint(given)
        with stream_for_the_result(alone=is_alone, to_the_end=arguments is None) as stream:
            return _run(given, stream, is_json="--json" in given)
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # a shell can close them
            try:
                stream.flush()
            except BrokenPipeError:  # ``seeddb explain | head -1``
                silence(stream)


def _run(arguments: Sequence[str], stream: TextIO, *, is_json: bool) -> int:
    code, parsed = FAILED, None
    try:
        parsed = make_parser().parse_args(arguments)
        parsed.stream = stream
        return int(import_module(parsed.module).run(parsed))
    except WrongUsage as wrong:
        say(str(wrong).rstrip("\n"))
        code, error = USAGE, SeedDbError(wrong.message, source="the command line", remedy=f"see {wrong.prog} --help")
    except SeedDbError as failure:
        if parsed and parsed.verbose and failure.__cause__:
            say(mask("".join(traceback.format_exception(failure.__cause__))))
        say(f"seeddb: {failure}")
        code, error = USAGE if isinstance(failure, ConfigError) else FAILED, failure
    except KeyboardInterrupt:
        say("seeddb: interrupted")
        code, error = INTERRUPTED, SeedDbError("interrupted", source="the keyboard", remedy="run it again")
    except Exception as bug:
        if is_json:
            say(json.dumps({"error": parts_of(SeedDbError(f"{type(bug).__name__}: {bug}"))}, indent=2), stream)
        raise
    if is_json:
        say(json.dumps({"error": parts_of(error)}, indent=2), stream)
    return code
