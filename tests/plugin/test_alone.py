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


def test_each_isolation_works_without_any_other_plugin(project):
    project.test(TEST, *ALONE).assert_outcomes(passed=3)


@pytest.mark.parametrize("option", ["--seed-db-profile=default", "--seed-db-reseed", "--seed-db-server=embedded"])
def test_each_option_works_without_any_other_plugin(project, option):
    project.test(TEST, *ALONE, option).assert_outcomes(passed=3)


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
