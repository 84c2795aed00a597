"""The async fixtures under pytest-asyncio and anyio, in whatever scope each keeps its loop."""

from __future__ import annotations

import pytest

ASYNCIO = ("-p", "no:anyio", "-o", "asyncio_default_fixture_loop_scope=function")
RUN = ("-p", "no:randomly", "-p", "no:cacheprovider", "-W", "error", "--seed-db")

# A class of tests that leave all kinds of things behind, and look for what others left.
TESTS = """
    import asyncio, gc
    import pytest
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    {mark}
    COUNT = text("SELECT count(*) FROM shop")
    ADD = text("INSERT INTO shop (name) VALUES ('mine') RETURNING id")
    twice = pytest.mark.parametrize("round", range(2))
    isolated = [pytest.param(name, marks=pytest.mark.seeded(isolation=name)) for name in ("clone", "rollback")]
    left = []

    @pytest.fixture(autouse=True)
    def collected():
        yield
        gc.collect()

    @twice
    @pytest.mark.parametrize("isolation", isolated)
    async def test_session(seeded_async_session, isolation, round):
        assert (await seeded_async_session.execute(ADD)).scalar() == 4
        await seeded_async_session.commit()
        await seeded_async_session.rollback()
        assert (await seeded_async_session.execute(COUNT)).scalar() == 4
        # left inside a transaction

    @twice
    @pytest.mark.parametrize("isolation", isolated)
    async def test_engine(seeded_async_engine, isolation, round):
        async with seeded_async_engine.begin() as connection:
            assert (await connection.execute(ADD)).scalar() == 4
        async with seeded_async_engine.connect() as connection:
            assert (await connection.execute(COUNT)).scalar() == 4

    @pytest.mark.seeded(isolation="readonly")
    async def test_readonly(seeded_async_engine, seeded_async_session):
        with pytest.raises(DBAPIError, match="read-only"):
            await seeded_async_session.execute(ADD)
        await seeded_async_session.rollback()
        async with seeded_async_engine.connect() as connection:
            assert (await connection.execute(COUNT)).scalar() == 3

    @twice
    async def test_what_it_leaves_open(seeded_async_engine, seeded_async_session, round):
        held = await seeded_async_engine.connect()
        assert (await held.execute(COUNT)).scalar() == 3
        await held.execute(text("LOCK TABLE shop"))
        left.append(held)

    @twice
    async def test_a_task_that_still_runs(seeded_async_engine, round):
        async def work():
            async with seeded_async_engine.connect() as connection:
                await connection.execute(text("SELECT pg_sleep(60)"))
        task = asyncio.create_task(work())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @pytest.mark.parametrize("isolation", isolated)
    async def test_a_cancelled_query(seeded_async_session, isolation):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await seeded_async_session.execute(text("SELECT pg_sleep(60)"))
        await seeded_async_session.rollback()
        assert (await seeded_async_session.execute(COUNT)).scalar() == 3

    async def test_reset(seeded_db, seeded_async_session, seeded_async_engine):
        for _ in range(3):
            assert (await seeded_async_session.execute(ADD)).scalar() == 4
            await seeded_async_session.commit()
            async with seeded_async_engine.begin() as connection:
                await connection.execute(text("DELETE FROM shop"))
            seeded_db.reset()
        assert (await seeded_async_session.execute(COUNT)).scalar() == 3

    @twice
    async def test_several_connections_at_once(seeded_async_engine, seeded_session, round):
        async def add(number):
            async with seeded_async_engine.begin() as connection:
                await connection.execute(text(f"INSERT INTO shop (name) VALUES ('number {{number}}')"))
        await asyncio.gather(*(add(number) for number in range(10)))
        assert seeded_session.execute(COUNT).scalar() == 13

    @twice
    async def test_sync_fixtures(seeded_db, seeded_session, seeded_connection, seeded_db_factory, round):
        seeded_session.execute(ADD)
        seeded_session.commit()
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (4,)
        with seeded_db_factory("default") as another, another.connect() as connection:
            assert connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
"""
PASSED = 4 + 4 + 1 + 2 + 2 + 2 + 1 + 2 + 2

