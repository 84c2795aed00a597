"""The schema: each kind of migrations turned into steps."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.django import DEFAULT
from pytest_seeddb.application.imports import find, is_import_path
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import Part, digest, glob_parts
from pytest_seeddb.plan.plan import Stage, Step
from pytest_seeddb.settings.converters import CommandSpec, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_seeddb.plan.plan import Target
    from pytest_seeddb.settings.settings import Settings

DJANGO: Final = "django"
"""What the setting says for a Django project's migrations."""
_ALLOWED: Final = (
    'write "django", or name an alembic.ini (or a pyproject.toml with [tool.alembic]), a directory of *.sql files, '
    '"package.module:attribute" (a MetaData or a callable), or {command = "...", inputs = [...]}'
)


def stages(settings: Settings, alias: str = "") -> tuple[Stage, ...]:
    """The stage named ``migrations``; nothing where the settings name none, or there is none to run.

    Nothing of the user's is imported, nor is SQLAlchemy or Alembic: a warm start needs neither. Only
    Django is set up, as it is for every one of its commands.

    Args:
        settings: Name the migrations.
        alias: Which of Django's databases is migrated; the default one where it is empty.

    Raises:
        ConfigError: What the setting names is not there or cannot be read.
    """
    wanted, source = settings.migrations, settings.source("migrations")
    if wanted is None:
        return ()
    if wanted == DJANGO:
        from pytest_seeddb.migrations import django

        return tuple(
            stage for stage in django.stages(settings.root, source=source, alias=alias or DEFAULT) if stage.steps
        )
    found = _command(wanted, settings.root, source) if isinstance(wanted, CommandSpec) else None
    found = found or _named(str(wanted), settings.root, source)
    return (found,) if found.steps else ()


def _named(wanted: str, root: Path, source: str) -> Stage:
    path = root / wanted
    if path.is_dir():
        from pytest_seeddb.migrations import sql

        return sql.stage(path, root, source=source)
    if path.is_file():
        return _configured(path, root, source)
    if ":" in wanted and is_import_path(wanted):
        from pytest_seeddb.migrations import python

        return python.stage(wanted, root, source=source)
    raise _not_there(wanted, root, source)


def _configured(path: Path, root: Path, source: str) -> Stage:
    from pytest_seeddb.migrations import alembic

    if path.suffix == ".ini" or (path.suffix == ".toml" and _has_alembic(path)):
        return alembic.stage(path, root, source=source)
    lacks = "it has no [tool.alembic]" if path.suffix == ".toml" else "it is a file of another kind"
    raise ConfigError(
        "The migrations cannot be told from this file", saw=f"{path}: {lacks}", source=source, remedy=_ALLOWED
    )


def _has_alembic(path: Path) -> bool:
    try:
        return "alembic" in tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False


def _command(wanted: CommandSpec, root: Path, source: str) -> Stage:
    inputs = glob_parts(wanted.inputs, root, source=source)
    step = Step(f"command {wanted.command}", (Part("command", digest(wanted.command)), *inputs), rerun="always")

    def run(target: Target, first: int) -> None:
        from pytest_seeddb.application.commands import run_command

        if not first and target.marks.wants(step):
            target.started(step)
            run_command(wanted, target, what="migrations", source=source)

    return Stage("migrations", (step,), run)


def _not_there(wanted: str, root: Path, source: str) -> ConfigError:
    near = root / wanted
    names = [each.name for each in near.parent.iterdir()] if near.parent.is_dir() else []
    found = did_you_mean(near.name, names)
    if is_import_path(wanted) and find(wanted, root) is not None:
        found = f"There is a module of this name: write what in it makes the schema, '{wanted}:...'"
    return ConfigError(
        f"There are no migrations {wanted!r}",
        saw=f"no such file or directory: {near}" + (f". {found}" if found else ""),
        source=source,
        remedy=_ALLOWED,
    )
