"""What all subcommands have in common: their options, the settings from them, and JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_seeddb.errors import mask
from pytest_seeddb.settings.converters import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from pytest_seeddb.settings.settings import Found, Settings

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name
    Run = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """One that asks whether another word was meant, in the same words on every Python, and shows no password."""

    def error(self, message: str) -> NoReturn:
        """As argparse does it, with passwords masked."""
        super().error(mask(message))

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401 - as argparse has it
        allowed = None if action.choices is None else [str(each) for each in action.choices]
        if allowed is None or value in allowed:
            return
        told = (f"there is no {value!r}.", did_you_mean(str(value), allowed), f"Choose from {', '.join(allowed)}")
        raise argparse.ArgumentError(action, " ".join(filter(None, told)))


def add_command(  # noqa: PLR0913 - switches, each with its name
    commands: Commands, name: str, run: Run, about: str, *, json: bool = True, server: bool = True, plan: bool = True
) -> argparse.ArgumentParser:
    """Declare a subcommand with the options that all of them have.

    Args:
        commands: Where it belongs.
        name: What people type.
        run: What it does; returns the exit code.
        about: What it does, in words that begin with a small letter.
        json: Whether it can print its result as JSON.
        server: Whether it works on a server of ours.
        plan: Whether it works on a plan, and so takes a profile and seed parameters.
    """
    command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.", allow_abbrev=False)
    if plan:
        command.add_argument("--profile", metavar="NAME", help="the seed profile; that of the settings by default")
        command.add_argument(
            "--set",
            metavar="NAME=VALUE",
            action="append",
            default=[],
            type=_parameter,
            help="a seed parameter; repeatable",
        )
    if server:
        command.add_argument("--server", metavar="SERVER", help="auto, embedded, container or a postgresql:// URL")
    command.add_argument("--directory", "-C", type=_directory, metavar="DIR", help="act as if started in DIR")
    if json:
        command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=run)
    return command


def _directory(given: str) -> Path:
    if not Path(given).is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {given!r}")
    return Path(given)


def _parameter(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals or not name.strip().isidentifier():
        # What stands behind the name, or alone, may be a secret.
        shown = repr(f"{name}=...") if equals else "a value without a name"
        raise argparse.ArgumentTypeError(f"write NAME=VALUE, not {shown}")
    return name.strip(), value


def settings_of(parsed: argparse.Namespace) -> Settings:
    """The settings, with what was given on the command line.

    Raises:
        ConfigError: They are wrong.
    """
    from pytest_seeddb.settings.settings import Found, load_settings

    options: dict[str, Found] = {
        name: Found(value, f"the option --{name}")
        for name in ("profile", "server", "reseed")
        if (value := getattr(parsed, name, None)) is not None
    }
    parameters = {name: Found(value, f"the option --set {name}=...") for name, value in getattr(parsed, "set", [])}
    return load_settings((parsed.directory or Path.cwd()).resolve(), options=options, parameters=parameters)


def as_json(found: Any) -> str:  # noqa: ANN401 - any dataclass
    """A command's result for machines."""
    return json_text.dumps(dataclasses.asdict(found), indent=2, default=str)
