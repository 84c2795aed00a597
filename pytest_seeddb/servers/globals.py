"""What belongs to the whole server and no database: roles, their settings, databases, ``ALTER SYSTEM``, comments.

All databases share it, so a clone that is put back or dropped leaves it as it is. `Globals` is a snapshot, `Change` one
difference between two snapshots with the statements that undo it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, LiteralString

from psycopg import sql

from pytest_seeddb.fingerprint.atomic import beside
from pytest_seeddb.servers.memory import DISK, TABLESPACE
from pytest_seeddb.servers.naming import ANY_FORMAT
from pytest_seeddb.servers.server import GLOBALS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pytest_seeddb.servers.admin import Admin

    Definition = Mapping[str, Any]

PRESENT: Final = 0x5EEDDB0_61_0BA15
"""The advisory lock that everyone shares who runs tests or builds on a server, whatever the version of this package."""

# Settings whose value is a list of identifiers, quoted already as it is stored (pg_dump's
# variable_is_guc_list_quote). A literal would make the whole list one identifier.
LISTS: Final = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
_OTHERS: Final[LiteralString] = (
    "NOT (datname ~ '(^|_)seeddb_' AND (datconnlimit = -2 OR "
    f"datconnlimit BETWEEN {ANY_FORMAT.start} AND {ANY_FORMAT.stop - 1}))"
)
"""Databases that this package, of any version, did not make; the setting `clone_name` may put text before a name."""
_FIRST_OWN_OID: Final = 16384
"""Databases below it are those of ``initdb``."""
_DATABASES: Final = 1262
"""The catalog ``pg_database``."""

MARK: Final[LiteralString] = f"""
concat_ws('/',
    (SELECT string_agg(oid || '.' || xmin, ',') FROM pg_database
     WHERE datconnlimit BETWEEN -1 AND {ANY_FORMAT.start - 1}),
    (SELECT string_agg(setrole || '.' || xmin, ',') FROM pg_db_role_setting WHERE setdatabase < {_FIRST_OWN_OID}),
    (SELECT string_agg(xmin::text, ',') FROM pg_shdescription
     WHERE classoid <> {_DATABASES} OR objoid < {_FIRST_OWN_OID}){{}})
"""  # noqa: S608 - constants of this module
"""For a text that is another after ``CREATE DATABASE``, ``ALTER ROLE ... SET``, ``ALTER SYSTEM`` or a comment, which
the counters of the shared catalogs do not show or cannot be told from our own work. A database that is being dropped
has a limit of -2. Format it with one of `MARKS`."""
MARKS: Final = {
    # Its contents: another value can have the same length, and be written in the same second.
    True: MARK.format(", md5(pg_read_binary_file('postgresql.auto.conf'))").strip(),
    False: MARK.format("").strip(),
}
"""By whether the role is a superuser, who alone may look at the server's files."""

