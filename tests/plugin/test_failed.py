"""What the report of a failed test says was written: all that was committed, by whichever connection."""

from __future__ import annotations

import re
import shutil

import pytest

APPLICATION = """
    from sqlalchemy import create_engine, text
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_engine("postgresql+{}://nobody@nowhere.invalid/nothing")
    asynchronous = create_async_engine("postgresql+asyncpg://nobody@nowhere.invalid/nothing")
    held = []

    def rename():
        with engine.begin() as connection:
            connection.execute(text("UPDATE shop SET name = 'renamed' WHERE id > 1"))
        with engine.connect() as connection:
            return connection.scalar(text("SELECT count(*) FROM shop"))

    async def remove():
        async with asynchronous.begin() as connection:
            await connection.execute(text("DELETE FROM shop WHERE id < 3"))
        held.append(await asynchronous.connect())
        return await held[0].scalar(text("SELECT count(*) FROM shop"))
"""
TESTS = {
    "session": """
    def test_it(seeded_session):
        seeded_session.execute(text("DELETE FROM shop WHERE id < 3"))
        seeded_session.commit()
        assert seeded_session.scalar(text("SELECT count(*) FROM shop")) == 3
    """,
    "psycopg": """
    def test_it(seeded_connection):
        seeded_connection.execute("DELETE FROM shop WHERE id < 3")
        seeded_connection.commit()
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
    """,
    "application": """
    def test_it(seeded_db):
        assert rename() == 4
    """,
    "asyncpg": """
    def test_it(seeded_db):
        assert asyncio.run(remove()) == 3
    """,
    "async session": """
    def test_it(seeded_async_session):
        async def remove():
            await seeded_async_session.execute(text("DELETE FROM shop WHERE id < 3"))
            await seeded_async_session.commit()
            return await seeded_async_session.scalar(text("SELECT count(*) FROM shop"))
        assert asyncio.run(remove()) == 3
    """,
    "stranger": """
    def test_it(seeded_db):
        stranger = psycopg.connect(seeded_db.conninfo)
        stranger.execute("SELECT 1")
        stranger.commit()
        stranger.execute("DELETE FROM shop WHERE id < 3")
        stranger.execute("SELECT pg_stat_force_next_flush()")  # else the counters come when a second has passed
        stranger.commit()
        assert stranger.execute("SELECT count(*) FROM shop").fetchone() == (3,)
    """,
}


def sections(result):
    return re.findall(r"-+ seeddb -+\n.*?\n(?=[=-]{9})", result.stdout.str(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_the_report_counts_what_was_committed_before_the_question_that_failed(project, driver):
    project.write("application.py", APPLICATION.format(driver))
    project.table('engines = ["application:engine", "application:asynchronous"]')
    head = "import asyncio, psycopg\nfrom sqlalchemy import text\nfrom application import rename, remove\n"
    for name, test in TESTS.items():
        project.write(f"test_{name.replace(' ', '_')}.py", head + test.replace("\n    ", "\n"))
    result = project.run("-p", "no:randomly")
    result.assert_outcomes(failed=len(TESTS))
    reports = dict(zip(sorted(TESTS, key=lambda name: name.replace(" ", "_")), sections(result), strict=True))
    stranger = reports.pop("stranger")
    assert "shop  2 updated\n" in reports.pop("application")
    assert all("shop  2 deleted\n" in report for report in reports.values()), reports
    assert not any("not known" in report for report in reports.values())
    assert "shop  2 deleted (at least)\n" in stranger
    assert "not known yet: all that was committed by no name (idle in transaction); close it to know" in stranger


@pytest.mark.slow
def test_the_quickstarts_first_test_made_to_fail_reports_the_order_that_it_placed(project, repository):
    shutil.copytree(repository / "examples" / "quickstart", project.path, dirs_exist_ok=True)
    module = project.path / "tests" / "test_orders.py"
    text, last = module.read_text(), 'assert stock_of("S01", "SKU-002") == 19'
    assert last in text
    module.write_text(text.replace(last, f"{last} + 1"))
    result = project.run("tests/test_orders.py", "-k", "takes_its_goods_off_the_shelf")
    result.assert_outcomes(failed=1, deselected=9)
    (report,) = sections(result)
    assert "orders        1 inserted\n" in report
    assert "order_lines   2 inserted\n" in report
    assert "stock_levels  2 updated\n" in report
    assert "sequences moved: " in report
    assert "not known" not in report
