"""factory_boy in seeded tests: which session, which numbers, which draws."""

from __future__ import annotations

import json

import pytest

MODELS = """
    import os
    from sqlalchemy import ForeignKey, create_engine
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, scoped_session, sessionmaker

    class Base(DeclarativeBase): pass

    class Shop(Base):
        __tablename__ = "shop"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(unique=True)
        customers: Mapped[list["Customer"]] = relationship(back_populates="shop")

    class Customer(Base):
        __tablename__ = "customer"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column(unique=True)
        name: Mapped[str]
        shop_id: Mapped[int] = mapped_column(ForeignKey("shop.id"))
        shop: Mapped[Shop] = relationship(back_populates="customers")

    engine = create_engine("postgresql+psycopg://nobody@nowhere.invalid/production")
    Scoped = scoped_session(sessionmaker(engine))
"""
FACTORIES = """
    import random
    import factory, factory.fuzzy
    from factory.alchemy import SQLAlchemyModelFactory
    from little.models import Customer, Scoped, Shop

    class ShopFactory(SQLAlchemyModelFactory):
        class Meta:
            model = Shop
        name = factory.Sequence(lambda n: f"shop {n}")

    class CustomerFactory(SQLAlchemyModelFactory):
        class Meta:
            model = Customer
            sqlalchemy_session = Scoped
        email = factory.Sequence(lambda n: f"c{n}@x.example")
        class Params:
            kind = factory.Iterator("abc")
        name = factory.LazyAttribute(lambda made: f"{made.kind} {random.random()} {fuzzy.fuzz()} {fake.name()}")
        shop = factory.SubFactory(ShopFactory)

    fuzzy = factory.fuzzy.FuzzyInteger(10**12)
    import faker
    fake = faker.Faker()
"""
SEEDS = """
    from sqlalchemy.orm import Session
    from pytest_seeddb import seeder
    from little.factories import CustomerFactory, ShopFactory

    @seeder
    def shops(session: Session):
        ShopFactory.create_batch(3)

    @seeder(tier="demo", after=[shops])
    def more(session: Session, customers: int = 2):
        CustomerFactory.create_batch(customers)
"""
SCHEMA = """
    CREATE TABLE shop (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
    CREATE TABLE customer (id serial PRIMARY KEY, email text NOT NULL UNIQUE, name text NOT NULL,
                           shop_id int NOT NULL REFERENCES shop);
"""
HEAD = """
import pytest
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session, object_session
from little.factories import CustomerFactory, ShopFactory
from little.models import Customer, Scoped, Shop

def count(model, seeded_url):
    engine = create_engine(seeded_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        found = connection.scalar(select(func.count()).select_from(model))
    engine.dispose()
    return found
"""


@pytest.fixture
def shop(project):
    """A project with models, factories and seeders that use them."""
    project.seeders()
    project.write("little/models.py", MODELS)
    project.write("little/factories.py", FACTORIES)
    project.write("little/seeds.py", SEEDS)
    project.write("db/001_shop.sql", SCHEMA)
    return project


def run(shop, text, *options, **outcomes):
    result = shop.test(HEAD + text, *options)
    result.assert_outcomes(**(outcomes or {"passed": text.count("def test_")}))
    return result


# -- the session ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_factories_write_through_the_session_that_the_test_uses_however_they_are_wired(shop):
    run(
        shop,
        """
@pytest.fixture
def early():
    return CustomerFactory()  # before the test's own session is asked for

def test_one(early, seeded_session):
    assert object_session(early) is object_session(early.shop) is seeded_session
    assert seeded_session.scalar(select(func.count()).select_from(Customer)) == 3

def test_declared_in_the_test(seeded_session):
    class VipFactory(CustomerFactory):
        name = "vip"
    class Fresh(ShopFactory.__base__):
        class Meta:
            model = Shop
        name = "fresh"
    assert object_session(VipFactory()) is object_session(Fresh()) is seeded_session
    assert VipFactory._meta.sqlalchemy_session is seeded_session
""",
    )