_ROLES: Final = {True: "pg_authid", False: "pg_roles"}
_SNAPSHOT: Final = """
WITH others AS (SELECT *, xmin AS version FROM pg_database WHERE {others}),
spaces AS (SELECT *, xmin AS version FROM pg_tablespace WHERE spcname <> '{memory}'),
globals (key, definition, oid, version) AS (
    SELECT ARRAY['role', rolname], to_jsonb(r) - '{{oid,rolname,rolconfig}}'::text[], r.oid,
           (SELECT xmin FROM pg_authid a WHERE a.oid = r.oid)
    FROM {roles} r
  UNION ALL
    SELECT ARRAY['membership', r.rolname, m.rolname, g.rolname],
           to_jsonb(s) - '{{oid,roleid,member,grantor}}'::text[], 0, s.xmin
    FROM pg_auth_members s JOIN pg_roles r ON r.oid = roleid JOIN pg_roles m ON m.oid = member
    JOIN pg_roles g ON g.oid = grantor
  UNION ALL
    SELECT ARRAY['setting', coalesce(r.rolname, ''), coalesce(d.datname, ''), split_part(entry, '=', 1)],
           jsonb_build_object('value', substr(entry, strpos(entry, '=') + 1)), 0, s.xmin
    FROM pg_db_role_setting s CROSS JOIN unnest(setconfig) entry
    LEFT JOIN pg_roles r ON r.oid = setrole LEFT JOIN others d ON d.oid = setdatabase
    WHERE setdatabase = 0 OR d.oid IS NOT NULL
  UNION ALL
    SELECT ARRAY['database', datname], jsonb_build_object('owner', pg_get_userbyid(datdba), 'ALLOW_CONNECTIONS',
           datallowconn, 'CONNECTION LIMIT', datconnlimit, 'IS_TEMPLATE', datistemplate), oid, version FROM others
  UNION ALL
    SELECT ARRAY['tablespace', spcname], jsonb_build_object('owner', pg_get_userbyid(spcowner), 'options', spcoptions,
           'location', pg_tablespace_location(oid)), oid, version FROM spaces
  UNION ALL
    SELECT ARRAY['grant', kind, name, coalesce(r.rolname, ''), privilege_type],
           jsonb_build_object('grantable', bool_or(is_grantable)), 0, version
    FROM (SELECT 'DATABASE', datname, coalesce(datacl, acldefault('d', datdba)), version FROM others
        UNION ALL SELECT 'TABLESPACE', spcname, coalesce(spcacl, acldefault('t', spcowner)), version FROM spaces
        UNION ALL SELECT 'PARAMETER', parname, coalesce(paracl, acldefault('p', 10)), xmin FROM pg_parameter_acl
    ) AS granted (kind, name, acl, version)
    CROSS JOIN aclexplode(acl) LEFT JOIN pg_roles r ON r.oid = grantee
    WHERE NOT (kind = 'PARAMETER' AND grantee = 10) AND NOT (kind = 'TABLESPACE' AND name = '{disk}' AND grantee = 0)
    GROUP BY kind, name, coalesce(r.rolname, ''), privilege_type, version
  UNION ALL
    SELECT ARRAY['origin', roname], '{{}}', 0, xmin FROM pg_replication_origin
  UNION ALL
    SELECT ARRAY['comment', kind, name], jsonb_build_object('value', c.description), 0, c.xmin
    FROM pg_shdescription c JOIN (SELECT 'pg_database'::regclass, 'DATABASE', oid, datname FROM others
        UNION ALL SELECT 'pg_authid'::regclass, 'ROLE', oid, rolname FROM pg_roles
        UNION ALL SELECT 'pg_tablespace'::regclass, 'TABLESPACE', oid, spcname FROM spaces
    ) AS commented (class, kind, oid, name) ON class = c.classoid AND commented.oid = c.objoid
  {system}
)
SELECT key, definition, oid::bigint, CASE WHEN key[1] = 'system' THEN (definition ->> 'written')::float8
       WHEN current_setting('track_commit_timestamp')::bool
       THEN extract(epoch FROM pg_xact_commit_timestamp(version))::float8 END
FROM globals
"""
_SYSTEM: Final = """
  UNION ALL
    SELECT ARRAY['system', name], jsonb_build_object('value', setting, 'written',
           1 + extract(epoch FROM (pg_stat_file('postgresql.auto.conf')).modification)), 0, NULL::xid
    FROM pg_file_settings WHERE right(sourcefile, 21) = '/postgresql.auto.conf'
"""
# The catalog with passwords is not for everybody, so its xmin is not either.
_VERSION: Final = "(SELECT xmin FROM pg_authid a WHERE a.oid = r.oid)"
_DEPENDENT: Final = """
SELECT DISTINCT datname FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
"""
_ATTRIBUTES: Final = {
    "rolsuper": "SUPERUSER",
    "rolinherit": "INHERIT",
    "rolcreaterole": "CREATEROLE",
    "rolcreatedb": "CREATEDB",
    "rolcanlogin": "LOGIN",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
}
PASSES: Final = 2
"""Of undoing: what belongs to a renamed object can be seen only when it has its name again."""
_PATIENCE: Final = 2.0
_POLL: Final = 0.001
_OWNERS: Final = ("role", "database", "tablespace")
_ORDER: Final = ("role", "membership", "database", "tablespace", "grant", "setting", "system", "origin", "comment")
"""What is made anew is made in this order, and what goes away goes in the opposite one."""


