"""The user's own commands, such as ``dbmate up``, run against the database that is being built."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import BuildError
from pytest_seeddb.servers.address import environment_for

if TYPE_CHECKING:
    from pytest_seeddb.plan.plan import Target
    from pytest_seeddb.settings.converters import CommandSpec

_SHOWN_LINES: Final = 30
_NOT_EXECUTABLE: Final = 126  # POSIX, "Exit Status for Commands" of the shell
_NOT_FOUND: Final = 127
_SIGNALLED: Final = 128


def run_command(spec: CommandSpec, target: Target, *, what: str, source: str) -> None:
    """Run a shell command with the database's address in its environment.

    It runs in ``target.root``, reads nothing, and is waited for. Its output is shown only when it
    fails. Interrupting the run ends it too: it stays in the terminal's process group.

    Args:
        spec: The command.
        target: The database; the command finds it in ``DATABASE_URL``, in the variables that the
            settings name, and in ``PGHOST`` and its fellows.
        what: What the command does, for the error: ``migrations``.
        source: Where it is named, for the error.

    Raises:
        BuildError: It failed, was killed or is not there.
    """
    ended = subprocess.run(  # noqa: S602 - it is the user's own command line, written for a shell
        spec.command,
        shell=True,
        cwd=target.root,
        env=environment_for(target.address, target.env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if ended.returncode:
        raise _failure(spec, target, f"The command of the {what} {_outcome(ended.returncode)}", source, ended)


def _failure(
    spec: CommandSpec, target: Target, what: str, source: str, ended: subprocess.CompletedProcess[bytes]
) -> BuildError:
    output = ended.stdout.decode(errors="replace").rstrip()
    secret = target.address.params.get("password")
    shown = output.replace(secret, "***") if secret else output
    return BuildError(
        what,
        saw=f"$ {spec.command}\n{_tail(shown) or '(it printed nothing)'}",
        source=source,
        remedy=_remedy(ended.returncode, target),
    )


def _outcome(status: int) -> str:
    number = -status if status < 0 else status - _SIGNALLED
    if number in set(signal.Signals):
        return f"was ended by {signal.Signals(number).name}"
    if status == _NOT_FOUND:
        return f"was not found (exit status {status})"
    return f"failed with exit status {status}"


def _remedy(status: int, target: Target) -> str:
    if status == _NOT_FOUND:
        return "install the program, or give its whole path; the shell looked for it on PATH"
    if status == _NOT_EXECUTABLE:
        return "make the file executable"
    return f"run it by hand in {target.root} with DATABASE_URL set to an empty database"


def _tail(output: str) -> str:
    lines = output.splitlines()
    if len(lines) <= _SHOWN_LINES:
        return output
    return "\n".join([f"... ({len(lines) - _SHOWN_LINES} lines before)", *lines[-_SHOWN_LINES:]])
