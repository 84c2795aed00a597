"""The user's own commands, such as ``dbmate up``, run against the database that is being built."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import BuildError
from pytest_seeddb.servers import remedies
from pytest_seeddb.servers.address import environment_for

if TYPE_CHECKING:
    from pytest_seeddb.plan.plan import Target
    from pytest_seeddb.settings.converters import CommandSpec

_LINES: Final = 30  # of the output's end, in an error
_NOT_EXECUTABLE: Final = 126  # POSIX, "Exit Status for Commands" of the shell
_NOT_FOUND: Final = 127
_SIGNAL: Final = 128
_INSTALL: Final = "install the program, or give its full path; the shell looked for it on PATH"
_ASSIGNMENT: Final = re.compile(r"\w+=")
_PLAIN_WORD: Final = re.compile(r"[\w./+-]+")
# Without pipes, "||", ";", "&" and lines of their own, after which the status is that of another program.
_PASSES_FAILURE: Final = re.compile(r"(?:[^|;&()`\n]|&&|>&)*")


def search_path() -> str:
    """Where commands are looked for: first beside this Python, whose environment need not be activated."""
    return os.pathsep.join(filter(None, (str(Path(sys.executable).parent), os.environ.get("PATH", ""))))


def check_command(spec: CommandSpec, root: Path, *, what: str, source: str) -> None:
    """Raise a `BuildError` where the command's first program does not exist, and nothing after it can hide that."""
    lexer = shlex.shlex(spec.command, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError:
        return
    program = next((word for word in words if not _ASSIGNMENT.match(word)), "")
    if not _PLAIN_WORD.fullmatch(program) or not _PASSES_FAILURE.fullmatch(spec.command):
        return
    # The shell knows its own words, too.
    environment = {**os.environ, "PATH": search_path()}
    asked = ["/bin/sh", "-c", 'command -v -- "$1"', "sh", program]
    if subprocess.run(asked, cwd=root, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:  # noqa: S603 - a word alone
        saw = f"$ {spec.command}\nno program {program}"
        raise BuildError(f"The {what} command was not found", saw=saw, source=source, remedy=_INSTALL)


def run_command(spec: CommandSpec, target: Target, *, what: str, source: str) -> None:
    """Run a shell command on the target's database, in the terminal's process group; a `BuildError` has its output."""
    process = subprocess.run(  # noqa: S602 - it is the user's own command line, written for a shell
        spec.command,
        shell=True,
        cwd=target.root,
        env={**environment_for(target.address, target.env), "PATH": search_path()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    status = process.returncode
    if not status:
        return
    output = process.stdout.decode(errors="replace").rstrip()
    if secret := target.address.params.get("password"):
        output = output.replace(secret, "***")
    lines = output.splitlines() or ["(it printed nothing)"]
    if len(lines) > _LINES:
        lines = [f"... ({len(lines) - _LINES} lines before)", *lines[-_LINES:]]
    outcome = f"failed with exit status {status}"
    database = "that database" if target.marks.are_kept else "an empty database"
    remedy = remedies.remedy(output) or f"run it by hand in {target.root} with DATABASE_URL set to {database}"
    number = -status if status < 0 else status - _SIGNAL
    if number in set(signal.Signals):
        outcome = f"was ended by {signal.Signals(number).name}"
    elif status == _NOT_FOUND:
        outcome = f"was not found (exit status {status})"
        remedy = _INSTALL
    elif status == _NOT_EXECUTABLE:
        remedy = "make the file executable"
    raise BuildError(
        f"The {what} command {outcome}",
        saw="\n".join([f"$ {spec.command}", *lines]),
        source=source,
        remedy=remedy,
    )
