"""``seeddb apply``: bring a database to the plan's state."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.imports import describe, load
from pytest_seeddb.cli.applying import apply_to, demo_steps, guard, ledger_of
from pytest_seeddb.cli.database import database_of, further_databases, is_nearby, is_on_this_machine
from pytest_seeddb.cli.output import make_progress, say, show
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.cli.pending import Wish, find_seed, stage_with
from pytest_seeddb.errors import ConfigError, SeedDbError, ServerError
from pytest_seeddb.fingerprint.recording import begin
from pytest_seeddb.plan.ledger import Ledger
from pytest_seeddb.seeds.declaration import TIERS
from pytest_seeddb.seeds.planning import Plans, plan_of
from pytest_seeddb.seeds.staging import weak_secrets_of
from pytest_seeddb.settings.dotenv import read_dotenv
from pytest_seeddb.settings.production import Environment, environment_from, environment_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

    from pytest_seeddb.cli.applying import Applied
    from pytest_seeddb.cli.pending import Todo
    from pytest_seeddb.plan.plan import Plan, Progress
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings


PENDING: Final = 3
"""The exit code of ``--check`` where something is pending."""

_WORDS: Final = {"run": "ran", "accept": "accepted, not run", "refuse": "cannot be run", "done": "done before"}


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    names = ("url", "tier", "only", "force", "accept", "reset", "yes", "wait", "lock_timeout")
    wish = Wish(**{name: getattr(parsed, name) for name in names}, dry_run=parsed.dry_run or parsed.check)
    shows_steps = not (parsed.json or parsed.quiet or wish.dry_run)

    def hear(todo: Todo) -> None:
        if shows_steps:
            say(_line(todo), sys.stdout)  # which a bar moves out of its way

    applied = apply(settings_of(parsed), wish, make_progress(parsed, "applying", steps=False), hear)
    if applied is None:
        raise SeedDbError("The answer was not yes: nothing was done", remedy="type yes, or add --yes")
    first = next(iter(applied.errors), None)
    lines = _lines(applied, verbose=parsed.verbose, is_one=bool(wish.only))
    show(parsed, {**vars(applied), "error": first}, lines, with_quiet=wish.dry_run)
    for error in () if parsed.json else applied.errors:
        say(f"seeddb: {error}")
    if first:
        return 1
    return PENDING if parsed.check and not applied.up_to_date else 0


def _lines(applied: Applied, *, verbose: bool, is_one: bool) -> Iterator[str]:
    """What is left to say at the end: each step was told as it ended, unless nothing was to be done."""
    seeds = ", no seeds" if applied.tier == "none" else f"/{applied.profile}, {applied.tier}"
    label = f"{applied.database}: {applied.plan}{seeds}{f', {applied.steps[0].step} alone' if is_one else ''}"
    done = [todo for todo in applied.steps if todo.action == "done"]
    done_before = f"{len(done)} steps were done before" if len(done) != 1 else "1 step was done before"
    if applied.up_to_date:
        yield f"{label}: up to date"
    elif applied.dry_run:
        yield f"{label}: would do"
        words = {**_WORDS, "run": "run"}
        yield from (
            f"  {words[todo.action]}: {todo.step} ({todo.reason})" for todo in applied.steps if todo not in done
        )
    else:
        yield f"{label}: applied in {applied.seconds:.1f} s"
    yield from (f"  applied earlier, and no longer in the project: {name}" for name in applied.gone)
    if verbose:
        yield from (f"  done before: {todo.step}" for todo in done)
    elif done and not applied.up_to_date:
        yield f"  {done_before}"


def _line(todo: Todo) -> str:
    seconds = f", {todo.seconds:.1f} s" if todo.action == "run" else ""
    return f"  {_WORDS[todo.action]}: {todo.step} ({todo.reason}{seconds})"


def apply(settings: Settings, wish: Wish, progress: Progress, hear: Callable[[Todo], None]) -> Applied | None:
    """Migrate and seed a database, and tell of each step; ``None`` where the user did not confirm it.

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
    if wish.only:
        if wish.reset:
            raise ConfigError(
                "These options cannot be combined",
                saw="--only with --reset, which empties the database",
                source="the command line",
                remedy="omit --only; or run --reset first, and --only with --force afterwards",
            )
        wish = replace(wish, only=find_seed(plan, wish.only))
    part = stage_with(plan, wish.only)
    guard(part, wish, Ledger())
    if wish.tier != "none":
        _check_secrets(settings, wish, overrides)
    if wish.reset and not (wish.dry_run or wish.yes or _is_reset_confirmed(address)):
        return None
    if not _may_have_demo_data(settings, address, part, wish):
        return None
    if wish.url:
        return apply_to(address, plan, wish, progress, hear)
    beside = further_databases(settings)
    plans = Plans().siblings(plan) if beside and not wish.only else {}
    others = []
    for alias, other in plans.items():
        named = partial(_hear_of_another, hear, other.name)
        database = apply_to(beside[alias], other.without_seeds, wish, progress, named)
        steps = tuple(replace(todo, step=f"{other.name}: {todo.step}") for todo in database.steps)
        others.append(replace(database, steps=steps))
    applied = apply_to(address, plan, replace(wish, beside=beside), progress, hear)
    databases = (*others, applied)
    return replace(
        applied,
        up_to_date=all(database.up_to_date for database in databases),
        steps=tuple(todo for database in databases for todo in database.steps),
        errors=tuple(error for database in databases for error in database.errors),
        gone=tuple(name for database in databases for name in database.gone),
    )


def _hear_of_another(hear: Callable[[Todo], None], label: str, todo: Todo) -> None:
    hear(replace(todo, step=f"{label}: {todo.step}"))


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
        say(f"seeddb: warning: {secret}; in production give it a value of its own: {variable}=...")


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
