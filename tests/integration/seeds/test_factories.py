"""factory_boy in seeders: which session its factories write through, and where their sequences start."""

from __future__ import annotations

import sys
import textwrap
import threading
from itertools import count

import psycopg
import pytest
from factory.alchemy import SQLAlchemyModelFactory, SQLAlchemyOptions
from factory.base import FactoryOptions

from pytest_seeddb.errors import BuildError
from pytest_seeddb.plan.numbering import Numbering
from pytest_seeddb.plan.plan import Target
from pytest_seeddb.seeds.counters import sequences_from
from pytest_seeddb.seeds.factories import Source, factory_session, redirect_factories
from pytest_seeddb.seeds.staging import stages
from pytest_seeddb.settings.settings import Settings

_numbers = count(1)

TABLES = """
    CREATE TABLE store (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
    CREATE TABLE item (id serial PRIMARY KEY, code text NOT NULL UNIQUE, store_id int NOT NULL REFERENCES store);
"""
HEAD = """
import asyncio, threading
import factory, psycopg
from factory.alchemy import SQLAlchemyModelFactory
from sqlalchemy import Connection, ForeignKey, create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import (DeclarativeBase, Mapped, Session, mapped_column, object_session, relationship,
                            scoped_session, sessionmaker)
from pytest_seeddb import seeder

class Base(DeclarativeBase): pass

class Store(Base):
    __tablename__ = "store"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str]
    store_id: Mapped[int] = mapped_column(ForeignKey("store.id"))
    store: Mapped[Store] = relationship()

Scoped = scoped_session(sessionmaker(create_engine("postgresql+psycopg://nobody@nowhere.invalid/production")))

class StoreFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Store
    name = factory.Sequence(lambda n: f"store {n}")

class ItemFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Item
        sqlalchemy_session_factory = Scoped
        sqlalchemy_session_persistence = "flush"
    code = factory.Sequence(lambda n: f"item {n}")
    store = factory.SubFactory(StoreFactory)

class LooseFactory(ItemFactory):
    class Params:
        store = None
    store_id = 77
"""


class Project:
    def __init__(self, root, address):
        self.root = root
        self.address = address
        self.package = f"stock{next(_numbers)}"
        self.numbering = Numbering()

    def seeds(self, text):
        self.forget()
        (self.root / f"{self.package}.py").write_text(HEAD + textwrap.dedent(text))
        return self

    def forget(self):
        sys.modules.pop(self.package, None)

    @property
    def module(self):
        return sys.modules[self.package]

    def run(self, *seeds, first=0):
        names = tuple(f"{self.package}:{each}" for each in seeds) or (self.package,)
        settings = Settings(root=self.root, seeds=names)
        target = Target(self.address, self.root, numbering=self.numbering)
        for stage in stages(settings, {}):
            stage.run(target, first)

    def query(self, statement):
        with psycopg.connect(self.address.conninfo, autocommit=True) as connection:
            found = connection.execute(statement)
            return [row[0] for row in found] if found.description else []

    def items(self):
        return self.query("SELECT code FROM item ORDER BY id")

    def stores(self):
        return self.query("SELECT name FROM store ORDER BY id")


@pytest.fixture
def project(tmp_path, empty_database):
    path = [*sys.path]
    found = Project(tmp_path, empty_database)
    found.query(TABLES)
    yield found
    sys.path[:] = path
    found.forget()
    assert not {"sqlalchemy_session", "sqlalchemy_session_factory", "_fill_from_meta"} & set(vars(SQLAlchemyOptions))
    assert FactoryOptions._initialize_counter.__module__ == FactoryOptions.reset_sequence.__module__ == "factory.base"


# -- the session ---------------------------------------------------------------------------------


def test_factories_write_through_the_session_that_the_seeder_has(project):
    project.seeds("""
        class Own(Session): pass
        @seeder
        def one(db: Own):
            made = ItemFactory()
            assert object_session(made) is object_session(made.store) is db
            class Declared(StoreFactory): pass
            assert object_session(Declared()) is ItemFactory._meta.sqlalchemy_session is db
            assert db.scalar(text("SELECT count(*) FROM item")) == 1
    """).run()
    assert (project.items(), project.stores()) == (["item 0"], ["store 0", "store 1"])


def test_a_seeder_without_a_session_has_its_factories_rows_committed_with_it(project):
    project.seeds("""
        @seeder
        def one(): StoreFactory.create_batch(2)

        @seeder
        def two(connection: psycopg.Connection):
            assert connection.execute("SELECT count(*) FROM store").fetchone() == (2,)
            StoreFactory()

        def three(): StoreFactory()
    """).run("one", "two", "three")
    assert sorted(project.stores()) == [f"store {n}" for n in range(4)]


def test_factories_join_the_connection_that_the_seeder_has(project):
    project.seeds("""
        @seeder
        def one(connection: Connection):
            connection.execute(text("INSERT INTO store (id, name) VALUES (77, 'by hand')"))
            LooseFactory()
    """).run()
    assert project.items() == ["item 0"]


