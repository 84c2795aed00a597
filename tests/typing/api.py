"""What users write, checked by the type checkers: nothing here runs, and nothing here may need a cast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession  # noqa: TC002 - as users import it
from sqlalchemy.orm import Session  # noqa: TC002 - likewise

from pytest_seeddb import (
    BuildError,
    BulkError,
    CloneError,
    ConfigError,
    Plan,
    SeedDbError,
    SeededDatabase,
    Server,
    ServerError,
    Settings,
    Stage,
    Step,
    Target,
    Template,
    bulk_create,
    plan_of,
    seeder,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from factory.alchemy import SQLAlchemyModelFactory
    from factory.base import BaseFactory


class Order:
    """A model."""

    paid: bool


@seeder
def roles(session: Session) -> None:
    """Bare, on a function."""
    session.flush()


@seeder(tier="demo", after=[roles])
def stores(session: Session, stores: int = 3, names: tuple[str, ...] = ()) -> int:
    """With arguments; what it returns and takes stays known."""
    return stores + len(names)


@seeder
async def providers(session: AsyncSession) -> None:
    """Bare, on a coroutine function."""
    await session.commit()


@seeder(after=[roles, "stores", providers])
async def orders(connection: psycopg.AsyncConnection[tuple[object, ...]], orders: int = 1) -> str:
    """With arguments, on a coroutine function."""
    await connection.execute("SELECT 1")
    return str(orders)


async def called_in_the_applications_own_life(session: Session, other: AsyncSession) -> None:
    """A seeder is still the function that it was."""
    assert_type(stores(session, stores=4), int)
    roles(session)
    await providers(other)


def many(made_by: type[BaseFactory[Order]], plain: type[SQLAlchemyModelFactory]) -> None:
    """What a factory makes is known as far as the factory knows it."""
    assert_type(bulk_create(made_by, 100, paid=True), list[Order])
    for each in bulk_create(plain, 100):
        each.anything()


@pytest.fixture(scope="session")
def seeddb_settings(seeddb_settings: Settings) -> Settings:
    """An override."""
    return seeddb_settings.replace(profile="demo", engines=["shop.db:engine"])


@pytest.fixture(scope="session")
def seeddb_plan(seeddb_settings: Settings) -> Plan:
    """Another."""
    return plan_of(seeddb_settings, "demo", {"stores": 3})


@pytest.fixture(scope="session")
def handmade_plan(seeddb_settings: Settings) -> Plan:
    """A plan that was put together by hand."""

    def run(target: Target, first: int) -> None:
        with psycopg.connect(target.address.conninfo) as connection:
            connection.execute("SELECT %s", [first])

    stage = Stage("schema", (Step("the only one"),), run)
    return Plan("handmade", "default", seeddb_settings.root, (stage,))


@pytest.fixture
def filled(seeded_db: SeededDatabase) -> Iterator[SeededDatabase]:
    """All that a test finds in its database."""
    assert_type(seeded_db.name, str)
    assert_type(seeded_db.url, str)
    assert_type(seeded_db.conninfo, str)
    assert_type(seeded_db.env, dict[str, str])
    assert_type(seeded_db.template, Template)
    assert_type(seeded_db.diff(tables=["a"], ignore=["*.b"], columns="all").to_dict(), dict[str, dict[str, Any]])
    assert seeded_db.diff() == {"a": {"inserted": [{"id": int}]}}
    with seeded_db.connect(autocommit=True) as connection:
        connection.execute("SELECT 1")
    yield seeded_db
    seeded_db.reset()


@pytest.mark.seeded("minimal", isolation="rollback", stores=10)
def test_it(filled: SeededDatabase, seeded_session: Session, seeddb_server: Server) -> None:
    """The marker and the fixtures."""
    assert_type(seeddb_server.address.url, str)
    seeded_session.commit()


def remedy_of(error: SeedDbError) -> str:
    """Every error has the four parts."""
    if isinstance(error, ConfigError | ServerError | BuildError | BulkError | CloneError):
        return f"{error.what} {error.saw} {error.source}"
    return error.remedy
