"""The application under test needs no change: its engines and variables point at the seeded database."""

from __future__ import annotations

import psycopg
import pytest

ENGINES = """
    import os
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
    from sqlalchemy.orm import scoped_session, sessionmaker

    OWN = os.environ["OWN_QUERY"]
    SOCKET = os.environ["OWN_SOCKET"]

    def made(driver, **arguments):
        return create_engine(f"postgresql+{driver}://{OWN}", **arguments)

    psycopg = made("psycopg")
    psycopg2 = made("psycopg2", pool_size=1, max_overflow=0)
    pg8000 = create_engine(
        "postgresql+pg8000://" + OWN.partition("?")[0], connect_args={"unix_sock": SOCKET} if SOCKET else {}
    )
    of_sessions = made("psycopg")
    Session = sessionmaker(of_sessions)
    of_scoped = made("psycopg2")
    Scoped = scoped_session(sessionmaker(bind=of_scoped))

    asyncpg = create_async_engine(f"postgresql+asyncpg://{OWN}")
    psycopg_async = create_async_engine(f"postgresql+psycopg://{OWN}")
    of_async_sessions = create_async_engine(f"postgresql+asyncpg://{OWN}")
    AsyncSession = async_sessionmaker(of_async_sessions, expire_on_commit=False)

    unreachable = create_engine("postgresql+psycopg2://nobody:secret@127.0.0.1:1/nowhere")
    named_here = create_engine("postgresql+psycopg://nobody@no-such-host.invalid/nowhere")
"""
# What applications do: the engine is imported by value, in several modules.
READER = """
    from sqlalchemy import text
    from app.db import SYNC

    def count(name):
        with SYNC[name].connect() as connection:
            return connection.execute(text("SELECT count(*) FROM shop")).scalar()
"""
WRITER = """
    from sqlalchemy import text
    from app.db import Scoped, Session, asyncpg, psycopg_async, AsyncSession, SYNC

    ADD = text("INSERT INTO shop (name) VALUES ('added')")
    COUNT = text("SELECT count(*) FROM shop")

    def add(name):
        with SYNC[name].begin() as connection:
            connection.execute(ADD)

    async def add_async(engine):
        async with engine.begin() as connection:
            await connection.execute(ADD)
        async with engine.connect() as connection:
            return (await connection.execute(COUNT)).scalar()
"""
SYNC = "\n    SYNC = {name: globals()[name] for name in %r}\n"
NAMES = ("psycopg", "psycopg2", "pg8000", "of_sessions", "of_scoped")
NAMED = [f"app.db:{name}" for name in (*NAMES[:3], "Session", "Scoped", "asyncpg", "psycopg_async", "AsyncSession")]

OWN_ROWS = "CREATE TABLE shop (id serial, name text); INSERT INTO shop (name) VALUES ('its own')"


@pytest.fixture
def own_database(empty_database):
    """The application's own database: what its engines were made for, and what no seeded test may touch."""
    with psycopg.connect(empty_database.conninfo) as connection:
        connection.execute(OWN_ROWS)
    yield empty_database
    with psycopg.connect(empty_database.conninfo) as connection:
        assert connection.execute("SELECT id, name FROM shop").fetchall() == [(1, "its own")]


@pytest.fixture
def application(project, own_database, monkeypatch):
    """A project with an application whose engines of every driver are made at import, for `own_database`."""
    host = own_database.params["host"]
    port = own_database.params.get("port", "5432")
    query = own_database.url_for("x").partition("://")[2]
    monkeypatch.setenv("OWN_QUERY", query)
    monkeypatch.setenv("OWN_SOCKET", f"{host}/.s.PGSQL.{port}" if host.startswith("/") else "")
    project.write("app/__init__.py", "")
    project.write("app/db.py", ENGINES + SYNC % (NAMES,))
    project.write("app/reader.py", READER)
    project.write("app/writer.py", WRITER)
    return project


