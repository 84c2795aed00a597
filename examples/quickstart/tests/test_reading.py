"""The seeds are there, whichever way they are looked at."""

import subprocess
import sys

import pytest
from shop.models import Category, Customer, Role
from shop.service import sales_report, search_products
from sqlalchemy import func, select, text


def test_the_seeders_have_run(seeded_session):
    roles = seeded_session.scalars(select(Role.name).order_by(Role.id)).all()

    assert roles == ["owner", "clerk", "auditor"]
    assert seeded_session.scalar(select(func.count(Customer.id))) == 15


def test_the_migrations_have_run(seeded_connection):
    revision, extension = seeded_connection.execute(
        "SELECT version_num, extname FROM alembic_version, pg_extension WHERE extname = 'pg_trgm'"
    ).fetchone()

    assert (revision, extension) == ("0009", "pg_trgm")


def test_a_migrations_own_data_is_there(seeded_session):
    assert seeded_session.scalars(select(Category).filter_by(slug="other")).one().name == "Everything else"


def test_an_index_was_made_concurrently(seeded_engine):
    with seeded_engine.connect() as connection:
        valid = connection.scalar(
            text("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_orders_customer_id_placed_at'::regclass")
        )

    assert valid


@pytest.mark.seeded
def test_search_forgives_a_slip_of_the_pen():
    assert search_products("coper ketle") == ["Copper kettle"]


@pytest.mark.seeded
def test_the_report_starts_with_what_sells_best():
    revenues = [sales.revenue for sales in sales_report()]

    assert len(revenues) == 4
    assert revenues == sorted(revenues, reverse=True)


def test_a_child_process_sees_the_same_database(seeded_db):
    report = subprocess.run([sys.executable, "-m", "shop.report"], check=True, capture_output=True, text=True).stdout

    assert report.splitlines() == [
        f"{sales.category:<20} {sales.sold:>5} {sales.revenue:>12}" for sales in sales_report()
    ]
    assert seeded_db.name.startswith("seeddb_c_")
