"""`seeded_db.diff` with the libraries for snapshots, as their users have them."""

from __future__ import annotations

import re
import shutil

import pytest

pytestmark = pytest.mark.snapshots

TEST = """
{head}

def test_it(seeded_connection, seeded_db{fixture}):
    seeded_connection.execute("INSERT INTO shop (name) VALUES ('new')")
    seeded_connection.execute("UPDATE shop SET name = {value} WHERE id = 1")
    seeded_connection.commit()
    assert seeded_db.diff(){plain} == {snapshot}
"""


@pytest.fixture
def run(project):
    project.pytester.plugins.clear()

    def run(*arguments):
        return project.pytester.runpytest_subprocess("--seed-db", "-p", "no:cacheprovider", *arguments)

    return run


@pytest.mark.parametrize("plain", ["", ".to_dict()"])
def test_inline_snapshot_writes_the_rows_and_notices_others(project, run, plain):
    head = "from inline_snapshot import snapshot"
    test = TEST.format(head=head, fixture="", plain=plain, snapshot="snapshot()", value="'one'")
    module = project.write("test_it.py", test)
    run("--inline-snapshot=create")
    written = module.read_text()
    assert re.search(r"\Winserted\W: \[\{\Wid\W: \d, \Wname\W: \Wnew\W\}\]", written), written
    run("--inline-snapshot=disable").assert_outcomes(passed=1)
    module.write_text(written.replace("'one'", "'another'", 1))
    run("--inline-snapshot=disable").assert_outcomes(failed=1)


@pytest.mark.parametrize("plain", ["", ".to_dict()"])
def test_syrupy_writes_the_rows_and_notices_others(project, run, plain):
    test = TEST.format(head="", fixture=", snapshot", plain=plain, snapshot="snapshot", value="'one'")
    module = project.write("test_it.py", test)
    run("--snapshot-update").assert_outcomes(passed=1)
    (kept,) = project.path.glob("__snapshots__/*.ambr")
    assert "'name': 'new'" in kept.read_text()
    run().assert_outcomes(passed=1)
    module.write_text(test.replace("'one'", "'another'"))
    shutil.rmtree(project.path / "__pycache__", ignore_errors=True)
    run().assert_outcomes(failed=1)
