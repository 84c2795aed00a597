"""Have a template built in a process of its own: for an application that can be made only once in a process."""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Final, Protocol

from pytest_seeddb.errors import BuildError, SeedDbError
from pytest_seeddb.fingerprint.environment import ASIDE
from pytest_seeddb.fingerprint.participation import Participation
from pytest_seeddb.servers.libpq import names_in_shell

if TYPE_CHECKING:
    from pytest_seeddb.plan.plan import Plan
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.templates.templates import Look

IN_PROCESS: Final = "process"
_CHILD: Final = "pytest_seeddb.clones.child"
_INSIDE: Final = "SEEDDB_BUILD"  # the setting's own variable


class Asker(Protocol):
    """What is needed of a worker: its server, and to look for templates there."""

    server: Server

    def look(self, plan: Plan) -> Look:
        """What determines the plan's template and whether there is one; builds nothing."""


def build_elsewhere(plan: Plan, asker: Asker, token: str, run: str) -> str:
    """Build a plan's template in another process, if its settings say so and there is none; why it was built, or "".

    Raises:
        SeedDbError: As the build here would raise it.
    """
    recipe = plan.recipe
    wanted = recipe is not None and recipe.settings.build == IN_PROCESS and plan.imported == Participation()
    if not wanted or recipe is None or (asker.look(plan).template and not token):
        return ""
    if asker.server.kind == "external":  # an overridden fixture's may be another than the settings name
        recipe = replace(recipe, settings=replace(recipe.settings, server=asker.server.address.url))
    path = [os.path.abspath(place) for place in sys.path]  # noqa: PTH100 - "" is the working directory
    # What the project's modules define can be read only when the child has the path.
    task = (path, names_in_shell(), plan.root, pickle.dumps((recipe, token, run)))
    child = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-P", "-m", _CHILD],  # -P: a queue.py in the root is not the standard library's
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=plan.root,
        env={**os.environ, **ASIDE, _INSIDE: "here"},
    )
    assert child.stdin  # noqa: S101 - as wanted
    assert child.stdout  # noqa: S101 - as wanted
    try:
        with suppress(BrokenPipeError):
            child.stdin.write(pickle.dumps(task))
            child.stdin.flush()
        answer = _answer(child.stdout)
    except BaseException:
        _end(child, kill=True)
        raise
    if answer is None:
        _end(child)
        raise BuildError(
            "The process that builds the template has ended",
            saw=f"exit code {child.returncode}",
            source=f"build = {IN_PROCESS!r}, {recipe.settings.source('build')}",
            remedy="find out what ended it; what it printed is on standard error",
        )
    outcome, stays = answer
    if stays:
        atexit.register(_end, child, kill=True)
    else:
        _end(child)
    if outcome is None:  # the build made roles, and the next process knows that
        return build_elsewhere(plan, asker, token, run)
    if isinstance(outcome, SeedDbError):
        raise outcome
    return outcome


def _answer(pipe: IO[bytes]) -> tuple[SeedDbError | str | None, bool] | None:
    """See `pytest_seeddb.clones.child`; ``None`` where the child has ended without a whole answer."""
    with suppress(EOFError, pickle.UnpicklingError):
        answer: tuple[SeedDbError | str | None, bool] = pickle.load(pipe)  # noqa: S301 - of our own process
        return answer
    return None


def _end(child: subprocess.Popen[bytes], *, kill: bool = False) -> None:
    if kill:
        child.kill()
    for pipe in (child.stdin, child.stdout):
        if pipe:
            with suppress(BrokenPipeError):
                pipe.close()
    child.wait()
