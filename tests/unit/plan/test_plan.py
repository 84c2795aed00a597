from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import Part
from pytest_seeddb.plan.ledger import marker_of
from pytest_seeddb.plan.plan import Plan, Stage, Step, shown_profile
from pytest_seeddb.seeds.planning import Plans, plan_again, plan_of
from pytest_seeddb.settings.settings import load_settings

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


def test_a_fingerprint_is_not_a_matter_of_how_steps_are_grouped_nor_of_profiles_and_places():
    one, two = plan(stage("migrations", "a", "b")), plan(stage("first", "a"), stage("second", "b"))
    other = dataclasses.replace(one, profile="minimal", root=Path("/elsewhere"), env=("URL",))
    assert one.fingerprints(BASE) == two.fingerprints(BASE) == other.fingerprints(BASE)


def test_two_projects_have_no_fingerprint_in_common_not_even_before_the_first_step():
    one = plan(stage("migrations", "a", "b"))
    other = dataclasses.replace(one, name="other")
    assert not set(one.fingerprints(BASE)) & set(other.fingerprints(BASE))
    assert one.key != other.key


def secretive(secret, *, tier="essential"):
    parts = (Part("file", "a"), Part("parameter pin", "set", secret))
    return plan(Stage("seeds", (Step("seed admin", parts),), print, tier=tier))


def test_secrets_tell_plans_apart_in_a_process_and_sealed_ones_everywhere():
    one, other = secretive("1234"), secretive("4321")
    assert one.key != other.key
    assert one.sealed("salt").fingerprints(BASE)[0] == other.fingerprints(BASE)[0]
    prints = [each.sealed(salt).fingerprints(BASE)[-1] for each in (one, other) for salt in ("salt", "another")]
    assert len({*prints, one.fingerprints(BASE)[-1]}) == 5
    assert one.sealed("salt").fingerprints(BASE) == secretive("1234").sealed("salt").fingerprints(BASE)


def test_what_the_ledger_notes_does_not_depend_on_a_secret_nor_on_its_salt():
    one, other = secretive("1234"), secretive("4321")
    assert marker_of(one) == marker_of(other)
    versions = {each.steps[0].version_now for each in (one, other, one.sealed("salt"), other.sealed("another"))}
    assert len(versions) == 1


def test_sealing_leaves_nothing_of_a_secret_in_the_plan():
    sealed = secretive("1234").sealed("salt")
    assert not sealed.has_secrets
    assert "1234" not in repr(secretive("1234")) + repr(sealed)
    assert sealed.sealed("another").fingerprints(BASE) == sealed.fingerprints(BASE)


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


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "seeds.py").write_text(
        "from pytest_seeddb import seeder\n\n@seeder\ndef stores(session, stores: int = 3): ...\n"
    )
    (tmp_path / "seeddb.toml").write_text('seeds = ["seeds"]\n[profiles.minimal]\nstores = 1\n')
    return load_settings(tmp_path, environ={})


def test_each_plan_of_a_run_is_made_once(settings):
    plans = Plans()
    first = plans.of(settings)
    assert plans.of(settings.replace(name=settings.name)) is not first
    assert plans.vary(first, None, {}) is first
    assert plans.vary(first, "default", {}) is first
    minimal = [plans.vary(first, "minimal", {}) for _ in range(2)]
    assert minimal[0] is minimal[1]
    assert minimal[0].key != first.key
    assert plans.vary(first, "minimal", {"stores": 2}).profile == "minimal(stores=2)"
    assert plans.has(first)
    assert not plans.has(plan_of(settings))


def test_a_plan_can_be_made_again_from_the_files_as_they_are_then(settings):
    varied = plan_of(settings, "minimal", {"stores": 2})
    again = plan_again(varied)
    assert (again.key, again.profile) == (varied.key, varied.profile)
    assert plan_again(varied.without_seeds).steps == []
    with (settings.root / "seeds.py").open("a") as file:
        file.write("\nVERSION = 2\n")
    assert plan_again(varied).key != varied.key
    assert plan_again(by_hand := plan(stage("one", "a"))) is by_hand


def test_planning_installs_no_audit_hook(settings):
    code = (
        "import pathlib, sys\n"
        "from pytest_seeddb.seeds.planning import plan_of\n"
        "from pytest_seeddb.settings.settings import load_settings\n"
        "sys.addaudithook = None\n"
        "plan_of(load_settings(pathlib.Path()))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=settings.root, check=True)


def test_a_plan_made_by_hand_has_no_profiles():
    with pytest.raises(ConfigError, match="The plan 'shop' has no profiles") as caught:
        Plans().vary(plan(), "minimal", {"stores": 1})
    assert "'minimal'" in str(caught.value)
    assert "{'stores': 1}" in str(caught.value)


def test_the_value_of_a_secret_is_in_no_profiles_name_nor_is_a_trace_of_it():
    given = {"admin_password": "correct horse", "pin": "1234", "stores": 3}
    shown = shown_profile("demo", given, hidden=["pin"])
    assert "correct horse" not in shown
    assert "1234" not in shown
    assert "stores=3" in shown
    assert shown == shown_profile("demo", {**given, "pin": "4321"}, hidden=["pin"])