KINDS = {
    "asyncio-strict": ("pytestmark = pytest.mark.asyncio", (*ASYNCIO, "-o", "asyncio_mode=strict")),
    "asyncio-auto": ("", (*ASYNCIO, "-o", "asyncio_mode=auto")),
    "asyncio-module": ('pytestmark = pytest.mark.asyncio(loop_scope="module")', ASYNCIO),
    "asyncio-session": (
        "",
        (
            *("-p", "no:anyio", "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=session"),
            *("-o", "asyncio_default_test_loop_scope=session"),
        ),
    ),
    "anyio": ("pytestmark = pytest.mark.anyio", ("-p", "no:asyncio")),
}
BACKEND = """
    import pytest

    @pytest.fixture{scope}
    def anyio_backend():
        return "{name}"
"""


OFTEN = ("asyncio-strict", "anyio")
"""The kinds that every run of the fast tests tries."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [kind if kind in OFTEN else pytest.param(kind, marks=pytest.mark.long) for kind in KINDS]
)
def test_async_tests_see_the_seeded_state_and_leave_nothing_behind(project, kind):
    mark, options = KINDS[kind]
    if kind == "anyio":
        project.write("conftest.py", BACKEND.format(scope="", name="asyncio"))
    project.write("test_it.py", TESTS.format(mark=mark))
    result = project.pytester.runpytest_subprocess(*RUN, *options)
    result.assert_outcomes(passed=PASSED)


@pytest.mark.slow
def test_a_loop_and_a_clone_for_the_module_go_together(project):
    project.table('scope = "module"')
    project.write(
        "test_it.py",
        """
        import pytest, pytest_asyncio
        from sqlalchemy import text
        pytestmark = pytest.mark.asyncio(loop_scope="module")

        @pytest_asyncio.fixture(scope="module", loop_scope="module")
        async def filled(seeded_async_engine):
            async with seeded_async_engine.begin() as connection:
                await connection.execute(text("INSERT INTO shop (name) VALUES ('of the module')"))

        @pytest.mark.parametrize("round", range(2))
        async def test_it(filled, seeded_async_session, round):
            assert (await seeded_async_session.execute(text("SELECT count(*) FROM shop"))).scalar() == 4
        """,
    )
    result = project.pytester.runpytest_subprocess(*RUN, *ASYNCIO)
    result.assert_outcomes(passed=2)


@pytest.mark.slow
def test_async_fixtures_of_the_users_own_build_on_ours(project):
    project.table('engines = ["app:engine"]')
    project.write(
        "app.py",
        """
        from sqlalchemy.ext.asyncio import create_async_engine
        engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/nowhere")
        """,
    )
    project.write("conftest.py", BACKEND.format(scope='(scope="module")', name="asyncio"))
    project.write(
        "test_it.py",
        """
        import asyncio, gc
        import pytest
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import AsyncSession
        from app import engine
        pytestmark = [pytest.mark.anyio, pytest.mark.seeded]
        COUNT = text("SELECT count(*) FROM shop")

        @pytest.fixture
        async def session(anyio_backend):
            async with AsyncSession(engine) as session:
                yield session

        @pytest.mark.parametrize("round", range(3))
        async def test_it(session, round, seeded_db):
            await session.execute(text("INSERT INTO shop (name) VALUES ('mine')"))
            await session.commit()
            async with engine.connect() as connection:
                assert (await connection.execute(COUNT)).scalar() == 4
            seeded_db.reset()
            assert (await session.execute(COUNT)).scalar() == 3

        @pytest.mark.parametrize("round", range(3))
        async def test_left_open(round):
            session = AsyncSession(engine)
            assert (await session.execute(COUNT)).scalar() == 3
            connection = await engine.connect()
            await connection.execute(text("INSERT INTO shop (name) VALUES ('left')"))
            task = asyncio.create_task(connection.execute(text("SELECT pg_sleep(60)")))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        def test_at_last():
            gc.collect()
        """,
    )
    result = project.pytester.runpytest_subprocess(*RUN, "-p", "no:asyncio")
    result.assert_outcomes(passed=7)
