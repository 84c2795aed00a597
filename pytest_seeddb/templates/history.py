"""The last build of a plan, and what has changed since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.fingerprint import participation
from pytest_seeddb.fingerprint import recording as data_files
from pytest_seeddb.fingerprint.digests import Difference, differences, seal
from pytest_seeddb.servers.naming import slug
from pytest_seeddb.templates.record import FORM, Record

if TYPE_CHECKING:
    from pytest_seeddb.fingerprint.digests import Steps
    from pytest_seeddb.plan.plan import Plan
    from pytest_seeddb.servers.admin import Admin

_BUILD: Final = "the build"
ANOTHER_BASE: Final = "the server's version, locale or role changed"
"""What is left where neither a step nor a file of the build differs."""


FIRST: Final = "first build of this plan and profile"
OLDER_FORM: Final = "an earlier version of pytest-seeddb built the last one of this name, in a form of its own"
"""What makes all else that differs meaningless; it may not say for which project."""


@dataclass(frozen=True)
class Comparison:
    """A plan beside the project's last build of it; no differences if that is up to date."""

    before: Record
    differences: tuple[Difference, ...]


def last_build(admin: Admin, plan: Plan) -> Record | None:
    """The newest complete build of the same plan and profile that the project knows, whatever its fingerprint."""
    return next((r for r in _builds(admin, plan) if (r.profile, r.layer) == (plan.profile, False)), None)


def reason_without_build(admin: Admin, plan: Plan) -> str:
    """Why the plan is built if the project knows no build of it."""
    is_older = any((r.profile, r.projects) == (plan.profile, ()) for r in _records(admin, plan))
    return OLDER_FORM if is_older else FIRST


def _builds(admin: Admin, plan: Plan) -> list[Record]:
    """The project's own templates of the plan for any profile, newest first; not those of others of its name."""
    return [record for record in _records(admin, plan) if plan.project in record.projects]


def _records(admin: Admin, plan: Plan) -> list[Record]:
    """All templates of the plan's name, newest first."""
    records = [
        (database.number, record)
        for database in admin.databases(f"seeddb\\_t\\_{slug(plan.name).replace('_', chr(92) + '_')}\\_%")
        if (record := Record.from_json(database.comment)) and record.plan == plan.name
    ]
    return [record for _, record in sorted(records, key=lambda pair: pair[0], reverse=True)]


def steps_that_hold(admin: Admin, plan: Plan, end: int) -> int:
    """How many of the first ``end`` steps are as in the newest build of so many, for any profile; 0 without one."""
    before = next((record for record in _builds(admin, plan) if len(record.steps) >= end and not record.inner), None)
    if before is None or before.form != FORM:
        return 0
    then, now = (dict(steps) for steps in participation.compare(before.ran, plan.root))
    for count, (was, step) in enumerate(zip(before.steps, plan.steps[:end], strict=False)):
        if was != (step.name, step.declared) or then.get(step.name) != now.get(step.name):
            return count
    return end


def of_older_form(admin: Admin, built: Record) -> list[str]:
    """The templates that earlier versions made of the plan and profile that this one has just built; none of a layer.

    Whoever goes on with an earlier version builds once more, and nothing is dropped then: the next one finds its own.
    """
    if built.layer:
        return []
    records = [(database.name, Record.from_json(database.comment)) for database in admin.databases(r"seeddb\_t\_%")]
    return [name for name, record in records if record and record.is_outdated_by(built)]


def compare(before: Record, plan: Plan, fingerprint: str) -> Comparison:
    """How the plan, whose fingerprint this is, differs from an earlier build."""
    steps = tuple((step.name, step.declared) for step in plan.steps)
    if before.form != FORM and before.fingerprint != fingerprint:
        return Comparison(before, (Difference("changed", OLDER_FORM),))
    changes = differences(*then_and_now(before, plan, steps))
    if not changes and before.fingerprint != fingerprint:
        changes = [Difference("changed", ANOTHER_BASE)]
    return Comparison(before, tuple(changes))


def then_and_now(before: Record, plan: Plan, steps: Steps) -> tuple[Steps, Steps]:
    """The steps of a build and of the plan, each with the code that it needed, and what the build read."""
    was, now = inputs_then_and_now(before, plan)
    return _joined(before.steps, was), _joined(steps, now)


def inputs_then_and_now(before: Record, plan: Plan) -> tuple[Steps, Steps]:
    """What a build depended on beside what its steps declare: as it was, and as it is."""
    code, code_now = participation.compare(before.ran, plan.root)
    opened = data_files.counted(before.opened, plan.ignored_variables)
    now = seal(data_files.current([part.name for part in opened], plan.root), before.salt)
    return (*code, (_BUILD, opened)), (*code_now, (_BUILD, now))


def _joined(steps: Steps, inputs: Steps) -> Steps:
    """The steps with their inputs; those of steps that are no more are gone with these."""
    more = dict(inputs)
    own = [(name, (*parts, *more.get(name, ()))) for name, parts in steps]
    return (*own, *((name, more[name]) for name in (participation.IMPORTS, _BUILD) if name in more))
