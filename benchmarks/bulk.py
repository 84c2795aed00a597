"""What `bulk_create` costs beside factory_boy's own ways, building alone, and a plain COPY.

    python benchmarks/bulk.py [--rows 2000] [--rounds 3] [--server postgresql://...]

Two factories: one of a single table with plain values, whose objects are as cheap to build as any; and one
with Faker and a parent for each object, so that a row more is written for each. Each way in turn, in a
transaction that is rolled back. Prints the median of objects per second, and ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from time import perf_counter

import factory
import psycopg
from factory.alchemy import SQLAlchemyModelFactory
from psycopg import sql
from sqlalchemy import ForeignKey, create_engine, func
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from pytest_seeddb import bulk_create
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Found, load_settings

COPIED = ("code", "name", "city", "joined", "points")


class Base(DeclarativeBase):
    pass


class Store(Base):
    __tablename__ = "store"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)


class Customer(Base):
    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    city: Mapped[str]
    joined: Mapped[date]
    points: Mapped[int] = mapped_column(default=0)
    created: Mapped[date] = mapped_column(server_default=func.current_date())
    store_id: Mapped[int | None] = mapped_column(ForeignKey("store.id"))
    store: Mapped[Store | None] = relationship(backref="customers")


class StoreFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Store

    code = factory.Sequence(lambda n: f"S{n}")


class PlainFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Customer

    code = factory.Sequence(lambda n: f"C{n}")
    name = factory.Sequence(lambda n: f"Customer {n}")
    city = "Springfield"
    joined = factory.Sequence(lambda n: date(2024, 1, 1) + timedelta(days=n % 365))
    points = factory.Sequence(lambda n: n % 100)


class RichFactory(PlainFactory):
    name = factory.Faker("name")
    city = factory.Faker("city")
    store = factory.SubFactory(StoreFactory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", default="auto")
    parsed = parser.parse_args()
    settings = load_settings(Path(__file__).parent, options={"server": Found(parsed.server, "--server")})
    with open_server(settings) as server, database(server.address) as engine:
        print(f"PostgreSQL {server.version}, {server.kind}, fsync {'on' if server.fsync else 'off'}")
        print(f"{parsed.rows} objects, median of {parsed.rounds}, psycopg {psycopg.pq.__impl__}")
        for made_by in (PlainFactory, RichFactory):
            report(made_by, parsed.rows, measured(engine, made_by, parsed.rows, parsed.rounds))


@contextmanager
def database(address):
    name = f"seeddb_benchmark_{os.getpid()}"
    with psycopg.connect(address.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        engine = create_engine(address.with_database(name).url_for("postgresql+psycopg"))
        try:
            Base.metadata.create_all(engine)
            yield engine
        finally:
            engine.dispose()
            admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


def flushed_each(session, made_by, rows):  # noqa: ARG001 - one signature for all ways
    for each in (made_by, StoreFactory):
        each._meta.sqlalchemy_session_persistence = "flush"  # noqa: SLF001 - where factory_boy keeps it
    try:
        made_by.create_batch(rows)
    finally:
        for each in (made_by, StoreFactory):
            each._meta.sqlalchemy_session_persistence = None  # noqa: SLF001 - where factory_boy keeps it


def flushed_once(session, made_by, rows):
    made_by.create_batch(rows)
    session.flush()


def bulk(_session, made_by, rows):
    bulk_create(made_by, rows)


def built(_session, made_by, rows):
    made_by.build_batch(rows)


def copied(session, made_by, rows):
    """The rows as they would be written by hand; a parent's are copied as well where there is one."""
    driver = session.connection().connection.driver_connection
    with driver.cursor() as cursor:
        if "store" in made_by._meta.declarations:  # noqa: SLF001 - where factory_boy keeps it
            with cursor.copy("COPY store (code) FROM STDIN") as copy:
                for number in range(rows):
                    copy.write_row((f"S{number}",))
        with cursor.copy(f"COPY customer ({', '.join(COPIED)}) FROM STDIN") as copy:
            for number in range(rows):
                day = date(2024, 1, 1) + timedelta(days=number % 365)
                copy.write_row((f"C{number}", f"Customer {number}", "Springfield", day, number % 100))


WAYS = {
    "create_batch, a flush each": flushed_each,
    "create_batch, one flush": flushed_once,
    "bulk_create": bulk,
    "build_batch alone": built,
    "plain COPY": copied,
}


def measured(engine, made_by, rows, rounds):
    times = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            with Session(engine) as session:
                session.connection()
                for each in (made_by, StoreFactory):
                    each._meta.sqlalchemy_session = session  # noqa: SLF001 - where factory_boy keeps it
                    each.reset_sequence(0, force=True)
                started = perf_counter()
                way(session, made_by, rows)
                times[name].append(perf_counter() - started)
    return times


def report(made_by, rows, times):
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = medians["bulk_create"]
    print(f"\n{made_by.__name__}")
    for name, value in medians.items():
        print(f"{name:<28} {rows / value:9.0f} per second   bulk_create takes {ours / value:5.2f} of its time")
    print(json.dumps({name: round(rows / value) for name, value in medians.items()}))


if __name__ == "__main__":
    main()
