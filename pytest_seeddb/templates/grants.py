"""What CREATE DATABASE does not copy and a clone needs all the same: settings and grants.

``ALTER DATABASE ... SET``, ``ALTER ROLE ... IN DATABASE ... SET`` and ``GRANT ... ON DATABASE`` live
in shared catalogs, by the database's number, so a copy starts without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psycopg import sql

from pytest_seeddb.application.roles import Role
from pytest_seeddb.fingerprint.digests import digest
from pytest_seeddb.servers.globals import LISTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_seeddb.servers.admin import Admin, Strategy

_SETTINGS: Final = """
SELECT coalesce(r.rolname, ''), unnest(s.setconfig)
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
WHERE d.datname = %s ORDER BY 1, 2
"""
_GRANTS: Final = """
SELECT coalesce(r.rolname, ''), g.privilege_type, g.is_grantable
FROM pg_database d CROSS JOIN aclexplode(d.datacl) g LEFT JOIN pg_roles r ON r.oid = g.grantee
WHERE d.datname = %s ORDER BY 1, 2
"""
_CLOSED: Final = "SELECT datacl IS NOT NULL, pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s"


_ROLES: Final = """
WITH RECURSIVE here AS (SELECT oid, datdba FROM pg_database WHERE datname = %s), wanted AS (
    SELECT oid FROM pg_roles WHERE rolname = ANY(%s)
    UNION SELECT refobjid FROM pg_shdepend s, here
    WHERE s.refclassid = 'pg_authid'::regclass
      AND (s.dbid = here.oid OR s.classid = 'pg_database'::regclass AND s.objid = here.oid)
    UNION SELECT m.member FROM pg_auth_members m JOIN wanted ON m.roleid = wanted.oid
)
SELECT rolname,
       pg_has_role(r.oid, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END),
       ARRAY(SELECT unnest(setconfig) FROM pg_db_role_setting
             WHERE setrole = r.oid AND setdatabase IN (0, here.oid) ORDER BY setdatabase)
FROM pg_roles r, here
WHERE rolname = %s
   OR r.oid IN (SELECT oid FROM wanted) AND NOT rolsuper AND rolname <> current_user AND r.oid <> datdba
"""
"""Who has a grant, a policy or anything else in the database, and their members. Without a connection to it."""


def roles_of(admin: Admin, database: str, made: Iterable[str], role: str) -> dict[str, Role]:
    """The roles that a database knows of, besides superusers and its owner: those that were ``made`` with it, too.

    ``role`` is one whatever it is, if it exists.
    """
    rows = admin.run(_ROLES, [database, list(made), role])
    return {name: Role(may_be_set, tuple(settings)) for name, may_be_set, settings in rows}


@dataclass(frozen=True)
class Setting:
    """One ``SET``: for every role where ``role`` is empty."""

    role: str
    name: str
    value: str


@dataclass(frozen=True)
class Grant:
    """One privilege: to everybody where ``grantee`` is empty."""

    grantee: str
    privilege: str
    grantable: bool


@dataclass(frozen=True)
class Carried:
    """The settings and grants of a database, to give to its copies."""

    settings: tuple[Setting, ...] = ()  # in the order of roles and names
    grants: tuple[Grant, ...] | None = None  # None where nobody ever granted or revoked anything on the database
    owner: str = ""  # whose privileges are to be replaced, too, where grants were changed

    @classmethod
    def of(cls, admin: Admin, database: str) -> Carried:
        """Read them from the server's catalogs."""
        settings = tuple(Setting(role, *text.split("=", 1)) for role, text in admin.run(_SETTINGS, [database]))
        changed, owner = admin.run(_CLOSED, [database])[0]
        if not changed:
            return cls(settings, None, owner)
        return cls(settings, tuple(Grant(*row) for row in admin.run(_GRANTS, [database])), owner)

    @property
    def digest(self) -> str:
        """Changes when one of them does."""
        return digest(repr((self.settings, self.grants, self.owner)))

    def clone(self, admin: Admin, source: str, name: str, strategy: Strategy, tablespace: str = "") -> None:
        """Make ``name`` a copy of ``source`` that has these; after a failure there is no database ``name``."""
        admin.clone(source, name, strategy, tablespace)
        try:
            self.apply(admin, name)
        except BaseException:
            admin.drop(name)
            raise

    def apply(self, admin: Admin, database: str) -> None:
        """Give them to ``database``; nothing is sent where there are none."""
        where = sql.Identifier(database)
        for setting in self.settings:
            whose = sql.SQL("ALTER DATABASE {}").format(where)
            if setting.role:
                whose = sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(setting.role), where)
            name = sql.SQL(".").join(sql.Identifier(part) for part in setting.name.split("."))
            if setting.name not in LISTS:
                admin.run(sql.SQL("{} SET {} TO {}").format(whose, name, sql.Literal(setting.value)))
                continue
            # FROM CURRENT takes the list exactly as it stands, with no parsing of ours.
            admin.run("SELECT set_config(%s, %s, false)", [setting.name, setting.value])
            admin.run(sql.SQL("{} SET {} FROM CURRENT").format(whose, name))
            admin.run(sql.SQL("RESET {}").format(name))
        if self.grants is None:
            return
        for holder in (sql.SQL("PUBLIC"), sql.Identifier(self.owner)):
            admin.run(sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(where, holder))
        for grant in self.grants:
            grantee = sql.Identifier(grant.grantee) if grant.grantee else sql.SQL("PUBLIC")
            option = sql.SQL(" WITH GRANT OPTION" if grant.grantable and grant.grantee != self.owner else "")
            privilege = sql.SQL(grant.privilege)  # a keyword from the catalog
            admin.run(sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(privilege, where, grantee, option))