@dataclass(frozen=True)
class Item:
    """One global: what it is like, and when that was committed, in the server's seconds, if the server knows."""

    definition: Definition
    oid: int = 0
    committed: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Globals:
    """A server's globals at one moment, by kind and name."""

    items: Mapping[tuple[str, ...], Item]

    @classmethod
    def of(cls, run: Callable[[LiteralString], Iterable[Any]], *, superuser: bool) -> Globals:
        """Read them by one statement of ``run``. Those that only superusers see are left out for others."""
        query = _SNAPSHOT.format(
            others=_OTHERS, memory=TABLESPACE, disk=DISK, roles=_ROLES[superuser], system=_SYSTEM if superuser else ""
        )
        if not superuser:
            query = query.replace(_VERSION, "NULL::xid")
        items = {}
        for key, definition, oid, committed in run(query):
            definition.pop("written", None)
            if definition.get("rolvaliduntil") == "infinity":  # what "none" becomes once it was another
                definition["rolvaliduntil"] = None
            items[tuple(key)] = Item(definition, oid, committed)
        return cls(items)

    @classmethod
    def load(cls, state: Path) -> Globals | None:
        """What a server's state directory says; ``None`` where it says nothing that can be read."""
        try:
            entries = json.loads((state / GLOBALS).read_text(encoding="utf-8"))
            items = {tuple(key): Item(definition, oid) for key, definition, oid in entries}
            # ``initdb`` makes comments: without any, a version has saved them that did not read comments yet.
            return cls(items) if any(kind == "comment" for kind, *_ in items) else None
        except (OSError, ValueError, TypeError):
            return None

    def save(self, state: Path) -> None:
        """Write them into a server's state directory, complete or not at all. It is only its owner's."""
        entries = [[[*key], item.definition, item.oid] for key, item in self.items.items()]
        with beside(state / GLOBALS, private=True) as partial:
            partial.chmod(0o600)  # it holds digests of passwords
            partial.write_text(json.dumps(entries), encoding="utf-8")
            partial.replace(state / GLOBALS)

    @property
    def system(self) -> list[str]:
        """What ``ALTER SYSTEM`` set, as lines of ``postgresql.auto.conf``."""
        values = {key[1]: item.definition["value"] for key, item in self.items.items() if key[0] == "system"}
        quoted = {name: value.replace("\\", "\\\\").replace("'", "''") for name, value in values.items()}
        return [f"{name} = '{value}'" for name, value in quoted.items()]

    def changes(self, later: Globals) -> list[Change]:
        """How ``later`` differs."""
        keys = [key for key in {**self.items, **later.items} if self.items.get(key) != later.items.get(key)]
        changes = [Change(key, self.items.get(key), later.items.get(key)) for key in keys]
        gone = {(change.kind, change.before.oid): change for change in changes if change.before and not change.after}
        renamed = [change for change in changes if change.after and (change.kind, change.after.oid) in gone]
        for change in renamed:
            if change.after and change.after.oid and not change.before:
                earlier = gone[change.kind, change.after.oid]
                changes.remove(earlier)
                changes[changes.index(change)] = Change(change.key, earlier.before, change.after, earlier.key[1])
        # What goes with a role or a database that comes, goes or is renamed.
        names = {
            name
            for change in changes
            if change.kind in _OWNERS and (change.name or not change.before or not change.after)
            for name in filter(None, (change.key[1], change.name))
        }
        return [change for change in changes if change.kind in _OWNERS or not names.intersection(change.key[1:])]

    def without(self, changes: Iterable[Change]) -> Globals:
        """The same as they were before the changes."""
        items = dict(self.items)
        for change in changes:
            items.pop(change.key, None)
            if change.before:
                items[(change.kind, change.name, *change.key[2:]) if change.name else change.key] = change.before
        return Globals(items)


