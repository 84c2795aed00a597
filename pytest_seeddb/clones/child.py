"""Build a template for another process, which waits.

``python -m pytest_seeddb.clones.child`` reads what to build from its standard input, and writes why it built it, or its
error.
"""

from __future__ import annotations

import os
import pickle
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_seeddb.clones.support import build_support, data_opener, dumps_for
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.fingerprint import recording
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers import libpq
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.templates.building import Elsewhere

if TYPE_CHECKING:
    from pytest_seeddb.plan.plan import Plan, Recipe
    from pytest_seeddb.templates.templates import Template


def main() -> None:
    """Build what the parent wants."""
    path, shell, root, rest = pickle.load(sys.stdin.buffer)  # noqa: S301 - of our parent
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the project's code prints is no answer
    sys.path[:] = path
    libpq.narrow_shell(shell)
    recording.begin(root)
    recipe, token, run = pickle.loads(rest)  # noqa: S301 - as above
    outcome, stays = _build(recipe, token, run)
    with answer:
        pickle.dump((outcome, stays), answer)
    if stays:
        with suppress(KeyboardInterrupt):
            sys.stdin.buffer.read()  # until the parent ends


class _Builder(Worker):
    """A worker that leaves it to another process to build anew, on data apart, what it has built on the shared data."""

    def template(self, plan: Plan) -> Template:
        self._is_first = not (self._apart and self._apart.notes(plan).touches)
        return super().template(plan)

    def _get_apart(self, plan: Plan) -> Template:
        if self._is_first:
            raise Elsewhere
        return super()._get_apart(plan)


def _build(recipe: Recipe, token: str, run: str) -> tuple[SeedDbError | str | None, bool]:
    """Why the template was built, the error, or ``None`` where it is to be built anew in another process.

    And whether this process is to stay, because its locks tell that the build has failed.
    """
    settings = replace(recipe.settings, build="here")
    worker: _Builder | None = None
    try:
        plan = plan_of(settings, None, recipe.overrides, recipe.alias)
        plan = plan if recipe.seeds else plan.without_seeds
        with open_server(settings) as server:
            support = replace(build_support(), open_data=data_opener(server, settings))
            dumps = dumps_for(server, settings)
            with _Builder(server, token=token, run=run, support=support, dumps=dumps) as worker:
                template = worker.template(plan)
                return (template.reason if template.built else ""), False
    except SeedDbError as error:
        return error, worker is not None and worker.holds_failure
    except Elsewhere:
        return None, False


if __name__ == "__main__":
    main()
