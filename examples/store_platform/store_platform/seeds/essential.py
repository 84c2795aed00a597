"""The rows that the platform cannot run without. Each deployment runs these seeders again if they changed.

Values that differ between deployments are parameters, given as ``SEEDDB_SEED_<NAME>``. If a seeder read
them from the platform's settings, `seeddb apply` would not notice when they change.
"""

from typing import Annotated

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from pytest_seeddb import Param, seeder
from store_platform.models import PlatformSetting, Role, User
from store_platform.passwords import hashed

ROLES = {
    "owner": ["catalogue.edit", "orders.cancel", "users.invite"],
    "manager": ["catalogue.edit", "orders.cancel"],
    "clerk": ["catalogue.edit"],
}


@seeder(idempotent=True)
def roles(session: Session) -> None:
    """Roles belong to the code, which overwrites the rows in the database."""
    statement = insert(Role)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Role.name], set_={"permissions": statement.excluded.permissions}
        ),
        [{"name": name, "permissions": permissions} for name, permissions in ROLES.items()],
    )


@seeder(idempotent=True)
def platform_settings(session: Session, support_email: str = "support@platform.example") -> None:
    """Settings belong to the operators, whose changes stay."""
    values = {"orders": "open", "currency": "EUR", "support_email": support_email}
    session.execute(
        insert(PlatformSetting).on_conflict_do_nothing(index_elements=[PlatformSetting.key]),
        [{"key": key, "value": value} for key, value in values.items()],
    )


@seeder(idempotent=True)
def admin(
    session: Session,
    admin_email: str = "admin@platform.example",
    admin_password: Annotated[str, Param(secret=True)] = "admin",  # noqa: S107 - refused in production
) -> None:
    """Add the first administrator. The administrator should change the password, and the new one stays."""
    row = {"email": admin_email, "name": "Administrator", "password": hashed(admin_password, admin_email)}
    session.execute(
        insert(User).values(is_admin=True, **row).on_conflict_do_nothing(index_elements=[User.email]),
    )
