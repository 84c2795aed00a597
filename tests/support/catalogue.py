"""Models and factories of every kind that `bulk_create` may meet."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

import factory
from factory.alchemy import SQLAlchemyModelFactory
from sqlalchemy import (
    DDL,
    JSON,
    Column,
    Computed,
    DateTime,
    Enum,
    FetchedValue,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    PickleType,
    Sequence,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INET, INT4RANGE, JSONB, Range
from sqlalchemy.ext.associationproxy import association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    MappedAsDataclass,
    attribute_keyed_dict,
    backref,
    column_property,
    composite,
    deferred,
    mapped_column,
    object_session,
    relationship,
)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention={"uq": "uq_%(table_name)s_%(column_0_name)s"})


class Factory(SQLAlchemyModelFactory):
    class Meta:
        abstract = True


# -- columns -------------------------------------------------------------------------------------


class Mood(enum.Enum):
    GLAD = "g"
    SAD = "s"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Upper(TypeDecorator):
    """Kept in capitals."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return None if value is None else value.upper()


@dataclass
class Point:
    x: int
    y: int


class Thing(Base):
    __tablename__ = 'odd "name'
    id: Mapped[int] = mapped_column("key of it", primary_key=True)
    words: Mapped[str | None] = mapped_column(Text)
    amount: Mapped[Decimal | None] = mapped_column(Numeric(9, 2))
    ratio: Mapped[float | None]
    truth: Mapped[bool | None]
    mood: Mapped[Mood | None]
    plain_mood: Mapped[Mood | None] = mapped_column(
        Enum(Mood, native_enum=False, values_callable=lambda e: [m.value for m in e])
    )
    level: Mapped[int | None]
    data: Mapped[object | None] = mapped_column(JSON)
    binary_data: Mapped[dict | None] = mapped_column(MutableDict.as_mutable(JSONB(none_as_null=True)))
    tags: Mapped[list | None] = mapped_column(ARRAY(Text))
    moods: Mapped[list | None] = mapped_column(ARRAY(Enum(Mood)))
    grid: Mapped[list | None] = mapped_column(ARRAY(Numeric, dimensions=2))
    mark: Mapped[uuid.UUID | None]
    text_mark: Mapped[str | None] = mapped_column(Uuid(as_uuid=False))
    day: Mapped[dt.date | None]
    hour: Mapped[dt.time | None]
    moment: Mapped[dt.datetime | None] = mapped_column(DateTime(timezone=True))
    span: Mapped[dt.timedelta | None] = mapped_column(Interval)
    blob: Mapped[bytes | None] = mapped_column(LargeBinary)
    pickled: Mapped[object | None] = mapped_column(PickleType)
    address: Mapped[object | None] = mapped_column(INET)
    window: Mapped[Range[int] | None] = mapped_column(INT4RANGE)
    loud: Mapped[str | None] = mapped_column(Upper)
    x: Mapped[int | None]
    y: Mapped[int | None]
    point: Mapped[Point] = composite("x", "y")
    hidden: Mapped[str | None] = deferred(mapped_column(Text))
    twice: Mapped[int | None] = mapped_column(Computed("x * 2", persisted=True))
    lettered: Mapped[str] = column_property(func.coalesce(words, "none"))

    @hybrid_property
    def shout(self):
        return self.words and self.words.upper()


AWKWARD = "tab\t newline\n return\r back\\slash \\N \\. 'quote' \"double\" NULL ü漢🎉 %s :x {}"


