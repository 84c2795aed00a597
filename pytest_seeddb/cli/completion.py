"""``seeddb completion``: the script with which a shell completes the command line. argcomplete does the work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_seeddb.cli.output import show
from pytest_seeddb.errors import SeedDbError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Mapping


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


def _profiles(**_: Any) -> Collection[str]:
    from pytest_seeddb.seeds.parameters import BUILT_IN
    from pytest_seeddb.settings.settings import load_settings

    return {**BUILT_IN, **load_settings(Path.cwd()).profiles}


def _seeders(**_: Any) -> Collection[str]:
    from pytest_seeddb.seeds.staging import seeds_of
    from pytest_seeddb.settings.settings import load_settings

    names = [seed.identity for seed in seeds_of(load_settings(Path.cwd()))[0]]
    return [*names, *(name.rpartition(":")[2] for name in names)]


def _servers(**_: Any) -> Collection[str]:
    return ("auto", "embedded", "container", "postgresql://")


def _nothing(**_: Any) -> Collection[str]:
    return ()
