"""Build a template for another process, which waits.

``python -m pytest_seeddb.clones.child`` reads what to build from its standard input, and writes why it built it, or its
error.
"""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_seeddb.clones.support import build_support, data_opener, dumps_for
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.fingerprint import recording
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.opening import open_server

if TYPE_CHECKING:
    from pytest_seeddb.plan.plan import Recipe


def main() -> None:
    """Build what the parent wants."""
    recipe, token, run, path = pickle.load(sys.stdin.buffer)  # noqa: S301 - of our parent
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the project's code prints is no answer
    sys.path[:] = path
    outcome: SeedDbError | str
    try:
        outcome = _build(recipe, token, run)
    except SeedDbError as error:
        outcome = error
    with answer:
        pickle.dump(outcome, answer)


def _build(recipe: Recipe, token: str, run: str) -> str:
    settings = replace(recipe.settings, build="here")
    recording.begin(settings.root)
    plan = plan_of(settings, None, recipe.overrides, recipe.alias)
    plan = plan if recipe.seeds else plan.without_seeds
    with open_server(settings) as server:
        support = replace(build_support(), open_data=data_opener(server, settings))
        dumps = dumps_for(server, settings)
        with Worker(server, token=token, run=run, support=support, dumps=dumps) as worker:
            template = worker.template(plan)
            return template.reason if template.built else ""


if __name__ == "__main__":
    main()