@dataclass(frozen=True)
class Change:
    """One global that another moment has otherwise: new, gone, or of another definition."""

    key: tuple[str, ...]
    before: Item | None
    after: Item | None
    name: str = ""
    """The name that it had before, if that is another now."""

    @property
    def kind(self) -> str:
        """One of `_ORDER`."""
        return self.key[0]

    def __str__(self) -> str:
        """Name it for people."""
        kind, *names = self.key
        text = f"the {kind} {names[0]}"
        if kind == "membership":
            text = f"the membership of {names[1]} in {names[0]}"
        elif kind == "grant":
            text = f"{names[3]} on the {names[0].lower()} {names[1]} for {names[2] or 'everybody'}"
        elif kind == "setting":
            whose = " in ".join(
                filter(None, (names[0] and f"the role {names[0]}", names[1] and f"database {names[1]}"))
            )
            text = f"the setting {names[2]} of {whose or 'all roles'}"
        elif kind == "origin":
            text = f"the replication origin {names[0]}"
        elif kind == "comment":
            text = f"the comment on the {names[0].lower()} {names[1]}"
        elif kind == "system":
            text = f"ALTER SYSTEM SET {names[0]}"
        return text if self.after and not self.before else f"{text} ({'changed' if self.after else 'removed'})"

    def statements(self) -> list[sql.Composed]:
        """What undoes it, beside what a role's objects need."""
        _, *names = self.key
        write = {
            "role": _role,
            "membership": _membership,
            "database": _database,
            "tablespace": _tablespace,
            "grant": _grant,
            "setting": _setting,
            "system": _system,
            "origin": _origin,
            "comment": _comment,
        }[self.kind]
        return [*write(names, self)]

    @property
    def text(self) -> str:
        """The statements for people; they hold no password."""
        texts = [f"{statement.as_string()};" for statement in self.statements()]
        if self.kind == "role" and not self.before:
            name = sql.Identifier(self.key[1]).as_string()
            texts.insert(0, f"DROP OWNED BY {name};")
        return " ".join(texts)


def undo(admin: Admin, changes: Iterable[Change]) -> None:
    """Put each changed global back, as a superuser.

    What a role owns in a database that stays becomes the superuser's. Raises `psycopg.Error` or `CannotUndo` where
    something cannot be put back; the rest may have been.
    """
    changes = sorted(changes, key=lambda change: _ORDER.index(change.kind))
    gone, there = [change for change in changes if not change.before], [change for change in changes if change.before]
    for change in [*reversed(gone), *there]:
        if change.kind == "role" and not change.before:
            _dispossess(admin, change.key[1])
        for statement in change.statements():
            admin.run(statement)
    if any(change.kind == "system" for change in changes):
        _reload(admin)


def _reload(admin: Admin) -> None:
    """Let the server read its configuration, and wait until new sessions have it."""
    loaded = admin.run("SELECT pg_conf_load_time(), pg_reload_conf()")[0][0]
    deadline = time.monotonic() + _PATIENCE
    # The postmaster reads it before it tells its backends to.
    while admin.run("SELECT pg_conf_load_time()")[0][0] == loaded and time.monotonic() < deadline:
        time.sleep(_POLL)


def restore(admin: Admin, wanted: Globals) -> list[Change]:
    """Make the globals what they are to be, as a superuser; gives what was otherwise. Raises as `undo` does."""
    first: list[Change] = []
    for _ in range(PASSES):
        changes = wanted.changes(Globals.of(admin.run, superuser=True))
        first = first or changes
        if not changes:
            break
        undo(admin, changes)
    if changes and (changes := wanted.changes(Globals.of(admin.run, superuser=True))):
        raise CannotUndo(", ".join(map(str, changes)))
    return first


