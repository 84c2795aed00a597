"""Cheaper isolations, for tests that need less than a database of their own."""

import pytest
from shop.models import Customer, Store
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError


@pytest.mark.parametrize("_again", range(2))
@pytest.mark.seeded(isolation="rollback")
def test_a_commit_is_rolled_back_after_the_test(seeded_session, _again):
    seeded_session.add(Store(code="S99", city="Atlantis"))
    seeded_session.commit()

    assert seeded_session.scalar(select(func.count()).select_from(Store)) == 4


@pytest.mark.seeded(isolation="rollback")
def test_the_code_under_test_may_roll_back_too(seeded_session):
    seeded_session.add(Store(code="S99", city="Atlantis"))
    seeded_session.commit()
    seeded_session.add(Store(code="S98", city="Lemuria"))
    seeded_session.rollback()

    codes = seeded_session.scalars(select(Store.code).order_by(Store.code)).all()
    assert codes == ["S01", "S02", "S03", "S99"]


@pytest.mark.seeded(isolation="readonly")
def test_readers_share_one_clone(seeded_session):
    assert seeded_session.scalar(select(func.count()).select_from(Customer)) == 15


@pytest.mark.seeded(isolation="readonly")
def test_a_reader_cannot_write(seeded_session):
    with pytest.raises(DBAPIError, match="read-only"):
        seeded_session.execute(text("DELETE FROM customers"))
