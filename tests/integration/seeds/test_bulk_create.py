"""`bulk_create` makes what `create_batch` makes, by COPY; or says by name what it cannot."""

from __future__ import annotations

import asyncio
import itertools
import warnings
from types import SimpleNamespace
from typing import ClassVar

import catalogue
import factory
import psycopg
import pytest
from catalogue import (
    AnimalFactory,
    Base,
    BusyCustomerFactory,
    Chicken,
    Customer,
    CustomerFactory,
    DatedFactory,
    DogFactory,
    EagerCustomerFactory,
    EagleFactory,
    Egg,
    FilledFactory,
    FishFactory,
    FullStoreFactory,
    Group,
    LooseNoteFactory,
    MadeFactory,
    MarkedFactory,
    Note,
    Region,
    RegionFactory,
    Store,
    StoreFactory,
    ThingFactory,
)
from sqlalchemy import DDL, create_engine, event, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.types import UserDefinedType

from pytest_seeddb import BulkError, bulk_create
from pytest_seeddb.seeds.counters import sequences_from
from pytest_seeddb.seeds.factories import Source, redirect_factories
from pytest_seeddb.seeds.randomness import own_iterators

TRIGGER = """
    CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.triggered := 'by trigger'; RETURN NEW; END $$;
    CREATE TRIGGER fill BEFORE INSERT ON filled FOR EACH ROW EXECUTE FUNCTION fill();
"""


@pytest.fixture(scope="module")
def database(server_address):
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        admin.execute("CREATE DATABASE bulk TEMPLATE template0")
        address = server_address.with_database("bulk")
        engine = create_engine(address.url_for("postgresql+psycopg"))
        try:
            Base.metadata.create_all(engine)
            with engine.begin() as connection:
                connection.execute(text(TRIGGER.replace(":=", r"\:=")))
            yield SimpleNamespace(engine=engine, address=address)
        finally:
            engine.dispose()
            admin.execute("DROP DATABASE bulk (FORCE)")


def emptied(engine):
    names = ", ".join(f'"{table.name}"'.replace('odd "', 'odd ""') for table in Base.metadata.sorted_tables)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
        connection.execute(text("ALTER SEQUENCE filled_numbers RESTART"))
        connection.execute(text("ALTER SEQUENCE numbers_of_the_server RESTART"))
    catalogue.MARKS = itertools.count()


@pytest.fixture
def session(database):
    emptied(database.engine)
    with Session(database.engine) as session, sequences_from({}), own_iterators(), factories_in(session):
        yield session


def factories_in(session):
    return redirect_factories(Source(lambda: session, lambda: session, lambda *_: None))


def everything(session):
    """All rows of all tables, in the order of their making."""
    session.commit()
    with session.get_bind().connect() as connection:
        return {
            table.name: [tuple(map(repr, row)) for row in connection.execute(select(table))]
            for table in Base.metadata.sorted_tables
        }


SAME = {
    "columns of every type": (ThingFactory, {}),
    "a transformed value": (ThingFactory, {"hidden": "mine"}),
    "keys that are given": (CustomerFactory, {"id": factory.Sequence(lambda n: 1000 + n)}),
    "columns without a value": (ThingFactory, dict.fromkeys(("words", "data", "tags", "blob", "mood"))),
    "columns that others fill": (FilledFactory, {}),
    "filled columns with a value": (FilledFactory, {"scalar": 1, "server": "mine", "triggered": "mine"}),
    "filled columns, some with a value": (
        FilledFactory,
        {"server": factory.Sequence(lambda n: "mine" if n % 2 else None)},
    ),
    "dataclasses": (DatedFactory, {}),
    "keys made in Python": (MarkedFactory, {}),
    "keys made by the server": (MadeFactory, {}),
    "a tree in one table": (MarkedFactory, {"rooted": True, "parent__rooted": True}),
    "a hierarchy's root": (AnimalFactory, {}),
    "inheritance in one table": (DogFactory, {}),
    "inheritance in three tables": (EagleFactory, {}),
    "inheritance without the parent's table": (FishFactory, {}),
    "parents": (CustomerFactory, {}),
    "a trait, a child": (CustomerFactory, {"carded": True}),
    "no parent": (CustomerFactory, {"store": None}),
    "overrides of a parent": (CustomerFactory, {"store__code": factory.Sequence(lambda n: f"mine {n}")}),
    "an association proxy": (CustomerFactory, {"texts": ["one", "two"]}),
    "keys made of keys, dynamic and keyed collections": (FullStoreFactory, {}),
    "a key alone": (LooseNoteFactory, {}),
    "looked up": (RegionFactory, {}),
    "related factories and hooks": (BusyCustomerFactory, {}),
    "related factories and hooks before the rows": (EagerCustomerFactory, {}),
    "post-generation overrides": (
        BusyCustomerFactory,
        {"first__text": "mine", "password": "other", "others": None, "groups__others": ""},
    ),
}


