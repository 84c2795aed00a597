from __future__ import annotations

import dataclasses
import json

import pytest

from pytest_seeddb.fingerprint.digests import FORMAT, Part
from pytest_seeddb.plan.numbering import Numbering
from pytest_seeddb.templates.record import FORM, Record

RECORD = Record(
    plan='a "shop" in ünïcödé',
    profile="demo(stores=10)",
    fingerprint="ab" * 32,
    steps=(
        ("migration 1", (Part("a.py", "0" * 16), Part("b.py", "1" * 16))),
        ("seed", ()),
        ("seed", (Part("p", "x"),)),
    ),
    opened=(Part("prices.csv", "f" * 16),),
    strategy="WAL_LOG",
    layer=True,
    token="run 1",
    size=123_456_789_012,
    seconds=1.234,
    created="2026-01-02T03:04:05.678901+00:00",
    used="2026-01-02",
    numbering=Numbering({"seed": {"shop.factories:ShopFactory": (2, 7)}}),
)


def test_what_is_written_is_read_back():
    assert Record.from_json(RECORD.to_json()) == RECORD


def test_defaults_are_read_back_too():
    record = Record("shop", "default", "0" * 64, ())
    assert Record.from_json(record.to_json()) == record


def test_the_format_is_told_first_so_that_any_version_can_see_whose_it_is():
    assert RECORD.to_json().startswith(f'{{"seeddb": {FORMAT}, ')


def test_another_day_of_use_is_counted_and_changes_nothing_else():
    assert RECORD.used_on("2026-05-05") == dataclasses.replace(RECORD, used="2026-05-05", days=2)


def test_the_projects_that_used_it_are_noted_once_each_and_the_latest_if_they_are_many():
    record = RECORD.used_by("a").used_by("b").used_by("a")
    assert record == dataclasses.replace(RECORD, projects=("a", "b"))
    assert Record.from_json(record.to_json()) == record
    for number in range(16):
        record = record.used_by(str(number))
    assert record.projects == tuple(map(str, range(16)))


def test_an_older_one_is_outdated_unless_it_is_of_another_project():
    new = dataclasses.replace(RECORD, projects=("a",), form=FORM)
    older = [dataclasses.replace(RECORD, projects=projects) for projects in ((), ("b", "a"), ("b",))]
    assert [record.is_outdated_by(new) for record in older] == [True, True, False]
    assert not dataclasses.replace(new, projects=()).is_outdated_by(new)
    assert not dataclasses.replace(older[0], profile="another").is_outdated_by(new)


def test_a_comment_from_before_days_were_counted_is_read_as_one_day():
    text = json.loads(RECORD.to_json())
    del text["days"]
    assert Record.from_json(json.dumps(text)) == RECORD


def changed(**fields):
    return json.dumps({**json.loads(RECORD.to_json()), **fields})


def without(name):
    fields = json.loads(RECORD.to_json())
    del fields[name]
    return json.dumps(fields)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a comment of somebody's",
        "{}",
        "[]",
        "null",
        "3",
        '"text"',
        RECORD.to_json()[:-1],
        changed(seeddb=FORMAT + 1),
        changed(seeddb=str(FORMAT)),
        changed(strategy="file_copy; DROP DATABASE shop"),
        changed(strategy=["FILE_COPY"]),
        changed(steps=None),
        changed(steps=[["one"]]),
        changed(steps=[["one", [["a"]]]]),
        changed(opened=3),
        changed(another=1),
        *map(without, ("seeddb", "plan", "profile", "fingerprint", "steps", "opened", "strategy")),
    ],
)
def test_a_comment_that_is_not_ours_or_is_damaged_is_nothing(text):
    assert Record.from_json(text) is None


@pytest.mark.parametrize(
    "fields", [{"plan": 3}, {"fingerprint": None}, {"used": 3}, {"created": None}, {"size": "x"}, {"layer": 1}]
)
def test_a_field_of_another_type_makes_it_damaged(fields):
    assert Record.from_json(changed(**fields)) is None


def test_a_very_deep_comment_is_nothing():
    assert Record.from_json("[" * 100_000) is None
