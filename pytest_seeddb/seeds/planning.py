"""From settings to a plan: which stages a profile has, in order."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from pytest_seeddb.application.django_project import DEFAULT, postgres_aliases
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.opened import begin
from pytest_seeddb.migrations import sources as migrations
from pytest_seeddb.migrations.extensions import extension_stage
from pytest_seeddb.plan.plan import Plan, shown_profile
from pytest_seeddb.seeds import staging

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_seeddb.settings.settings import Settings


def plan_of(
    settings: Settings, profile: str | None = None, overrides: Mapping[str, object] | None = None, alias: str = ""
) -> Plan:
    """What the settings declare, for one profile.

    Cheap when nothing changed since the last call on this machine: no user code is imported where
    it can be read instead, nothing connects anywhere.

    Args:
        settings: The project's settings.
        profile: Another profile than the settings' own.
        overrides: Seed parameters that go before the profile's.
        alias: Which of a Django project's databases; the default one where it is empty.

    Raises:
        ConfigError: Names the key, where it stands, what was found and what is allowed.
    """
    again = partial(plan_of, settings, profile, overrides, alias)
    begin(settings.root)
    if profile is not None:
        sources = {**settings.sources, "profile": f"the marker: seeded({profile!r})"}
        settings = replace(settings, profile=profile, sources=sources)
    if settings.plans_nothing:
        raise _nothing_declared(settings)
    hidden = staging.secret_names(settings, overrides) if overrides else ()
    shown = shown_profile(settings.profile, overrides or {}, hidden)
    stages = (
        *extension_stage(settings),
        *migrations.stages(settings, alias),
        *staging.stages(settings, overrides or {}),
    )
    if settings.dump is not None and not alias:
        from pytest_seeddb.dumps.stage import with_dump

        stages = with_dump(settings, shown, stages)
    return Plan(
        name=f"{settings.name}-{alias}" if alias else settings.name,
        profile=shown,
        root=settings.root,
        stages=tuple(stage for stage in stages if stage.steps),
        env=settings.env,
        vary=partial(plan_of, settings),
        again=again,
        alias=alias or DEFAULT,
        siblings=cache(partial(_siblings, settings, overrides or {}, alias)),
    )


def _siblings(settings: Settings, overrides: Mapping[str, object], alias: str) -> dict[str, Plan]:
    """The plans of a Django project's other databases."""
    if settings.migrations != migrations.DJANGO:
        return {}
    others = [each for each in postgres_aliases() if each != (alias or DEFAULT)]
    return {each: plan_of(settings, overrides=overrides, alias="" if each == DEFAULT else each) for each in others}


def _nothing_declared(settings: Settings) -> ConfigError:
    return ConfigError(
        "There is nothing to build: neither migrations nor seeds are declared",
        saw=f"no `migrations`, no `seeds`, no `extensions` and no `dump` for the project in {settings.root}",
        source=str(settings.origin or f"no seeddb.toml or [tool.seeddb] in {settings.root} or above it"),
        remedy='declare them, for example [tool.seeddb] with migrations = "alembic.ini" and seeds = ["shop.seeds"]',
    )
