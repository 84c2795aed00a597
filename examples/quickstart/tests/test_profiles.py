"""Other seeds for other tests: by profile, by parameter, or both."""

import pytest
from shop.models import Customer, Order, Product, Role, Store
from sqlalchemy import func, select


def count(session, model):
    return session.scalar(select(func.count()).select_from(model))


def test_the_tables_profile_is_used_by_default(seeded_session):
    assert count(seeded_session, Store) == 3
    assert count(seeded_session, Customer) == 15


@pytest.mark.seeded("minimal")
def test_a_profile_is_named(seeded_session):
    assert count(seeded_session, Store) == 1
    assert count(seeded_session, Product) == 4
    assert count(seeded_session, Order) == 0


@pytest.mark.seeded(stores=10)
def test_a_parameter_is_overridden(seeded_session):
    assert count(seeded_session, Store) == 10
    assert count(seeded_session, Customer) == 15


@pytest.mark.seeded("minimal", customers=5)
def test_a_profiles_parameter_is_overridden(seeded_session):
    assert count(seeded_session, Store) == 1
    assert count(seeded_session, Customer) == 5


@pytest.mark.parametrize(
    "_profile",
    [
        pytest.param("demo", marks=pytest.mark.seeded("demo")),
        pytest.param("minimal", marks=pytest.mark.seeded("minimal")),
    ],
)
def test_essential_seeds_are_in_every_profile(seeded_session, _profile):
    assert count(seeded_session, Role) == 3
