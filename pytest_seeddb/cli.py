"""The ``seeddb`` command: parsing, rendering, exit codes. The one module that prints and exits."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ConfigError, SeedDbError
from pytest_seeddb.plan import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_seeddb.commands import Built, Explanation
    from pytest_seeddb.config import Found, Settings
    from pytest_seeddb.plan import Plan, Step

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
    parser = argparse.ArgumentParser(
        prog="seeddb",
        description="Seeded PostgreSQL databases from one declaration, [tool.seeddb] in pyproject.toml or seeddb.toml.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 interrupted.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "explain", _explain, "show what determines the template, part by part, and whether there is one")
    build = _add(commands, "build", _build, "build the template now, unless there is one")
    build.add_argument("--reseed", action="store_true", default=None, help="build although there is one")
    shell = _add(commands, "shell", _shell, "open psql on the database of a failed test", json=False)
    shell.add_argument("database", nargs="?", default="", metavar="DATABASE", help="its name; the newest by default")
    return parser


def _add(commands, name: str, run, about: str, *, json: bool = True) -> argparse.ArgumentParser:  # type: ignore[no-untyped-def]  # noqa: ANN001 - argparse's private types
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.", allow_abbrev=False
    )
    command.add_argument("--profile", metavar="NAME", help="the seed profile; that of the settings by default")
    command.add_argument("--server", metavar="SERVER", help="auto, embedded or a postgresql:// URL")
    command.add_argument("--directory", "-C", type=_directory, metavar="DIR", help="act as if started in DIR")
    if json:
        command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=run)
    return command


def _directory(given: str) -> Path:
    if not Path(given).is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {given!r}")
    return Path(given)


def _settings(parsed: argparse.Namespace) -> Settings:
    from pytest_seeddb.config import Found, load_settings

    options: dict[str, Found] = {
        name: Found(value, f"the option --{name}")
        for name in ("profile", "server", "reseed")
        if (value := getattr(parsed, name, None)) is not None
    }
    return load_settings((parsed.directory or Path.cwd()).resolve(), options=options)


def _explain(parsed: argparse.Namespace) -> int:
    from pytest_seeddb import commands

    found = commands.explain(_settings(parsed))
    print(_json(found) if parsed.json else _explanation(found))
    return OK


def _build(parsed: argparse.Namespace) -> int:
    from pytest_seeddb import commands

    found = commands.build(_settings(parsed), LineProgress())
    print(_json(found) if parsed.json else _built(found))
    return OK


def _shell(parsed: argparse.Namespace) -> int:
    from pytest_seeddb import commands

    with commands.shell(_settings(parsed), parsed.database) as (program, address):
        # In its environment, so that no password stands in the list of processes.
        environment = {**os.environ, **address.environment()}
        ended = subprocess.run([program], check=False, env=environment)  # noqa: S603 - psql, as it was found
        return OK if ended.returncode == 0 else FAILED


def _json(found: Explanation | Built) -> str:
    return json.dumps(dataclasses.asdict(found), indent=2)


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


class LineProgress(Progress):
    """A line for each step, on standard error."""

    def begin(self, plan: Plan, stages: str, total: int) -> None:
        """Say what is built."""
        self._started, self._done, self._total = perf_counter(), 0, total
        print(f"building {plan.name}/{plan.profile}: {stages}", file=sys.stderr)

    def step(self, step: Step) -> None:
        """Say which step begins."""
        self._done += 1
        seconds = perf_counter() - self._started
        print(f"  {self._done}/{self._total} {step.name} ({seconds:.1f} s)", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
