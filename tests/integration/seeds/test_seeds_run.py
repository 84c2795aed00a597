"""Seeds that run against a real database."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
import textwrap
from itertools import count
from pathlib import Path

import psycopg
import pytest

import pytest_seeddb
from pytest_seeddb.errors import BuildError, ConfigError
from pytest_seeddb.plan.plan import Target
from pytest_seeddb.seeds.staging import stages
from pytest_seeddb.settings.settings import CommandSpec, Settings

_numbers = count(1)

TABLE = "CREATE TABLE thing (id serial PRIMARY KEY, maker text, name text UNIQUE, number bigint)"

HEAD = """
import asyncio, random
import factory
from faker import Faker
from sqlalchemy import text
from sqlalchemy.orm import Session
from sqlalchemy.ext.asyncio import AsyncSession
from pytest_seeddb import seeder

INSERT = text("INSERT INTO thing (maker, name, number) VALUES (:maker, :name, :number)")
fake = Faker()

class Thing:
    def __init__(self, **fields): self.fields = fields

class ThingFactory(factory.Factory):
    class Meta:
        model = Thing
    name = factory.Sequence(lambda n: f"thing {n}")
    number = factory.fuzzy.FuzzyInteger(10**12)
    maker = factory.Faker("name")
    kind = factory.Iterator(["a", "b", "c"])

def draw():
    import numpy
    made = ThingFactory().fields
    return " ".join(map(str, (random.random(), fake.name(), *made.values(), numpy.random.random())))
"""


class Project:
    def __init__(self, root, address):
        self.root = root
        self.address = address
        self.package = f"shop{next(_numbers)}i"
        self.write("__init__.py", "")
        self.started = []

    def write(self, name, text):
        path = self.root / self.package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def seeds(self, text, head=HEAD):
        self.forget()
        self.write(
            "seeds.py", head.replace("import factory\n", "import factory, factory.fuzzy\n") + textwrap.dedent(text)
        )

    def forget(self):
        """Let the modules be imported anew, as in another process."""
        for name in [each for each in sys.modules if each.partition(".")[0] == self.package]:
            del sys.modules[name]

    def stages(self, *seeds, overrides=None, **others):
        named = tuple(each.replace("shop.", f"{self.package}.") if isinstance(each, str) else each for each in seeds)
        settings = Settings(root=self.root, seeds=named or (f"{self.package}.seeds",), env=("SHOP_URL",), **others)
        return stages(settings, overrides or {})

    def run(self, *seeds, first=0, **others):
        settings = Settings(root=self.root, session=others.get("session", ()))
        target = Target(self.address, self.root, ("SHOP_URL",), self.started.append, settings=settings)
        for stage in self.stages(*seeds, **others):
            stage.run(target, first)

    def query(self, statement):
        with psycopg.connect(self.address.conninfo, autocommit=True) as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def rows(self):
        return self.query("SELECT maker, name, number FROM thing ORDER BY id")

    def error(self, *seeds, kind=BuildError, **others):
        with pytest.raises(kind) as caught:
            self.run(*seeds, **others)
        return str(caught.value).replace(self.package, "shop")


@pytest.fixture
def project(tmp_path, empty_database, monkeypatch):
    monkeypatch.delitem(sys.modules, "sqlmodel", raising=False)  # these seeders are written for SQLAlchemy's sessions
    path = [*sys.path]
    found = Project(tmp_path, empty_database)
    found.query(TABLE)
    yield found
    sys.path[:] = path
    found.forget()


def test_sync_and_async_seeders_and_callables_fill_the_database_in_order(project):
    project.seeds("""
        @seeder(tier="demo")
        def stores(session: Session, stores: int = 1):
            for n in range(stores):
                session.execute(INSERT, {"maker": "stores", "name": f"store {n}", "number": n})

        @seeder
        async def roles(session):
            assert isinstance(session, AsyncSession)
            await session.execute(INSERT, {"maker": "roles", "name": "admin", "number": 0})
    """)
    project.write(
        "db.py",
        """
        from sqlalchemy import text
        from sqlalchemy.orm import Session
        def init_db(s: Session) -> None:
            s.execute(text("INSERT INTO thing (maker) VALUES ('init')"))
        """,
    )
    project.run("shop.seeds", "shop.db:init_db", overrides={"stores": 2})
    assert project.rows() == [
        ("roles", "admin", 0),
        ("init", None, None),
        ("stores", "store 0", 0),
        ("stores", "store 1", 1),
    ]
    assert [step.name.replace(project.package, "shop") for step in project.started] == [
        "seed shop.seeds:roles",
        "seed shop.db:init_db",
        "seed shop.seeds:stores",
    ]


APPLICATION = """
    from sqlalchemy import create_engine, text
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
    from sqlalchemy.orm import Session, sessionmaker

    engine = create_engine("postgresql+psycopg2://nobody@nowhere.invalid/none")

    class Own(Session):
        def get_bind(self, *arguments, **options): return engine
        def thing(self, maker): self.execute(text("INSERT INTO thing (maker) VALUES (:maker)"), {"maker": maker})
    class Further(Own): ...
    class Other(Session): ...
    class OwnAsync(AsyncSession): ...

    Maker = sessionmaker(class_=Own, autoflush=False, autobegin=False, twophase=True, info={"tenant": 1})
    AsyncMaker = async_sessionmaker(class_=OwnAsync, autoflush=False, autobegin=False, info={"tenant": 1})
