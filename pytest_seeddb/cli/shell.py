"""``seeddb shell``."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from pytest_seeddb.cli.options import add_command, settings_of

if TYPE_CHECKING:
    import argparse

    from pytest_seeddb.cli.options import Commands


def add(commands: Commands) -> None:
    """Declare it."""
    shell = add_command(commands, "shell", _shell, "open psql on the database of a failed test", json=False)
    shell.add_argument("database", nargs="?", default="", metavar="DATABASE", help="its name; the newest by default")


def _shell(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.commands.shell import shell

    with shell(settings_of(parsed), parsed.database) as (program, address):
        # In its environment, so that no password stands in the list of processes.
        environment = {**os.environ, **address.environment()}
        ended = subprocess.run([program], check=False, env=environment)  # noqa: S603 - psql, as it was found
        return 0 if ended.returncode == 0 else 1
