"""Migrations that a framework's extension runs: Flask-Migrate, Flask-Alembic, Flask-SQLAlchemy, Advanced Alchemy."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pytest_seeddb.application.calling import call_without_loop
from pytest_seeddb.application.imports import place_of
from pytest_seeddb.application.redirection import check_redirectable, engines_of, foreign_creator, is_flask
from pytest_seeddb.errors import ConfigError, SeedDbError
from pytest_seeddb.migrations.execution import WHICH_DATABASE, Execution, failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Engine

    from pytest_seeddb.plan.plan import Target


def is_migrated(value: Any) -> bool:  # noqa: ANN401 - any object of the user's
    """Whether it is a Flask application, or a configuration of Advanced Alchemy."""
    return is_flask(value) or (hasattr(value, "alembic_config") and hasattr(value, "get_engine"))


def migrate(value: Any, path: str, source: str, target: Target) -> None:  # noqa: ANN401 - as above
    """Bring the target to the head of its migrations, by the extension's own command."""
    execution = Execution(target)
    with execution.around():
        try:
            run = _flask if is_flask(value) else _advanced_alchemy
            call_without_loop(lambda: run(value, path, source, target))
        except SeedDbError as error:
            if error.source:
                raise
            raise error.with_source(f"{path} of {source}") from None
        except (Exception, SystemExit) as error:
            output = execution.output.getvalue()
            raise failure(f"The migrations of {path}", error, place_of(error, target.root), source, output) from error


def _flask(app: Any, path: str, source: str, target: Target) -> None:  # noqa: ANN401 - as above
    with app.app_context():
        if "sqlalchemy" in app.extensions:
            engines = app.extensions["sqlalchemy"].engines
            main = {None, "default"}  # a further database may be of another vendor
            _check_engines(
                (engine for key, engine in engines.items() if key in main or engine.dialect.name == "postgresql"),
                target,
            )
        if "migrate" in app.extensions:
            import flask_migrate

            inspect.unwrap(flask_migrate.upgrade)()  # the command itself would log an error and exit
        elif "alembic" in app.extensions:
            app.extensions["alembic"].upgrade()
        elif "sqlalchemy" in app.extensions:
            app.extensions["sqlalchemy"].create_all()
        else:
            raise ConfigError(
                f"The Flask application of {path} has no database",
                saw=f"the extensions {', '.join(app.extensions) or 'none'}",
                source=source,
                remedy="initialise Flask-Migrate, Flask-Alembic or Flask-SQLAlchemy with it: migrate.init_app(app, db)",
            )


def _advanced_alchemy(config: Any, _path: str, _source: str, target: Target) -> None:  # noqa: ANN401 - as above
    from advanced_alchemy.alembic.commands import AlembicCommands

    _check_engines(engines_of(config), target)
    AlembicCommands(sqlalchemy_config=config).upgrade()


def _check_engines(engines: Iterable[Engine], target: Target) -> None:
    """Before anything is migrated: raise `ConfigError` for an engine that does not lead to the target."""
    for engine in engines:
        if foreign_creator(engine.pool) and engine.dialect.name == "postgresql" and not engine.dialect.is_async:
            # It may read the address from one of the variables that hold the target's.
            with engine.connect() as connection, target.address.connect() as own:
                if tuple(connection.exec_driver_sql(WHICH_DATABASE).one()) == own.execute(WHICH_DATABASE).fetchone():
                    continue
        check_redirectable(engine, remedy="give the application a postgresql:// URL: migrations then run here")
