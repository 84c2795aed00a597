"""Which plan and template hold for a test, where a sub-directory's conftest overrides a part of the chain.

pytest keeps what a session fixture returned, also for a test whose own conftest overrides what that
was made from. So the session's fixtures note what they were made from, and each seeded database is
made from what its test sees.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_seeddb.errors import ConfigError, SeedDbError
from pytest_seeddb.plan.plan import Plans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.clones.worker import Worker
    from pytest_seeddb.plan.plan import Plan
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.templates import Template


def check_settings(given: object) -> None:
    """See that a conftest's `seeddb_settings` gives back settings.

    Raises:
        ConfigError: It gives back something else, or forgot to.
    """
    from pytest_seeddb.settings.settings import Settings

    if not isinstance(given, Settings):
        raise ConfigError(
            "The fixture seeddb_settings gives back no settings",
            saw=repr(given),
            source="the fixture seeddb_settings, overridden in a conftest.py or a test module",
            remedy="end it with: return seeddb_settings.replace(...)",
        )


@contextmanager
def told_of_a_call() -> Iterator[None]:
    """Let an error about a marker's arguments speak of the call of ``seeded_db_factory`` that has the same ones."""
    try:
        yield
    except SeedDbError as error:
        source = error.source.replace("the marker: seeded(", "the call: seeded_db_factory(")
        raise type(error)(error.what, saw=error.saw, source=source, remedy=error.remedy) from None


class Origins:
    """What the session's own fixtures made in this run, and from what. Things are known by identity."""

    def __init__(self) -> None:
        self._plans: list[tuple[Plan, Settings]] = []
        self._templates: list[tuple[Template, Plan]] = []
        self._families: list[Plans] = []
        self._server: Settings | None = None

    def note_plan(self, plan: Plan, settings: Settings) -> Plan:
        """Remember what `seeddb_plan` made."""
        self._plans.append((plan, settings))
        return plan

    def note_plans(self, plans: Plans) -> None:
        """Remember a plan whose siblings are worked out already."""
        self._families.append(plans)

    def note_template(self, template: Template, plan: Plan) -> Template:
        """Remember what `seeddb_template` made."""
        self._templates.append((template, plan))
        return template

    def note_server(self, settings: Settings) -> None:
        """Remember which settings chose the run's server."""
        self._server = settings

    def plans_for(self, plan: Plan, settings: Settings) -> Plans:
        """The plan that a test sees, and its siblings; worked out anew if it was made from other settings."""
        made_from = next((each for made, each in self._plans if made is plan), settings)
        wanted = plan if made_from is settings else self._plan_of(settings)
        return next((each for each in self._families if each.plan is wanted), None) or self._family(wanted)

    def template_for(self, template: Template, plan: Plan, worker: Worker) -> Template:
        """The template that a test sees, unless that was made from another plan than the test's."""
        made_from = next((each for made, each in self._templates if made is template), plan)
        return template if made_from is plan else worker.template(plan)

    def check_server(self, settings: Settings) -> None:
        """See that a test's settings want the server that the run has.

        Raises:
            ConfigError: They want another one.
        """
        for key in ("server", "postgres", "binaries"):
            if self._server is not None and getattr(settings, key) != getattr(self._server, key):
                raise ConfigError(
                    f"A run has one server, and some of its tests have another `{key}` than those before them",
                    source="the fixture seeddb_settings, overridden in a conftest.py of a sub-directory",
                    remedy=f"set `{key}` for all tests, or run these on their own",
                )

    def _plan_of(self, settings: Settings) -> Plan:
        from pytest_seeddb.seeds.planning import plan_of

        known = (plan for plan, made_from in self._plans if made_from is settings)
        return next(known, None) or self.note_plan(plan_of(settings), settings)

    def _family(self, plan: Plan) -> Plans:
        self._families.append(Plans(plan))
        return self._families[-1]
