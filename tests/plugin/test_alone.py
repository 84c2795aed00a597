"""The plugin beside nothing but pytest: no xdist, no asyncio plugin, no random order."""

from __future__ import annotations

import pytest

TEST = """
    import pytest
    from sqlalchemy import text

    def test_a_clone(seeded_session):
        seeded_session.execute(text("DELETE FROM shop"))
        seeded_session.commit()

    @pytest.mark.seeded(isolation="rollback")
    def test_a_rollback(seeded_session):
        assert seeded_session.scalar(text("SELECT count(*) FROM shop")) == 3

    @pytest.mark.seeded(isolation="readonly")
    def test_a_reader(seeded_connection):
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
"""
ALONE = [option for name in ("xdist", "anyio", "faker", "randomly") for option in ("-p", f"no:{name}")]


@pytest.mark.slow
def test_each_isolation_works_without_any_other_plugin(project):
    project.test(TEST, *ALONE).assert_outcomes(passed=3)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--seed-db-profile=default", "--seed-db-reseed", "--seed-db-server=embedded"])
def test_each_option_works_without_any_other_plugin(project, option):
    project.test(TEST, *ALONE, option).assert_outcomes(passed=3)


@pytest.mark.slow
def test_seeders_in_python_with_a_profile_and_overrides(project):
    project.seeders("[tool.seeddb.profiles.small]\nshops = 1")
    result = project.test(
        """
        import pytest

        def count(connection):
            return connection.execute("SELECT count(*) FROM shop").fetchone()[0]

        @pytest.mark.seeded
        def test_default(seeded_connection):
            assert count(seeded_connection) == 1 + 3

        @pytest.mark.seeded("small")
        def test_profile(seeded_connection):
            assert count(seeded_connection) == 1 + 1

        @pytest.mark.seeded("small", shops=7)
        def test_overrides(seeded_connection):
            assert count(seeded_connection) == 1 + 7

        @pytest.mark.seeded("essential")
        def test_essential(seeded_connection):
            assert count(seeded_connection) == 1
        """,
        *ALONE,
    )
    result.assert_outcomes(passed=4)


@pytest.mark.slow
def test_the_applications_engine_is_redirected_where_greenlet_is_not_installed(project):
    project.table('engines = ["little.db:engine"]')
    project.write("little/__init__.py", "")
    project.write(
        "little/db.py",
        """
        from sqlalchemy import create_engine
        engine = create_engine("postgresql+psycopg://nobody@nowhere.invalid/nothing")
        """,
    )
    project.write("greenlet.py", "raise ImportError('as if it were not installed')")
    result = project.test(
        """
        import pytest
        from little.db import engine

        @pytest.mark.seeded
        def test_it():
            with engine.connect() as connection:
                assert connection.exec_driver_sql("SELECT count(*) FROM shop").scalar() == 3
        """,
        *ALONE,
    )
    result.assert_outcomes(passed=1)
