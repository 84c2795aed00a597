"""From settings to a plan: which stages a profile has, in order."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pytest_seeddb import migrations, seeds
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.extensions import extension_stage
from pytest_seeddb.plan import Plan, shown_profile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_seeddb.config import Settings


def plan_of(settings: Settings, profile: str | None = None, overrides: Mapping[str, object] | None = None) -> Plan:
    """What the settings declare, for one profile.

    Cheap when nothing changed since the last call on this machine: no user code is imported where
    it can be read instead, nothing connects anywhere.

    Args:
        settings: The project's settings.
        profile: Another profile than the settings' own.
        overrides: Seed parameters that go before the profile's.

    Raises:
        ConfigError: Names the key, where it stands, what was found and what is allowed.
    """
    if profile is not None:
        sources = {**settings.sources, "profile": f"the marker or the factory: seeded({profile!r})"}
        settings = replace(settings, profile=profile, sources=sources)
    if settings.plans_nothing:
        raise _nothing_declared(settings)
    shown = shown_profile(settings.profile, overrides or {})
    stages = (
        *extension_stage(settings),
        *migrations.stages(settings),
        *seeds.stages(settings, overrides or {}),
    )
    if settings.dump is not None:
        from pytest_seeddb.migrations.dump import with_dump

        stages = with_dump(settings, shown, stages)
    return Plan(
        name=settings.name,
        profile=shown,
        root=settings.root,
        stages=tuple(stage for stage in stages if stage.steps),
        env=settings.env,
        vary=partial(plan_of, settings),
    )


def _nothing_declared(settings: Settings) -> ConfigError:
    return ConfigError(
        "There is nothing to build: neither migrations nor seeds are declared",
        saw=f"no `migrations`, no `seeds`, no `extensions` and no `dump` for the project in {settings.root}",
        source=str(settings.origin or f"no seeddb.toml or [tool.seeddb] in {settings.root} or above it"),
        remedy='declare them, for example [tool.seeddb] with migrations = "alembic.ini" and seeds = ["shop.seeds"]',
    )
