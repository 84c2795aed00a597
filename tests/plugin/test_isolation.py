"""Each test sees the seeded state, whatever the others did."""

from __future__ import annotations

import pytest


def test_a_marked_test_gets_a_migrated_and_seeded_database(project):
    result = project.test(
        """
        def test_it(seeded_connection):
            assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
        """
    )
    result.assert_outcomes(passed=1)


def test_real_commits_of_one_test_are_not_seen_by_the_next(project):
    result = project.test(
        """
        import pytest

        @pytest.mark.parametrize("round", range(3))
        def test_it(seeded_db, round):
            with seeded_db.connect() as connection:
                assert connection.execute("INSERT INTO shop (name) VALUES ('mine') RETURNING id").fetchone() == (4,)
            with seeded_db.connect() as another:
                assert another.execute("SELECT count(*) FROM shop").fetchone() == (4,)
        """
    )
    result.assert_outcomes(passed=3)


@pytest.mark.slow
def test_a_test_that_a_plugin_runs_again_begins_in_the_seeded_state(project):
    """As pytest-rerunfailures does it."""
    project.write(
        "conftest.py",
        """
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item, nextitem):
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            for _ in range(3):
                item._initrequest()
                reports = runtestprotocol(item, nextitem=nextitem, log=False)
                if not any(each.failed for each in reports):
                    break
            for each in reports:
                item.ihook.pytest_runtest_logreport(report=each)
            item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
            return True
        """,
    )
    result = project.test(
        """
        rounds = []

        def test_it(seeded_connection):
            assert seeded_connection.execute("SELECT count(*), max(id) FROM shop").fetchone() == (3, 3)
            seeded_connection.execute("INSERT INTO shop (name) VALUES ('mine')")
            seeded_connection.commit()
            rounds.append(1)
            assert len(rounds) == 3

        def test_next(seeded_connection):
            assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
            assert len(rounds) == 3
        """
    )
    result.assert_outcomes(passed=2)


@pytest.mark.slow
def test_a_dropped_schema_an_open_transaction_and_a_left_connection_harm_nobody(project):
    result = project.test(
        """
        import pytest, psycopg
        left = []

        @pytest.mark.parametrize("round", range(3))
        def test_it(seeded_db, round):
            connection = psycopg.connect(seeded_db.url)
            left.append(connection)
            assert connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
            connection.execute("DROP TABLE shop")
            if round == 1:
                connection.commit()
        """,
        "-W",
        "ignore",
    )
    result.assert_outcomes(passed=3)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["session", "engine", "connection", "async_session", "async_engine"])
def test_rollback_undoes_commits_made_in_every_way_and_sets_sequences_back(project, way):
    ways = {
        "session": ("def", "seeded_session", "seeded_session.execute(INSERT).scalar_one()", "seeded_session.commit()"),
        "engine": (
            "def",
            "seeded_engine",
            "(c := seeded_engine.connect()).execute(INSERT).scalar_one()",
            "c.commit(); c.close()",
        ),
        "connection": (
            "def",
            "seeded_connection",
            "seeded_connection.execute(INSERT.text).fetchone()[0]",
            "seeded_connection.commit()",
        ),
        "async_session": (
            "async def",
            "seeded_async_session",
            "(await seeded_async_session.execute(INSERT)).scalar_one()",
            "await seeded_async_session.commit()",
        ),
        "async_engine": (
            "async def",
            "seeded_async_engine",
            "(await (c := await seeded_async_engine.connect()).execute(INSERT)).scalar_one()",
            "await c.commit(); await c.close()",
        ),
    }
    kind, fixture, insert, commit = ways[way]
    result = project.test(
        f"""
        import pytest
        from sqlalchemy import text
        INSERT = text("INSERT INTO shop (name) VALUES ('mine') RETURNING id")

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        @pytest.mark.seeded(isolation="rollback")
        @pytest.mark.parametrize("round", range(3))
        {kind} test_it({fixture}, seeded_db, round):
            assert {insert} == 4
            {commit}
            other = seeded_db.connect()
            assert other.execute("SELECT count(*) FROM shop").fetchone() == (3,)
            other.rollback()
        """,
        "-p",
        "anyio",
    )
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["seeddb: 1 clone, *"])


