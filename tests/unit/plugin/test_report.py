"""The report's data, and the file that holds it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reporting import change, report, use

from pytest_seeddb.errors import conceal
from pytest_seeddb.plugin.uses import lines


@pytest.fixture
def data(tmp_path):
    return lambda *uses, **facts: json.loads(report([*uses], tmp_path / "r.json", **facts).read_text())


def instead(data, *uses):
    return [row["instead"] and row["instead"]["isolation"] for row in data(*uses)["databases"]]


def test_a_test_that_wrote_nothing_but_had_to_wait_could_be_readonly(data):
    waited = use("a.py::waited", settled=0.05)
    assert instead(data, use("a.py::cheap"), waited) == [None, "readonly"]
    assert data(use("a.py::cheap"), waited)["databases"][1]["instead"]["seconds"] == pytest.approx(0.049)


def test_a_test_that_wrote_rows_could_be_rolled_back_unless_others_may_have_connected(data):
    facts = {"settled": 0.05, "wrote": [change("shop", 1)]}
    others = [use("a.py::b", "rewind", given_away=True, **facts), use("a.py::c", "discard", **{**facts, "wrote": []})]
    assert instead(data, use("a.py::a", "rewind", **facts), *others) == ["rollback", None, None]


def test_what_shares_a_database_already_or_left_connections_could_use_nothing_else(data):
    left = [{"application": "", "state": "idle", "statement": ""}]
    shared = use("a.py", tests=["a.py::a", "a.py::b"], settled=0.05)
    used = [use("a.py::c", "readonly", settled=0.05), use("a.py::d", settled=0.05, left=left), shared]
    assert instead(data, *used) == [None, None, None]


def test_a_wider_scope_is_proposed_only_where_no_test_would_see_another_one_s_rows(data):
    nodes = [f"{name}.py::{test}" for name in "ab" for test in "xy"]
    assert data(*map(use, nodes))["wider_scope"] == {
        "scope": "session",
        "databases": 3,
        "seconds": pytest.approx(0.006),
    }
    writer = use("c.py::only", "rewind", wrote=[change("shop", 1)])
    assert data(*map(use, nodes), writer)["wider_scope"]["scope"] == "module"
    assert data(*map(use, nodes), writer, use("c.py::other"))["wider_scope"] is None
    assert data(use("a.py::x"), use("a.py::y", template="shop/minimal"))["wider_scope"] is None


def test_the_time_is_divided_and_nothing_counts_twice(data):
    uses = [use("a.py::a", around=3.0, taken=0.25, settled=0.25, seconds=1.0), use("a.py::b", around=0.002)]
    time = data(*uses, built={"shop/default": (1.5, "it was asked for")})["time"]
    assert {part: round(seconds, 3) for part, seconds in time.items()} == {
        "build": 1.5, "clone": 0.251, "settle": 0.251, "tests": 1.004, "fixtures": 1.0
    }  # fmt: skip


def test_no_secret_and_nothing_that_ends_the_script_gets_into_the_page(tmp_path):
    conceal("correct-horse-battery")
    left = [{"application": "", "state": "idle", "statement": "SELECT 'correct-horse-battery'"}]
    nasty = use("a.py::test['</script><script>alert(1)</script>']", left=left, reason="password=hunter22 <!-- <script>")
    text = report([nasty], tmp_path / "r.html").read_text()
    assert "correct-horse" not in text
    assert "hunter22" not in text

    class Scripts(HTMLParser):
        texts = ()

        def handle_starttag(self, tag, attrs):
            if tag == "script":
                self.texts = (*self.texts, "")

        def handle_data(self, data):
            if self.texts:
                self.texts = (*self.texts[:-1], self.texts[-1] + data)

    parser = Scripts()
    parser.feed(text)
    assert len(parser.texts) == 2
    assert json.loads(parser.texts[0])["databases"][0]["node"] == nasty.node


def test_the_page_loads_nothing(tmp_path):
    text = report([use("a.py::a")], tmp_path / "r.html").read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"""https?://|\bsrc=|\bhref=|@import|url\(|innerHTML|insertAdjacent|document\.write""", text)


def test_the_terminal_lists_what_was_settled_the_slowest_first():
    left = [{"application": "worker", "state": "idle", "statement": "SELECT 1"}]
    slow = use("a.py::slow", "rewind", settled=0.02, reason="rows were put back", wrote=[change("shop", 1)], left=left)
    quick = use("", reason="nothing was written")
    assert lines([quick, use("a.py::shared", "rollback"), slow, use("a.py::kept", "stay")]) == [
        "  20.0 ms  a.py::slow  rewind: rows were put back, wrote shop, left 1 open: worker (idle)",
        "   1.0 ms  the session  keep: nothing was written",
    ]


def test_the_reference_names_all_that_is_in_the_data_and_nothing_else(data):
    page = Path(__file__).parents[3] / "docs/reference/report.md"
    rows = re.findall(r"^\| (`.*?`) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    given = data(use("a.py::a"))
    assert named == {*given, *given["databases"][0]}
