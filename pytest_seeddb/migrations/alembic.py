"""Alembic's migrations, run by the project's own unchanged ``env.py``."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import json
import sys
import tomllib
import traceback
import warnings
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.calling import call_without_loop
from pytest_seeddb.application.imports import innermost_frame, place_of, put_on_path
from pytest_seeddb.application.surroundings import surroundings
from pytest_seeddb.errors import BuildError, ConfigError, SeedDbError
from pytest_seeddb.fingerprint.digests import Part, digest, file_part, relative_name
from pytest_seeddb.fingerprint.sources import Sources
from pytest_seeddb.migrations.alembic_history import NotLiteral, Revision, ordered, read_revisions, revision_of
from pytest_seeddb.migrations.alembic_layout import Layout, read_layout
from pytest_seeddb.migrations.logging_state import logging_kept
from pytest_seeddb.plan.plan import Stage, Step
from pytest_seeddb.servers.database_errors import describe_failure, failure_remedy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection

    from pytest_seeddb.plan.plan import Target

_WHICH_DATABASE: Final = "SELECT current_database(), extract(epoch FROM pg_postmaster_start_time())::text"
_USE_OURS: Final = (
    'let env.py use config.attributes["connection"] when it is there, or make its engine from a '
    "postgresql:// URL; a variable that holds the URL can be named in the setting `env`"
)


def stage(path: Path, root: Path, *, source: str) -> Stage:
    """The ``migrations`` stage for an Alembic project, one step for each revision.

    Args:
        path: The ``alembic.ini``, or the ``pyproject.toml`` with ``[tool.alembic]``.
        root: The project's root.
        source: Where the path came from.

    Raises:
        ConfigError: The configuration or the history is broken.
    """
    layout = read_layout(path, root, source=source)
    revisions = ordered(_revisions(layout, root, source), source=source)
    sources = Sources(root, search=layout.search)
    steps = tuple(Step(_step_name(each), sources.of_file(each.path), rerun="always") for each in revisions)
    if steps:
        steps = (_with_environment(steps[0], layout, root, sources), *steps[1:])
    by_id = {each.id: (each, step) for each, step in zip(revisions, steps, strict=True)}

    def run(target: Target, _first: int) -> None:  # the database itself knows what it has already
        _Upgrade(layout, by_id, target).run()

    return Stage("migrations", steps, run)


def _revisions(layout: Layout, root: Path, source: str) -> list[Revision]:
    try:
        return read_revisions(layout)
    except NotLiteral:
        return _as_alembic_reads(layout, root, source)


def _as_alembic_reads(layout: Layout, root: Path, source: str) -> list[Revision]:
    """The revisions of files that compute theirs: by importing them, as Alembic does."""
    put_on_path(root)
    try:
        with contextlib.chdir(layout.directory), _no_warnings():
            script = _script(_config(layout, io.StringIO()))
            found = list(script.walk_revisions())
    except (Exception, SystemExit) as error:
        where = place_of(error, root)
        raise ConfigError(
            "Alembic cannot read the migrations",
            saw=f"{type(error).__name__}: {error}" + (f"\nat {where}" if where else ""),
            source=source,
            remedy="mend them; `alembic history` must work",
        ) from error
    return [
        revision_of({**vars(each.module), "revision": each.revision}, Path(each.path), str(each.module.__doc__ or ""))
        for each in found
    ]


def _step_name(revision: Revision) -> str:
    about = f" {revision.about}" if revision.about else ""
    return f"migration {revision.id}{about} ({revision.path.name})"


def _with_environment(step: Step, layout: Layout, root: Path, sources: Sources) -> Step:
    """The first step, with what all share; later ones are chained to it."""
    parts = {*step.parts, *sources.of_file(layout.env, within=layout.script)}
    if layout.ini is not None:
        parts.add(file_part(layout.ini, root))
    if layout.toml is not None:
        table = tomllib.loads(layout.toml.read_text(encoding="utf-8"))["tool"]["alembic"]
        name = f"{relative_name(layout.toml, root)} [tool.alembic]"
        parts.add(Part(name, digest(json.dumps(table, sort_keys=True, default=str))))
    parts.update(Part(f"package {name}", _version(name)) for name in ("alembic", "sqlalchemy"))
    return replace(step, parts=tuple(sorted(parts)))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _config(layout: Layout, output: io.StringIO) -> Config:
    """Alembic's configuration, as its command line would read it in the project's directory."""
    try:
        from alembic.config import Config
    except ImportError as error:
        raise ConfigError(
            "The migrations need Alembic", saw=str(error), source=str(layout.script), remedy="pip install alembic"
        ) from error
    ini = str(layout.ini) if layout.ini else None
    if layout.toml is None:
        config = Config(ini, stdout=output)
    elif "toml_file" in inspect.signature(Config).parameters:  # since Alembic 1.16
        config = Config(ini, toml_file=str(layout.toml), stdout=output)
    elif layout.ini is not None:
        config = Config(ini, stdout=output)
    else:
        raise _too_old_for_toml(layout)
    # Absolute, so that the lines of a failure's traceback can be told to be the project's.
    config.set_main_option("script_location", str(layout.script).replace("%", "%%"))
    return config


def _too_old_for_toml(layout: Layout) -> ConfigError:
    return ConfigError(
        "[tool.alembic] needs Alembic 1.16 or newer",
        saw=f"Alembic {_version('alembic')}",
        source=str(layout.toml),
        remedy="pip install 'alembic>=1.16', or write an alembic.ini",
    )


def _script(config: Config) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(config)


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """What Alembic deprecates in the project's files is the project's to hear from its own command."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Upgrade:
    """One run of ``alembic upgrade heads`` against the target."""

    def __init__(self, layout: Layout, revisions: Mapping[str, tuple[Revision, Step]], target: Target) -> None:
        self._layout = layout
        self._revisions = revisions
        self._target = target
        self._running: Revision | None = None
        self._context: MigrationContext | None = None
        self._output = io.StringIO()
        self._outside = (sys.stdout, sys.stderr)

    def run(self) -> None:
        """Raises `BuildError` that names the revision, or what is wrong with ``env.py``."""
        with (
            surroundings(self._target, self._layout.directory),
            logging_kept(),
            _no_warnings(),
            contextlib.redirect_stdout(self._output),
            contextlib.redirect_stderr(self._output),
        ):
            try:
                call_without_loop(self._run_env)
            except SeedDbError:
                raise
            except (Exception, SystemExit) as error:
                raise self._failure(error) from error

    def _run_env(self) -> None:
        from alembic.runtime.environment import EnvironmentContext

        config = _config(self._layout, self._output)
        script = _script(config)

        def upgrade(current: Any, context: MigrationContext) -> Iterator[Any]:  # noqa: ANN401 - Alembic's own types are private
            return self._steps(script, current, context)

        with (
            self._offered(config),
            EnvironmentContext(config, script, fn=upgrade, as_sql=False, destination_rev="heads") as environment,
        ):
            self._check_what_is_configured(environment)
            script.run_env()
        self._check_heads(script)

    def _check_what_is_configured(self, environment: EnvironmentContext) -> None:
        """Look at the connection as soon as ``env.py`` hands it over: Alembic then makes its version table."""
        configure = environment.configure

        @functools.wraps(configure)
        def checked(*args: Any, **options: Any) -> None:
            configure(*args, **options)
            self._check_database(environment.get_context())

        environment.configure = checked  # type: ignore[method-assign]  # the module alembic.context asks the instance

    @contextlib.contextmanager
    def _offered(self, config: Config) -> Iterator[None]:
        """A connection for an ``env.py`` that honours ``config.attributes["connection"]``."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        engine = create_engine(self._target.address.url_for("postgresql+psycopg"), poolclass=NullPool)
        with engine.connect() as connection:
            # Half of all env.py take what they find there for an engine and call connect() on it.
            connection.connect = lambda: contextlib.nullcontext(connection)  # type: ignore[attr-defined]
            config.attributes["connection"] = connection
            yield
            connection.commit()

    def _steps(self, script: ScriptDirectory, current: Any, context: MigrationContext) -> Iterator[Any]:  # noqa: ANN401 - as above
        self._context = context
        for step in script._upgrade_revs("heads", current):  # noqa: SLF001 - what alembic.command.upgrade runs
            if (found := self._revisions.get(str(step.revision.revision))) is not None:
                self._running, ours = found
                self._announce(ours)
            yield step
        self._running = None

    def _announce(self, step: Step) -> None:
        out, err = self._outside
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self._target.started(step)

    def _check_database(self, context: MigrationContext) -> None:
        """Before anything is migrated: is it ours that ``env.py`` has connected to?"""
        connection = context.connection
        if connection is None:
            raise self._offline()
        if context.dialect.name != "postgresql":
            raise self._foreign(f"{connection.engine.url!r}", "only PostgreSQL connections are redirected")
        found = _identity(connection)
        if found != self._own_identity():
            raise self._foreign(f"the database {found[0]!r} through {connection.engine.url!r}", _why(connection))

    def _own_identity(self) -> tuple[str, str]:
        import psycopg

        with psycopg.connect(self._target.address.conninfo) as own:
            row = own.execute(_WHICH_DATABASE).fetchone()
        return (str(row[0]), str(row[1])) if row else ("", "")

    def _offline(self) -> BuildError:
        return self._foreign("nothing: it runs offline, writing SQL", "context.configure() has no connection")

    def _foreign(self, what: str, why: str) -> BuildError:
        return BuildError(
            "env.py did not connect to the database that is being built; nothing was migrated",
            saw=f"it connected to {what}\n{why}",
            source=str(self._layout.env),
            remedy=_USE_OURS,
        )

    def _check_heads(self, script: ScriptDirectory) -> None:
        if not self._revisions:
            return
        if self._context is None:
            raise BuildError(
                "env.py ran no migrations",
                saw="it ended without calling context.run_migrations()",
                source=str(self._layout.env),
                remedy="call context.run_migrations() whenever env.py is run",
            )
        current = self._versions(self._context)
        left = [str(each.revision.revision) for each in script._upgrade_revs("heads", current)]  # type: ignore[arg-type]  # noqa: SLF001 - several heads are a tuple
        if left:
            raise BuildError(
                "The database is not at the head of its migrations after they ran",
                saw=f"left: {', '.join(left)}\nin the version table: {', '.join(current) or 'nothing'}",
                source=str(self._layout.env),
                remedy="let env.py commit: `with context.begin_transaction(): context.run_migrations()`",
            )

    def _versions(self, context: MigrationContext) -> tuple[str, ...]:
        """What the version table holds, seen from a connection of our own: what is committed."""
        import psycopg
        from psycopg import sql

        table = filter(None, (context.version_table_schema, context.version_table))
        query = sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(*table))
        try:
            with psycopg.connect(self._target.address.conninfo) as own:
                return tuple(str(row[0]) for row in own.execute(query))
        except psycopg.errors.UndefinedTable:
            return ()

    def _failure(self, error: BaseException) -> BuildError:
        return BuildError(
            f"{self._what()} failed{self._where(error)}",
            saw=describe_failure(error, self._output.getvalue()),
            source=str(self._running.path if self._running else self._layout.env),
            remedy=failure_remedy(error) or "mend it; it runs against an empty database",
        )

    def _what(self) -> str:
        return f"The migration {self._running.id}" if self._running else "env.py"

    def _where(self, error: BaseException) -> str:
        """The line in the migration's own file if the error went through it, else the innermost of the user's."""
        root = self._target.root
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if self._running and Path(frame.filename) == self._running.path:
                return f" at {relative_name(self._running.path, root)}:{frame.lineno}"
        inner = innermost_frame(error, self._layout.script)
        return f" at {relative_name(Path(inner.filename), root)}:{inner.lineno}" if inner else ""


def _identity(connection: Connection) -> tuple[str, str]:
    """Which database of which server, leaving the connection in or out of a transaction as it was."""
    was_inside = connection.in_transaction()
    row = connection.exec_driver_sql(_WHICH_DATABASE).one()
    if not was_inside:
        connection.rollback()
    return str(row[0]), str(row[1])


def _why(connection: Connection) -> str:
    from pytest_seeddb.application.redirection import foreign_creator

    if foreign_creator(connection.engine.pool) is not None:
        return "its engine was made with creator= or async_creator=, which opens the connection itself"
    return "the connection was opened before the build began, or past SQLAlchemy's engine"