@pytest.mark.slow
def test_rollback_goes_back_to_the_last_commit_and_not_further(project):
    result = project.test(
        """
        import pytest
        from sqlalchemy import text
        from sqlalchemy.exc import IntegrityError
        pytestmark = pytest.mark.seeded(isolation="rollback")
        ADD = text("INSERT INTO shop (name) VALUES (:name)")

        def names(session):
            return session.scalars(text("SELECT name FROM shop WHERE id > 3 ORDER BY id")).all()

        def test_session(seeded_session):
            seeded_session.execute(ADD, {"name": "kept"})
            seeded_session.commit()
            seeded_session.execute(ADD, {"name": "lost"})
            seeded_session.rollback()
            assert names(seeded_session) == ["kept"]

        def test_an_error_does_not_end_it(seeded_session):
            seeded_session.execute(ADD, {"name": "kept"})
            seeded_session.commit()
            with pytest.raises(IntegrityError):
                seeded_session.execute(ADD, {"name": "kept"})
            seeded_session.rollback()
            assert names(seeded_session) == ["kept"]

        def test_a_reader_on_the_engine_leaves_the_sessions_open_work_alone(seeded_session, seeded_engine):
            seeded_session.execute(ADD, {"name": "open"})
            with seeded_engine.connect() as connection:
                assert connection.execute(text("SELECT count(*) FROM shop")).scalar() == 4
            seeded_session.commit()
            assert names(seeded_session) == ["open"]

        def test_nested_transactions(seeded_session):
            with seeded_session.begin_nested():
                seeded_session.execute(ADD, {"name": "inner"})
            seeded_session.commit()
            assert names(seeded_session) == ["inner"]

        def test_all_of_them_are_one_transaction(seeded_session, seeded_connection):
            seeded_session.execute(ADD, {"name": "seen"})
            seeded_session.flush()
            assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (4,)
        """
    )
    result.assert_outcomes(passed=5)


