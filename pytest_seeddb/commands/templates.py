"""The templates on a server: what determines one, and building it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_seeddb.planning import plan_of
from pytest_seeddb.servers import open_server
from pytest_seeddb.worker import Worker

if TYPE_CHECKING:
    from pytest_seeddb.config import Settings
    from pytest_seeddb.plan import Progress
    from pytest_seeddb.record import Record


@dataclass(frozen=True)
class PartShown:
    """One part of a fingerprint."""

    name: str
    digest: str


@dataclass(frozen=True)
class StepShown:
    """A step with its parts and the fingerprint of the plan up to it."""

    name: str
    fingerprint: str
    parts: tuple[PartShown, ...]


@dataclass(frozen=True)
class Explanation:
    """What determines a plan's template, and whether there is one.

    Attributes:
        template: The template's database; empty where there is none.
        reason: Why the next run builds one; empty where there is one.
        steps: The server's own part first.
    """

    plan: str
    profile: str
    server: str
    fingerprint: str
    template: str
    reason: str
    settings: dict[str, str] = field(default_factory=dict)
    steps: tuple[StepShown, ...] = ()


@dataclass(frozen=True)
class Built:
    """What `build` came to."""

    plan: str
    profile: str
    template: str
    fingerprint: str
    built: bool
    reason: str
    seconds: float
    size: int
    strategy: str


def explain(settings: Settings) -> Explanation:
    """Show what determines the template of the settings' profile. Builds nothing.

    Raises:
        SeedDbError: The settings are wrong, or there is no usable server.
    """
    plan = plan_of(settings)
    with open_server(settings) as server, Worker(server) as worker:
        look = worker.look(plan)
    shown = [
        StepShown(name, fingerprint, tuple(PartShown(part.name, part.digest) for part in parts))
        for (name, parts), fingerprint in zip(look.steps, look.fingerprints, strict=True)
    ]
    return Explanation(
        plan.name,
        plan.profile,
        f"PostgreSQL {server.version} ({server.kind}, {server.origin})",
        look.fingerprints[-1],
        look.template,
        look.reason,
        {key: settings.source(key) for key in settings.sources},
        tuple(shown),
    )


def build(settings: Settings, progress: Progress) -> Built:
    """Build the template of the settings' profile, unless there is one and `reseed` is off.

    Raises:
        SeedDbError: The settings are wrong, there is no usable server, or a step failed.
    """
    plan = plan_of(settings)
    token = os.urandom(8).hex() if settings.reseed else ""
    with open_server(settings) as server, Worker(server, token=token, progress=progress) as worker:
        template = worker.template(plan)
    record: Record = template.record
    return Built(
        plan.name,
        plan.profile,
        template.name,
        record.fingerprint,
        template.built,
        template.reason,
        record.seconds,
        record.size,
        record.strategy,
    )