@pytest.mark.parametrize(("made_by", "overrides"), SAME.values(), ids=SAME)
@pytest.mark.parametrize("persistence", [None, "flush", "commit"])
def test_the_rows_are_those_of_create_batch(session, database, made_by, overrides, persistence, monkeypatch):
    if made_by is EagerCustomerFactory:
        persistence = None
    elif made_by in {BusyCustomerFactory, LooseNoteFactory, MarkedFactory}:
        persistence = persistence or "flush"
    for each in (made_by, CustomerFactory, StoreFactory, RegionFactory, catalogue.NoteFactory):
        monkeypatch.setattr(each._meta, "sqlalchemy_session_persistence", persistence)
    with sequences_from({}), own_iterators():
        made_by.create_batch(5, **overrides)
        expected = everything(session)
    assert any(expected.values())
    session.close()
    emptied(database.engine)
    with sequences_from({}), own_iterators():
        made = bulk_create(made_by, 5, **overrides)
    assert all(each in session for each in made)
    assert len(made) == 5
    assert not session.new
    assert not session.dirty
    assert sorted_where_it_may_differ(everything(session)) == sorted_where_it_may_differ(expected)


def sorted_where_it_may_differ(rows):
    """Without the keys of notes: related factories are loaded together, the first of all objects, then the second."""
    notes = [row[1:] for row in rows["note"]]
    made = [row[1:] for row in rows["made"]]  # random keys
    return {name: sorted(found) for name, found in {**rows, "note": notes, "made": made}.items()}


# -- what comes back -----------------------------------------------------------------------------


def test_the_objects_are_persistent_with_their_keys_in_the_order_of_their_making(session, database):
    made = bulk_create(CustomerFactory, 3)
    assert [each.id for each in made] == [each.store.id for each in made] == [1, 2, 3]
    assert [each.email for each in made] == ["c0@x.example", "c1@x.example", "c2@x.example"]
    assert all(session.get(Customer, each.id) is each for each in made)
    made[0].email = "changed"
    session.commit()
    with Session(database.engine) as other:
        assert other.scalars(select(Customer.email).order_by(Customer.id)).first() == "changed"


def test_what_the_server_filled_in_is_read_when_it_is_asked_for(session):
    first, _ = bulk_create(FilledFactory, 2)
    assert (first.id, first.scalar, first.sensitive, first.version) == (100, 7, "made of filled 0", 1)
    assert (first.server, first.triggered) == ("from the server", "by trigger")


def test_a_value_that_is_known_is_not_asked_for(session, database):
    made = bulk_create(CustomerFactory, 2, store=None)
    asked = []
    event.listen(database.engine, "before_cursor_execute", lambda *found: asked.append(found[2]), named=False)
    assert [(each.password, each.store_id, each.email) for each in made] == [
        (None, None, f"c{n}@x.example") for n in (0, 1)
    ]
    assert asked == []


@pytest.mark.parametrize(("persistence", "seen"), [(None, 0), ("flush", 0), ("commit", 3)])
def test_the_rows_are_in_the_sessions_transaction_which_only_persistence_commits(
    session, database, persistence, seen, monkeypatch
):
    monkeypatch.setattr(StoreFactory._meta, "sqlalchemy_session_persistence", persistence)
    bulk_create(StoreFactory, 3, region=None)
    assert session.scalar(select(func.count()).select_from(Store)) == 3
    with Session(database.engine) as other:
        assert other.scalar(select(func.count()).select_from(Store)) == seen


