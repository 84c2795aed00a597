"""``--seed-db-report``: what is noted of each test, and the file that it is written to."""

from __future__ import annotations

import json
import signal

import pytest

pytestmark = pytest.mark.slow

TESTS = """
    import psycopg, pytest
    from sqlalchemy import text

    def test_reads(seeded_db):
        pass

    def test_writes(seeded_connection):
        seeded_connection.execute("INSERT INTO shop (name) VALUES ('x'), ('y')")
        seeded_connection.commit()

    def test_drops(seeded_connection):
        seeded_connection.execute("DROP TABLE shop")
        seeded_connection.commit()

    def test_leaves(seeded_url):
        global left
        left = psycopg.connect(seeded_url, autocommit=True, application_name="forgotten")
        left.execute("SELECT 'password=hunter22'")

    def test_fails(seeded_connection):
        seeded_connection.execute("UPDATE shop SET name = name || '!'")
        seeded_connection.commit()
        assert False

    @pytest.mark.seeded(isolation="rollback")
    def test_is_rolled_back(seeded_session):
        seeded_session.execute(text("DELETE FROM shop"))

    @pytest.mark.seeded(isolation="readonly")
    def test_only_reads(seeded_session):
        pytest.skip("it may")

    @pytest.fixture
    def broken(seeded_db):
        yield
        raise RuntimeError

    def test_ends_badly(broken):
        pass

    def test_has_none():
        pass
"""


@pytest.fixture
def reported(project):
    """A run with a report, and the report's data."""

    def run(text, *options, name="report.json"):
        path = project.path / name
        result = project.test(text, f"--seed-db-report={name}", *options)
        result.stdout.fnmatch_lines([f"seeddb: the report is in {path}"])
        return json.loads(path.read_text(encoding="utf-8"))

    return run


def by_name(data):
    return {use["node"].partition("::")[2]: use for use in data["databases"]}


@pytest.mark.embedded  # databases are kept
@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["one process", "xdist"])
def test_the_report_tells_of_each_test_what_it_did_and_what_became_of_its_database(reported, options):
    data = reported(TESTS, *options)
    assert (data["seeddb_report"], data["exit_status"], data["enabled"]) == (1, 1, True)
    uses = by_name(data)
    told = {name: (use["outcome"], use["afterwards"], use["wrote"]) for name, use in uses.items()}

    def wrote(inserted=0, updated=0, deleted=0):
        counts = {"inserted": inserted, "updated": updated, "deleted": deleted}
        return [{"table": "shop", **counts, "is_exact": True}]

    assert told.pop("test_drops")[:2] == ("passed", "discard")
    assert told == {
        "test_reads": ("passed", "keep", []),
        "test_writes": ("passed", "rewind", wrote(inserted=2)),
        "test_leaves": ("passed", "keep", []),
        "test_fails": ("failed", "stay", wrote(updated=3)),
        "test_is_rolled_back": ("passed", "rollback", wrote(deleted=3)),
        "test_only_reads": ("skipped", "readonly", None),
        "test_ends_badly": ("error", "stay", []),
    }
    assert "schema" in uses["test_drops"]["reason"]
    left = {"application": "forgotten", "state": "idle", "statement": "SELECT 'password=***'"}
    assert uses["test_leaves"]["left"] == [left]
    assert uses["test_leaves"]["given_away"]
    kept = uses["test_fails"]["kept"]
    assert kept.startswith("seeddb_k_")
    assert f"seeddb shell {kept}\n" in uses["test_fails"]["shown"]
    assert "shop  3 updated" in uses["test_fails"]["shown"]
    assert uses["test_ends_badly"]["shown"].startswith("seeddb shell seeddb_k_")
    assert all(use["taken"] > 0 and use["settled"] > 0 for use in uses.values())
    assert [template["template"] for template in data["templates"]] == ["little-shop/default"]


def test_the_report_says_what_made_a_build(reported, project):
    project.write("db/000_own.sql", f"SELECT '{project.path}';")
    (template,) = reported("def test_it(seeded_db): pass")["templates"]
    assert template["built"]
    assert template["seconds"] > 0
    assert template["reason"]


def test_tests_that_share_a_database_are_told_with_it(reported, project):
    project.table("scope = 'module'")
    data = reported(
        """
        def test_first(seeded_db): pass
        def test_second(seeded_db): assert False
        def test_third(): pass
        """,
        "--seed-db-keep=none",
    )
    (use,) = data["databases"]
    assert (use["node"], use["outcome"]) == ("test_it.py", "failed")
    assert use["tests"] == ["test_it.py::test_first", "test_it.py::test_second"]


def test_a_run_without_seeded_tests_leaves_a_report_that_says_so(reported):
    assert reported("def test_it(): pass")["databases"] == []


def test_a_page_is_written_into_new_directories_and_replaces_an_earlier_one(project):
    for _ in range(2):
        project.test("def test_it(seeded_db): pass", "--seed-db-report=new/ci/report.html").assert_outcomes(passed=1)
    assert [path.name for path in (project.path / "new/ci").iterdir()] == ["report.html"]
    assert "test_it.py::test_it" in (project.path / "new/ci/report.html").read_text(encoding="utf-8")


def test_a_report_is_written_after_ctrl_c(reported):
    data = reported(
        f"""
        import os
        def test_before(seeded_db): pass
        def test_it(seeded_db): os.kill(os.getpid(), {int(signal.SIGINT)})
        def test_after(seeded_db): pass
        """
    )
    assert data["exit_status"] == 2
    assert {name: use["outcome"] for name, use in by_name(data).items()} == {"test_before": "passed", "test_it": ""}


@pytest.mark.parametrize("options", [["--collect-only"], ["--fixtures"]])
def test_no_report_is_written_where_no_test_runs(project, options):
    project.test("def test_it(seeded_db): pass", "--seed-db-report=report.html", *options)
    assert not (project.path / "report.html").exists()


def test_a_path_of_tests_is_not_taken_for_the_report_s_name(project):
    result = project.test("def test_it(seeded_db): pass", "--seed-db-report", "test_it.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*The setting `report` has a value*", "*saw:  'test_it.py'", "*from: the option --seed-db-report", "*do:*"]
    )
    assert "--seed-db-report=report.html" in result.stderr.str()
    project.run("test_it.py", "--seed-db-report").assert_outcomes(passed=1)
    result = project.run("--seed-db-report", "yes", "test_it.py")
    result.stdout.fnmatch_lines(["seeddb: * ms  test_it.py::test_it  keep: nothing was written"])


def test_a_file_that_is_no_report_is_never_replaced(project):
    data = project.write("data.json", '{"mine": 1}')
    result = project.test("def test_it(seeded_db): pass", "--seed-db-report", "data.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*would replace a file that is no report*", "*saw:  *data.json", "*from:*", "*do:*"])
    assert data.read_text() == '{"mine": 1}'


def test_a_report_that_cannot_be_written_is_refused_before_the_first_test(project):
    project.write("taken", "a file, and no directory")
    result = project.test("print('imported')", "--seed-db-report=taken/report.html", "-s")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*The report cannot be written", "*saw:*taken*", "*from: the option*", "*do:*"])
    assert "imported" not in result.stdout.str()


def test_a_report_that_cannot_be_written_in_the_end_fails_no_test(project):
    result = project.test(
        """
        import pathlib
        def test_it(seeded_db):
            pathlib.Path("out").rename("away")
        """,
        "--seed-db-report=out/report.html",
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["seeddb: The report cannot be written"])