class ThingFactory(Factory):
    class Meta:
        model = Thing

    words = factory.Iterator([AWKWARD, "", "\\N", "plain"])
    amount = factory.Sequence(lambda n: Decimal(n) / 8)
    ratio = factory.Iterator([0.1, 1e300, float("inf"), -0.0])
    truth = factory.Iterator([True, False, None])
    mood = factory.Iterator(Mood)
    plain_mood = factory.Iterator(Mood)
    level = factory.Iterator(Level)
    data = factory.Iterator([{"a": [1, None, "x"]}, [], None, "text", AWKWARD])
    binary_data = factory.Iterator([{"a": {"b": 1}}, None, {}])
    tags = factory.Iterator([[AWKWARD, "b", None], [], None, ["NULL", ""]])
    moods = factory.Iterator([[Mood.SAD, Mood.GLAD], []])
    grid = factory.Iterator([[[Decimal(1), Decimal("2.5")], [Decimal(3), Decimal(4)]], None])
    mark = factory.Sequence(lambda n: uuid.UUID(int=n))
    text_mark = factory.Sequence(lambda n: str(uuid.UUID(int=n)))
    day = factory.Iterator([dt.date(2024, 2, 29), dt.date(1, 1, 1), None])
    hour = dt.time(12, 30, 1, 5)
    moment = factory.Iterator([dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 7, 1, 1, 2, 3, 4, dt.UTC)])
    span = factory.Iterator([dt.timedelta(days=-1, seconds=5), dt.timedelta(microseconds=1)])
    blob = factory.Iterator([b"\0\1\\x\n\t", b"", None])
    pickled = factory.Iterator([{"set": {1}}, None])
    address = factory.Iterator([ipaddress.ip_address("10.0.0.1"), "fe80::1"])
    window = factory.Iterator([Range(1, 5), Range(empty=True), None])
    loud = "quiet"
    point = factory.Sequence(lambda n: Point(n, -n))
    hidden = factory.Transformer("here", transform=str.upper)


class Dated(MappedAsDataclass, Base):
    """Whose own defaults are not in the object."""

    __tablename__ = "dated"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str]
    size: Mapped[int] = mapped_column(default=3)
    called: Mapped[list] = mapped_column(JSON, default_factory=list)
    inserted: Mapped[int] = mapped_column(insert_default=5, init=False)
    nothing: Mapped[str | None] = mapped_column(default=None)


class DatedFactory(Factory):
    class Meta:
        model = Dated

    name = factory.Sequence(lambda n: f"dated {n}")


def by_name(context):
    return f"made of {context.get_current_parameters()['name']}"


class Filled(Base):
    """Columns that somebody else fills."""

    __tablename__ = "filled"
    id: Mapped[int] = mapped_column(Identity(always=True, start=100, increment=10), primary_key=True)
    name: Mapped[str]
    scalar: Mapped[int] = mapped_column(default=7)
    called: Mapped[list] = mapped_column(JSON, default=list)
    sensitive: Mapped[str] = mapped_column(default=by_name)
    expression: Mapped[int] = mapped_column(default=func.length(text("'four'")))
    sequence: Mapped[int] = mapped_column(Sequence("filled_numbers", metadata=Base.metadata))
    server: Mapped[str] = mapped_column(server_default="from the server")
    numbered: Mapped[int] = mapped_column(server_default=text("nextval('numbers_of_the_server')"))
    triggered: Mapped[str | None] = mapped_column(server_default=FetchedValue())
    renamed: Mapped[str] = mapped_column("other name", default="renamed")
    version: Mapped[int] = mapped_column()
    __mapper_args__: ClassVar = {"version_id_col": version}


event.listen(Filled.__table__, "before_create", DDL("CREATE SEQUENCE numbers_of_the_server"))


class FilledFactory(Factory):
    class Meta:
        model = Filled

    name = factory.Sequence(lambda n: f"filled {n}")


class Marked(Base):
    """A key that Python makes."""

    __tablename__ = "marked"
    mark: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=lambda: uuid.UUID(int=next(MARKS)))
    parent_mark: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("marked.mark"))
    parent: Mapped[Marked | None] = relationship(remote_side=mark, backref=backref("children"))


MARKS = iter(range(10**6))


class MarkedFactory(Factory):
    class Meta:
        model = Marked

    class Params:
        rooted = factory.Trait(parent=factory.SubFactory("catalogue.MarkedFactory"))


