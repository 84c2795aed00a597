"""Our own errors as pytest shows them: what they say, and not the way through our code."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

_SHOWN: Final = pytest.StashKey[dict[str, str]]()


def without_traceback(
    report: pytest.TestReport, item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]
) -> None:
    """Let the report of a fixture's error be its text alone; said once in full, then in one line.

    ``--tb=long``, ``--tb=native`` and ``--full-trace`` show everything, as ever.
    """
    option = item.config.option
    if report.when == "call" or option.tbstyle not in {"auto", "short", "line"} or option.fulltrace:
        return
    text = f"{type(excinfo.value).__name__}: {excinfo.value}"
    first = item.config.stash.setdefault(_SHOWN, {}).setdefault(text, item.nodeid)
    if first != item.nodeid:
        text = f"{text.splitlines()[0]}\n  as in {first}, where it is told in full"
    shown = excinfo.getrepr(style="value", chain=False)
    # The style "value" leaves the error's class out.
    entries = [replace(each, lines=text.splitlines()) for each in shown.reprtraceback.reprentries[-1:]]
    shown.reprtraceback.reprentries = entries
    report.longrepr = shown
