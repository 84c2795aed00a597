"""The options of each command, and the settings that they make."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.cli.completion import complete
from pytest_seeddb.cli.output import UNITS, say
from pytest_seeddb.errors import mask
from pytest_seeddb.settings.converters import did_you_mean

if TYPE_CHECKING:
    from typing import NoReturn

    from pytest_seeddb.settings.settings import Settings

    Commands = argparse._SubParsersAction["Parser"]  # noqa: SLF001 - it has no public name

_SIZE: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?b|[kmgt])", re.IGNORECASE)
_DAYS: Final = re.compile(r"(?P<number>\d{1,5})\s*(?P<unit>d|days?|w|weeks?)", re.IGNORECASE)

EXAMPLES: Final = {
    "init": "seeddb init --dry-run",
    "apply": "DATABASE_URL=postgresql://localhost/shop seeddb apply --wait 60",
    "seeds": "seeddb seeds --profile demo",
    "dump": "seeddb dump -o seed-db.sql",
    "verify": "seeddb verify --profile demo",
    "explain": "seeddb explain --diff",
    "build": "seeddb build --profile demo",
    "shell": "seeddb shell --fresh",
    "show": "seeddb show --profile demo --html demo.html",
    "status": "seeddb status --json",
    "prune": "seeddb prune --older-than 30d --dry-run",
    "server": "seeddb server stop",
    "completion": "seeddb completion bash >> ~/.bashrc",
}
"""For the help of each command."""


class WrongUsage(Exception):  # noqa: N818 - it is caught in `pytest_seeddb.cli.main`
    """The command line is wrong. As text it is what argparse prints."""

    def __init__(self, parser: argparse.ArgumentParser, message: str) -> None:
        self.message = mask(message)
        self.prog = parser.prog
        super().__init__(f"{parser.format_usage()}{parser.prog}: error: {self.message}\n")


class _Formatter(argparse.HelpFormatter):
    """Leaves the lines of an example as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class _Version(argparse.Action):
    """Looks for the version only when it is asked for, which takes longer than the rest."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        say(f"pytest-seeddb {version('pytest-seeddb')}", sys.stdout)
        parser.exit()


class Parser(argparse.ArgumentParser):
    """A parser that suggests the word that was meant, in the same text on every Python, and masks passwords."""

    def error(self, message: str) -> NoReturn:
        """Raises `WrongUsage`."""
        raise WrongUsage(self, message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 - as argparse has it
        """Know them all: a command's own parser is asked here, and so names its own options."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [option for option in self._option_string_actions if option.startswith("--")]
            option = next((word.partition("=")[0] for word in unknown if word.startswith("-")), "")
            near = did_you_mean(option, options) if option else ""
            self.error(f"unrecognized arguments: {' '.join(map(_without_value, unknown))}{'. ' if near else ''}{near}")
        return parsed, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401 - as argparse has it
        allowed = None if action.choices is None else [str(choice) for choice in action.choices]
        if allowed is None or value in allowed:
            return
        parts = (f"there is no {value!r}.", did_you_mean(str(value), allowed), f"Choose from {', '.join(allowed)}")
        raise argparse.ArgumentError(action, " ".join(filter(None, parts)))


