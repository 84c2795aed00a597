"""``seeddb apply``: bring a database to the plan's state."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_seeddb.cli.applying import Wish, apply_to, guard
from pytest_seeddb.cli.database import database_of, further_databases
from pytest_seeddb.cli.output import as_json, make_progress
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.plan.ledger import Ledger
from pytest_seeddb.seeds.declaration import TIERS
from pytest_seeddb.seeds.planning import Plans, plan_of
from pytest_seeddb.seeds.staging import weak_secrets_of
from pytest_seeddb.settings.production import environment_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from pytest_seeddb.cli.applying import Applied
    from pytest_seeddb.plan.plan import Progress
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
    """Migrate and seed a database; ``None`` where emptying it was not confirmed.

    Raises:
        ConfigError: The settings are wrong, or production refuses it.
        BuildError: A step failed, or may not run again.
        ServerError: The database cannot be reached.
    """
    overrides = {"tier": wish.tier} if wish.tier in TIERS else {}
    plan = plan_of(settings, overrides=overrides)
    if wish.tier == "none":
        plan = replace(plan, stages=tuple(stage for stage in plan.stages if not stage.tier))
    wish = replace(wish, environment=environment_of(settings))
    address = database_of(settings, wish.url)
    guard(plan, wish, Ledger())
    if wish.tier != "none":
        _check_secrets(settings, wish, overrides)
    if wish.reset and not (wish.dry_run or wish.yes or _is_confirmed(address.masked)):
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
            "Secrets in production need values of their own",
            saw="\n".join(declared),
            source=wish.environment.source,
            remedy="set them in the environment: SEEDDB_SEED_<NAME>=...",
        )
    for secret in weak:
        variable = f"SEEDDB_SEED_{secret.parameter.upper()}"
        print(f"seeddb: warning: {secret}; in production give it a value of its own: {variable}=...", file=sys.stderr)


def _is_confirmed(database: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError(
            "--reset empties the database, and there is no terminal on which to ask for confirmation",
            saw=database,
            source="the command line",
            remedy="add --yes if that is what you want",
        )
    print(f"Everything in {database} will be dropped. Type yes to go on: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"
