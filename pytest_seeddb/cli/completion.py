"""``seeddb completion``: the script with which a shell completes the command line. argcomplete does the work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.cli.output import show
from pytest_seeddb.errors import SeedDbError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Mapping

    from pytest_seeddb.settings.settings import Settings


_COMPINIT: Final = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }"
"""Turns zsh's completion on. A start-up file need not have done that, and compdef is missing without it."""


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as error:
        raise SeedDbError(
            "Completion needs the package argcomplete",
            saw=str(error),
            source="the environment in which seeddb is installed",
            remedy="pip install 'pytest-seeddb[completion]'",
        ) from error
    script = shellcode(["seeddb"], shell=parsed.shell)
    if parsed.shell == "zsh":
        first, _, rest = script.partition("\n")  # "#compdef", which counts only in the first line
        script = f"{first}\n{_COMPINIT}\n{rest}"
    show(parsed, {"shell": parsed.shell, "script": script}, [script.strip()], with_quiet=True)
    return 0


def complete(parser: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser]) -> None:
    """Where a shell asks for the words that fit, print them and end the process."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete

    completers = {"profile": _profiles, "only": _seeders, "server": _servers, "set": _nothing}
    for command in commands.values():
        for action in command._actions:  # noqa: SLF001 - argparse has no other way
            if action.dest in completers:
                action.completer = completers[action.dest]  # type: ignore[attr-defined]  # which argcomplete reads
    argcomplete.autocomplete(parser, always_complete_options=False)


def _settings(parsed: argparse.Namespace) -> Settings:
    from pytest_seeddb.settings.pytest_files import put_on_path
    from pytest_seeddb.settings.settings import load_settings

    start = Path(getattr(parsed, "directory", None) or Path.cwd()).resolve()
    put_on_path(start)
    return load_settings(start)


def _profiles(parsed_args: argparse.Namespace, **_: Any) -> Collection[str]:
    from pytest_seeddb.seeds.parameters import BUILT_IN

    # Names alone: argcomplete shows a mapping's values as descriptions, and these may be secret.
    return [*{**BUILT_IN, **_settings(parsed_args).profiles}]


def _seeders(parsed_args: argparse.Namespace, **_: Any) -> Collection[str]:
    from pytest_seeddb.seeds.staging import seeds_of

    names = [seed.identity for seed in seeds_of(_settings(parsed_args))[0]]
    return [*names, *(name.rpartition(":")[2] for name in names)]


def _servers(**_: Any) -> Collection[str]:
    return ("auto", "embedded", "container", "postgresql://")


def _nothing(**_: Any) -> Collection[str]:
    return ()
