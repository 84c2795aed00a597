"""Alembic's migrations, run by the project's own unchanged ``env.py``."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import json
import tomllib
import traceback
import warnings
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.calling import call_without_loop
from pytest_seeddb.application.imports import describe, innermost_frame, put_on_path
from pytest_seeddb.errors import BuildError, ConfigError, SeedDbError
from pytest_seeddb.fingerprint.digests import Part, digest, file_part, relative_name
from pytest_seeddb.fingerprint.participation import Root
from pytest_seeddb.fingerprint.recording import planned
from pytest_seeddb.fingerprint.sources import Sources
from pytest_seeddb.migrations.alembic_files import NotLiteral, Revision, order, read_layout, read_revision, stops
from pytest_seeddb.migrations.execution import SESSION, WHICH_DATABASE, Execution, failure, keep_logging
from pytest_seeddb.plan.plan import Indivisible, Step, Work, names_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import psycopg
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from pytest_seeddb.migrations.alembic_files import Layout
    from pytest_seeddb.plan.plan import Target

_VERSION_TABLES: Final = """
SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'r' AND relnatts = 1 AND has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
    AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'version_num' AND NOT attisdropped)
ORDER BY 1, 2
"""
_USE_OURS: Final = (
    'let env.py use config.attributes["connection"] when it is there, or make its engine from a '
    "postgresql:// URL; a variable that holds the URL can be named in the setting `env`"
)


def read_steps(path: Path, root: Path, *, source: str) -> Work:
    """A step for each revision of an ``alembic.ini`` or a ``pyproject.toml``; raises `ConfigError`."""
    layout = read_layout(path, root, source=source)
    try:
        revisions = [read_revision(file) for file in layout.migrations]
    except NotLiteral:
        revisions = _import_revisions(layout, root, source)
    revisions = order(revisions, source=source)
    sources = Sources(root, search=layout.search).after(layout.env, within=layout.script)
    plain, steps = sources.plain, list[Step]()
    for revision in revisions:
        about = f" {revision.about}" if revision.about else ""
        name = f"migration {revision.id}{about} ({revision.path.name})"
        # Later ones are chained to the first.
        parts, *before = (
            tuple(sorted({*one.of_file(revision.path), *(() if steps else _environment(layout, root, one))}))
            for one in (sources, *([plain] if plain else ()))
        )
        code, roots = sources.of_file(revision.path), [Root(sources.file(revision.path))]
        if not steps:
            code = (*code, *sources.of_file(layout.env, within=layout.script))
            roots.insert(0, Root(sources.file(layout.env), relative_name(layout.script, root)))
        step = Step(name, parts, before=before[0] if before else (), rerun="always")
        steps.append(replace(step, code=names_of(code), roots=tuple(roots)))
    by_id = {revision.id: (revision, step) for revision, step in zip(revisions, steps, strict=True)}

    def run(target: Target, _first: int) -> None:  # the database itself knows what it has already
        _Upgrade(layout, by_id, target).run()

    def steps_in(connection: psycopg.Connection[Any]) -> set[str]:
        current = _current(connection, by_id, source)
        waiting = [*current]
        while waiting:
            revision, _ = by_id[waiting.pop()]
            earlier = {carriers.get(name, name) for name in (*revision.down, *revision.depends)} - current
            current |= earlier
            waiting += earlier
        return {by_id[name][1].name for name in current}

    carriers = {label: revision.id for revision in revisions for label in revision.labels}
    return Work(tuple(steps), run, steps_in=steps_in, stops=stops(revisions, source=source))


def _current(connection: psycopg.Connection[Any], known: Collection[str], source: str) -> set[str]:
    """The revisions in the database's version table, whatever ``env.py`` calls it."""
    from psycopg import sql

    current: set[str] = set()
    strange: dict[str, str] = {}
    for schema, table in connection.execute(_VERSION_TABLES).fetchall():
        query = sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(schema, table))
        versions = {str(version) for (version,) in connection.execute(query).fetchall()}
        current |= versions.intersection(known)
        strange |= dict.fromkeys(versions.difference(known), f"{schema}.{table}")
    if strange and not current:
        raise BuildError(
            "The database is at a revision that the migrations do not have",
            saw="\n".join(f"{revision} in {table}" for revision, table in strange.items()),
            source=source,
            remedy="get the migration with this revision, for example from the branch that made it; or name the "
            "migrations of this database",
        )
    return current


def static_parts(path: Path, root: Path, *, source: str) -> set[Part]:
    """The parts of all steps, without their order; nothing is imported, whatever the files compute."""
    layout = read_layout(path, root, source=source)
    sources = Sources(root, search=layout.search).after(layout.env, within=layout.script)
    own = {part for file in layout.migrations for part in sources.of_file(file)}
    return {*own, *_environment(layout, root, sources)}


