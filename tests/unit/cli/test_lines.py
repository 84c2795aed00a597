"""Old and new lines of a file that changed since a build, as git has the old ones."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from pytest_seeddb.cli.lines import changed_lines
from pytest_seeddb.fingerprint.digests import Part, digest
from pytest_seeddb.fingerprint.participation import Participation
from pytest_seeddb.templates.record import Record

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")

PRICING = """\
import os

RATE = 3
API_KEY = connect(
    "hunter2",
)

def discount(price):
    # by hand
    if price > 9:
        return price * RATE
    return price

class Order:
    @property
    def total(self):
        return 1
"""


@pytest.fixture
def project(tmp_path):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "shop").mkdir()

    def commit(name, text):
        (tmp_path / name).write_text(text)
        git("add", "-A")
        git("commit", "-q", "-m", "x")

    return tmp_path / "shop", commit


def record(file, text, *, declared=False):
    known = digest(text)
    steps = (("migration", (Part(file, known),)),) if declared else ()
    return Record("shop", "default", "0" * 64, steps, ran=Participation(contents={} if declared else {file: known}))


def test_the_lines_of_the_function_or_constant_that_changed_and_no_others(project):
    root, commit = project
    commit("shop/pricing.py", PRICING)
    edited = PRICING.replace("price > 9", "price > 5").replace("RATE = 3", "RATE = 4").replace("return 1", "return 2")
    commit("shop/pricing.py", edited.replace("import os", "import sys"))
    before = record("pricing.py", PRICING)
    assert changed_lines("pricing.py: discount()", before, root) == ("-     if price > 9:", "+     if price > 5:")
    assert changed_lines("pricing.py: RATE", before, root) == ("- RATE = 3", "+ RATE = 4")
    assert changed_lines("pricing.py: Order.total()", before, root) == ("-         return 1", "+         return 2")
    assert changed_lines("pricing.py: Order.other()", before, root) == ()
    assert changed_lines("pricing.py", before, root)[:2] == ("- import os", "+ import sys")
    assert changed_lines("pricing.py", record("pricing.py", PRICING + "#"), root) == (), "git does not have it"
    assert changed_lines("parameter stores", before, root) == ()


def test_no_line_of_a_statement_that_names_a_secret_is_shown(project):
    root, commit = project
    commit("shop/pricing.py", PRICING)
    edited = PRICING.replace("hunter2", "hunter3").replace("os\n", "os  # postgresql://a:hunter4@b/c\n")
    (root / "pricing.py").write_text(edited)
    shown = changed_lines("pricing.py", record("pricing.py", PRICING), root)
    assert shown == ("- import os", "+ import os  # postgresql://a:***@b/c")
    commit("shop/users.sql", sql := "SELECT 1;\nCREATE ROLE a\n  PASSWORD\n  'hunter2';\nSELECT 2;\n")
    (root / "users.sql").write_text(sql.replace("hunter2", "hunter3").replace("SELECT 2", "SELECT 3"))
    assert changed_lines("users.sql", record("users.sql", sql, declared=True), root) == ("- SELECT 2;", "+ SELECT 3;")
    rows = "COPY users (name, password) FROM stdin;\nbob\thunter2\n\\.\nSELECT 2;\n"
    commit("shop/dump.sql", rows)
    (root / "dump.sql").write_text(rows.replace("hunter2", "hunter3").replace("SELECT 2", "SELECT 3"))
    assert changed_lines("dump.sql", record("dump.sql", rows, declared=True), root) == ("- SELECT 2;", "+ SELECT 3;")
    commit("shop/paged.py", paged := "A = 1\n\f\nTOKENS = {\n    'a': 'hunter2',\n}\n")
    (root / "paged.py").write_text(paged.replace("hunter2", "hunter3").replace("A = 1", "A = 2"))
    assert changed_lines("paged.py", record("paged.py", paged), root) == ("- A = 1", "+ A = 2")
    commit("shop/users.csv", "bob,hunter2\n")
    (root / "users.csv").write_text("bob,hunter3\n")
    assert changed_lines("users.csv", record("users.csv", "bob,hunter2\n", declared=True), root) == ()


def test_of_many_lines_the_first_are_shown(project):
    root, commit = project
    commit("shop/long.sql", text := "".join(f"SELECT {number};\n" for number in range(50)))
    (root / "long.sql").write_text("")
    shown = changed_lines("long.sql", record("long.sql", text, declared=True), root)
    assert (len(shown), shown[0], shown[-1]) == (21, "- SELECT 0;", "... and 30 more")


def test_a_project_without_git_has_no_lines(tmp_path):
    (tmp_path / "pricing.py").write_text("RATE = 4\n")
    assert changed_lines("pricing.py", record("pricing.py", "RATE = 3\n"), tmp_path) == ()
