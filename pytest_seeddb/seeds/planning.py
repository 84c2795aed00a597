"""From settings to a plan: which stages a profile has, in order. Planning has no side effects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_seeddb.application.django import DEFAULT, postgres_aliases
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.migrations import sources as migrations
from pytest_seeddb.migrations.sources import extension_stage
from pytest_seeddb.plan.plan import Plan, Recipe, shown_profile
from pytest_seeddb.seeds import staging

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_seeddb.settings.settings import Settings


def plan_of(
    settings: Settings, profile: str | None = None, overrides: Mapping[str, object] | None = None, alias: str = ""
) -> Plan:
    """What the settings declare, for one profile.

    Cheap when nothing changed since the last call on this machine: no user code is imported where
    it can be read instead, nothing connects anywhere. Whoever builds the plan calls
    `pytest_seeddb.fingerprint.recording.begin` before this: a module that planning imports is not imported again.

    Args:
        settings: The project's settings.
        profile: Another profile than the settings' own.
        overrides: Seed parameters that go before the profile's.
        alias: Which of a Django project's databases; the default one where it is empty.

    Raises:
        ConfigError: Names the key, where it stands, what was found and what is allowed.
    """
    overrides = overrides or {}
    if profile is not None:
        sources = {**settings.sources, "profile": f"the marker: seeded({profile!r})"}
        settings = replace(settings, profile=profile, sources=sources)
    if settings.plans_nothing:
        raise nothing_declared(settings)
    hidden = staging.secret_names(settings, overrides) if overrides else ()
    shown = shown_profile(settings.profile, overrides, hidden)
    stages = (
        *extension_stage(settings),
        *migrations.stages(settings, alias),
        *staging.stages(settings, overrides),
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
        ignore_env=settings.ignore_env,
        alias=alias or DEFAULT,
        recipe=Recipe(settings, overrides, alias),
    )


def plan_again(plan: Plan) -> Plan:
    """The same plan, made from the files as they are now; one that was put together by hand as it is."""
    if plan.recipe is None:
        return plan
    again = plan_of(plan.recipe.settings, None, plan.recipe.overrides, plan.recipe.alias)
    return again if plan.recipe.seeds else again.without_seeds


class Plans:
    """The plans of a run or a command, each made once.

    So a source file that is edited in the middle of a run makes no difference before the next.
    """

    def __init__(self) -> None:
        self._known: list[tuple[tuple[object, ...], Plan]] = []

    def of(
        self,
        settings: Settings,
        profile: str | None = None,
        overrides: Mapping[str, object] | None = None,
        alias: str = "",
    ) -> Plan:
        """As `plan_of`."""
        key = (settings, profile, repr(sorted((overrides or {}).items(), key=lambda pair: pair[0])), alias)
        return self._find(key) or self._add(key, plan_of(settings, profile, overrides, alias))

    def _find(self, key: tuple[object, ...]) -> Plan | None:
        return next((plan for known, plan in self._known if known == key), None)

    def _add(self, key: tuple[object, ...], plan: Plan) -> Plan:
        self._known.append((key, plan))
        return plan

    def has(self, plan: Plan) -> bool:
        """Whether `of` made it."""
        return any(plan is known for _, known in self._known)

    def vary(self, plan: Plan, profile: str | None, overrides: Mapping[str, object]) -> Plan:
        """The plan for another profile, or its own where that is ``None``, with seed parameters overridden.

        Raises:
            ConfigError: Unknown profile or parameter, or a plan that was put together by hand.
        """
        if (profile or plan.profile) == plan.profile and not overrides:
            return plan
        if plan.recipe is None:
            raise ConfigError(
                f"The plan {plan.name!r} has no profiles",
                saw=f"profile {profile!r}, parameters {dict(overrides)}",
                source="the fixture seeddb_plan",
                remedy="return plan_of(seeddb_settings.replace(...)) from it, or use the marker without arguments",
            )
        return self.of(plan.recipe.settings, profile, overrides)

    def siblings(self, plan: Plan) -> dict[str, Plan]:
        """The plans of a Django project's other databases, by alias.

        Seeders find these beside theirs, migrated; what they write there while the plan is built is thrown
        away, and made again when the other one is built.
        """
        recipe = plan.recipe
        if recipe is None or recipe.settings.migrations != migrations.DJANGO:
            return {}
        return {
            alias: self.of(recipe.settings, None, recipe.overrides, "" if alias == DEFAULT else alias)
            for alias in postgres_aliases()
            if alias != plan.alias
        }


def nothing_declared(settings: Settings) -> ConfigError:
    """The error for settings without anything to build."""
    return ConfigError(
        "There is nothing to build: neither migrations nor seeds are declared",
        saw=f"no `migrations`, no `seeds`, no `extensions` and no `dump` for the project in {settings.root}",
        source=str(settings.origin or f"no seeddb.toml or [tool.seeddb] in {settings.root} or above it"),
        remedy='declare them, for example [tool.seeddb] with migrations = "alembic.ini" and seeds = ["shop.seeds"]',
    )