"""
SEEDERS = """
    import threading
    from sqlalchemy import Connection
    from factory.alchemy import SQLAlchemyModelFactory
    from .app import Further, Other, OwnAsync

    class Wired(SQLAlchemyModelFactory):
        class Meta:
            model = Thing

    def check(session, name, with_options=True):
        assert type(session).__name__ == name
        assert session.get_bind().engine.driver == "psycopg"
        assert session.autoflush is not with_options
        assert session.info == ({"tenant": 1} if with_options else {})

    @seeder
    def named(session):
        check(session, "Own")
        session.thing("named")
    @seeder
    def of_the_base(s: Session): check(s, "Own")
    @seeder
    def of_a_subclass(s: Further): check(s, "Further")
    @seeder
    def of_another_class(s: Other): check(s, "Other", with_options=False)
    @seeder
    def beside_a_connection(connection: Connection, session):
        check(session, "Own")
        assert session.get_bind() is connection
        session.thing("beside")
    @seeder
    async def asynchronous(session):
        assert type(session) is OwnAsync
        assert not session.sync_session.autoflush
        assert session.info == {"tenant": 1}
    @seeder
    def of_factories():
        check(Wired._meta.sqlalchemy_session, "Own")
        sessions = []
        thread = threading.Thread(target=lambda: sessions.append(Wired._meta.sqlalchemy_session))
        thread.start()
        thread.join()
        check(*sessions, "Own")
"""


def test_seeders_get_the_session_of_the_application(project):
    project.write("app.py", APPLICATION)
    project.seeds(SEEDERS)
    project.run(session=(f"{project.package}.app:Maker", f"{project.package}.app:AsyncMaker"))
    assert [row[0] for row in project.rows()] == ["named", "beside"]


def test_sql_files_and_commands_fill_the_database_too(project):
    (project.root / "seeds").mkdir()
    for number in (10, 2):
        (project.root / "seeds" / f"{number}_x.sql").write_text(f"INSERT INTO thing (number) VALUES ({number});")
    script = project.root / "fill.py"
    script.write_text(
        "import os, psycopg\n"
        "with psycopg.connect(os.environ['DATABASE_URL']) as connection:\n"
        "    connection.execute('INSERT INTO thing (number) VALUES (99)')\n"
    )
    command = f"{sys.executable} fill.py"
    project.run("seeds/*.sql", CommandSpec(command, ("fill.py",)))
    assert [row[2] for row in project.rows()] == [2, 10, 99]


def test_a_stage_starts_from_the_step_that_is_asked_for(project):
    project.seeds("""
        @seeder
        def one(session): session.execute(INSERT, {"maker": "one", "name": "1", "number": 1})
        @seeder
        def two(session): session.execute(INSERT, {"maker": "two", "name": "2", "number": 2})
    """)
    project.run(first=1)
    assert [row[0] for row in project.rows()] == ["two"]


ONE = """
@seeder
def one(session):
    for n in range(3):
        session.execute(INSERT, {"maker": "one", "name": draw(), "number": n})
"""
TWO = """
@seeder
def two(session):
    for n in range(3):
        session.execute(INSERT, {"maker": "two", "name": draw(), "number": n})