def test_later_objects_of_the_session_get_later_keys(session):
    before = CustomerFactory()
    session.flush()
    made = bulk_create(CustomerFactory, 40)
    after = CustomerFactory()
    session.flush()
    assert [before.id, *(each.id for each in made), after.id] == list(range(1, 43))
    assert after.store.id > made[-1].store.id


def test_none_is_as_good_as_any_number(session):
    assert bulk_create(CustomerFactory, 0) == []


# -- what they refer to --------------------------------------------------------------------------


@pytest.mark.parametrize("committed", ["pending", "flushed", "committed"])
def test_an_override_may_be_an_object_of_the_session_however_far_that_is(session, committed):
    store, group = StoreFactory(), Group(name="all")
    session.add(group)
    if committed != "pending":
        getattr(session, {"flushed": "flush", "committed": "commit"}[committed])()
    loaded = list(store.customers)
    made = bulk_create(CustomerFactory, 3, store=store, groups=[group])
    assert loaded == []
    assert {each.store_id for each in made} == {store.id}
    assert store.customers == group.members == made
    session.commit()
    assert store.customers == made
    assert group.members == made
    assert session.scalar(select(func.count()).select_from(catalogue.groups)) == 3


def test_the_key_of_an_override_that_is_pending_is_known_to_the_factory(session):
    owner = CustomerFactory()
    assert [note.customer_id for note in bulk_create(LooseNoteFactory, 2, owner=owner)] == [owner.id] * 2


def test_nothing_is_warned_of_and_nothing_written_twice_when_the_session_goes_on(session):
    store = StoreFactory()
    session.commit()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bulk_create(BusyCustomerFactory, 3, store=store, groups=[Group(name="new")])
        store.code = "other"
        session.commit()
    assert [session.scalar(select(func.count()).select_from(each)) for each in (Customer, Note, Group)] == [3, 9, 1]


def test_a_child_that_was_there_before_is_given_to_its_new_parent(session):
    customer = CustomerFactory(store=None)
    session.commit()
    (store,) = bulk_create(StoreFactory, 1, customers=[customer])
    session.commit()
    assert customer.store_id == store.id


def test_what_hooks_write_is_written(session):
    group = Group(name="hooked")

    class HookedFactory(BusyCustomerFactory):
        @factory.post_generation
        def at_last(self, create, extracted):
            session.execute(catalogue.groups.insert().values(customer_id=self.id, group_id=group.id))
            session.add(Note(text="by hand", customer_id=self.id))

        @classmethod
        def _after_postgeneration(cls, instance, create, results=None):
            assert set(results) == {"first", "others", "password", "groups", "at_last"}
            instance.email += ".after"

    session.add(group)
    session.flush()
    made = bulk_create(HookedFactory, 2)
    session.commit()
    assert [each.password for each in made] == ["hash of secret"] * 2
    assert all(len(each.notes) == 4 and each.groups == [group] and each.email.endswith(".after") for each in made)


def test_one_side_of_a_circle_can_be_loaded(session):
    class EggFactory(catalogue.Factory):
        class Meta:
            model = Egg

        chicken = factory.LazyFunction(Chicken)

    assert [each.chicken_id for each in bulk_create(EggFactory, 2)] == [1, 2]


def test_what_was_looked_up_is_looked_up_once(session, database):
    asked = []
    event.listen(database.engine, "before_cursor_execute", lambda *found: asked.append(found[2]))
    bulk_create(StoreFactory, 50)
    assert session.scalar(select(func.count()).select_from(Region)) == 2
    assert len([each for each in asked if "FROM region" in each]) <= 3


def test_an_association_table_may_have_a_class_of_its_own(session):
    class Membership(Base):
        __table__ = catalogue.groups

    class MembershipFactory(catalogue.Factory):
        class Meta:
            model = Membership

        customer_id = factory.SelfAttribute("customer.id")
        group_id = factory.SelfAttribute("group.id")

        class Params:
            customer = factory.SubFactory(CustomerFactory, groups=[Group(name="one")])
            group = factory.SubFactory(factory.make_factory(Group, FACTORY_CLASS=catalogue.Factory, name="other"))

    bulk_create(MembershipFactory, 1)
    rows = session.execute(select(catalogue.groups).order_by("group_id")).all()
    assert [tuple(row) for row in rows] == [(1, 1, "long ago", "nobody"), (1, 2, "long ago", "nobody")]


