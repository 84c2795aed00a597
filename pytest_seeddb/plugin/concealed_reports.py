"""Tests' failures as pytest shows them, without the secrets that this process knows.

pytest shows the arguments of a failing test, and with ``--showlocals`` every variable on the way: `seeded_url`
is a text with a password, and what a driver was called with another.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pytest_seeddb.errors import hide_secrets

if TYPE_CHECKING:
    import pytest


def without_secrets(report: pytest.TestReport) -> None:
    """Put ``***`` in the place of every secret in the report, and leave its form as it is."""
    report.sections = [(name, hide_secrets(text) if name == "seeddb" else text) for name, text in report.sections]
    told = str(report.longrepr)
    hidden = hide_secrets(told)
    if hidden == told:
        return
    report.longrepr = _hidden(report.longrepr)
    if str(report.longrepr) != hidden:  # of a class that is no dataclass: its text is what there is
        report.longrepr = hidden


def without_secrets_of_an_interrupt(config: pytest.Config) -> None:
    """The same for what ``--full-trace`` shows at the end of where Ctrl-C was pressed."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if (memo := getattr(reporter, "_keyboardinterrupt_memo", None)) is not None:
        _hidden(memo)  # in place


def _hidden(shown: Any) -> Any:  # noqa: ANN401 - whatever a report is made of
    if isinstance(shown, str):
        return hide_secrets(shown)
    if isinstance(shown, list | tuple):
        return type(shown)([_hidden(each) for each in shown])
    if dataclasses.is_dataclass(shown) and not isinstance(shown, type):
        for field in dataclasses.fields(shown):
            object.__setattr__(shown, field.name, _hidden(getattr(shown, field.name)))
    return shown