"""


def test_the_same_plan_gives_the_same_rows_whatever_ran_before_in_the_process(project):
    project.seeds(ONE + TWO)
    project.run()
    first = project.rows()
    module = sys.modules[f"{project.package}.seeds"]
    for _ in range(5):
        module.draw()
    project.query("TRUNCATE thing RESTART IDENTITY")
    project.run()
    assert project.rows() == first
    assert len({name for _, name, _ in first}) == 6


def test_another_random_seed_gives_other_rows(project):
    project.seeds(ONE)
    project.run()
    before = project.rows()
    project.query("TRUNCATE thing RESTART IDENTITY")
    project.run(random_seed=1)
    assert not {name for _, name, _ in before} & {name for _, name, _ in project.rows()}


def test_adding_a_seeder_changes_in_what_the_others_make_only_the_sequences_that_they_share(project):
    project.seeds(TWO)
    project.run()
    alone = project.rows()
    project.query("TRUNCATE thing RESTART IDENTITY")
    project.seeds(ONE + TWO)
    project.run()
    after = [(maker, name.replace("thing 3", "thing 0"), number) for maker, name, number in project.rows()[3:]]
    assert after[0] == alone[0]
    assert [row[0] for row in after] == ["two"] * 3


def states(module):
    """Everything that decides which numbers the process draws next."""
    import numpy as np
    from factory.random import randgen
    from faker import generator

    factory = module.ThingFactory
    kinds = factory._meta.base_declarations["kind"].iterator
    return (
        random.getstate(),
        repr(np.random.get_state()),  # noqa: NPY002 - the legacy generator is the one with a global state
        generator.random.getstate(),
        (generator.Generator._global_seed, generator.Generator._is_seeded),
        (randgen.getstate(), randgen.state_set),
        factory._meta._counter and factory._meta._counter.seq,
        len(kinds.past_elements) - len(kinds.next_elements) if kinds else 0,
    )


@pytest.mark.parametrize("drawn", [0, 1, 2, 8])
def test_the_random_numbers_of_the_process_are_not_touched(project, drawn):
    project.seeds(ONE + "\n@seeder\ndef two(): raise ValueError\n")
    sys.path.insert(0, str(project.root))  # the fixture takes it out again
    module = importlib.import_module(f"{project.package}.seeds")
    for _ in range(drawn):
        module.draw()
    before = states(module)
    assert "ValueError" in project.error()
    assert states(module) == before
    numbers = [module.ThingFactory().fields["name"], module.ThingFactory().fields["kind"]]
    assert numbers == [f"thing {drawn}", "abc"[(drawn + 1) % 3]]


@pytest.mark.slow
def test_a_seeder_that_imports_numpy_in_its_body_draws_the_same_numbers_in_each_process(project):
    project.seeds(
        """
        @seeder
        def one(session):
            import numpy
            session.execute(INSERT, {"maker": "one", "name": str(numpy.random.random()), "number": 1})
        """
    )
    project.query("CREATE TABLE seen AS SELECT name FROM thing")
    code = (
        "import sys; from pathlib import Path; from pytest_seeddb.servers.address import Address\n"
        "from pytest_seeddb.settings.settings import Settings; from pytest_seeddb.plan.plan import Target\n"
        "from pytest_seeddb.seeds.staging import stages\n"
        f"root = Path({str(project.root)!r}); address = Address({dict(project.address.params)!r})\n"
        f"stages(Settings(root=root, seeds=({project.package + '.seeds'!r},)), {{}})[0].run(Target(address, root), 0)\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(pytest_seeddb.__file__).parents[1])
        project.query("INSERT INTO seen SELECT name FROM thing; DELETE FROM thing")
    assert project.query("SELECT count(*), count(DISTINCT name) FROM seen") == [(2, 1)]


def test_directory_environment_and_pools_are_the_seeders_own_and_put_back(project, monkeypatch):
    monkeypatch.delenv("SHOP_URL", raising=False)
    before = Path.cwd()
    project.seeds("""
        from sqlalchemy import create_engine
        engine = create_engine("postgresql+psycopg://nobody@nowhere.invalid/production")
        @seeder
        def where():
            import os
            with engine.begin() as connection:
                found = connection.execute(text("SELECT current_database()")).scalar()
                connection.execute(INSERT, {"maker": os.getcwd(), "name": os.environ["SHOP_URL"], "number": 0})
    """)
    project.run()
    assert project.rows() == [(str(project.root), project.address.url, 0)]
    assert Path.cwd() == before
    assert "SHOP_URL" not in os.environ


PLAIN_HEAD = """from sqlalchemy import text
from pytest_seeddb import seeder
INSERT = text('INSERT INTO thing (maker, name, number) VALUES (:maker, :name, :number)')
"""


def test_a_failing_seeder_names_itself_its_line_and_the_error(project):
    project.seeds(
        """
        def deeper():
            raise LookupError("no such shelf")
        @seeder
        def one(session):
            session.execute(INSERT, {"maker": "one", "name": "1", "number": 1})
            deeper()
    """,
        head=PLAIN_HEAD,
    )
    assert project.error() == (
        "The seeder shop.seeds:one failed\n"
        "  saw:  LookupError: no such shelf\n"
        '  from: shop/seeds.py:6, in deeper: raise LookupError("no such shelf")\n'
        "  do:   correct the seeder; what it had not committed was rolled back"
    )
    assert project.rows() == []


def test_a_failing_statement_is_shown_with_its_sqlstate_and_without_its_values(project):
    project.seeds("""
        @seeder
        def one(session):
            for _ in range(2):
                maker = "hid" + "den"
                session.execute(INSERT, {"maker": maker, "name": "same", "number": 1})
    """)
    error = project.error()
    assert "(SQLSTATE 23505)" in error
    assert "INSERT INTO thing (maker, name, number) VALUES (%(maker)s" in error
    assert "Factory.reset_sequence(1000, force=True)" in error
    assert "hidden" not in error


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg", "pg8000"])
def test_every_driver_tells_its_sqlstate(project, driver):
    is_async = driver == "asyncpg"
    project.seeds(f"""
        from sqlalchemy import create_engine
        from sqlalchemy.ext.asyncio import create_async_engine
        @seeder
        {"async " if is_async else ""}def one():
            engine = create_{"async_" if is_async else ""}engine("postgresql+{driver}://x@localhost/y")
            try:
                {"async " if is_async else ""}with engine.begin() as connection:
                    {"await " if is_async else ""}connection.execute(text("SELECT * FROM nowhere"))
            finally:
                {"await " if is_async else ""}engine.dispose()
    """)
    error = project.error()
    assert 'relation "nowhere" does not exist (SQLSTATE 42P01)\n            SELECT * FROM nowhere' in error


def test_an_interruption_passes_and_puts_everything_back(project):
    project.seeds("""
        @seeder
        def one(session):
            random.seed(1)
            raise KeyboardInterrupt
    """)
    before, state = Path.cwd(), random.getstate()
    with pytest.raises(KeyboardInterrupt):
        project.run()
    assert Path.cwd() == before
    assert random.getstate() == state


def test_a_value_is_checked_against_a_hint_of_the_projects_own_before_any_seeder_runs(project):
    project.write("kinds.py", "from enum import Enum\nclass Color(Enum):\n    RED = 'r'\n    BLUE = 'b'\n")
    project.seeds("""
        from .kinds import Color
        @seeder
        def one(session, color: Color = Color.RED):
            session.execute(INSERT, {"maker": "one", "name": color.name, "number": 1})
    """)
    error = project.error(kind=ConfigError, overrides={"color": "GREEN"})
    assert "give one of 'RED', 'BLUE'" in error
    assert project.rows() == []
    project.run(overrides={"color": "BLUE"})
    assert project.rows() == [("one", "BLUE", 1)]


def test_a_module_whose_source_says_something_else_is_refused_before_anything_runs(project):
    project.seeds("""
        @seeder
        def roles(session):
            session.execute(INSERT, {"maker": "one", "name": "1", "number": 1})
        import pytest_seeddb
        getattr(pytest_seeddb, "see" + "der")(draw)
    """)
    error = project.error(kind=ConfigError)
    assert error == (
        "The imported seeders of shop.seeds differ from those in its source\n"
        "  saw:  source: roles\n"
        "        imported: roles; draw\n"
        "  from: shop/seeds.py:29\n"
        "  do:   declare each seeder at the top level of the module, with @seeder itself as its only decorator and "
        "with literal arguments"
    )
    assert project.rows() == []