def test_mapper_events_happen_before_and_after(session):
    seen = []

    def before(mapper, connection, target):
        target.text = f"{target.text} of {target.customer_id}"

    def after(mapper, connection, target):
        seen.append(connection.scalar(select(Note.text).where(Note.id == target.id)))

    event.listen(Note, "before_insert", before)
    event.listen(Note, "after_insert", after)
    try:
        bulk_create(LooseNoteFactory, 2)
    finally:
        event.remove(Note, "before_insert", before)
        event.remove(Note, "after_insert", after)
    assert seen == ["note 0 of 1", "note 1 of 2"]


# -- through which session -----------------------------------------------------------------------


def test_an_asynchronous_session_loads_inside_of_run_sync(database):
    emptied(database.engine)

    async def loaded():
        engine = create_async_engine(database.address.url_for("postgresql+psycopg"))
        async with AsyncSession(engine, expire_on_commit=False) as session:

            def load(inner):
                with factories_in(inner):
                    return bulk_create(BusyCustomerFactory, 3)

            made = await session.run_sync(load)
            await session.commit()
        await engine.dispose()
        return made

    assert [each.id for each in asyncio.run(loaded())] == [1, 2, 3]
    with Session(database.engine) as session:
        assert session.scalar(select(func.count()).select_from(Note)) == 9


@pytest.mark.parametrize("wire", ["sqlalchemy_session", "sqlalchemy_session_factory"])
def test_outside_of_seeders_and_tests_it_takes_the_session_that_the_factory_is_wired_to(database, wire, monkeypatch):
    emptied(database.engine)
    scoped = scoped_session(sessionmaker(database.engine))
    monkeypatch.setattr(StoreFactory._meta, wire, scoped)
    bulk_create(StoreFactory, 2, region=None)
    assert scoped.scalar(select(func.count()).select_from(Store)) == 2
    scoped.remove()


def test_tables_of_another_schema_and_translated_ones_are_found(database):
    emptied(database.engine)
    with database.engine.begin() as connection:
        connection.execute(DDL("DROP SCHEMA IF EXISTS elsewhere CASCADE"))
        connection.execute(DDL("CREATE SCHEMA elsewhere"))
        connection.execute(DDL("CREATE TABLE elsewhere.visit (LIKE visit INCLUDING ALL)"))
        connection.execute(DDL("CREATE SEQUENCE elsewhere.numbers START 500"))
        connection.execute(DDL("ALTER TABLE elsewhere.visit ALTER id SET DEFAULT nextval('elsewhere.numbers')"))

    class VisitFactory(catalogue.Factory):
        class Meta:
            model = catalogue.Visit

    translated = database.engine.execution_options(schema_translate_map={None: "elsewhere"})
    with Session(translated) as session, factories_in(session):
        assert [each.id for each in bulk_create(VisitFactory, 2)] == [500, 501]
        assert session.scalar(text("SELECT count(*) FROM elsewhere.visit")) == 2


# -- what it cannot do, by name ------------------------------------------------------------------


def refused(made_by, n=2, **overrides):
    with pytest.raises(BulkError) as caught:
        bulk_create(made_by, n, **overrides)
    return str(caught.value)