class Made(Base):
    """A key that the server makes."""

    __tablename__ = "made"
    mark: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    name: Mapped[str]


class MadeFactory(Factory):
    class Meta:
        model = Made

    name = factory.Sequence(lambda n: f"made {n}")


# -- inheritance ---------------------------------------------------------------------------------


class Animal(Base):
    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column()
    name: Mapped[str]
    barks: Mapped[bool | None]
    __mapper_args__: ClassVar = {"polymorphic_on": kind, "polymorphic_identity": "animal"}


class Dog(Animal):
    """In its parent's table."""

    __mapper_args__: ClassVar = {"polymorphic_identity": "dog"}


class Bird(Animal):
    """In a table of its own, with a key of another name."""

    __tablename__ = "bird"
    bird_id: Mapped[int] = mapped_column(ForeignKey("animal.id"), primary_key=True)
    wingspan: Mapped[int]
    __mapper_args__: ClassVar = {"polymorphic_identity": "bird"}


class Eagle(Bird):
    __tablename__ = "eagle"
    eagle_id: Mapped[int] = mapped_column(ForeignKey("bird.bird_id"), primary_key=True)
    age: Mapped[int] = mapped_column(default=3)
    __mapper_args__: ClassVar = {"polymorphic_identity": "eagle"}


class Fish(Animal):
    """In a table with all that its parent's has."""

    __tablename__ = "fish"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="fish")
    name: Mapped[str]
    barks: Mapped[bool | None]
    scales: Mapped[int]
    __mapper_args__: ClassVar = {"concrete": True, "polymorphic_identity": "fish"}


class AnimalFactory(Factory):
    class Meta:
        model = Animal

    name = factory.Sequence(lambda n: f"animal {n}")


class DogFactory(AnimalFactory):
    class Meta:
        model = Dog

    barks = True


class EagleFactory(AnimalFactory):
    class Meta:
        model = Eagle

    wingspan = factory.Sequence(lambda n: 100 + n)


class FishFactory(AnimalFactory):
    class Meta:
        model = Fish

    scales = 5


# -- relationships -------------------------------------------------------------------------------


class Store(Base):
    __tablename__ = "store"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    region_code: Mapped[str | None] = mapped_column(ForeignKey("region.code"))
    region: Mapped[Region | None] = relationship()
    customers: Mapped[list[Customer]] = relationship(back_populates="store")
    departments: Mapped[dict[str, Department]] = relationship(collection_class=attribute_keyed_dict("name"))
    visits: DynamicMapped[Visit] = relationship(lazy="dynamic")


class Region(Base):
    """Found by its code."""

    __tablename__ = "region"
    code: Mapped[str] = mapped_column(primary_key=True)