def _import_revisions(layout: Layout, root: Path, source: str) -> list[Revision]:
    """The revisions of files that compute theirs: by importing them, as Alembic does."""
    put_on_path(root)
    try:
        with contextlib.chdir(layout.directory), warnings.catch_warnings(action="ignore"):
            _, script = _open(layout, io.StringIO())
            return [
                Revision.of({**vars(module), "revision": revision}, Path(path), str(module.__doc__ or ""))
                for revision, path, module in ((one.revision, one.path, one.module) for one in script.walk_revisions())
            ]
    except (Exception, SystemExit) as error:
        raise ConfigError(
            "Alembic cannot read the migrations",
            saw=describe(error, root),
            source=source,
            remedy="correct them; `alembic history` must work",
        ) from error


def _environment(layout: Layout, root: Path, sources: Sources) -> Iterator[Part]:
    """What all migrations share."""
    yield from sources.of_file(layout.env, within=layout.script)
    if layout.ini is not None:
        yield file_part(layout.ini, root)
    if layout.toml is not None:
        table = tomllib.loads(layout.toml.read_text(encoding="utf-8"))["tool"]["alembic"]
        name = f"{relative_name(layout.toml, root)} [tool.alembic]"
        yield Part(name, digest(json.dumps(table, sort_keys=True, default=str)))
    yield from (Part(f"package {name}", _version(name)) for name in ("alembic", "sqlalchemy"))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _open(layout: Layout, output: io.StringIO) -> tuple[Config, ScriptDirectory]:
    """Alembic's configuration, as its command line would read it in the project's directory, and its scripts."""
    try:
        from alembic.config import Config
        from alembic.script import ScriptDirectory
    except ImportError as error:
        raise ConfigError(
            "The migrations need Alembic", saw=str(error), source=str(layout.script), remedy="pip install alembic"
        ) from error
    options: dict[str, Any] = {}
    if layout.toml is not None and "toml_file" in inspect.signature(Config).parameters:  # since Alembic 1.16
        options = {"toml_file": str(layout.toml)}
    elif layout.ini is None:
        raise ConfigError(
            "[tool.alembic] needs Alembic 1.16 or newer",
            saw=f"Alembic {_version('alembic')}",
            source=str(layout.toml),
            remedy="pip install 'alembic>=1.16', or write an alembic.ini",
        )
    config = Config(str(layout.ini) if layout.ini else None, stdout=output, **options)
    # Absolute, so that the lines of a failure's traceback can be told to be the project's.
    config.set_main_option("script_location", str(layout.script).replace("%", "%%"))
    return config, ScriptDirectory.from_config(config)


def import_env(path: Path, root: Path, *, source: str) -> None:
    """Run ``env.py`` without migrations, and raise `ConfigError` where a module fails that it imports.

    An error of its own counts for nothing: it runs offline here, which many do not provide for.
    """
    layout = read_layout(path, root, source=source)
    put_on_path(root)
    output = io.StringIO()
    with contextlib.chdir(layout.directory), warnings.catch_warnings(action="ignore"), keep_logging():
        config, script = _open(layout, output)
        config.output_buffer = output
        from alembic.runtime.environment import EnvironmentContext

        try:
            with EnvironmentContext(config, script, fn=lambda *_: (), as_sql=True, destination_rev="heads"):
                script.run_env()
        except (Exception, SystemExit) as error:
            frames = traceback.extract_tb(error.__traceback__)
            imported = any(frame.name == "<module>" and Path(frame.filename) != layout.env for frame in frames)
            if imported or isinstance(error, ImportError):
                raise ConfigError(
                    "env.py fails", saw=describe(error, root), source=source, remedy="correct the module"
                ) from error