def make_parser() -> Parser:
    """The parser; the documentation of the command line is made from it."""
    parser = Parser(
        prog="seeddb",
        description="Seeded PostgreSQL databases from one declaration, [tool.seeddb] in pyproject.toml or seeddb.toml.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 something is pending (apply --check), "
        "130 interrupted.\n\nexample:\n  seeddb init; seeddb build; pytest --seed-db",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    _add_loudness(parser, False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_commands_for_plans(commands)
    _add_commands_for_templates(commands)
    _add_commands_for_servers(commands)
    complete(parser, commands.choices)
    return parser


def _add_loudness(parser: Parser, default: Any) -> None:  # noqa: ANN401 - a value, or argparse's mark for none
    """Options that stand before or after the command."""
    about = "print only errors, and what was asked for: no progress, and nothing about what was done"
    parser.add_argument("--quiet", "-q", action="store_true", default=default, help=about)
    about = "print more: each step as it begins, steps that were done before, and an error's traceback"
    parser.add_argument("--verbose", "-v", action="store_true", default=default, help=about)


def _add_commands_for_plans(commands: Commands) -> None:
    about = "write settings and a first seeds module for a project; existing files are never changed"
    init = _add(commands, "init", about, plan=False, server=False)
    init.add_argument("--dry-run", action="store_true", help="only show what would be written")
    init.add_argument(
        "--no-import", action="store_true", help="only read the files, and import nothing of what would be written"
    )

    about = "bring a database to the plan's state: run the migrations and seeds that it lacks"
    apply = _add(commands, "apply", about, server=False)
    apply.add_argument("--url", metavar="URL", default="", help="the database; by default, the one in DATABASE_URL")
    which = apply.add_mutually_exclusive_group()
    about = "which seeds to run (none: only migrate); by default, the profile decides"
    which.add_argument("--tier", choices=("none", "essential", "demo"), default="", help=about)
    about = "run this seeder alone, as `seeddb seeds` names it; no migration runs"
    which.add_argument("--only", metavar="NAME", default="", help=about)
    apply.add_argument(
        "--force", action="store_true", help="run all seeders again, even those that are recorded as applied"
    )
    apply.add_argument(
        "--accept", action="store_true", help="do not run seeders that must not run twice, only record them as applied"
    )
    apply.add_argument("--reset", action="store_true", help="empty the database first; asks, unless you give --yes")
    apply.add_argument("--yes", action="store_true", help="do not ask")
    only = apply.add_mutually_exclusive_group()
    about = "only show what would be done, and whether that is certain to fail; runs and changes nothing"
    only.add_argument("--dry-run", action="store_true", help=about)
    about = "as --dry-run; exit with 3 if something is pending"
    only.add_argument("--check", action="store_true", help=about)
    about = "how long to wait for the server to start"
    apply.add_argument("--wait", type=_seconds, default=0.0, metavar="SECONDS", help=about)
    about = "with --reset: how long to wait for other users' locks on the database; by default 10"
    apply.add_argument("--lock-timeout", type=_seconds, default=10.0, metavar="SECONDS", help=about)

    about = "list the seeders in the order in which they run, with their tiers and parameters, and the profiles"
    _add(commands, "seeds", about, server=False)

    about = "write the plan's state, or another database, to a file for psql or pg_restore"
    dump = _add(commands, "dump", about)
    about = "the file or directory to write; by default, the setting `dump`"
    dump.add_argument("--output", "-o", type=Path, metavar="FILE", help=about)
    about = "by default the file's name decides: .sql and .sql.gz are plain, .dump is custom"
    dump.add_argument("--format", choices=("plain", "custom", "directory", "tar"), default="", help=about)
    about = "dump this database instead of the plan's state; without a URL, the one in DATABASE_URL"
    dump.add_argument("--url", metavar="URL", nargs="?", const="", help=about)
    about = "with --url: sort the rows by their keys, in a private copy"
    dump.add_argument("--in-order", action="store_true", help=about)
    dump.add_argument("--privileges", action="store_true", help="include owners and privileges")
    about = "migrate and seed from the beginning, without restoring the setting `dump`"
    dump.add_argument("--from-scratch", action="store_true", help=about)

    about = "check that seeds are deterministic (and idempotent if declared so), and that the dump fits the migrations"
    verify = _add(commands, "verify", about)
    verify.add_argument("--dump", action="store_true", help="check only the dump that the settings name")


def _add_commands_for_templates(commands: Commands) -> None:
    about = "show every part that determines the template, and whether the template exists"
    explain = _add(commands, "explain", about)
    only = explain.add_mutually_exclusive_group()
    about = "show only the differences from the last build of this plan and profile"
    only.add_argument("--diff", action="store_true", help=about)
    only.add_argument(
        "--digest",
        action="store_true",
        help="print only a digest for a CI cache key, from files and settings alone, without a server or a build",
    )
    about = "show only which steps depend on a file, and through what"
    only.add_argument("--why", metavar="FILE", help=about)

    about = "show what the template holds: its tables with their rows, the steps that wrote them, and foreign keys"
    shown = _add(commands, "show", about)
    about = "only this table; repeatable"
    shown.add_argument("--table", metavar="NAME", action="append", default=[], help=about)
    about = "rows of each table to show, the first by its primary key; by default 3"
    shown.add_argument("--rows", type=_number, metavar="N", default=3, help=about)
    about = "write a page with a picture of the foreign keys instead"
    shown.add_argument("--html", type=Path, metavar="FILE", help=about)

    build = _add(commands, "build", "build the template now, unless it exists")
    fresh = build.add_mutually_exclusive_group()
    fresh.add_argument("--reseed", action="store_true", default=None, help="build it even if it exists")
    about = "restore the template from an --export file; build it if the file is missing, damaged or of another plan"
    fresh.add_argument("--import", dest="imported", type=Path, metavar="FILE", help=about)
    about = "write the template to a file, for --import"
    build.add_argument("--export", dest="exported", type=Path, metavar="FILE", help=about)


def _add_commands_for_servers(commands: Commands) -> None:
    about = "open psql on the database of a failed test, or on a fresh clone"
    shell = _add(commands, "shell", about, json=False)
    which = shell.add_mutually_exclusive_group()
    which.add_argument(
        "database", nargs="?", default="", metavar="DATABASE", help="the database's name; by default, the newest one"
    )
    which.add_argument("--fresh", action="store_true", help="open a new clone of the template, and drop it afterwards")
    about = "open a Python prompt instead of psql, with engine, session, connection and url"
    shell.add_argument("--python", action="store_true", help=about)

    about = "show the server, the project's templates, and everything else that pytest-seeddb keeps there for it"
    status = _add(commands, "status", about, plan=False)
    status.add_argument("--all", action="store_true", help="show what other projects have there, too")

    about = "drop the project's templates, kept databases and leftovers that are not in use"
    prune = _add(commands, "prune", about, plan=False)
    about = "drop databases not used for this long (14d, 2w); by default 14d, unless another option selects"
    prune.add_argument("--older-than", type=_days, metavar="AGE", help=about)
    about = "drop the least recently used databases until the rest fits into this size (5GB)"
    prune.add_argument("--budget", type=_size, metavar="SIZE", help=about)
    prune.add_argument("--kept", action="store_true", help="drop all databases of failed tests")
    about = "look at all projects, and at what other embedded servers left; without a limit, drop everything"
    prune.add_argument("--all", action="store_true", help=about)
    prune.add_argument("--dry-run", action="store_true", help="only show what would be dropped")

    about = "print a script for the shell's start-up file, which lets it complete seeddb's command line"
    completion = _add(commands, "completion", about, plan=False, server=False, json=False)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")

    about = "stop pytest-seeddb's containers that are not in use, and remove them with their data"
    server = _add(commands, "server", about, plan=False, server=False)
    server.add_argument("action", choices=("stop",), help="stop: stop and remove them")


def _add(
    commands: Commands, name: str, about: str, *, json: bool = True, server: bool = True, plan: bool = True
) -> Parser:
    """Declare a command, run by the module of its name, with the options that most of them have."""
    command = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"example:\n  {EXAMPLES[name]}",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    command.set_defaults(module=f"pytest_seeddb.cli.{name}", json=False)
    if plan:
        command.add_argument("--profile", metavar="NAME", help="the seed profile; by default, the one in the settings")
        about = "a seed parameter; repeatable"
        command.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], type=_parameter, help=about)
    if server:
        command.add_argument("--server", metavar="SERVER", help="auto, embedded, container or a postgresql:// URL")
    command.add_argument("--directory", "-C", type=_directory, metavar="DIR", help="act as if started in DIR")
    if json:
        command.add_argument("--json", action="store_true", help="print the result, or the error, as JSON")
    _add_loudness(command, argparse.SUPPRESS)
    return command


