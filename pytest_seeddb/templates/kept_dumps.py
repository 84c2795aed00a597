"""Templates of servers that do not last, kept as dumps: the next server restores one instead of building.

A container's databases go with it. Its finished template stays in the cache directory under its fingerprint,
as `pytest_seeddb.templates.exports` writes it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.servers.places import cache_place, own_account
from pytest_seeddb.templates.exports import Unusable, export, importing

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_seeddb.plan.plan import Plan
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.templates import Look, Template

DIRECTORY: Final = "dumps"
_NAME: Final = re.compile(r"[0-9a-f]{64}\.dump")
_KEPT: Final = 20
"""Dumps that stay, those that were used last."""


class KeptDumps:
    """The dumps of this user.

    Concurrency: any number of processes; a dump appears complete or not at all.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory = cache_place(own_account()) / DIRECTORY

    def restoring(self, plan: Plan, look: Look) -> Plan:
        """The plan as one that restores its dump; the plan itself where there is none that fits."""
        path = self._path(look)
        if look.template or not path.exists():
            return plan
        try:
            found = importing(plan, look, self._settings, path)
        except (Unusable, SeedDbError):
            path.unlink(missing_ok=True)
            return plan
        with suppress(OSError):
            path.touch()
        return found

    def keep(self, clone: Address, major: int, template: Template, look: Look) -> None:
        """Write a template's dump, from a clone of it. A dump that cannot be written does not fail the run."""
        path = self._path(look)
        with suppress(SeedDbError, OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            export(clone, major, template, look, self._settings, path)
            self._drop_oldest()

    def _path(self, look: Look) -> Path:
        return self._directory / f"{look.fingerprints[-1]}.dump"

    def _drop_oldest(self) -> None:
        ours = [path for path in self._directory.iterdir() if _NAME.fullmatch(path.name)]
        found = sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)
        for path in found[_KEPT:]:
            path.unlink(missing_ok=True)