@pytest.mark.slow
def test_a_test_that_uses_no_session_gets_one_and_only_what_is_committed_is_seen_by_others(shop):
    run(
        shop,
        """
class Committing(ShopFactory):
    class Meta:
        sqlalchemy_session_persistence = "commit"

@pytest.mark.seeded
def test_commit(request):
    Committing()
    assert count(Shop, request.getfixturevalue("seeded_url")) == 6

@pytest.mark.seeded
def test_none(request):
    made = ShopFactory()
    assert count(Shop, request.getfixturevalue("seeded_url")) == 5
    assert object_session(made) is request.getfixturevalue("seeded_session")
    ShopFactory._meta.sqlalchemy_session.commit()
    assert count(Shop, request.getfixturevalue("seeded_url")) == 6
""",
    )


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["clone", "rollback"])
def test_what_factories_made_is_gone_in_the_next_test(shop, isolation):
    run(
        shop,
        f"""
@pytest.mark.seeded(isolation={isolation!r})
@pytest.mark.parametrize("n", range(3))
def test_one(n, seeded_session):
    made = CustomerFactory()
    seeded_session.commit()
    assert made.email == "c2@x.example" and made.shop.name == "shop 5"
    assert seeded_session.scalar(select(func.count()).select_from(Shop)) == 6
""",
        passed=3,
    )


@pytest.mark.slow
def test_an_async_test_writes_through_its_async_session(shop):
    run(
        shop,
        """
import asyncio
async def made_in(session):
    one = CustomerFactory()
    two = await session.run_sync(lambda _: CustomerFactory())
    await session.commit()
    return one, two

def test_alone(seeded_async_session, seeded_url):
    made = asyncio.run(made_in(seeded_async_session))
    assert {object_session(each) for each in made} == {seeded_async_session.sync_session}
    assert count(Customer, seeded_url) == 4

def test_beside_the_other(seeded_async_session, seeded_session, seeded_url):
    plain, inside = asyncio.run(made_in(seeded_async_session))
    assert object_session(plain) is seeded_session
    assert object_session(inside) is seeded_async_session.sync_session
    assert count(Customer, seeded_url) == 3
""",
    )


@pytest.mark.slow
def test_a_session_of_the_applications_that_leads_to_the_tests_database_is_kept(shop):
    shop.write("pyproject.toml", (shop.path / "pyproject.toml").read_text() + 'engines = ["little.models:engine"]\n')
    run(
        shop,
        """
@pytest.mark.seeded
def test_the_application_shares_its_session_with_its_factories(seeded_url):
    class OrderedFactory(ShopFactory):
        class Meta:
            sqlalchemy_session_factory = Scoped
    made = OrderedFactory()
    Scoped.add(Customer(email="x", name="x", shop=made))  # would fail if it were in another session
    Scoped.commit()
    assert count(Customer, seeded_url) == 3

def test_unless_the_test_uses_ours(seeded_session):
    assert object_session(CustomerFactory()) is seeded_session
""",
    )


@pytest.mark.slow
def test_a_session_that_leads_elsewhere_is_not_used(shop):
    run(
        shop,
        """
@pytest.mark.seeded
def test_one(request):
    made = CustomerFactory()  # wired to a session on nowhere.invalid
    made_in = object_session(made)
    made_in.commit()
    assert count(Customer, request.getfixturevalue("seeded_url")) == 3
""",
    )


@pytest.mark.slow
def test_what_a_fixture_assigns_in_the_test_holds_until_the_test_ends(shop):
    run(
        shop,
        """
@pytest.fixture
def own(seeded_engine):
    with Session(seeded_engine) as session:
        CustomerFactory._meta.sqlalchemy_session = session
        ShopFactory._meta.sqlalchemy_session_factory = lambda: session
        yield session
        session.rollback()

def test_one(own, seeded_session):
    assert object_session(CustomerFactory()) is object_session(ShopFactory()) is own
    CustomerFactory._meta.sqlalchemy_session = None
    ShopFactory._meta.sqlalchemy_session = ShopFactory._meta.sqlalchemy_session_factory = None
    assert object_session(CustomerFactory()) is seeded_session

def test_two(seeded_session):
    assert object_session(CustomerFactory()) is seeded_session

def test_three():
    assert CustomerFactory._meta.sqlalchemy_session is Scoped
    assert ShopFactory._meta.sqlalchemy_session is ShopFactory._meta.sqlalchemy_session_factory is None
""",
    )