class CannotUndo(Exception):  # noqa: N818 - a verdict, which the caller turns into a line of the run
    """A global that was removed and cannot be made again."""


def _dispossess(admin: Admin, role: str) -> None:
    """Let the role own and hold nothing. Clones that go meanwhile are waited for."""
    import psycopg

    name, deadline = sql.Identifier(role), time.monotonic() + _PATIENCE
    statements = [sql.SQL(text).format(name) for text in ("REASSIGN OWNED BY {} TO CURRENT_USER", "DROP OWNED BY {}")]
    while databases := [name for (name,) in admin.run(_DEPENDENT, [role]) if name != admin.address.database]:
        for database in databases:
            address = admin.address.with_database(database)
            try:
                with address.connect(autocommit=True) as connection:
                    for statement in statements:
                        connection.execute(statement)
            except psycopg.OperationalError:  # it is being dropped
                time.sleep(_POLL)
        if time.monotonic() > deadline:
            break
    for statement in statements:
        admin.run(statement)


def _role(names: list[str], change: Change) -> list[sql.Composed]:
    role, before = sql.Identifier(names[0]), change.before
    if before is None:
        return [sql.SQL("DROP ROLE {}").format(role)]
    statements: list[sql.Composed] = []
    if change.name:
        statements.append(sql.SQL("ALTER ROLE {} RENAME TO {}").format(role, sql.Identifier(change.name)))
        role = sql.Identifier(change.name)
    now = change.after.definition if change.after else {}
    verb = "ALTER" if change.after else "CREATE"
    words: list[sql.Composable] = [
        sql.SQL(word if before.definition[column] else f"NO{word}")
        for column, word in _ATTRIBUTES.items()
        if not change.after or before.definition[column] != now[column]
    ]
    if not change.after or before.definition["rolconnlimit"] != now["rolconnlimit"]:
        words.append(sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(before.definition["rolconnlimit"])))
    if before.definition["rolvaliduntil"] != now.get("rolvaliduntil"):
        until = before.definition["rolvaliduntil"] or "infinity"
        words.append(sql.SQL("VALID UNTIL {}").format(sql.Literal(until)))
    if before.definition["rolpassword"] != now.get("rolpassword") or change.name:
        words.append(sql.SQL("PASSWORD {}").format(sql.Literal(before.definition["rolpassword"])))
    if words:
        statements.append(sql.SQL(verb + " ROLE {} WITH {}").format(role, sql.SQL(" ").join(words)))
    return statements


def _membership(names: list[str], change: Change) -> list[sql.Composed]:
    role, member, grantor = (sql.Identifier(name) for name in names)
    options = (change.before or change.after or Item({})).definition
    by = sql.SQL(" GRANTED BY {}").format(grantor) if "set_option" in options else sql.SQL("")  # since PostgreSQL 16
    if change.before is None:
        return [sql.SQL("REVOKE {} FROM {}{}").format(role, member, by)]
    if "set_option" in options:
        words = ", ".join(f"{word.removesuffix('_option').upper()} {value}" for word, value in options.items())
    else:
        words = "ADMIN OPTION" if options["admin_option"] else ""
    with_options = sql.SQL(f" WITH {words}" if words else "")
    revoked = [sql.SQL("REVOKE {} FROM {}{}").format(role, member, by)] if change.after else []
    return [*revoked, sql.SQL("GRANT {} TO {}{}{}").format(role, member, with_options, by)]


