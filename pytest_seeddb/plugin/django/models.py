"""Sets Django up before the first test module is imported, because test modules import models at their top."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

import pytest

from pytest_seeddb.application.django import find_settings, has_settings, is_set_up, set_up
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.plugin.run import RUN, is_enabled

if TYPE_CHECKING:
    from pytest_seeddb.settings.settings import Settings

_NAMES_SETTINGS: Final = re.compile(r"DJANGO_SETTINGS_MODULE|settings\.configure\(|django\.setup\(")
_IMPORTED: Final = re.compile(r"^(?:from|import)\s+([\w.]+)", re.MULTILINE)


def set_up_models(config: pytest.Config) -> None:
    """Load the settings that a conftest or pytest-django has named, or else those that ``manage.py`` sets.

    Where nothing names them, a test module may configure Django itself, or the plan's error says it. In
    `pytest_configure`, the first conftests are loaded, and pytest-django has yet to look for the last time whether
    there are settings. Where only ``manage.py`` names them, a later conftest may name others.

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
    if not has_settings(settings.root):
        config.pluginmanager.register(_Waiting(config, settings))
        return
    try:
        set_up(settings.root, source=source)
    except ConfigError as error:
        if is_enabled(config):
            raise pytest.UsageError(str(error)) from None


class _Waiting:
    """Sets Django up before the first module, or the first conftest that may import models, is imported."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings

    @pytest.hookimpl(tryfirst=True)  # before pytest imports it
    def pytest_make_collect_report(self, collector: pytest.Collector) -> None:
        if isinstance(collector, pytest.Directory):
            path = collector.path / "conftest.py"
            if self._config.pluginmanager.has_plugin(str(path)) or not path.is_file():
                return
            text = path.read_text(encoding="utf-8", errors="replace")
            packages = {name.partition(".")[0] for name in _IMPORTED.findall(text)}
            if _NAMES_SETTINGS.search(text) or packages <= {"pytest", *sys.stdlib_module_names}:
                return
        elif not isinstance(collector, pytest.File):
            return
        self._config.pluginmanager.unregister(self)
        if is_set_up():
            return
        try:
            set_up(self._settings.root, source=self._settings.source("migrations"))
        except ConfigError as error:
            if is_enabled(self._config):
                self._config.stash[RUN].broken.append(error)
            return
        for hook in self._config.hook.pytest_configure.get_hookimpls():
            if getattr(hook.plugin, "__name__", "") == "pytest_django.plugin":  # keeps tests from the database
                hook.function(*(self._config for _ in hook.argnames))
