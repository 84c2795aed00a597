"""What a database lacks of a plan, by its ledger and its tools' notes, and what makes a run certain to fail."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from psycopg import sql

from pytest_seeddb.cli.emptying import LOCK_TIMEOUT
from pytest_seeddb.errors import BuildError, ConfigError, SeedDbError, ServerError
from pytest_seeddb.migrations.sources import extension_obstacle
from pytest_seeddb.plan import ledger as ledgers
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.settings.converters import did_you_mean
from pytest_seeddb.settings.production import NOWHERE, Environment
from pytest_seeddb.templates.contents import label, tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import psycopg

    from pytest_seeddb.plan.ledger import Ledger
    from pytest_seeddb.plan.plan import Plan, Stage, Step
    from pytest_seeddb.servers.address import Address

Action = Literal["done", "run", "accept", "refuse"]

_CHANGED: Final = "it has changed since it was applied"
_UNLESS: Final = ", unless the dump contains it"
_OTHER_PROFILE: Final = "it was applied with another profile,"
_RIGHTS: Final = f"""
SELECT current_user, current_database(), pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on',
       has_database_privilege(current_database(), 'CREATE'),
       (SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = '{ledgers.SCHEMA}'),
       (SELECT coalesce(bool_and(has_schema_privilege(n.oid, 'CREATE') AND has_schema_privilege(n.oid, 'USAGE')
           AND (c.oid IS NULL OR (has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE')))
       ), true) FROM pg_namespace n LEFT JOIN pg_class c ON relnamespace = n.oid AND relkind = 'r'
        WHERE nspname = '{ledgers.SCHEMA}')
"""  # noqa: S608 - a constant

_OF_MIGRATIONS: Final = frozenset(
    {"alembic_version", "django_migrations", "schema_migrations", "goose_db_version"}
    | {"django_content_type", "auth_permission", "django_site"}
)
"""Tables in which tools note what they have migrated, and those that Django fills after it has."""


@dataclass(frozen=True)
class Wish:
    """How a plan is to be applied, and where.

    Attributes:
        url: The database; where it is empty, the environment names it.
        tier: ``essential``, ``demo``, or ``none`` to migrate only; where it is empty, the profile decides.
        only: The step that is to run alone; empty for all.
        accept: Note what may not run again as applied, without running it.
        yes: Empty the database without asking.
        wait: Seconds to wait for the server to come up.
        lock_timeout: Seconds that ``reset`` tries to lock everything in the database.
        beside: A Django project's further databases, by alias.
    """

    url: str = field(default="", repr=False)
    tier: str = ""
    only: str = ""
    force: bool = False
    accept: bool = False
    reset: bool = False
    yes: bool = False
    dry_run: bool = False
    wait: float = 0.0
    lock_timeout: float = LOCK_TIMEOUT
    environment: Environment = NOWHERE
    beside: Mapping[str, Address] = field(default_factory=dict)


@dataclass(frozen=True)
class Todo:
    """What is to be done about one step, why, and how many seconds it took."""

    step: str
    action: Action
    reason: str
    seconds: float = 0.0


def find_seed(plan: Plan, name: str) -> str:
    """The step of the seeder that the option ``--only`` names; raises `ConfigError`."""
    steps = [step.name for stage in plan.stages if stage.tier for step in stage.steps if step.name.startswith("seed ")]
    names = {step.removeprefix("seed "): step for step in steps}
    short = {identity: re.split("[:/]", identity)[-1] for identity in names}
    own = [step for identity, step in names.items() if name in {identity, step, short[identity]}]
    if len(own) == 1:
        return own[0]
    near = "" if own else did_you_mean(name, {*names, *short.values()})
    listed = "Name one of these, or another --profile" if steps else "Omit --only, or name a --profile that has seeders"
    raise ConfigError(
        f"There are several seeders {name!r}" if own else f"The profile {plan.profile} has no seeder {name!r}",
        saw="\n".join(step.removeprefix("seed ") for step in own or steps) or "it has no seeders",
        source="the option --only",
        remedy=f"{near} {listed}: `seeddb seeds` lists all".strip(),
    )


def stage_with(plan: Plan, step: str) -> Plan:
    """The stage that has the step; the whole plan where that is empty."""
    stages = tuple(stage for stage in plan.stages if any(step == known.name for known in stage.steps))
    return replace(plan, stages=stages) if step else plan


def todos_of(plan: Plan, ledger: Ledger, wish: Wish, strange_table: str) -> list[Todo]:
    """What is to be done about each step, by the ledger."""
    is_current = ledger.is_current(plan)
    former = _former_steps(plan, ledger)
    todos = []
    for stage in plan.stages:
        for step in stage.steps:
            todo = _todo(stage, step, ledger, wish, plan.root, is_current=is_current)
            if todo.reason == _CHANGED and step.name in former and ledger.is_done(former[step.name], plan.root):
                profile = ledger.marker.profile if ledger.marker else ""
                todo = replace(todo, reason=f"{_OTHER_PROFILE} {profile!r}, and not {plan.profile!r}")
            if strange_table and stage.tier and step.rerun == "never" and not (wish.force or wish.accept):
                reason = f"{strange_table} already has rows, and no ledger says where they come from"
                todo = replace(todo, action="refuse", reason=reason)
            todos.append(todo)
    return [todo for todo in todos if wish.only in {"", todo.step}]


def _former_steps(plan: Plan, ledger: Ledger) -> dict[str, Step]:
    """The seeds of the profile that the database has, if it is another one than the plan's."""
    former = ledger.marker.profile.partition("(")[0] if ledger.marker and ledger.marker.tier else ""
    if plan.recipe is None or not former or ledger.marker is None or ledger.marker.profile == plan.profile:
        return {}
    with contextlib.suppress(SeedDbError):  # the settings have no such profile any more
        steps = plan_of(plan.recipe.settings, former, plan.recipe.overrides, plan.recipe.alias).steps
        return {step.name: step for step in steps}
    return {}


def _todo(stage: Stage, step: Step, ledger: Ledger, wish: Wish, root: Path, *, is_current: bool) -> Todo:
    noted = ledger.steps.get(step.name)
    if stage.tier and wish.force:
        return Todo(step.name, "run", "it was asked for")
    if step.rerun == "always":
        return Todo(step.name, "done", "up to date") if is_current else Todo(step.name, "run", "pending")
    if noted is None:
        return Todo(step.name, "accept" if wish.accept and stage.tier else "run", "new")
    if ledger.is_done(step, root):
        return Todo(step.name, "done", "up to date")
    reason = _CHANGED if noted.finished else "it was started but not finished"
    if step.rerun == "safe":
        return Todo(step.name, "run", reason)
    return Todo(step.name, "accept" if wish.accept else "refuse", reason)


def compare_with_tools(plan: Plan, todos: list[Todo], connection: psycopg.Connection[Any]) -> list[Todo]:
    """The same without the steps that their own tool has noted in the database as applied."""
    actions: dict[str, Action] = {todo.step: todo.action for todo in todos}
    applied = {
        name
        for stage in plan.stages
        if any(actions.get(step.name) == "run" for step in stage.steps)
        for name in stage.steps_in(connection)
    }
    restores = any(todo.step.startswith("dump ") and todo.step not in applied for todo in todos)
    left = []
    for todo in todos:
        if todo.step in applied and todo.action == "run":
            left.append(replace(todo, action="done", reason="up to date"))
        elif restores and todo.action == "run" and not todo.step.startswith("dump "):
            left.append(replace(todo, reason=f"{todo.reason}{_UNLESS}"))
        else:
            left.append(todo)
    return left


def certain_errors(
    plan: Plan,
    todos: list[Todo],
    ledger: Ledger,
    address: Address,
    connection: psycopg.Connection[Any],
    *,
    reads_files: bool,
) -> Iterator[SeedDbError]:
    """The errors with which the run is certain to fail."""
    refused = [todo for todo in todos if todo.action == "refuse"]
    if refused:
        source = f"the ledger in {address.masked}, schema {ledgers.SCHEMA}"
        saw = "\n".join(f"{todo.step}: {todo.reason}" for todo in refused)
        if ledger.marker and all(todo.reason.startswith(_OTHER_PROFILE) for todo in refused):
            yield BuildError(
                f"The database was seeded with another profile, {ledger.marker.profile!r}",
                saw=saw,
                source=source,
                remedy=f"--profile {ledger.marker.profile.partition('(')[0]} keeps its profile; --reset empties the "
                "database first; or declare @seeder(idempotent=True) where a seeder can change its rows from one to "
                "the other",
            )
        else:
            yield _refusal(saw, source, refused)
    if all(todo.action == "done" for todo in todos):
        return
    yield from _missing_rights(address, connection)
    for todo in todos:
        if todo.action == "run" and todo.step.startswith("extension ") and plan.recipe:
            source = plan.recipe.settings.source("extensions")
            if error := extension_obstacle(connection, todo.step.removeprefix("extension "), source):
                yield error
    if reads_files:
        yield from _file_errors(plan, todos)


def _file_errors(plan: Plan, todos: list[Todo]) -> Iterator[SeedDbError]:
    steps = {step.name: step for step in plan.steps}
    errors: dict[str, SeedDbError] = {}
    for todo in todos:
        if todo.action == "run" and not todo.reason.endswith(_UNLESS):
            try:
                steps[todo.step].check()
            except SeedDbError as error:
                errors.setdefault(str(error), error)  # the seeders of a module share it
    yield from errors.values()


def _refusal(saw: str, source: str, refused: list[Todo]) -> BuildError:
    seeds = [todo for todo in refused if todo.step.startswith("seed ")]
    edited = any(todo.reason == _CHANGED for todo in refused if todo not in seeds)
    ways = [
        "undo the change of an SQL migration, and write another migration for it" if edited else "",
        "--accept records these steps as applied and leaves the rows as they are",
        "--force runs all seeders again" if seeds else "",
        "--reset empties the database first",
        "declare @seeder(idempotent=True) where a seeder may run again" if seeds else "",
    ]
    return BuildError(
        "The database cannot be brought to the plan's state without running steps twice",
        saw=saw,
        source=source,
        remedy="; ".join(filter(None, ways)),
    )


def _missing_rights(address: Address, connection: psycopg.Connection[Any]) -> Iterator[ServerError]:
    row = connection.execute(_RIGHTS).fetchone()
    assert row  # noqa: S101 - it always gives one
    role, database, is_standby, is_read_only, may_create, owner, may_note = row
    to, on = (sql.Identifier(name).as_string() for name in (role, database))
    if is_standby:
        yield ServerError(
            "The server is a standby, on which nothing can be changed",
            saw="pg_is_in_recovery() is true",
            source=address.masked,
            remedy="name the primary server in the URL; with several hosts, add target_session_attrs=read-write",
        )
    elif is_read_only:
        yield ServerError(
            f"The role {role} has read-only transactions in the database {database}",
            saw="default_transaction_read_only is on",
            source=address.masked,
            remedy=f"turn it off where it is set: ALTER ROLE {to} SET default_transaction_read_only = off; or "
            f"ALTER DATABASE {on} ..., or the URL's options; or name another role",
        )
    if not may_create:
        yield ServerError(
            f"The role {role} may not create schemas in the database {database}",
            saw="no privilege CREATE on the database; seeddb records in a schema what was applied",
            source=address.masked,
            remedy=f"as the database's owner: GRANT CREATE ON DATABASE {on} TO {to}",
        )
    elif not may_note:
        yield ServerError(
            f"The role {role} may not write into the schema {ledgers.SCHEMA} of the database {database}",
            saw=f"the schema belongs to the role {owner}",
            source=address.masked,
            remedy=f"apply as the role {owner}; or as that role: GRANT ALL ON SCHEMA {ledgers.SCHEMA} TO {to}; "
            f"GRANT ALL ON ALL TABLES IN SCHEMA {ledgers.SCHEMA} TO {to}",
        )


def unknown_rows(ledger: Ledger, connection: psycopg.Connection[Any]) -> str:
    """A table with rows that seeddb did not write; empty where there is none."""
    if ledger.marker.tier if ledger.marker else ledger.steps:
        return ""
    for schema, name in tables(connection):
        query = sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(schema, name))
        if name not in _OF_MIGRATIONS and connection.execute(query).fetchone():
            return label(schema, name)
    return ""
