"""Which databases go, of those that are there."""

from __future__ import annotations

import datetime as dt

import pytest

from pytest_seeddb.templates.inventory import Entry, Limits, Owner, choose

SIZE = 10


def day(ago):
    return (dt.datetime.now(dt.UTC) - dt.timedelta(days=ago)).date().isoformat()


def entry(name, kind="template", ago=None, **more):
    used = "" if ago is None else day(ago)
    return Entry(name, kind, **{"size": SIZE, "created": f"{used}T00:00:00+00:00", "used": used, **more})


def going(entries, **limits):
    return [chosen.name for chosen, _ in choose(entries, Limits(**limits))]


USER = (Owner(1),)
ENTRIES = [
    entry("today", ago=0),
    entry("week", ago=7),
    entry("month", ago=30),
    entry("kept", "kept", ago=20),
    entry("watched", "kept", ago=40, connections=1),
    entry("used", ago=90, users=USER),
    entry("silent"),
    entry("orphan", "clone"),
    entry("half", "build"),
    entry("clone", "clone", users=USER),
    entry("build", "build", users=USER),
]
ORPHANS = ["half", "orphan"]


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        ({}, ORPHANS),
        ({"unused_days": 30}, ORPHANS),
        ({"unused_days": 29}, [*ORPHANS, "month"]),
        ({"unused_days": 14}, [*ORPHANS, "month", "kept"]),
        ({"unused_days": 0}, [*ORPHANS, "month", "kept", "week"]),
        ({"kept": True}, [*ORPHANS, "kept"]),
        ({"kept": True, "unused_days": 25}, [*ORPHANS, "month", "kept"]),
        ({"everything": True}, [*ORPHANS, "silent", "month", "kept", "week", "today"]),
    ],
)
def test_what_goes_is_old_enough_or_was_asked_for_and_is_never_in_use(limits, names):
    assert going(ENTRIES, **limits) == names


# Eleven entries; the orphans go in any case, and four of the nine others are in use.
@pytest.mark.parametrize(
    ("budget", "names"),
    [
        (110, []),
        (90, []),
        (89, ["silent"]),
        (80, ["silent"]),
        (70, ["silent", "month"]),
        (61, ["silent", "month", "kept"]),
        (0, ["silent", "month", "kept", "week", "today"]),
    ],
)
def test_a_budget_takes_the_least_recently_used_until_the_rest_fits(budget, names):
    assert going(ENTRIES, budget=budget) == [*ORPHANS, *names]


def test_what_goes_by_age_counts_before_the_budget():
    assert going(ENTRIES, unused_days=14, budget=70) == [*ORPHANS, "month", "kept"]
    assert going(ENTRIES, unused_days=14, budget=69) == [*ORPHANS, "month", "kept", "silent"]


def test_of_two_used_on_one_day_the_older_goes_first():
    older, newer = entry("b", ago=3, created="2020-01-01"), entry("a", ago=3, created="2020-01-02")
    assert going([newer, older], budget=SIZE) == ["b"]


def test_a_size_that_may_not_be_known_counts_for_nothing():
    assert going([entry("hidden", size=None), entry("known", ago=1)], budget=SIZE) == []
