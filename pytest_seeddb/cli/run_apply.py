"""Bring a database to the plan's state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_seeddb.cli import applying
from pytest_seeddb.cli.database import database_of, further_databases
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.plan.ledger import Ledger
from pytest_seeddb.seeds.declaration import TIERS
from pytest_seeddb.seeds.planning import Plans, plan_of
from pytest_seeddb.seeds.staging import weak_secrets_of
from pytest_seeddb.settings.production import environment_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_seeddb.cli.applying import Applied, Wish
    from pytest_seeddb.plan.plan import Progress
    from pytest_seeddb.settings.settings import Settings


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    Attributes:
        wish: How to apply the plan.
        url: Of the database; where it is empty, the environment has it.
        tier: ``essential``, ``demo``, or ``none`` to migrate only; where it is empty, the profile says.
        confirm: Asked before the database is emptied, with its masked URL; whether to go on.
        warn: Told what is no error.
    """

    wish: Wish
    url: str = field(default="", repr=False)
    tier: str = ""
    confirm: Callable[[str], bool] = lambda _database: True
    warn: Callable[[str], object] = lambda _text: None


def apply(settings: Settings, request: Request, progress: Progress) -> Applied | None:
    """Migrate and seed a database; ``None`` where emptying it was not confirmed.

    Raises:
        ConfigError: The settings are wrong, or production refuses it.
        BuildError: A step failed, or may not run again.
        ServerError: The database cannot be reached.
    """
    overrides = {"tier": request.tier} if request.tier in TIERS else {}
    plan = plan_of(settings, overrides=overrides)
    if request.tier == "none":
        plan = replace(plan, stages=tuple(stage for stage in plan.stages if not stage.tier))
    wish = replace(request.wish, environment=environment_of(settings))
    address = database_of(settings, request.url)
    applying.guard(plan, wish, Ledger())
    if request.tier != "none":
        _check_secrets(settings, request, wish, overrides)
    if wish.reset and not wish.dry_run and not request.confirm(address.masked):
        return None
    if request.url:
        return applying.apply(plan, address, wish, progress)
    beside = further_databases(settings)
    siblings = Plans().siblings(plan)
    others = [applying.apply(siblings[alias].without_seeds, beside[alias], wish, progress) for alias in beside]
    found = applying.apply(plan, address, replace(wish, beside=beside), progress)
    steps = tuple(replace(step, step=f"{each.plan}: {step.step}") for each in others for step in each.steps)
    return replace(found, steps=(*steps, *found.steps), up_to_date=all(each.up_to_date for each in (found, *others)))


def _check_secrets(settings: Settings, request: Request, wish: Wish, overrides: dict[str, str]) -> None:
    weak = weak_secrets_of(settings, overrides)
    if wish.environment.is_production and (declared := [str(each) for each in weak if each.declared]):
        raise ConfigError(
            "Secrets in production need values of their own",
            saw="\n".join(declared),
            source=wish.environment.source,
            remedy="give them in the environment: SEEDDB_SEED_<NAME>=...",
        )
    for each in weak:
        request.warn(f"{each}; in production give it a value of its own: SEEDDB_SEED_{each.parameter.upper()}=...")