SYNC_TESTS = """
    import asyncio, gc, threading
    from concurrent.futures import ThreadPoolExecutor
    import pytest
    from sqlalchemy import text
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    from app import db, reader, writer
    from app.db import SYNC, AsyncSession, Scoped, Session, asyncpg, psycopg_async

    every_sync = pytest.mark.parametrize("name", sorted(SYNC))
    asynchronous = [asyncpg, psycopg_async, db.of_async_sessions]
    every_async = pytest.mark.parametrize("engine", asynchronous, ids=lambda engine: engine.driver)
    twice = pytest.mark.parametrize("round", range(2))

    def own(round):
        # Fills the pools from the application's own database, before seeded tests and between them.
        for name in SYNC:
            assert reader.count(name) == 1

        async def check():
            for engine in (asyncpg, psycopg_async):
                async with engine.connect() as connection:
                    assert (await connection.execute(writer.COUNT)).scalar() == 1
                await engine.dispose()
        asyncio.run(check())

    def test_a_first_look_at_its_own_database():
        own(0)

    @twice
    @every_sync
    @pytest.mark.seeded
    def test_sync(name, round):
        assert reader.count(name) == 3
        writer.add(name)
        assert reader.count(name) == 4
        assert len({reader.count(each) for each in SYNC}) == 1

    @twice
    @every_async
    @pytest.mark.seeded
    def test_async(engine, round):
        assert asyncio.run(writer.add_async(engine)) == 4

    def test_its_own_database_again():
        own(1)

    @twice
    @pytest.mark.seeded
    def test_sessions(round, seeded_connection):
        with Session() as session:
            assert session.execute(writer.COUNT).scalar() == 3
            session.execute(writer.ADD)
            session.commit()
        assert Scoped.execute(writer.COUNT).scalar() == 4
        Scoped.execute(text("INSERT INTO shop (name) VALUES ('scoped')"))
        Scoped.commit()
        Scoped.remove()

        async def work():
            async with AsyncSession() as session:
                assert (await session.execute(writer.COUNT)).scalar() == 5
                await session.execute(text("INSERT INTO shop (name) VALUES ('async')"))
                await session.commit()
        asyncio.run(work())
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (6,)

    left = []

    @pytest.mark.parametrize("round", range(3))
    @pytest.mark.seeded
    def test_what_a_test_leaves_open_does_not_reach_the_next(round):
        session = Session()
        session.execute(text("INSERT INTO shop (name) VALUES ('left')"))
        held = db.psycopg2.connect()         # the only one that its pool may have
        assert held.execute(writer.COUNT).scalar() == 3
        Scoped.execute(text("INSERT INTO shop (name) VALUES ('left, scoped')"))
        if round == 1:
            left.extend([session, held])     # held over tests; the others are collected
        if round == 2:
            assert left[0].execute(writer.COUNT).scalar() == 3
            left[0].close()
            left[1].close()

    class Base(DeclarativeBase):
        pass

    class Shop(Base):
        __tablename__ = "shop"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    @twice
    @pytest.mark.seeded
    def test_what_a_session_was_about_to_insert_does_not_reach_the_next(round):
        assert Scoped.query(Shop).count() == 3
        Scoped.get(Shop, 1).name = "changed"
        Scoped.add(Shop(name="pending"))
        Scoped.add(Shop(name="pending, too"))

    @pytest.mark.seeded
    def test_threads(seeded_connection):
        def work(number):
            name = ("psycopg", "of_sessions", "pg8000", "of_scoped")[number % 4]
            with SYNC[name].begin() as connection:
                connection.execute(text("INSERT INTO shop (name) VALUES (:name)"), {"name": f"thread {number}"})
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(24)))
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (27,)

    @pytest.mark.seeded
    def test_reset(seeded_db):
        held = db.psycopg.connect()
        for _ in range(3):
            for name in SYNC:
                assert reader.count(name) == 3
            writer.add("of_scoped")
            assert asyncio.run(count_async()) == 4
            seeded_db.reset()
        assert asyncio.run(count_async()) == 3
        held.close()

    async def count_async():
        async with asyncpg.connect() as connection:
            return (await connection.execute(writer.COUNT)).scalar()

    def test_its_own_database_at_last():
        gc.collect()
        own(2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("engines", [NAMED, ["all"]], ids=["named", "all"])
def test_engines_of_every_kind_and_driver_see_the_seeded_database_in_seeded_tests_only(application, engines):
    application.table(f"engines = {engines!r}")
    result = application.test(SYNC_TESTS)
    result.assert_outcomes(passed=3 + 10 + 6 + 2 + 3 + 2 + 2)


@pytest.mark.slow
def test_an_engine_whose_own_database_cannot_be_reached_works(application):
    application.table('engines = ["app.db:unreachable", "app.db:named_here"]')
    result = application.test(
        """
        import pytest
        from sqlalchemy import text
        from sqlalchemy.exc import OperationalError
        from app.db import named_here, unreachable

        @pytest.mark.seeded
        @pytest.mark.parametrize("engine", [unreachable, named_here], ids=["unreachable", "unknown host"])
        def test_seeded(engine):
            with engine.connect() as connection:
                assert connection.execute(text("SELECT count(*) FROM shop")).scalar() == 3

        def test_plain():
            with pytest.raises(OperationalError):
                unreachable.connect()
        """
    )
    result.assert_outcomes(passed=3)


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["rollback", "readonly"])
def test_where_the_database_is_shared_redirected_engines_read_and_their_writes_are_refused(application, isolation):
    application.table(f"engines = {NAMED!r}\nisolation = '{isolation}'")
    result = application.test(
        """
        import asyncio
        import pytest
        from app import reader, writer
        from app.db import SYNC, asyncpg, psycopg_async

        @pytest.mark.seeded
        @pytest.mark.parametrize("name", sorted(SYNC))
        def test_sync(name):
            assert reader.count(name) == 3
            writer.add(name)

        @pytest.mark.seeded
        @pytest.mark.parametrize("engine", [asyncpg, psycopg_async], ids=lambda engine: engine.driver)
        def test_async(engine):
            asyncio.run(writer.add_async(engine))

        @pytest.mark.seeded
        def test_the_seeded_state():
            assert reader.count("psycopg") == 3

        def test_its_own():
            assert reader.count("psycopg") == 1
        """
    )
    result.assert_outcomes(passed=2, failed=7)
    assert result.stdout.str().count(f'This test has isolation="{isolation}"') == 7


@pytest.mark.slow
def test_what_a_rollback_test_writes_is_not_seen_by_the_applications_engine(application):
    application.table(f"engines = {NAMED!r}\nisolation = 'rollback'")
    result = application.test(
        """
        from sqlalchemy import text
        from app import reader

        def test_it(seeded_session, seeded_db):
            for _ in range(2):
                seeded_session.execute(text("INSERT INTO shop (name) VALUES ('mine')"))
                seeded_session.commit()
                assert reader.count("psycopg2") == 3
                seeded_db.reset()
        """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.slow
def test_a_web_application_answers_from_the_seeded_database(application):
    application.write(
        "app/web.py",
        """
        from fastapi import Depends, FastAPI
        from sqlalchemy import text
        from app.db import AsyncSession, Session

        app = FastAPI()

        def session():
            with Session() as session:
                yield session

        async def async_session():
            async with AsyncSession() as session:
                yield session

        @app.get("/shops")
        def shops(session=Depends(session)):
            return session.execute(text("SELECT count(*) FROM shop")).scalar()

        @app.post("/shops/{name}")
        def add(name: str, session=Depends(session)):
            session.execute(text("INSERT INTO shop (name) VALUES (:name)"), {"name": name})
            session.commit()

        @app.get("/async/shops")
        async def async_shops(session=Depends(async_session)):
            return (await session.execute(text("SELECT count(*) FROM shop"))).scalar()
        """,
    )
    application.table('engines = ["app.db:Session", "app.db:AsyncSession"]')
    result = application.test(
        """
        import gc, pytest
        from fastapi.testclient import TestClient
        from app.web import app
        pytestmark = pytest.mark.seeded

        @pytest.mark.parametrize("round", range(3))
        def test_it(round):
            with TestClient(app) as client:
                assert client.get("/shops").json() == 3
                assert client.post("/shops/new").status_code == 200
                assert client.get("/shops").json() == client.get("/async/shops").json() == 4
            gc.collect()

        @pytest.fixture
        def client():
            with TestClient(app) as client:
                yield client

        @pytest.mark.parametrize("round", range(2))
        def test_with_the_client_as_a_fixture(client, round, seeded_db):
            assert client.post("/shops/new").status_code == 200
            assert client.get("/async/shops").json() == 4
            seeded_db.reset()
            assert client.get("/async/shops").json() == client.get("/shops").json() == 3
        """,
        # Newer versions of Starlette want another client than its older ones.
        "-W",
        "ignore:Using `httpx` with:",
    )
    result.assert_outcomes(passed=5)


@pytest.mark.slow
def test_an_engine_that_is_made_in_a_function_on_first_use_is_redirected(application):
    application.write(
        "app/lazy.py",
        """
        from functools import cache
        from sqlalchemy import create_engine
        from app import db

        @cache
        def engine():
            return db.made("psycopg")
        """,
    )
    application.table('engines = ["app.lazy:engine"]')
    result = application.test(
        """
        from sqlalchemy import text
        from app.lazy import engine

        def test_it(seeded_db):
            with engine().connect() as connection:
                assert connection.execute(text("SELECT count(*) FROM shop")).scalar() == 3
        """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("app.db:psycop", "There is no 'psycop' in the module 'app.db'"),
        ("app.db:OWN", "This is not a SQLAlchemy engine"),
        ("app.db:lite", "This engine is not for PostgreSQL"),
    ],
)
def test_an_entry_of_engines_that_cannot_be_followed_says_so(application, entry, told):
    with (application.path / "app/db.py").open("a") as file:
        file.write('\nlite = create_engine("sqlite://")\n')
    application.table(f'engines = ["{entry}"]')
    result = application.test("def test_it(seeded_db): pass")
    result.assert_outcomes(errors=1)
    output = result.stdout.str()
    assert told in output
    assert "`engines` in" in output
    assert f"{application.path}/pyproject.toml" in output


# -- environment variables -----------------------------------------------------------------------


@pytest.mark.slow
def test_variables_hold_the_clones_url_in_their_own_scheme_and_are_put_back(project, monkeypatch):
    monkeypatch.setenv("FIRST_URL", "postgresql+asyncpg://somebody@elsewhere/first")
    monkeypatch.setenv("OTHER_URL", "sqlite://")
    monkeypatch.delenv("THIRD_URL", raising=False)
    project.table('env = ["FIRST_URL", "OTHER_URL", "THIRD_URL"]')
    result = project.test(
        """
        import os, subprocess, sys
        import psycopg, pytest

        def test_before(): as_they_were()

        def as_they_were():
            assert os.environ["FIRST_URL"] == "postgresql+asyncpg://somebody@elsewhere/first"
            assert os.environ["OTHER_URL"] == "sqlite://"
            assert "THIRD_URL" not in os.environ

        @pytest.mark.parametrize("round", range(2))
        @pytest.mark.seeded
        def test_inside(round):
            assert os.environ["FIRST_URL"].startswith("postgresql+asyncpg://")
            assert os.environ["OTHER_URL"].startswith("postgresql://")
            assert os.environ["THIRD_URL"].startswith("postgresql://")
            with psycopg.connect(os.environ["THIRD_URL"]) as connection:
                connection.execute("INSERT INTO shop (name) VALUES ('mine')")
                assert connection.execute("SELECT count(*) FROM shop").fetchone() == (4,)
            os.environ["FIRST_URL"] = "changed by the test"
            del os.environ["THIRD_URL"]

        def test_after(): as_they_were()

        CHILD = "import os, psycopg; print(psycopg.connect(os.environ['{}']).execute('SELECT 7').fetchone()[0])"

        def test_children(seeded_db):
            for name in ("THIRD_URL", "OTHER_URL"):
                assert subprocess.check_output([sys.executable, "-W", "ignore", "-c", CHILD.format(name)]) == b"7\\n"
            given = {**os.environ, **seeded_db.env}
            assert given["DATABASE_URL"] == seeded_db.url and given["PGDATABASE"] == seeded_db.name
            inside = "import psycopg; print(psycopg.connect().info.dbname)"
            found = subprocess.check_output([sys.executable, "-W", "ignore", "-c", inside], env=given, text=True)
            assert found.strip() == seeded_db.name
        """
    )
    result.assert_outcomes(passed=5)


@pytest.mark.slow
def test_an_application_that_reads_the_variable_at_each_connection_needs_nothing_else(project, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://somebody@elsewhere/own")
    project.write(
        "app.py",
        """
        import os
        from sqlalchemy import create_engine, text

        def count():
            engine = create_engine(os.environ["DATABASE_URL"])
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO shop (name) VALUES ('mine')"))
                found = connection.execute(text("SELECT count(*) FROM shop")).scalar()
            engine.dispose()
            return found
        """,
    )
    project.table('env = "DATABASE_URL"')
    result = project.test(
        """
        import pytest, app
        pytestmark = pytest.mark.seeded

        @pytest.mark.parametrize("round", range(2))
        def test_it(round):
            assert app.count() == 4

        def test_reset(seeded_db):
            assert app.count() == 4
            seeded_db.reset()
            assert app.count() == 4
        """
    )
    result.assert_outcomes(passed=3)
