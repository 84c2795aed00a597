"""Tests may break anything: the next one finds the seeded state again."""

import pytest
from shop.models import Base
from shop.service import place_order, sales_report, stock_of
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

ALICE = "customer1@mail.example"


@pytest.fixture(autouse=True)
def _the_shop_is_whole(seeded_engine):
    assert set(Base.metadata.tables) < set(inspect(seeded_engine).get_table_names())
    assert stock_of("S01", "SKU-001") == 20
    assert len(sales_report()) == 4


@pytest.mark.parametrize("table", ["orders", "customers", "products", "stores", "stock_levels"])
def test_a_table_is_dropped(seeded_connection, table):
    seeded_connection.execute(f"DROP TABLE {table} CASCADE")
    seeded_connection.commit()

    with pytest.raises(ProgrammingError, match=f'"{table}" does not exist'):
        place_order(ALICE, "S01", {"SKU-001": 1})


def test_all_tables_are_dropped(seeded_engine):
    Base.metadata.drop_all(seeded_engine)

    assert inspect(seeded_engine).get_table_names() == ["alembic_version"]


def test_all_rows_are_deleted(seeded_session):
    for table in reversed(Base.metadata.sorted_tables):
        seeded_session.execute(table.delete())
    seeded_session.commit()

    assert sales_report() == []


def test_the_order_numbers_jump(seeded_session):
    seeded_session.execute(text("SELECT setval('order_numbers', 7000)"))
    seeded_session.commit()

    assert place_order(ALICE, "S01", {"SKU-001": 1}) == 7001


def test_a_column_is_renamed(seeded_connection):
    seeded_connection.execute("ALTER TABLE stock_levels RENAME quantity TO amount")
    seeded_connection.commit()

    with pytest.raises(ProgrammingError, match="quantity"):
        stock_of("S01", "SKU-001")


def test_a_constraint_is_added(seeded_connection):
    seeded_connection.execute("ALTER TABLE stock_levels ADD CHECK (quantity = 20)")
    seeded_connection.commit()

    with pytest.raises(IntegrityError, match="stock_levels_quantity_check"):
        place_order(ALICE, "S01", {"SKU-001": 1})
