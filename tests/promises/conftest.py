"""The attacks on the promises take long, on purpose: they run in tox's environment `promises`.

Each says what it tried and how often (`tried`), and the numbers stand at the end of the run.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from math import ceil
from pathlib import Path

import attacks
import pytest

HERE = Path(__file__).parent
CHOSEN_ALREADY = "test_bad_input.py"


def pytest_collection_modifyitems(config, items):
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.promises)
    if attacks.SCALE < 1:
        left = _left_out(ours)
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=list(left))


def _left_out(items):
    """Of each attack that has many forms, all but some: others in each run, the same in all its workers."""
    choice = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID") or os.urandom(8))
    left = set()
    forms = defaultdict(list)
    for item in sorted(items, key=lambda item: item.nodeid):
        if item.path.name != CHOSEN_ALREADY:
            forms[item.path, item.originalname].append(item)
    for found in forms.values():
        left.update(choice.sample(found, len(found) - ceil(len(found) * attacks.SCALE**0.5)))
    return left


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