@pytest.mark.slow
def test_a_further_thread_has_a_session_of_its_own(shop):
    run(
        shop,
        """
from concurrent.futures import ThreadPoolExecutor
class Committing(ShopFactory):
    class Meta:
        sqlalchemy_session_persistence = "commit"

def test_one(seeded_session, seeded_url):
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: (object_session(Committing(name=f"t{n}"))), range(40)))
    assert seeded_session not in made and len(set(made)) <= 4
    assert count(Shop, seeded_url) == 45
    assert object_session(Committing()) is seeded_session
""",
    )


@pytest.mark.slow
def test_a_fixture_that_asks_for_the_session_in_its_tear_down_makes_none(shop):
    run(
        shop,
        """
@pytest.fixture
def tidy():
    yield
    assert CustomerFactory._meta.sqlalchemy_session is Scoped

@pytest.mark.seeded
def test_one(tidy): pass
""",
    )


@pytest.mark.slow
def test_a_seeder_that_is_called_and_a_database_that_is_built_in_a_test_each_write_where_they_belong(shop):
    run(
        shop,
        """
from little.seeds import more
def test_one(seeded_session, seeded_db_factory):
    CustomerFactory()
    seeded_session.commit()
    with seeded_db_factory(customers=4) as other:
        assert count(Customer, other.url) == 4
        more(seeded_session)
        assert object_session(CustomerFactory()) is seeded_session
    emails = set(seeded_session.scalars(select(Customer.email)))
    assert emails == {f"c{n}@x.example" for n in range(6)}
""",
    )


@pytest.mark.slow
def test_a_factory_that_is_wired_to_the_test_s_own_database_writes_through_its_own_session(shop):
    run(
        shop,
        """
class WiredFactory(ShopFactory):
    class Meta:
        sqlalchemy_session = Scoped

BIND = pytest.mark.parametrize("bind", ["variant", "engine", "connection", "url"])

def bound(bind, engine, url):
    if bind == "variant":
        return engine.execution_options(schema_translate_map={None: "public"})
    if bind == "connection":
        return engine.connect()
    return engine if bind == "engine" else create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))

def wire(bind):
    Scoped.remove()
    Scoped.configure(bind=bind)
    return Scoped()

@BIND
@pytest.mark.parametrize("isolation", [
    pytest.param(name, marks=pytest.mark.seeded(isolation=name)) for name in ("clone", "rollback")
])
def test_wired(bind, isolation, seeded_engine, seeded_url):
    if (bind, isolation) == ("url", "rollback"):
        pytest.skip("another connection may not write")
    session = wire(bound(bind, seeded_engine, seeded_url))
    assert object_session(WiredFactory()) is session
    session.flush()
    assert session.scalar(select(func.count()).select_from(Shop)) == 6
    Scoped.remove()

@pytest.mark.seeded
def test_beside_seeded_session(seeded_session, seeded_engine):
    session = wire(seeded_engine)
    assert object_session(WiredFactory()) is session is not seeded_session
    Scoped.remove()

@pytest.mark.seeded
def test_wired_elsewhere(seeded_session):
    wire(create_engine("postgresql+psycopg://nobody@nowhere.invalid/production"))
    assert object_session(WiredFactory()) is seeded_session
    Scoped.remove()
""",
        passed=9,
        skipped=1,
    )