def _database(names: list[str], change: Change) -> list[sql.Composed]:
    database = sql.Identifier(names[0])
    if change.before is None:
        template = change.after and change.after.definition["IS_TEMPLATE"]
        alter = [sql.SQL("ALTER DATABASE {} WITH IS_TEMPLATE false").format(database)] if template else []
        return [*alter, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database)]
    if change.after is None:
        raise CannotUndo(f"the database {names[0]} was dropped")
    statements = []
    if change.name:
        statements.append(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(database, sql.Identifier(change.name)))
        database = sql.Identifier(change.name)
    for word, value in change.before.definition.items():
        if value == change.after.definition[word]:
            continue
        if word == "owner":
            statements.append(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, sql.Identifier(value)))
        else:
            option = sql.SQL(f"{word} {{}}").format(sql.Literal(value))
            statements.append(sql.SQL("ALTER DATABASE {} WITH {}").format(database, option))
    return statements


def _tablespace(names: list[str], change: Change) -> list[sql.Composed]:
    if change.before is None:
        return [sql.SQL("DROP TABLESPACE {}").format(sql.Identifier(names[0]))]
    before, after = change.before.definition, change.after.definition if change.after else {}
    if change.name or before != {**after, "options": before["options"]}:
        raise CannotUndo(f"the tablespace {names[0]} was changed or dropped")
    alter = sql.SQL("ALTER TABLESPACE {} ").format(sql.Identifier(names[0]))
    new, old = (
        [option.partition("=")[::2] for option in definition["options"] or ()] for definition in (after, before)
    )
    texts = [
        *(sql.SQL("RESET ({})").format(sql.Identifier(name)) for name, _ in new),
        *(sql.SQL("SET ({} = {})").format(sql.Identifier(name), sql.Literal(value)) for name, value in old),
    ]
    return [alter + text for text in texts]


def _grant(names: list[str], change: Change) -> list[sql.Composed]:
    kind, name, grantee, privilege = names
    on = sql.SQL(f"{privilege} ON {kind} {{}}").format(
        sql.Identifier(*name.split(".")) if kind == "PARAMETER" else sql.Identifier(name)
    )
    role = sql.Identifier(grantee) if grantee else sql.SQL("PUBLIC")
    revoked = [sql.SQL("REVOKE {} FROM {} CASCADE").format(on, role)] if change.after else []
    if change.before is None:
        return revoked
    option = sql.SQL(" WITH GRANT OPTION" if change.before.definition["grantable"] and grantee else "")
    return [*revoked, sql.SQL("GRANT {} TO {}{}").format(on, role, option)]


def _setting(names: list[str], change: Change) -> list[sql.Composed]:
    role, database, name = names
    whose = sql.SQL("ALTER ROLE {}").format(sql.Identifier(role) if role else sql.SQL("ALL"))
    if database:
        within = sql.SQL("DATABASE {}").format(sql.Identifier(database))
        whose = sql.SQL("{} IN {}").format(whose, within) if role else sql.SQL("ALTER {}").format(within)
    return [_set(whose, name, change.before)]


def _system(names: list[str], change: Change) -> list[sql.Composed]:
    return [_set(sql.SQL("ALTER SYSTEM"), names[0], change.before)]


def _origin(names: list[str], change: Change) -> list[sql.Composed]:
    verb = sql.SQL("create" if change.before else "drop")
    return [sql.SQL("SELECT pg_replication_origin_{}({})").format(verb, sql.Literal(names[0]))]


def _comment(names: list[str], change: Change) -> list[sql.Composed]:
    kind, name = names
    value = change.before and change.before.definition["value"]
    return [sql.SQL(f"COMMENT ON {kind} {{}} IS {{}}").format(sql.Identifier(name), sql.Literal(value))]


def _set(whose: sql.Composable, name: str, before: Item | None) -> sql.Composed:
    setting = sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
    if before is None:
        return sql.SQL("{} RESET {}").format(whose, setting)
    value = before.definition["value"]
    written = sql.SQL(value) if name in LISTS and value else sql.Literal(value)
    return sql.SQL("{} SET {} TO {}").format(whose, setting, written)
