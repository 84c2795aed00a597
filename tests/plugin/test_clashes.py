"""A project's own fixtures with the names of the plugin's: they stay what they are, and a clash is said once."""

from __future__ import annotations

import pytest

OWN = """
    import pytest

    @pytest.fixture
    def seeded_db():
        return {"role": ["superuser"]}

    @pytest.fixture(scope="session")
    def seeded_session():
        return "own"

    @pytest.fixture
    def headers(seeded_db):
        return {"Authorization": "token"}
"""
TESTS = """
    import pytest

    class TestOwn:
        @pytest.fixture
        def seeded_engine(self):
            return "of the class"

        def test_of_a_class(self, seeded_engine, seeded_session):
            assert (seeded_engine, seeded_session) == ("of the class", "own")

    def test_own(seeded_db):
        assert seeded_db == {"role": ["superuser"]}

    def test_through_another(headers):
        assert headers

    @pytest.mark.parametrize("seeded_url", ["postgresql://"])
    def test_parameter(seeded_url):
        assert seeded_url == "postgresql://"

    def test_which_are_seeded(request):
        assert not [item for item in request.session.items if item.get_closest_marker("seeded")]
"""


@pytest.mark.slow
@pytest.mark.parametrize("table", ["", "[tool.seeddb]\nmigrations = 'db'\n"], ids=["without a table", "with one"])
def test_a_project_s_own_fixtures_are_left_alone(project, table):
    project.write("pyproject.toml", f"[project]\nname = 'clash'\n{table}")
    project.write("conftest.py", OWN)
    for enabled in (False, True):
        project.write("test_it.py", TESTS)
        result = project.run(enabled=enabled)
        result.assert_outcomes(passed=5)
        said = [line for line in result.outlines if line.startswith("seeddb: test")]
        assert sorted(line.partition(" fixture ")[2].partition(",")[0] for line in said) == (
            ["seeded_db of conftest.py:4", "seeded_engine of test_it.py:5", "seeded_session of conftest.py:8"]
            if table and enabled
            else []
        )
        assert len(set(said)) == len(said)


MARKED = """
    import pytest

    @pytest.mark.seeded(42)
    def test_number(): ...

    @pytest.mark.seeded(seed=42)
    def test_keyword(): ...

    @pytest.mark.seeded
    class TestBare:
        def test_it(self): ...
"""


def test_a_project_s_own_marker_of_that_name_is_left_alone(project):
    project.write("pyproject.toml", "[project]\nname = 'clash'\n")
    project.write("legacy/test_it.py", MARKED)
    project.run(enabled=False).assert_outcomes(passed=3)
    project.write("api/seeddb.toml", "enabled = 'always'\nmigrations = 'db'\n")
    project.write("api/db/1.sql", "CREATE TABLE t ();")
    project.write("api/test_api.py", "def test_api(seeded_connection): seeded_connection.execute('TABLE t')")
    project.run(enabled=False).assert_outcomes(passed=4)


def test_a_wrong_marker_is_no_internal_error_where_seeded_tests_are_skipped(project):
    project.write("test_it.py", MARKED)
    project.run(enabled=False).assert_outcomes(skipped=3)


@pytest.mark.slow
def test_a_marked_test_whose_database_is_hidden_is_a_usage_error_that_says_how_to_go_on(project):
    project.write("conftest.py", OWN)
    result = project.test(
        """
        import pytest

        @pytest.mark.seeded
        def test_one(): ...

        @pytest.mark.seeded("minimal")
        def test_two(seeded_connection): ...

        def test_own(seeded_db): ...
        """
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str() + result.stdout.str()
    assert text.count("the project has a fixture of its own with that name") == 1
    assert "seeded_db of conftest.py:4" in text
    assert "test_it.py::test_one and 1 more" in text
    assert "rename the project's fixture" in text


@pytest.mark.slow
def test_fixtures_that_are_built_on_the_plugin_s_are_seeded_as_before(project):
    project.write(
        "conftest.py",
        """
        import pytest
        from sqlalchemy.orm import Session

        @pytest.fixture
        def seeded_db(seeded_db):
            seeded_db.extended = True
            return seeded_db

        @pytest.fixture
        def seeded_session(request):
            with Session(request.getfixturevalue("seeded_engine"), info={"own": True}) as session:
                yield session
        """,
    )
    result = project.test(
        """
        import pytest
        from sqlalchemy import text

        def test_session(seeded_session, request):
            assert request.node.get_closest_marker("seeded") and seeded_session.info == {"own": True}
            assert seeded_session.scalar(text("SELECT count(*) FROM shop")) == 3

        @pytest.mark.seeded
        def test_database(request):
            assert request.getfixturevalue("seeded_db").extended
        """
    )
    result.assert_outcomes(passed=2)
    assert "own fixture" not in result.stdout.str()
