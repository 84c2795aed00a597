"""Seeded PostgreSQL databases for pytest: migrated and seeded once, cloned for each test.

Importing this package is cheap and brings no framework with it, so that an application can import
`seeder` in production. The other names are for type annotations and load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_seeddb.errors import BuildError, BulkError, CloneError, ConfigError, SeedDbError, ServerError
from pytest_seeddb.seeds.declaration import Param, seeder

if TYPE_CHECKING:
    from pytest_seeddb.clones.database import SeededDatabase
    from pytest_seeddb.plan.plan import Plan, Stage, Step, Target
    from pytest_seeddb.seeds.bulk import bulk_create
    from pytest_seeddb.seeds.planning import plan_of
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.templates import Template

__all__ = [
    "BuildError",
    "BulkError",
    "CloneError",
    "ConfigError",
    "Param",
    "Plan",
    "SeedDbError",
    "SeededDatabase",
    "Server",
    "ServerError",
    "Settings",
    "Stage",
    "Step",
    "Target",
    "Template",
    "bulk_create",
    "plan_of",
    "seeder",
]

_LATER = {
    "Plan": "plan.plan",
    "SeededDatabase": "clones.database",
    "Server": "servers.server",
    "Settings": "settings.settings",
    "Stage": "plan.plan",
    "Step": "plan.plan",
    "Target": "plan.plan",
    "Template": "templates.templates",
    "bulk_create": "seeds.bulk",
    "plan_of": "seeds.planning",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
