"""Sets Django up before the first test module is imported, because test modules import models at their top."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_seeddb.application.django import find_settings, is_set_up, set_up
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.plugin.run import is_enabled

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_seeddb.settings.settings import Settings


class DjangoModels:
    """Loads the settings that a conftest or pytest-django has named, or else those that ``manage.py`` sets.

    It waits for conftests, which may name others: for those of the first test module's directory, or with pytest-django
    for those that pytest loads at its start.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._is_done = False

    def set_up(self) -> None:
        """Set Django up. Where nothing names its settings, a test module may configure it, or the plan's error says it.

        Raises:
            pytest.UsageError: Seeded tests are enabled, and the settings or a model fail.
        """
        self._is_done = True
        root, source = self._settings.root, self._settings.source("migrations")
        with suppress(ConfigError):
            if not is_set_up():
                find_settings(root, source)
            try:
                set_up(root, source=source)
            except ConfigError as error:
                if is_enabled(self._config):
                    raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_file(self, file_path: Path) -> None:
        """Set it up before the first Python file."""
        if not self._is_done and file_path.suffix == ".py":
            self.set_up()