class _Upgrade:
    """One run of ``alembic upgrade heads`` against the target."""

    def __init__(self, layout: Layout, revisions: Mapping[str, tuple[Revision, Step]], target: Target) -> None:
        self._layout = layout
        self._revisions = revisions
        self._target = target
        self._later = frozenset([*revisions][target.end :])
        self._execution = Execution(target, layout.directory)
        self._running: Revision | None = None
        self._context: MigrationContext | None = None

    def run(self) -> None:
        """Raises `BuildError` that names the revision, or what is wrong with ``env.py``; or `Indivisible`."""
        with self._execution.around():
            try:
                call_without_loop(self._run_env)
            except (Exception, SystemExit) as error:
                if self._later and not self._running:
                    raise Indivisible from error  # what env.py does beside may need all migrations
                if isinstance(error, SeedDbError):
                    raise
                what = f"The migration {self._running.id}" if self._running else "env.py"
                source = str(self._running.path if self._running else self._layout.env)
                output = self._execution.output.getvalue()
                raise failure(what, error, self._place(error), source, output) from error

    def _run_env(self) -> None:
        config, script = _open(self._layout, self._execution.output)
        from alembic.runtime.environment import EnvironmentContext
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        def upgrade(current: Any, context: MigrationContext) -> Iterator[Any]:  # noqa: ANN401 - Alembic's own types are private
            self._context = context
            before = self._session(context)
            for step in script._upgrade_revs("heads", current):  # noqa: SLF001 - what alembic.command.upgrade runs
                if (revision := str(step.revision.revision)) in self._later:
                    self._running = None
                    if self._session(context) != before:
                        raise Indivisible
                    break
                if (known := self._revisions.get(revision)) is not None:
                    self._running, ours = known
                    self._execution.announce(ours)
                yield step
            self._running = None

        engine = create_engine(self._target.address.url_for("postgresql+psycopg"), poolclass=NullPool)
        with (
            engine.connect() as connection,
            EnvironmentContext(config, script, fn=upgrade, as_sql=False, destination_rev="heads") as environment,
        ):
            # For an env.py that honours it; half of them take it for an engine and call connect() on it.
            config.attributes["connection"] = connection
            connection.connect = lambda: contextlib.nullcontext(connection)  # type: ignore[attr-defined]
            configure = environment.configure

            @functools.wraps(configure)
            def configure_and_check(*args: Any, **options: Any) -> None:
                configure(*args, **options)
                self._check_database(environment.get_context())

            # env.py hands its connection over here; then Alembic makes its version table.
            environment.configure = configure_and_check  # type: ignore[method-assign]  # alembic.context asks the instance
            with planned("alembic"):
                script.run_env()
            connection.commit()
        self._check_heads(script)

    def _session(self, context: MigrationContext) -> object:
        """What later migrations would find in the session, if there are any."""
        connection = context.connection
        if not self._later or connection is None:
            return None
        was_inside = connection.in_transaction()
        state = tuple(connection.exec_driver_sql(SESSION).one())
        if not was_inside:
            connection.rollback()
        return state

    def _check_database(self, context: MigrationContext) -> None:
        """Before anything is migrated: did ``env.py`` connect to the target?"""
        from pytest_seeddb.application.redirection import foreign_creator

        connection = context.connection
        if connection is None:
            raise self._elsewhere("nothing: it runs offline, writing SQL", "context.configure() has no connection")
        if context.dialect.name != "postgresql":
            raise self._elsewhere(f"{connection.engine.url!r}", "only PostgreSQL connections are redirected")
        was_inside = connection.in_transaction()
        database = tuple(connection.exec_driver_sql(WHICH_DATABASE).one())
        if not was_inside:
            connection.rollback()
        with self._target.address.connect() as own:
            expected = own.execute(WHICH_DATABASE).fetchone()
        if database != expected:
            why = "the connection was opened before the build began, or past SQLAlchemy's engine"
            if foreign_creator(connection.engine.pool) is not None:
                why = "its engine was made with creator= or async_creator=, which opens the connection itself"
            raise self._elsewhere(f"the database {database[0]!r} through {connection.engine.url!r}", why)

    def _elsewhere(self, what: str, why: str) -> BuildError:
        return BuildError(
            "env.py did not connect to the database that is being built; nothing was migrated",
            saw=f"it connected to {what}\n{why}",
            source=str(self._layout.env),
            remedy=_USE_OURS,
        )

    def _check_heads(self, script: ScriptDirectory) -> None:
        """Look at the version table from another connection: only what is committed counts."""
        import psycopg
        from psycopg import sql

        if not self._revisions:
            return
        if self._context is None:
            raise BuildError(
                "env.py ran no migrations",
                saw="it ended without calling context.run_migrations()",
                source=str(self._layout.env),
                remedy="call context.run_migrations() every time env.py runs",
            )
        table = filter(None, (self._context.version_table_schema, self._context.version_table))
        query = sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(*table))
        current: tuple[str, ...] = ()
        with contextlib.suppress(psycopg.errors.UndefinedTable), self._target.address.connect() as own:
            current = tuple(str(row[0]) for row in own.execute(query))
        upgrades = script._upgrade_revs("heads", current)  # type: ignore[arg-type]  # noqa: SLF001 - several heads are a tuple
        if left := [name for upgrade in upgrades if (name := str(upgrade.revision.revision)) not in self._later]:
            raise BuildError(
                "The database is not at the head of its migrations after they ran",
                saw=f"left: {', '.join(left)}\nin the version table: {', '.join(current) or 'nothing'}",
                source=str(self._layout.env),
                remedy="let env.py commit: `with context.begin_transaction(): context.run_migrations()`",
            )

    def _place(self, error: BaseException) -> str:
        """The line in the migration's own file if the error went through it, else the innermost of the user's."""
        frames = reversed(traceback.extract_tb(error.__traceback__))
        path = self._running and self._running.path
        frame = next((frame for frame in frames if Path(frame.filename) == path), None)
        frame = frame or innermost_frame(error, self._layout.script)
        return f"{relative_name(Path(frame.filename), self._target.root)}:{frame.lineno}" if frame else ""