def test_a_value_that_is_there_already_names_the_table_and_what_to_do(session):
    bulk_create(CustomerFactory, 2)
    session.commit()
    with sequences_from({}):
        error = refused(CustomerFactory, store=None)
    assert error == (
        "bulk_create(CustomerFactory, 2) failed in the table customer\n"
        '  saw:  duplicate key value violates unique constraint "uq_customer_email" (SQLSTATE 23505)\n'
        "        DETAIL: Key (email)=(c0@x.example) already exists.\n"
        "        CONTEXT: COPY customer, line 1\n"
        "  do:   let the factory make it unique, with factory.Sequence. If other rows use the same numbers, start the "
        "sequence elsewhere: Factory.reset_sequence(1000, force=True). Nothing was written; roll back the session's "
        "transaction"
    )
    session.rollback()
    assert len(bulk_create(CustomerFactory, 2, store=None)) == 2


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        ({"email": None}, "let the factory give it a value"),
        ({"store_id": 77}, "let the factory refer to the object itself"),
    ],
)
def test_other_refusals_of_the_database_say_what_to_do_as_well(session, overrides, remedy):
    class LooseFactory(CustomerFactory):
        class Params:
            store = None

    assert remedy in refused(LooseFactory, **overrides)


def test_factories_that_save_in_their_own_way_are_refused(session):
    class OwnFactory(CustomerFactory):
        @classmethod
        def _create(cls, model_class, *args, **kwargs):
            return super()._create(model_class, *args, **kwargs)

    class OuterFactory(catalogue.NoteFactory):
        customer = factory.SubFactory(OwnFactory)

    assert "OwnFactory does\n  saw:  it overrides _create\n  do:   override _build" in refused(OuterFactory)


def test_what_is_no_factory_of_mapped_classes_is_refused(session):
    class PlainFactory(factory.Factory):
        class Meta:
            model = Customer

    class DictFactory(catalogue.Factory):
        class Meta:
            model = dict

    assert "is not a SQLAlchemyModelFactory" in refused(PlainFactory)
    assert "builtins.dict, which is not a mapped class" in refused(DictFactory)
    assert "has no model to build" in refused(catalogue.Factory)


def test_columns_that_sql_must_compute_are_refused(session):
    class Encrypted(UserDefinedType):
        cache_ok = True

        def get_col_spec(self):
            return "text"

        def bind_expression(self, value):
            return func.upper(value)

    class Secret(Base):
        __tablename__ = "secret"
        id: Mapped[int] = mapped_column(primary_key=True)
        word: Mapped[str | None] = mapped_column(Encrypted)

    class SecretFactory(catalogue.Factory):
        class Meta:
            model = Secret

    try:
        session.execute(DDL("CREATE TABLE secret (id serial PRIMARY KEY, word text)"))
        assert "the column secret.word\n" in refused(SecretFactory, word="x")
        assert "an SQL expression" in refused(CustomerFactory, password=func.now())
        session.rollback()
    finally:
        Base.metadata.remove(Secret.__table__)


def test_rows_that_refer_to_each_other_in_a_circle_are_refused(session):
    class EggFactory(catalogue.Factory):
        class Meta:
            model = Egg

        chicken = factory.LazyFunction(Chicken)

        @factory.post_generation
        def laid(self, create, extracted):
            self.chicken.egg = self

    error = refused(EggFactory)
    assert "cannot tell which table to load first" in error
    assert "chicken -> egg -> chicken" in error or "egg -> chicken -> egg" in error


def test_a_class_that_is_mapped_to_no_table_is_refused(session):
    class View(Base):
        __table__ = select(catalogue.Visit.id, catalogue.Visit.store_id).subquery()
        __mapper_args__: ClassVar = {"primary_key": [__table__.c.id]}

    class ViewFactory(catalogue.Factory):
        class Meta:
            model = View

    assert "it is mapped to a Subquery" in refused(ViewFactory)


def test_another_driver_is_refused(database):
    emptied(database.engine)
    engine = create_engine(database.address.url_for("postgresql+psycopg2"))
    with Session(engine) as session, factories_in(session):
        assert "needs psycopg 3 to load rows\n  saw:  a connection of psycopg2" in refused(StoreFactory, region=None)
    engine.dispose()


@pytest.mark.parametrize(("wired", "saw"), [(None, "none"), (AsyncSession(), "AsyncSession")])
def test_without_a_session_it_says_where_one_comes_from(wired, saw, monkeypatch):
    monkeypatch.setattr(StoreFactory._meta, "sqlalchemy_session", wired)
    error = refused(StoreFactory)
    assert "bulk_create has no session for the objects of catalogue:StoreFactory" in error
    assert saw in error
    assert "run_sync" in error