@pytest.mark.slow
def test_a_seeded_test_that_does_not_know_factory_boy_does_not_import_it(project):
    result = project.test(
        """
        import sys
        def test_one(seeded_session):
            assert "factory" not in sys.modules
        """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.slow
def test_a_factory_that_is_first_imported_in_the_test_is_right_as_well(shop):
    shop.write("little/seeds.py", "from pytest_seeddb import seeder\n@seeder\ndef nothing(): pass\n")
    result = shop.test(
        """
        import random, sys
        from sqlalchemy.orm import object_session
        def draws(session):
            assert "factory" not in sys.modules
            from little.factories import CustomerFactory
            made = CustomerFactory()
            assert object_session(made) is session
            return made.name
        def test_one(seeded_session):
            print("DRAWN", draws(seeded_session))
        """,
        "-s",
    )
    result.assert_outcomes(passed=1)
    again = shop.run("-s")
    assert [line for line in result.outlines if "DRAWN" in line] == [line for line in again.outlines if "DRAWN" in line]


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["clone", "rollback"])
def test_bulk_create_loads_in_seeders_and_in_tests_of_every_isolation(shop, isolation):
    seeds = (shop.path / "little/seeds.py").read_text()
    seeds = seeds.replace("import seeder", "import bulk_create, seeder")
    shop.write("little/seeds.py", seeds.replace("CustomerFactory.create_batch(", "bulk_create(CustomerFactory, "))
    run(
        shop,
        f"""
from pytest_seeddb import bulk_create
@pytest.mark.seeded(isolation={isolation!r})
@pytest.mark.parametrize("n", range(2))
def test_one(n, seeded_session):
    assert [each.email for each in bulk_create(CustomerFactory, 2)] == ["c2@x.example", "c3@x.example"]
    seeded_session.commit()
    assert seeded_session.scalar(select(func.count()).select_from(Customer)) == 4

def test_async(seeded_async_session, seeded_url):
    import asyncio
    async def load():
        await seeded_async_session.run_sync(lambda _: bulk_create(CustomerFactory, 3))
        await seeded_async_session.commit()
    asyncio.run(load())
    assert count(Customer, seeded_url) == 5
""",
        passed=3,
    )


@pytest.mark.slow
def test_a_seeder_whose_bulk_create_fails_is_named_with_its_line_and_the_table(shop):
    seeds = (shop.path / "little/seeds.py").read_text().replace("import seeder", "import bulk_create, seeder")
    call = 'bulk_create(ShopFactory, 2, name="x")'
    shop.write("little/seeds.py", seeds.replace("CustomerFactory.create_batch(customers)", call))
    result = shop.test("def test_one(seeded_session): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "*The seeder little.seeds:more failed",
            "*saw:  bulk_create(ShopFactory, 2) failed in the table shop",
            '*duplicate key value violates unique constraint "shop_name_key" (SQLSTATE 23505)',
            '*from: little/seeds.py:12, in more: bulk_create(ShopFactory, 2, name="x")',
            "*do:   let the factory make it unique*",
        ]
    )


# -- numbers and draws ---------------------------------------------------------------------------


SAME = """
import random
@pytest.fixture(scope="session")
def log(request, worker_id="main"):
    import os
    return open(os.environ["LOG"], "a")

@pytest.mark.parametrize("n", range(6))
def test_same(n, seeded_session, log, request):
    for _ in range(n):
        random.random()
    made = CustomerFactory()
    seeded_session.flush()
    log.write(f"{request.node.nodeid} {made.email} {made.shop.name} {made.name}\\n")
    log.flush()
    for _ in range(3 - n % 3):
        CustomerFactory(), random.random()

@pytest.mark.parametrize("n", range(3))
def test_not_seeded(n):
    CustomerFactory.build()
"""


def rows(shop, *options, monkeypatch, number):
    log = shop.path / f"log{number}"
    monkeypatch.setenv("LOG", str(log))
    result = shop.pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio", "--seed-db", *options)
    assert result.ret == 0, result.stdout.str()
    return dict(line.split(" ", 1) for line in log.read_text().splitlines())


KEPT = ("--randomly-dont-reset-seed",)