class Department(Base):
    __tablename__ = "department"
    store_id: Mapped[int] = mapped_column(ForeignKey("store.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    shelves: Mapped[list[Shelf]] = relationship(back_populates="department")


class Shelf(Base):
    """A key made of its parent's, which is made of its parent's."""

    __tablename__ = "shelf"
    store_id: Mapped[int] = mapped_column(primary_key=True)
    department_name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    department: Mapped[Department] = relationship(back_populates="shelves")
    __table_args__ = (
        ForeignKeyConstraint(["store_id", "department_name"], ["department.store_id", "department.name"]),
    )


class Visit(Base):
    __tablename__ = "visit"
    id: Mapped[int] = mapped_column(primary_key=True)
    store_id: Mapped[int | None] = mapped_column(ForeignKey("store.id"))


groups = Table(
    "customer_group",
    Base.metadata,
    Column("customer_id", ForeignKey("customer.id"), primary_key=True),
    Column("group_id", ForeignKey("group.id"), primary_key=True),
    Column("since", String, default="long ago"),
    Column("by", String, server_default="nobody"),
)


class Group(Base):
    __tablename__ = "group"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    members: Mapped[list[Customer]] = relationship(secondary=groups, back_populates="groups")


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    store_id: Mapped[int | None] = mapped_column(ForeignKey("store.id"))
    store: Mapped[Store | None] = relationship(back_populates="customers")
    groups: Mapped[list[Group]] = relationship(secondary=groups, back_populates="members")
    card: Mapped[Card | None] = relationship(back_populates="customer")
    notes: Mapped[list[Note]] = relationship(back_populates="customer", order_by="Note.id")
    texts = association_proxy("notes", "text", creator=lambda text: Note(text=text))
    password: Mapped[str | None]

    def set_password(self, password):
        self.password = f"hash of {password}"


class Card(Base):
    __tablename__ = "card"
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"), primary_key=True)
    number: Mapped[int]
    customer: Mapped[Customer] = relationship(back_populates="card")


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    customer: Mapped[Customer] = relationship(back_populates="notes")


class Chicken(Base):
    __tablename__ = "chicken"
    id: Mapped[int] = mapped_column(primary_key=True)
    egg_id: Mapped[int | None] = mapped_column(ForeignKey("egg.id", use_alter=True, name="fk_from"))
    egg: Mapped[Egg | None] = relationship(foreign_keys=egg_id, post_update=True)


class Egg(Base):
    __tablename__ = "egg"
    id: Mapped[int] = mapped_column(primary_key=True)
    chicken_id: Mapped[int | None] = mapped_column(ForeignKey("chicken.id"))
    chicken: Mapped[Chicken | None] = relationship(foreign_keys=chicken_id)


@event.listens_for(Region, "before_insert")
def in_capitals(_mapper, _connection, target):
    target.code = target.code.upper()


class RegionFactory(Factory):
    class Meta:
        model = Region
        sqlalchemy_get_or_create = ("code",)

    code = factory.Iterator(["NORTH", "SOUTH"])


class StoreFactory(Factory):
    class Meta:
        model = Store

    code = factory.Sequence(lambda n: f"S{n}")
    region = factory.SubFactory(RegionFactory)


class DepartmentFactory(Factory):
    class Meta:
        model = Department

    name = "tools"
    shelves = factory.LazyFunction(lambda: [Shelf(number=n) for n in range(2)])


class FullStoreFactory(StoreFactory):
    departments = factory.LazyFunction(lambda: {name: DepartmentFactory.build(name=name) for name in ("a", "b")})

    @factory.post_generation
    def visits(self, create, extracted):
        assert create
        self.visits.append(Visit())


class NoteFactory(Factory):
    class Meta:
        model = Note

    text = factory.Sequence(lambda n: f"note {n}")


class LooseNoteFactory(NoteFactory):
    """Refers to its customer by the key alone."""

    class Meta:
        exclude = ("owner",)

    owner = factory.SubFactory("catalogue.CustomerFactory", store=None)
    customer_id = factory.SelfAttribute("owner.id")


class CustomerFactory(Factory):
    class Meta:
        model = Customer

    class Params:
        carded = factory.Trait(card=factory.LazyAttributeSequence(lambda _, n: Card(number=n)))

    email = factory.Sequence(lambda n: f"c{n}@x.example")
    store = factory.SubFactory(StoreFactory)


class BusyCustomerFactory(CustomerFactory):
    """With everything that comes after it."""

    class Meta:
        sqlalchemy_session_persistence = "flush"

    first = factory.RelatedFactory(NoteFactory, "customer", text="first")
    others = factory.RelatedFactoryList(NoteFactory, "customer", size=2, text="other")
    password = factory.PostGenerationMethodCall("set_password", "secret")

    @factory.post_generation
    def groups(self, create, extracted, **named):
        assert create
        session = object_session(self)
        if session and self.id is not None:
            found = session.query(Note).filter_by(customer_id=self.id).count()
            assert found == 1 + len(named.get("others", "12")), found
        self.groups.extend(extracted or [])


class EagerCustomerFactory(BusyCustomerFactory):
    """Its hooks run before anything is written."""

    class Meta:
        sqlalchemy_session_persistence = None
