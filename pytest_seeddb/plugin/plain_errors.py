"""Our own errors as pytest shows them: what they say, and not the way through our code."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_seeddb.plugin.run import RUN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_OWN: Final = str(Path(__file__).parents[1])


def shorten(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException], when: str) -> None:
    """Let the traceback of an error that a test gets from us end where the test called us.

    That of a fixture is shown by none (see `without_traceback`): its last entry is left, as pytest would take
    0.1 s to format all of them. ``--tb=long``, ``--tb=native`` and ``--full-trace`` show everything, as ever.
    """
    if not _is_shortened(item):
        return
    if when != "call":
        excinfo.traceback = excinfo.traceback[-1:]
        return
    entries = list(_entries(excinfo.value.__traceback__))
    while len(entries) > 1 and entries[-1].tb_frame.f_code.co_filename.startswith((_OWN, contextlib.__file__)):
        entries.pop()
        entries[-1].tb_next = None


def _entries(entry: TracebackType | None) -> Iterator[TracebackType]:
    while entry is not None:
        yield entry
        entry = entry.tb_next


def _is_shortened(item: pytest.Item) -> bool:
    option = item.config.option
    return option.tbstyle in {"auto", "short", "line"} and not option.fulltrace


def without_traceback(
    report: pytest.TestReport, item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]
) -> None:
    """Let the report of a fixture's error be its text alone; said once in full, then in one line.

    ``--tb=long``, ``--tb=native`` and ``--full-trace`` show everything, as ever.
    """
    if report.when == "call" or not _is_shortened(item):
        return
    text = f"{type(excinfo.value).__name__}: {excinfo.value}"
    first = item.config.stash[RUN].shown.setdefault(text, item.nodeid)
    if first != item.nodeid:
        text = f"{text.splitlines()[0]}\n  as in {first}, which shows it in full"
    shown = excinfo.getrepr(style="value", chain=False)
    # The style "value" leaves the error's class out.
    entries = [replace(each, lines=text.splitlines()) for each in shown.reprtraceback.reprentries[-1:]]
    shown.reprtraceback.reprentries = entries
    report.longrepr = shown


def keep_first_traceback(error: BaseException) -> None:
    """Take away what pytest 8.2 adds to the traceback of a fixture's error for each test that meets it."""
    if pytest.version_tuple < (8, 3):
        error.__traceback__ = vars(error).setdefault("_first_traceback", error.__traceback__)
