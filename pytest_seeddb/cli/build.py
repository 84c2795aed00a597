"""``seeddb build``: build a template, import it or export it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_seeddb.cli.output import make_progress, say, show
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.clones.opening import worker_on
from pytest_seeddb.errors import BuildError, ServerError
from pytest_seeddb.fingerprint.recording import begin
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.templates.exports import Unusable, export, importing, see_writable

if TYPE_CHECKING:
    import argparse

    from pytest_seeddb.plan.plan import Plan, Progress
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.settings.settings import Settings


@dataclass(frozen=True)
class Built:
    """The template, why the file to import was not used, and the file that the template was exported to."""

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


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    base = parsed.directory or Path.cwd()
    imported, exported = (base / path if path else None for path in (parsed.imported, parsed.exported))
    built = build(settings_of(parsed), make_progress(parsed), imported=imported, exported=exported)
    if built.not_imported:
        say(f"seeddb: nothing was imported: {built.not_imported}")
    label = f"template {built.plan}/{built.profile}"
    lines = [f"{label} is there already: {built.template}"]
    if built.built:
        lines = [f"{label} built in {built.seconds:.1f} s: {built.reason}"]
        lines.append(f"{built.template}, {built.size / 2**20:.1f} MB, cloned by {built.strategy}")
    if built.exported:
        lines.append(f"exported to {built.exported}")
    show(parsed, built, lines)
    return 0


def build(
    settings: Settings, progress: Progress, *, imported: Path | None = None, exported: Path | None = None
) -> Built:
    """Build the template of the settings' profile, unless there is one and `reseed` is off.

    A file that cannot be imported is not an error: the template is built, and `Built.not_imported` says why.

    Raises:
        ConfigError: The settings are wrong, or the file cannot be exported to.
        SeedDbError: There is no usable server, or a step failed.
    """
    begin(settings.root)
    plan = plan_of(settings)
    if exported:
        see_writable(exported)
    token = os.urandom(8).hex() if settings.reseed else ""
    with open_server(settings) as server:
        restored, unusable = _import(plan, settings, server, progress, imported)
        with worker_on(server, settings, progress, token=token) as worker:
            template = worker.template(plan)
            if exported and not (restored and exported == imported):
                with worker.home(template).clones.lent(template) as clone:
                    export(clone.address, server.major, template, worker.look(plan), settings, exported)
    record = template.record
    return Built(
        plan.name,
        plan.profile,
        template.name,
        record.fingerprint,
        template.built or restored,
        f"restored from {imported}" if restored else template.reason,
        record.seconds,
        record.size,
        record.strategy,
        unusable,
        str(exported or ""),
    )


def _import(plan: Plan, settings: Settings, server: Server, progress: Progress, path: Path | None) -> tuple[bool, str]:
    """Whether the template was made from the file just now, and else why the file could not be used."""
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
            # A missing role that a build creates, or an extension in another version: the build itself tells better.
            return False, f"{path} could not be restored: {error.saw.partition(chr(10))[0] or error.what}"
