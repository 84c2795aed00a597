"""Have a template built in a process of its own: for an application that can be made only once in a process."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import BuildError, SeedDbError
from pytest_seeddb.fingerprint.participation import Participation

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_seeddb.plan.plan import Plan
    from pytest_seeddb.templates.templates import Look

IN_PROCESS: Final = "process"
_CHILD: Final = "pytest_seeddb.clones.child"
_INSIDE: Final = "SEEDDB_BUILD"  # the setting's own variable


def build_elsewhere(plan: Plan, look: Callable[[Plan], Look], token: str, run: str) -> str:
    """Build a plan's template in another process, if its settings say so and there is none; why it was built, or "".

    Raises:
        SeedDbError: As the build here would raise it.
    """
    recipe = plan.recipe
    wanted = recipe is not None and recipe.settings.build == IN_PROCESS and plan.imported == Participation()
    if not wanted or recipe is None or (look(plan).template and not token):
        return ""
    task = (recipe, token, run, [*sys.path])
    child = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", _CHILD],
        input=pickle.dumps(task),
        stdout=subprocess.PIPE,
        cwd=plan.root,
        env={**os.environ, _INSIDE: "here"},
        check=False,
    )
    if child.returncode:
        raise BuildError(
            "The process that builds the template has ended",
            saw=f"exit code {child.returncode}",
            source=f"build = {IN_PROCESS!r}, {recipe.settings.source('build')}",
            remedy="find out what ended it; what it printed is on standard error",
        )
    outcome: SeedDbError | str = pickle.loads(child.stdout)  # noqa: S301 - of our own process
    if isinstance(outcome, SeedDbError):
        raise outcome
    return outcome
