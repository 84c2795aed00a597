from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import Part
from pytest_seeddb.plan.plan import Plan, Plans, Stage, Step, shown_profile

BASE = (Part("PostgreSQL", "15"),)


def stage(name, *steps):
    return Stage(name, tuple(Step(each, (Part(f"{each}.sql", each * 3),)) for each in steps), print)


def plan(*stages, **fields):
    return Plan("shop", "demo", Path("/shop"), stages, **fields)


def test_there_is_a_fingerprint_before_the_first_step_and_after_each():
    prints = plan(stage("migrations", "a", "b"), stage("seeds", "c")).fingerprints(BASE)
    assert len(prints) == len(set(prints)) == 4
    assert all(len(each) == 64 and set(each) <= set("0123456789abcdef") for each in prints)


def test_plans_with_a_common_beginning_have_its_fingerprints_in_common():
    one = plan(stage("migrations", "a", "b"), stage("seeds", "c")).fingerprints(BASE)
    two = plan(stage("migrations", "a", "b"), stage("seeds", "d")).fingerprints(BASE)
    assert one[:3] == two[:3]
    assert one[3] != two[3]


def test_a_fingerprint_is_not_a_matter_of_how_steps_are_grouped_nor_of_names_and_profiles():
    one, two = plan(stage("migrations", "a", "b")), plan(stage("first", "a"), stage("second", "b"))
    other = dataclasses.replace(one, name="other", profile="minimal", root=Path("/elsewhere"), env=("URL",))
    assert one.fingerprints(BASE) == two.fingerprints(BASE) == other.fingerprints(BASE)


@pytest.mark.parametrize("changed", range(3))
def test_a_change_in_a_step_changes_the_fingerprints_from_there_on(changed):
    steps = [Step(name, (Part("file", name),)) for name in "abc"]
    before = plan(Stage("all", tuple(steps), print)).fingerprints(BASE)
    steps[changed] = Step(steps[changed].name, (Part("file", "another"),))
    after = plan(Stage("all", tuple(steps), print)).fingerprints(BASE)
    assert [one == two for one, two in zip(before, after, strict=True)] == [at <= changed for at in range(4)]


@pytest.mark.parametrize(
    "steps",
    [
        ("b", "a"),
        ("a",),
        ("a", "b", "b"),
        ("ab",),
        ("", "ab"),
    ],
)
def test_order_number_and_borders_of_steps_count(steps):
    of = [plan(stage("all", *each)).fingerprints(BASE)[-1] for each in (("a", "b"), steps)]
    assert of[0] != of[1]


def test_another_server_has_other_fingerprints_from_the_first_on():
    one = plan(stage("all", "a")).fingerprints(BASE)
    two = plan(stage("all", "a")).fingerprints((Part("PostgreSQL", "16"),))
    assert not set(one) & set(two)


def test_a_name_and_its_digest_cannot_run_into_each_other():
    steps = [Step("s", parts) for parts in ((Part("a", "bc"),), (Part("ab", "c"),), (Part("a", "b"), Part("c", "")))]
    assert len({plan(Stage("all", (step,), print)).fingerprints(BASE)[-1] for step in steps}) == 3


def test_stage_ends_count_the_steps_that_are_done():
    found = plan(stage("one", "a", "b"), stage("two", "c")).stage_ends()
    assert [(at, each.name) for at, each in found] == [(2, "one"), (3, "two")]


@pytest.mark.parametrize(
    ("profile", "overrides", "shown"),
    [
        (None, {}, "default"),
        ("demo", {}, "demo"),
        (None, {"stores": 3}, "default(stores=3)"),
        ("demo", {"b": "x", "a": 1}, "demo(a=1, b='x')"),
    ],
)
def test_a_profile_is_shown_with_its_overrides_in_order(profile, overrides, shown):
    assert shown_profile(profile, overrides) == shown


def test_each_sibling_is_worked_out_once():
    asked = []

    def vary(profile, overrides):
        asked.append((profile, dict(overrides)))
        return dataclasses.replace(first, profile=shown_profile(profile, overrides))

    first = plan(vary=vary)
    plans = Plans(first)
    assert plans.of(None, {}) is first
    assert plans.of("demo", {}) is first
    minimal = [plans.of("minimal", {}) for _ in range(2)]
    assert minimal[0] is minimal[1]
    assert plans.of("minimal", {"stores": 1}).profile == "minimal(stores=1)"
    assert asked == [("minimal", {}), ("minimal", {"stores": 1})]


def test_a_plan_made_by_hand_has_no_profiles():
    with pytest.raises(ConfigError, match="The plan 'shop' has no profiles") as caught:
        Plans(plan()).of("minimal", {"stores": 1})
    assert "'minimal'" in str(caught.value)
    assert "{'stores': 1}" in str(caught.value)


def test_the_value_of_a_secret_is_in_no_profiles_name_and_two_values_are_two_names():
    given = {"admin_password": "correct horse", "pin": "1234", "stores": 3}
    shown = shown_profile("demo", given, hidden=["pin"])
    assert "correct horse" not in shown
    assert "1234" not in shown
    assert "stores=3" in shown
    assert shown != shown_profile("demo", {**given, "pin": "4321"}, hidden=["pin"])