@pytest.mark.slow
def test_a_commit_that_escapes_a_rollback_test_costs_the_clone_and_not_the_next_test(project):
    result = project.test(
        """
        import pytest
        pytestmark = pytest.mark.seeded(isolation="rollback")

        @pytest.mark.parametrize("round", range(3))
        def test_it(seeded_connection, round):
            assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
            seeded_connection.execute("INSERT INTO shop (name) VALUES ('escaped')")
            seeded_connection.execute("COMMIT")
        """
    )
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["seeddb: 3 clones, *"])


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["readonly", "rollback"])
def test_a_write_that_the_isolation_forbids_is_an_error_that_says_so(project, isolation):
    result = project.test(
        f"""
        import pytest

        @pytest.mark.seeded(isolation="{isolation}")
        def test_it(seeded_db):
            with seeded_db.connect() as connection:
                connection.execute("DELETE FROM shop")
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*ReadOnlySqlTransaction*", f'This test has isolation="{isolation}"*needs isolation="clone"*']
    )


@pytest.mark.slow
def test_what_does_not_fit_into_the_one_transaction_of_rollback_is_explained(project):
    result = project.test(
        """
        import pytest
        from sqlalchemy import text
        pytestmark = pytest.mark.seeded(isolation="rollback")
        @pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
        def test_level(seeded_engine, level):
            seeded_engine.connect().execution_options(isolation_level=level)
        def test_two_phase(seeded_connection):
            seeded_connection.tpc_begin("it")
        def test_vacuum(seeded_session):
            seeded_session.execute(text("VACUUM"))
        def test_commit(seeded_connection):
            seeded_connection.execute("COMMIT")
            seeded_connection.rollback()
        def test_another_error(seeded_connection):
            seeded_connection.execute("SELECT nothing")
        """
    )
    result.assert_outcomes(failed=6)
    assert result.stdout.str().count('This test has isolation="rollback": all that it does') == 5


@pytest.mark.slow
def test_a_readonly_test_that_writes_by_force_does_not_reach_the_next_one(project):
    result = project.test(
        """
        import pytest
        pytestmark = pytest.mark.seeded(isolation="readonly")

        @pytest.mark.parametrize("statement", ["DELETE FROM shop", "SELECT nextval('ticket')", "DROP TABLE shop"] * 2)
        def test_it(seeded_db, statement):
            with seeded_db.connect() as connection:
                assert connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
                assert connection.execute("SELECT last_value, is_called FROM ticket").fetchone() == (1, False)
                connection.rollback()
                connection.execute("SET default_transaction_read_only = off")
                connection.execute("SET TRANSACTION READ WRITE")
                connection.execute(statement)
        """
    )
    result.assert_outcomes(passed=6)


@pytest.mark.slow
def test_reset_gives_the_seeded_state_back_in_the_middle_of_a_test(project):
    result = project.test(
        """
        import pytest
        from sqlalchemy import text

        @pytest.mark.parametrize("isolation", [
            pytest.param("clone", marks=pytest.mark.seeded(isolation="clone")),
            pytest.param("rollback", marks=pytest.mark.seeded(isolation="rollback")),
        ])
        def test_it(seeded_db, seeded_session, isolation):
            url = seeded_db.url
            for _ in range(3):
                assert seeded_session.execute(text("INSERT INTO shop (name) VALUES ('x') RETURNING id")).scalar() == 4
                seeded_session.commit()
                seeded_db.reset()
            assert seeded_session.execute(text("SELECT count(*) FROM shop")).scalar() == 3
            assert seeded_db.url == url

        def test_connections_of_ones_own(seeded_db):
            for _ in range(2):
                with seeded_db.connect(autocommit=True) as connection:
                    connection.execute("DROP TABLE shop")
                seeded_db.reset()
        """
    )
    result.assert_outcomes(passed=3)


@pytest.mark.slow
def test_a_unittest_class_that_carries_the_marker_has_a_database_for_each_test(project):
    project.table('env = "SHOP_URL"')
    result = project.test(
        """
        import os, unittest, psycopg, pytest

        @pytest.mark.seeded
        class TestShop(unittest.TestCase):
            def setUp(self):
                self.connection = psycopg.connect(os.environ["SHOP_URL"], autocommit=True)
                self.addCleanup(self.connection.close)

            def test_one(self):
                self.connection.execute("DELETE FROM shop")

            def test_two(self):
                self.assertEqual(self.connection.execute("SELECT count(*) FROM shop").fetchone(), (3,))
        """
    )
    result.assert_outcomes(passed=2)


@pytest.mark.slow
def test_a_module_scope_gives_fixtures_of_the_module_and_its_tests_one_clone(project):
    project.table('scope = "module"\nenv = "SHOP_URL"')
    module = """
        import os, psycopg, pytest
        pytestmark = pytest.mark.seeded

        @pytest.fixture(scope="module")
        def filled():
            with psycopg.connect(os.environ["SHOP_URL"]) as connection:
                connection.execute("INSERT INTO shop (name) VALUES ('of the module')")

        @pytest.mark.parametrize("round", range(2))
        def test_it(filled, round):
            with psycopg.connect(os.environ["SHOP_URL"]) as connection:
                assert connection.execute("SELECT count(*) FROM shop").fetchone() == (4,)
    """
    project.write("test_a.py", module)
    project.write("test_b.py", module)
    result = project.run()
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["seeddb: after tests: 2 *"])


@pytest.mark.slow
def test_the_factory_makes_databases_for_any_scope(project):
    result = project.test(
        """
        import pytest

        @pytest.fixture(scope="module")
        def pair(seeded_db_factory):
            with seeded_db_factory() as one, seeded_db_factory(isolation="readonly") as two:
                yield one, two

        @pytest.mark.parametrize("round", range(2))
        def test_it(pair, round):
            one, two = pair
            with one.connect() as connection:
                connection.execute("DELETE FROM shop")
            with two.connect() as connection:
                assert connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
        """
    )
    result.assert_outcomes(passed=2)
    # The third is where the deleted rows are read from.
    result.stdout.fnmatch_lines(["seeddb: 3 clones, *"])