@pytest.mark.slow
def test_the_same_test_makes_the_same_data_alone_in_any_order_and_under_xdist(shop, monkeypatch):
    shop.write("test_it.py", HEAD + SAME)
    ways = [
        ("-p", "no:randomly"),
        (*KEPT, "--randomly-seed=1"),
        (*KEPT, "--randomly-seed=2"),
        ("-n", "2", *KEPT, "--randomly-seed=3"),
    ]
    made = [rows(shop, *way, monkeypatch=monkeypatch, number=n) for n, way in enumerate(ways)]
    assert len(made[0]) == 6
    assert len({json.dumps(each, sort_keys=True) for each in made}) == 1
    assert all(line.startswith("c2@x.example shop 5 ") for line in made[0].values())
    assert len(set(made[0].values())) == 6
    node, line = max(made[0].items())
    assert rows(shop, "-p", "no:randomly", node, monkeypatch=monkeypatch, number="alone") == {node: line}


@pytest.mark.slow
def test_pytest_randomly_decides_the_draws_where_it_seeds_each_test(shop, monkeypatch):
    shop.write("test_it.py", HEAD + SAME)
    ways = [("--randomly-seed=1",), ("-n", "2", "--randomly-seed=1"), ("--randomly-seed=2",)]
    one, again, other = (rows(shop, *way, monkeypatch=monkeypatch, number=n) for n, way in enumerate(ways))
    assert one == again
    assert not set(one.values()) & set(other.values())
    assert {line.split(" ")[0] for line in other.values()} == {"c2@x.example"}


@pytest.mark.slow
def test_a_seeded_test_leaves_the_processs_own_numbers_as_they_were(shop):
    run(
        shop,
        """
import random
import faker, factory.random
STATES = []
def states():
    from faker import generator
    counters = [each._meta._counter and each._meta._counter.seq for each in (CustomerFactory, ShopFactory)]
    return random.getstate(), generator.random.getstate(), factory.random.randgen.getstate(), counters

def test_before():
    ShopFactory.build(), random.random()
    STATES.append(states())
def test_seeded(seeded_session):
    CustomerFactory(), random.random()
def test_failing(seeded_session):
    CustomerFactory()
    raise LookupError
def test_after():
    assert STATES == [states()]
""",
        passed=3,
        failed=1,
    )


@pytest.mark.slow
@pytest.mark.parametrize("call", ["reset_sequence()", "reset_sequence(2, force=True)"])
def test_a_reset_goes_back_to_the_templates_rows_or_where_it_is_told(shop, call):
    run(
        shop,
        f"""
def test_one(seeded_db, seeded_session):
    CustomerFactory.create_batch(3)
    CustomerFactory.{call}
    assert CustomerFactory.build().email == "c2@x.example"
    seeded_db.reset()
    assert CustomerFactory.build().email == "c2@x.example"
""",
    )


@pytest.mark.slow
def test_tests_that_share_a_database_count_on(shop):
    shop.write("pyproject.toml", (shop.path / "pyproject.toml").read_text() + 'scope = "module"\n')
    run(
        shop,
        """
@pytest.fixture(scope="module")
def first(seeded_session):
    return CustomerFactory()
@pytest.mark.parametrize("n", range(3))
def test_one(n, first, seeded_session):
    made = CustomerFactory()
    seeded_session.commit()
    assert (first.email, made.email) == ("c2@x.example", f"c{n + 3}@x.example")
""",
        passed=3,
    )


@pytest.mark.slow
def test_a_layer_remembers_where_the_seeders_before_it_left_the_sequences(shop):
    text = """
def test_one(seeded_session):
    assert sorted(seeded_session.scalars(select(Shop.name))) == [f"shop {n}" for n in range(EXPECTED)]
"""
    run(shop, text.replace("EXPECTED", "5"))
    seeds = (shop.path / "little/seeds.py").read_text()
    essential, _, demo = seeds.partition('@seeder(tier="demo", after=[shops])')
    shop.write("little/essential.py", essential)
    head = essential.partition("@seeder")[0] + "from little.essential import shops\n"
    shop.write("little/seeds.py", head + '@seeder(tier="demo", after=[shops])' + demo)
    run(shop, text.replace("EXPECTED", "5"))
    shop.write("little/seeds.py", head + '@seeder(tier="demo", after=[shops])' + demo.replace("= 2", "= 4"))
    result = run(shop, text.replace("EXPECTED", "7"))
    result.stdout.fnmatch_lines(["*little/seeds.py changed*"])
