"""The templates on a server: what determines one, and building it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_seeddb.clones.worker import open_worker, worker_on
from pytest_seeddb.errors import BuildError, ServerError
from pytest_seeddb.fingerprint.opened import begin
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.templates.exports import Unusable, export, importing, see_writable

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_seeddb.fingerprint.digests import Difference
    from pytest_seeddb.plan.plan import Plan, Progress
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.record import Record


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
class Compared:
    """How a plan differs from its last build.

    Attributes:
        built: When that was finished, ISO 8601; empty where there is none.
        differences: What differs; nothing where the build is up to date.
    """

    plan: str
    profile: str
    built: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Built:
    """What `build` came to.

    Attributes:
        not_imported: Why the file to import was of no use; empty where it was, was not needed, or there was none.
        exported: The file that the template was written to; empty where none was asked for.
    """

    plan: str
    profile: str
    template: str
    fingerprint: str
    built: bool
    reason: str
    seconds: float
    size: int
    strategy: str
    not_imported: str = ""
    exported: str = ""


def explain(settings: Settings) -> Explanation:
    """Show what determines the template of the settings' profile. Builds nothing.

    Raises:
        SeedDbError: The settings are wrong, or there is no usable server.
    """
    plan = plan_of(settings)
    with open_worker(settings) as worker:
        server = worker.server
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


def compare(settings: Settings) -> Compared:
    """Compare the plan of the settings' profile with the last build of the same. Builds nothing.

    Raises:
        SeedDbError: The settings are wrong, or there is no usable server.
    """
    plan = plan_of(settings)
    with open_worker(settings) as worker:
        found = worker.compare(plan)
    built, differences = (found.before.created, found.differences) if found else ("", ())
    return Compared(plan.name, plan.profile, built, differences)


@dataclass(frozen=True)
class Files:
    """Where a template comes from and goes to, for machines that begin with nothing.

    Attributes:
        imported: What an earlier `build` exported; restored instead of building where it is of this plan.
        exported: Where the template is written to in the end.
    """

    imported: Path | None = None
    exported: Path | None = None


def build(settings: Settings, progress: Progress, files: Files | None = None) -> Built:
    """Build the template of the settings' profile, unless there is one and `reseed` is off.

    A file that cannot be imported is no error: the template is built, and `Built.not_imported` says why.

    Raises:
        ConfigError: The settings are wrong, or the file cannot be exported to.
        SeedDbError: There is no usable server, or a step failed.
    """
    begin(settings.root)
    plan, files = plan_of(settings), files or Files()
    if files.exported:
        see_writable(files.exported)
    token = os.urandom(8).hex() if settings.reseed else ""
    with open_server(settings) as server:
        imported, unusable = _import(plan, settings, server, progress, files.imported)
        with worker_on(server, settings, progress, token=token) as worker:
            template = worker.template(plan)
            if files.exported and not (imported and files.exported == files.imported):
                with worker.clones.lent(template) as clone:
                    export(clone.address, server.major, template, worker.look(plan), settings, files.exported)
    record: Record = template.record
    return Built(
        plan.name,
        plan.profile,
        template.name,
        record.fingerprint,
        template.built or imported,
        f"restored from {files.imported}" if imported else template.reason,
        record.seconds,
        record.size,
        record.strategy,
        unusable,
        str(files.exported or ""),
    )


def _import(plan: Plan, settings: Settings, server: Server, progress: Progress, path: Path | None) -> tuple[bool, str]:
    """Whether the template was made from the file just now, and else why the file is of no use."""
    if path is None:
        return False, ""
    with worker_on(server, settings, progress, restores=False) as worker:
        look = worker.look(plan)
        if look.template:
            return False, ""
        try:
            return worker.template(importing(plan, look, settings, path)).built, ""
        except Unusable as error:
            return False, str(error)
        except (BuildError, ServerError) as error:
            # A role that it needs and a build makes, an extension of another version: what a build tells better.
            return False, f"{path} could not be restored: {error.saw.partition(chr(10))[0] or error.what}"
