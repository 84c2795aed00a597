"""What a user meets who got something wrong, word for word: see ``bad_input/README.md``."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import attacks
import bench as benches
import pytest
from bad_cases import cases, renew

HERE = Path(__file__).parent / "bad_input"
RENEW = os.environ.get("TESTS_RENEW") == "1"
ALL = [case for path in sorted(HERE.glob("*.txt")) for case in cases(path)]
AREAS = {"commands", "dumps", "environment", "markers", "migrations", "options", "seeds", "settings", "urls"}


def chosen():
    """All cases, or some of each kind: others in each run, and the same in all of a run's workers."""
    if attacks.SCALE >= 1 or RENEW:
        return ALL
    draw = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID", os.urandom(8)))
    shuffled = draw.sample(ALL, len(ALL))
    of_each_kind = {case.kind: case for case in shuffled}
    some = [*of_each_kind.values(), *shuffled[: attacks.times(len(ALL))]]
    return [case for case in ALL if case in some]


CHOSEN = chosen()


@pytest.fixture(scope="module")
def bench():
    with benches.bench() as bench:
        yield bench


def without_steps(text):
    """The text without the lines of progress: from which layer a build starts depends on the cases before it."""
    return re.sub(r"(?m)^(  \d+/\d+ .* \(<seconds> s\)|building .*)\n", "", text)


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: f"{case.area}: {case.name}")
def test_bad_input_is_answered_as_written_down_and_leaves_nothing(case, bench):
    code, told = bench.tries(case)
    if RENEW:
        renew(HERE / f"{case.area}.txt", case.name, code, told)
        case.code, case.told = code, told
    assert without_steps(told) == without_steps(case.told)
    assert code == case.code
    assert benches.amiss(told, code) == []
    assert bench.leavings() == []


def test_there_are_cases_of_every_area_and_each_says_what_is_told(tried):
    assert {case.area for case in ALL} == AREAS
    assert len(ALL) >= 150
    assert [case.name for case in ALL if case.code is None] == []
    assert {case.kind for case in CHOSEN} == {case.kind for case in ALL}
    tried("case of bad input", len(CHOSEN))