def test_a_wired_session_that_leads_to_the_database_stays_and_is_committed(project):
    project.seeds("""
        class WiredFactory(StoreFactory):
            class Meta:
                sqlalchemy_session = Scoped
        def init_db():
            made = ItemFactory(store=WiredFactory())
            assert object_session(made) is object_session(made.store) is Scoped()
            Scoped.add(Item(code="by hand", store=made.store))
            assert object_session(StoreFactory()) is Scoped()
    """).run("init_db")
    assert (project.items(), project.stores()) == (["item 0", "by hand"], ["store 0", "store 1"])


@pytest.mark.parametrize("bind", ["connection", "connection.execution_options()", "session.get_bind()"])
def test_a_session_that_a_seeder_binds_to_its_own_connection_or_engine_stays(project, bind):
    asked = bind.partition(".")[0]
    project.seeds(f"""
        @seeder
        def one({asked}):
            own = scoped_session(sessionmaker({bind}))
            class Wired(StoreFactory):
                class Meta:
                    sqlalchemy_session = own
            assert object_session(Wired()) is own()
            own.flush()
    """).run()
    assert project.stores() == ["store 0"]


def test_a_wired_session_that_leads_elsewhere_is_not_touched(project):
    project.seeds("""
        def nowhere(): raise AssertionError("nobody connects there")
        engine = create_engine("postgresql+psycopg://", creator=nowhere)
        unbound = scoped_session(sessionmaker())
        sqlite = Session(create_engine("sqlite://"))
        @seeder
        def one():
            for wired in (Session(engine), unbound, sqlite, scoped_session(nowhere)):
                class Wired(StoreFactory):
                    class Meta:
                        sqlalchemy_session = wired
                Wired()
    """).run()
    assert project.stores() == ["store 0", "store 1", "store 2", "store 3"]


def test_async_seeders_write_inside_of_run_sync_and_outside_where_nothing_is_flushed(project):
    project.seeds("""
        @seeder
        async def one(session: AsyncSession):
            StoreFactory()
            made = await session.run_sync(lambda db: ItemFactory.create_batch(2))
            assert object_session(made[0]) is session.sync_session

        @seeder(after=[one])
        async def two(connection: AsyncConnection):
            await connection.execute(text("INSERT INTO store (id, name) VALUES (77, 'by hand')"))
            await connection.run_sync(lambda _: LooseFactory())
            StoreFactory()

        @seeder(after=[two])
        async def three(): ItemFactory()
    """).run()
    assert project.items() == [f"item {n}" for n in range(4)]
    assert len(project.stores()) == 6


def test_a_further_thread_gets_a_session_of_its_own_that_is_committed_too(project):
    project.seeds("""
        def in_threads():
            threads = [threading.Thread(target=StoreFactory, kwargs={"name": str(n)}) for n in range(5)]
            for each in threads: each.start()
            for each in threads: each.join()

        @seeder
        def one(session):
            in_threads()
            StoreFactory()

        @seeder
        async def two(session):
            await asyncio.to_thread(lambda: StoreFactory(name="aside"))
    """).run()
    assert set(project.stores()) == {"0", "1", "2", "3", "4", "store 5", "aside"}


def test_a_failing_seeder_keeps_nothing_and_every_factory_is_wired_as_before(project):
    project.seeds("""
        @seeder
        def one():
            class Declared(ItemFactory): pass
            global made
            made = Declared
            ItemFactory._meta.sqlalchemy_session = StoreFactory._meta.sqlalchemy_session
            ItemFactory()
            raise LookupError
    """)
    with pytest.raises(BuildError, match="LookupError"):
        project.run()
    assert project.stores() == []
    for factory in (project.module.ItemFactory, project.module.made):
        assert vars(factory._meta)["sqlalchemy_session_factory"] is project.module.Scoped
        assert factory._meta.sqlalchemy_session is None
    with pytest.raises(RuntimeError, match="No session provided"):
        project.module.StoreFactory()


def test_what_a_seeder_assigns_holds_in_the_seeder(project):
    project.seeds("""
        @seeder
        def one(engine):
            with Session(engine) as own:
                StoreFactory._meta.sqlalchemy_session = own
                ItemFactory._meta.sqlalchemy_session_factory = lambda: own
                made = ItemFactory()
                assert object_session(made) is object_session(made.store) is own
                own.commit()
    """).run()
    assert project.items() == ["item 0"]
    assert project.module.StoreFactory._meta.sqlalchemy_session is None


def test_asynchronous_wiring_is_left_to_whoever_waits_for_it():
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    wired, make = AsyncSession(), async_sessionmaker()

    class Wired(SQLAlchemyModelFactory):
        class Meta:
            sqlalchemy_session = wired

    class Made(SQLAlchemyModelFactory):
        class Meta:
            sqlalchemy_session_factory = make

    with redirect_factories(Source(object, object, lambda *_: None)):
        assert Wired._meta.sqlalchemy_session is wired
        assert Made._meta.sqlalchemy_session_factory is make


