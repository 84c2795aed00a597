"""The page for those who come from another tool: its conftest.py, as the diffs leave it, and its tests run as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/coming-from-another-tool.md"
SCHEMA = "CREATE TABLE customers (id serial PRIMARY KEY, name text)"
ROWS = "INSERT INTO customers (name) VALUES ('a'), ('b'), ('c')"


def after(diff):
    """A file as a diff leaves it."""
    return "".join(f"{line[1:]}\n" for line in diff.splitlines() if not line.startswith("-"))


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["pytest-postgresql", "A rolled back transaction", "testcontainers"])
def test_the_tests_of_a_section_pass_with_its_new_conftest(blocks, tool, pytester):
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {tool}\n")[2].partition("\n## ")[0]
    (diff,) = re.findall(r"^```diff\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    (tests,) = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    (table, *_) = blocks(PAGE.relative_to(ROOT), "toml")
    pytester.makepyprojecttoml(table.text)
    for name, text in {"db/001_shop.sql": SCHEMA, "seeds/customers.sql": ROWS}.items():
        place = pytester.path / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(f"{text};\n")
    pytester.makeconftest(after(diff))
    pytester.makepyfile(tests)
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:django", "-p", "no:randomly")
    result.assert_outcomes(passed=tests.count("def test_"))
