"""Sets Django up before the first test module is imported, because test modules import models at their top."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_seeddb.application.django import find_settings, is_set_up, set_up
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.plugin.run import RUN, is_enabled

if TYPE_CHECKING:
    from pytest_seeddb.settings.settings import Settings


def set_up_models(config: pytest.Config) -> None:
    """Load the settings that a conftest or pytest-django has named, or else those that ``manage.py`` sets.

    Where nothing names them, a test module may configure Django itself, or the plan's error says it. In
    `pytest_configure`, conftests are loaded, and pytest-django has yet to look for the last time whether there are
    settings.

    Raises:
        pytest.UsageError: Seeded tests are enabled, and the settings or a model fail.
    """
    settings: Settings = config.stash[RUN].settings
    source = settings.source("migrations")
    try:
        if not is_set_up():
            find_settings(settings.root, source)
    except ConfigError:
        return
    try:
        set_up(settings.root, source=source)
    except ConfigError as error:
        if is_enabled(config):
            raise pytest.UsageError(str(error)) from None
