"""The attacks on the promises take long, on purpose: they run in tox's environment `promises`.

Each says what it tried and how often (`tried`), and the numbers stand at the end of the run.
"""

from __future__ import annotations

from pathlib import Path

import attacks
import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.promises)


@pytest.fixture
def site():
    with attacks.site() as site:
        yield site


@pytest.fixture
def tried(request):
    return attacks.Tried(request.node.user_properties)


def pytest_terminal_summary(terminalreporter):
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.stats.get(kind, [])]
    found = [(report.nodeid, value) for report in reports for name, value in report.user_properties if name == "tried"]
    if found:
        terminalreporter.section(f"tried, at scale {attacks.SCALE:g}")
    for nodeid, (what, count) in sorted(found):
        terminalreporter.write_line(f"{count:6d} x  {what}  ({nodeid.rpartition('::')[2]})")
