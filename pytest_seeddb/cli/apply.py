"""``seeddb apply``: bring a database to the plan's state."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pytest_seeddb.application.imports import describe, load
from pytest_seeddb.cli.applying import Wish, apply_to, demo_steps, guard, ledger_of
from pytest_seeddb.cli.database import database_of, further_databases, is_nearby, is_on_this_machine
from pytest_seeddb.cli.output import as_json, make_progress
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.errors import ConfigError, ServerError
from pytest_seeddb.fingerprint.recording import begin
from pytest_seeddb.plan.ledger import Ledger
from pytest_seeddb.seeds.declaration import TIERS
from pytest_seeddb.seeds.planning import Plans, plan_of
from pytest_seeddb.seeds.staging import weak_secrets_of
from pytest_seeddb.settings.dotenv import read_dotenv
from pytest_seeddb.settings.production import Environment, environment_from, environment_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from pytest_seeddb.cli.applying import Applied
    from pytest_seeddb.plan.plan import Plan, Progress
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    names = ("url", "tier", "force", "accept", "reset", "yes", "dry_run", "wait", "lock_timeout")
    wish = Wish(**{name: getattr(parsed, name) for name in names})
    applied = apply(settings_of(parsed), wish, make_progress())
    if applied is None:
        print("seeddb: nothing was done", file=sys.stderr)
        return 1
    if parsed.json:
        print(as_json(applied))
        return 0
    seeds = ", no seeds" if applied.tier == "none" else f"/{applied.profile}, {applied.tier}"
    label = f"{applied.database}: {applied.plan}{seeds}"
    if applied.up_to_date:
        print(f"{label}: up to date")
        return 0
    print(f"{label}: {'would do' if applied.dry_run else f'applied in {applied.seconds:.1f} s'}")
    words = {"run": "run" if applied.dry_run else "ran", "accept": "accepted, not run", "refuse": "cannot be run"}
    for todo in applied.steps:
        if todo.action != "done":
            seconds = "" if applied.dry_run or todo.action != "run" else f", {todo.seconds:.1f} s"
            print(f"  {words[todo.action]}: {todo.step} ({todo.reason}{seconds})")
    if done := sum(todo.action == "done" for todo in applied.steps):
        print(f"  {done} steps were done before")
    return 0


def apply(settings: Settings, wish: Wish, progress: Progress) -> Applied | None:
    """Migrate and seed a database; ``None`` where the user did not confirm it.

    Raises:
        ConfigError: The settings are wrong, or production refuses it.
        BuildError: A step failed, or may not run again.
        ServerError: The database cannot be reached.
    """
    dotenv = read_dotenv(settings.root, os.environ) if settings.dotenv else ()
    address = database_of(settings, wish.url, dotenv)
    overrides = {"tier": wish.tier} if wish.tier in TIERS else {}
    begin(settings.root)
    plan = plan_of(settings, overrides=overrides)
    if wish.tier == "none":
        plan = replace(plan, stages=tuple(stage for stage in plan.stages if not stage.tier))
    environment = environment_of(settings, dotenv=dotenv, application=partial(_application_environment, settings))
    wish = replace(wish, environment=environment)
    guard(plan, wish, Ledger())
    if wish.tier != "none":
        _check_secrets(settings, wish, overrides)
    if wish.reset and not (wish.dry_run or wish.yes or _is_reset_confirmed(address)):
        return None
    if not _may_have_demo_data(settings, address, plan, wish):
        return None
    if wish.url:
        return apply_to(address, plan, wish, progress)
    beside = further_databases(settings)
    plans = Plans().siblings(plan) if beside else {}
    others = [apply_to(beside[alias], plans[alias].without_seeds, wish, progress) for alias in beside]
    applied = apply_to(address, plan, replace(wish, beside=beside), progress)
    steps = tuple(replace(todo, step=f"{other.plan}: {todo.step}") for other in others for todo in other.steps)
    up_to_date = all(database.up_to_date for database in (applied, *others))
    return replace(applied, steps=(*steps, *applied.steps), up_to_date=up_to_date)


def _check_secrets(settings: Settings, wish: Wish, overrides: Mapping[str, str]) -> None:
    weak = weak_secrets_of(settings, overrides)
    if wish.environment.is_production and (declared := [str(secret) for secret in weak if secret.declared]):
        raise ConfigError(
            "Secrets in production need their own values",
            saw="\n".join(declared),
            source=wish.environment.source,
            remedy="set them in the environment: SEEDDB_SEED_<NAME>=...",
        )
    for secret in weak:
        variable = f"SEEDDB_SEED_{secret.parameter.upper()}"
        print(f"seeddb: warning: {secret}; in production give it a value of its own: {variable}=...", file=sys.stderr)


def _application_environment(settings: Settings, path: str) -> Environment:
    """What the application's own value says; functions on the way to it are called."""
    source = settings.source("environment")
    module, _, attributes = path.partition(":")
    try:
        with contextlib.chdir(settings.root):
            value = load(module, source=source, root=settings.root)
            for attribute in attributes.split("."):
                value = getattr(value, attribute)
                if inspect.isroutine(value) or hasattr(value, "cache_info"):
                    value = value()
    except ConfigError as error:
        return Environment("", f"{source}: {path}", doubt=f"{error.what}\n{error.saw}")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the application's code may raise anything
        return Environment("", f"{source}: {path}", doubt=describe(error, settings.root))
    return environment_from(value, path, source)


def _is_reset_confirmed(address: Address) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError(
            "--reset empties the database, and there is no terminal on which to ask for confirmation",
            saw=address.masked,
            source="the command line",
            remedy="add --yes if that is what you want",
        )
    return _is_confirmed(f"Everything in {address.masked} will be dropped.")


def _may_have_demo_data(settings: Settings, address: Address, plan: Plan, wish: Wish) -> bool:
    """Whether demo seeds may run; where nothing says what the database is, this asks, or the host decides."""
    demo = demo_steps(plan)
    if not demo or wish.environment.name or wish.reset or wish.yes or wish.dry_run:
        return True
    is_terminal = sys.stdin.isatty()
    if all(map(is_on_this_machine if is_terminal else is_nearby, address.hosts)):
        return True
    ledger = Ledger()
    with contextlib.suppress(ServerError):  # a database that cannot be reached has no demo data that is known
        ledger = ledger_of(address, wish.wait)
    guard(plan, wish, ledger)
    marker = ledger.marker
    if (marker and (marker.environment or marker.tier == "demo")) or not ledger.steps.keys().isdisjoint(demo):
        return True
    if is_terminal:
        return _is_confirmed(f"Nothing says whether {address.masked} is a production database. It will get demo data.")
    raise ConfigError(
        "Demo data is refused: nothing says whether this is a production database, and there is no terminal to ask on",
        saw=f"{address.masked}, which is neither on this machine nor in a private network",
        source=f"{settings.source('environment')}: {', '.join(settings.environment)}, none of which is set",
        remedy='use --tier essential; or, if it is not production, add --yes, or write environment = "demo" into '
        "[tool.seeddb]",
    )


def _is_confirmed(consequence: str) -> bool:
    print(f"{consequence} Type yes to go on: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"