class Plain(SQLAlchemyModelFactory):
    pass


def offering(value):
    return Source(lambda: value, lambda: f"{value} of another thread", lambda *_: None)


def test_the_innermost_block_holds_where_it_was_entered_and_the_outermost_elsewhere():
    seen = []

    def look():
        seen.append(factory_session(Plain))

    with redirect_factories(offering("test")):
        with redirect_factories(offering("seeder")):
            assert factory_session(Plain) == "seeder"
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
        assert factory_session(Plain) == "test"
        with redirect_factories(offering("seeder")):
            with pytest.raises(LookupError), redirect_factories(offering("failing")):
                raise LookupError
            assert factory_session(Plain) == "seeder"
        assert factory_session(Plain) == "test"
    assert seen == ["test of another thread"]
    assert factory_session(Plain) is None


def test_a_block_that_has_none_now_lets_the_wiring_hold():
    class Wired(SQLAlchemyModelFactory):
        class Meta:
            sqlalchemy_session = "the application's"

    with redirect_factories(offering(None)):
        assert factory_session(Wired) == "the application's"


# -- sequences -----------------------------------------------------------------------------------


def test_sequences_go_on_where_the_seeders_before_left_them_also_in_another_process(project):
    text = """
        @seeder
        def one(session): StoreFactory.create_batch(2)
        @seeder
        def two(session): ItemFactory.create_batch(2)
        @seeder
        def three(session):
            class Declared(StoreFactory): pass
            Declared()
            Base.metadata.clear()
    """
    project.seeds(text).run()
    assert project.stores() == [f"store {n}" for n in range(5)]
    assert project.numbering.after() == {f"{project.package}:StoreFactory": 5, f"{project.package}:ItemFactory": 2}
    project.query("DELETE FROM item; DELETE FROM store WHERE name >= 'store 2'")
    project.numbering = Numbering({f"seed {project.package}:one": {f"{project.package}:StoreFactory": (0, 2)}})
    project.seeds(text).run(first=1)
    assert project.stores() == [f"store {n}" for n in range(5)]


def test_a_seeder_that_runs_again_draws_the_numbers_that_it_drew_before_and_a_new_one_goes_on_after_all(project):
    text = """
        @seeder
        def one(session): StoreFactory.create_batch(2)
        @seeder
        def two(session): StoreFactory.create_batch(2)
    """
    project.seeds(text).run()
    project.query("DELETE FROM store WHERE name < 'store 2'")
    project.seeds(text).run("one")
    assert sorted(project.stores()) == [f"store {n}" for n in range(4)]
    project.seeds(
        text
        + """
        @seeder
        def between(session): StoreFactory()
    """
    ).run("between")
    assert sorted(project.stores()) == [f"store {n}" for n in range(5)]


def test_a_factory_that_works_its_first_number_out_begins_there_if_that_is_more(project):
    project.seeds("""
        class Asking(StoreFactory):
            class Meta:
                model = Store
            @classmethod
            def _setup_next_sequence(cls):
                return cls._meta.sqlalchemy_session.scalar(text("SELECT count(*) FROM store")) * 10
        class Counting(SQLAlchemyModelFactory):
            class Meta:
                model = Store
            name = factory.Sequence(lambda n: f"counting {n}")
            @classmethod
            def _setup_next_sequence(cls):
                return cls._meta.sqlalchemy_session.scalar(text("SELECT count(*) FROM store")) * 10
        @seeder
        def one(session): StoreFactory()
        @seeder
        def two(session): Counting()
        @seeder
        def three(session):
            session.execute(text("DELETE FROM store"))
            Counting()
    """).run()
    assert project.stores() == ["counting 11"]


def test_a_sequence_that_is_set_holds_and_is_never_left_lower_than_it_was(project):
    project.seeds("""
        @seeder
        def one(session):
            StoreFactory.reset_sequence(100)
            StoreFactory()
        @seeder
        def two(session):
            StoreFactory.reset_sequence(7)
            StoreFactory()
            StoreFactory.reset_sequence()
            StoreFactory()
        @seeder
        def three(session):
            StoreFactory()
            StoreFactory.reset_sequence(8)
            StoreFactory()
        @seeder
        def four(session): StoreFactory()
    """).run()
    assert project.stores() == ["store 100", "store 7", "store 101", "store 102", "store 8", "store 103"]


def test_counters_nest_and_are_put_back_also_after_a_failure():
    class Counted(SQLAlchemyModelFactory):
        class Meta:
            model = dict

    class Child(Counted):
        pass

    path = f"{__name__}:{Counted.__qualname__}"
    assert Child._meta.next_sequence() == 0
    with sequences_from({path: 10}) as outer:
        assert Child._meta.next_sequence() == 10
        with pytest.raises(ZeroDivisionError), sequences_from({path: 50}):
            1 / (50 + 51 - Child._meta.next_sequence() - Counted._meta.next_sequence())
        assert Counted._meta.next_sequence() == 11
    assert outer.left == {path: 12}
    assert Counted._meta.next_sequence() == 1