def _without_value(word: str) -> str:
    name, equals, _ = word.partition("=")  # the value may be a secret: --set with a command that has none
    return f"{name}=..." if equals else word


def _directory(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {text!r}")
    return Path(text)


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        # The value may be a secret, with its name or alone.
        shown = repr(f"{name}=...") if equals else "a value without a name"
        raise argparse.ArgumentTypeError(f"write NAME=VALUE, not {shown}")
    return name.strip(), value


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"give a number of rows, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"give a number of seconds, not {text!r}")
    return seconds


def _size(text: str) -> int:
    """Bytes, from ``500MB``, ``1.5 GB`` or ``2G``."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"write a size as a number and a unit, 500MB or 5GB, not {text!r}")
    power = [unit[0].lower() for unit in UNITS].index(match["unit"][0].lower())
    return int(float(match["number"]) * 1024**power)


def _days(text: str) -> int:
    """Days, from ``14d``, ``2w`` or ``3 weeks``."""
    match = _DAYS.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"write days or weeks, 14d or 2w (uses are known to the day), not {text!r}")
    return int(match["number"]) * (7 if match["unit"][0] in "wW" else 1)


def settings_of(parsed: argparse.Namespace) -> Settings:
    """The settings, with what was given on the command line, for a project as pytest sees it; raises `ConfigError`."""
    from pytest_seeddb.settings import pytest_files
    from pytest_seeddb.settings.settings import Found, load_settings

    start = (parsed.directory or Path.cwd()).resolve()
    pytest_files.put_on_path(start)
    # The tests' variables, such as ENVIRONMENT=test, say nothing about a database that a URL names.
    if getattr(parsed, "url", None) is None:
        pytest_files.set_variables(start)
        pytest_files.set_django_settings(start)
    options = {
        name: Found(value, f"the option --{name}")
        for name in ("profile", "server", "reseed")
        if (value := getattr(parsed, name, None)) is not None
    }
    parameters = {name: Found(value, f"the option --set {name}=...") for name, value in getattr(parsed, "set", [])}
    return load_settings(start, options=options, parameters=parameters)
