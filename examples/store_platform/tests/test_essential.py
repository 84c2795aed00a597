"""The essential tier alone: what a new production database holds, and what a later deployment leaves alone."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select, update
from store_platform.models import Base, PlatformSetting, Role, Store, User
from store_platform.passwords import hashed
from store_platform.seeds.essential import admin, platform_settings, roles
from store_platform.service import log_in
from store_platform.settings import Settings

pytestmark = pytest.mark.seeded("essential")

ADMIN = "admin@platform.example"


def test_there_are_roles_settings_and_an_admin_and_no_store(seeded_session):
    assert set(seeded_session.scalars(select(Role.name))) == {"owner", "manager", "clerk"}
    assert seeded_session.get_one(PlatformSetting, "orders").value == "open"
    assert seeded_session.scalars(select(User.email).filter_by(is_admin=True)).all() == [ADMIN]
    assert seeded_session.scalar(select(func.count()).select_from(Store)) == 0


@pytest.mark.seeded(admin_password="correct horse")  # noqa: S106 - a test's own
def test_the_admin_logs_in_with_the_password_of_the_deployment():
    assert log_in(ADMIN, "correct horse")
    assert not log_in(ADMIN, "admin")


def test_what_people_have_changed_outlives_a_later_deployment(seeded_session):
    seeded_session.execute(update(User).values(password=hashed("my own", ADMIN)))
    seeded_session.execute(update(PlatformSetting).filter_by(key="orders").values(value="closed"))
    seeded_session.execute(update(Role).values(permissions=[]))

    for seeder in (roles, platform_settings, admin):
        seeder(seeded_session)
    seeded_session.commit()

    assert log_in(ADMIN, "my own")
    assert seeded_session.get_one(PlatformSetting, "orders").value == "closed"
    assert "orders.cancel" in seeded_session.get_one(Role, "owner").permissions  # these are the code's


def test_migrations_and_models_agree(seeded_engine):
    with seeded_engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


@pytest.mark.seeded(isolation="readonly")
def test_production_needs_a_secret_key_of_its_own(monkeypatch):
    monkeypatch.setenv("ENVIRONMENT", "production")
    with pytest.raises(ValueError, match="SECRET_KEY needs a value of its own"):
        Settings()

    monkeypatch.setenv("SECRET_KEY", "b7f1c0")
    assert Settings().environment == "production"
