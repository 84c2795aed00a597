"""What pytest's objects keep for us: the run's settings and tallies, a test's database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from pytest_seeddb.clones.database import SeededDatabase
    from pytest_seeddb.plan.plan import Plans
    from pytest_seeddb.plugin.report import Tally
    from pytest_seeddb.settings.settings import Settings

SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
TALLY: pytest.StashKey[Tally] = pytest.StashKey()

PLANS: pytest.StashKey[Plans] = pytest.StashKey()
"""The plans that were worked out when the tests were collected, so that the fixtures need not do it again."""

DATABASE: pytest.StashKey[SeededDatabase] = pytest.StashKey()
"""Kept with the test, or with the scope that shares a database."""

ENDING: pytest.StashKey[bool] = pytest.StashKey()
"""Kept with a test whose tear-down has begun."""

ELSEWHERE: pytest.StashKey[bool] = pytest.StashKey()
"""Kept with a seeded test that gets its database from another plugin's fixtures."""

DISABLED: Final = 'seeded tests run with --seed-db, or with enabled = "always" in [tool.seeddb]'


def is_enabled(config: pytest.Config) -> bool:
    """Whether seeded tests run."""
    return bool(config.getoption("--seed-db")) or config.stash[SETTINGS].enabled == "always"
