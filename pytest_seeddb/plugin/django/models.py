"""Sets Django up before the first test module is imported, because test modules import models at their top."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Final

import pytest

from pytest_seeddb.application.django import VARIABLE, find_settings, has_settings, is_set_up, set_up, settings_module
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.plugin.run import RUN, is_enabled
from pytest_seeddb.settings.pytest_files import pytest_file

if TYPE_CHECKING:
    from pytest_seeddb.settings.settings import Settings

_BELOW: Final = pytest.StashKey[str]()
"""The settings that a table below the root has named, and not the environment or the root."""

_NAMES_SETTINGS: Final = re.compile(r"DJANGO_SETTINGS_MODULE|settings\.configure\(|django\.setup\(")
_IMPORTED: Final = re.compile(r"^(?:from|import)\s+([\w.]+)", re.MULTILINE)


def has_pytest_django(config: pytest.Config) -> bool:
    """Whether the run has pytest-django."""
    names = {getattr(plugin, "__name__", "") for plugin in config.pluginmanager.get_plugins()}
    return "pytest_django.plugin" in names


def set_up_models(config: pytest.Config, settings: Settings) -> None:
    """Load the settings that a conftest or pytest-django has named, or else those that ``manage.py`` sets.

    Where nothing names them, a test module may configure Django itself, or the plan's error says it. In
    `pytest_configure`, the first conftests are loaded, and pytest-django has yet to look for the last time whether
    there are settings. Where only ``manage.py`` names them, a later conftest may name others.

    Raises:
        pytest.UsageError: Seeded tests are enabled, and the settings or a model fail.
    """
    source = settings.source("migrations")
    file = pytest_file(config.inipath.parent if config.inipath else settings.root)
    if file.django_settings and not has_pytest_django(config):  # which has set it
        os.environ.setdefault(VARIABLE, file.django_settings)
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


def set_up_below(config: pytest.Config, settings: Settings) -> None:
    """The same for a table below the root, whose conftest is imported by now, and no test module."""
    source, variable = settings.source("migrations"), os.environ.get(VARIABLE, "")
    try:
        # What another table's manage.py named says nothing about this one.
        module = find_settings(settings.root, source, "" if variable == config.stash.get(_BELOW, "") else variable)[0]
    except ConfigError:
        return
    if not is_set_up():
        if not variable:
            config.stash[_BELOW] = module
        _set_up_late(config, settings)
    elif (other := settings_module()) not in {"", module}:
        error = ConfigError(
            "Two Django projects cannot be tested in one run of pytest: a process has one set of Django's settings",
            saw=f"{module}, where {other} is set up",
            source=source,
            remedy="run pytest in each project's directory",
        )
        config.stash[RUN].broken.append(error)


def _set_up_late(config: pytest.Config, settings: Settings) -> None:
    """Set Django up after pytest-django looked for settings, and let it look once more."""
    try:
        set_up(settings.root, source=settings.source("migrations"))
    except ConfigError as error:
        if is_enabled(config):
            config.stash[RUN].broken.append(error)
        return
    for hook in config.hook.pytest_configure.get_hookimpls():
        if getattr(hook.plugin, "__name__", "") == "pytest_django.plugin":  # keeps tests from the database
            hook.function(*(config for _ in hook.argnames))


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
        if not is_set_up():
            _set_up_late(self._config, self._settings)
