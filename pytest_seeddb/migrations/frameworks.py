"""Migrations that a framework's extension runs: Flask-Migrate, Flask-Alembic, Flask-SQLAlchemy, Advanced Alchemy."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pytest_seeddb.application.calling import call_without_loop
from pytest_seeddb.application.imports import place_of
from pytest_seeddb.application.redirection import is_flask
from pytest_seeddb.errors import ConfigError, SeedDbError
from pytest_seeddb.migrations.execution import Execution, failure

if TYPE_CHECKING:
    from pytest_seeddb.plan.plan import Target


def is_migrated(value: Any) -> bool:  # noqa: ANN401 - any object of the user's
    """Whether it is a Flask application, or a configuration of Advanced Alchemy."""
    return is_flask(value) or (hasattr(value, "alembic_config") and hasattr(value, "get_engine"))


def migrate(value: Any, path: str, source: str, target: Target) -> None:  # noqa: ANN401 - as above
    """Bring the target to the head of its migrations, by the extension's own command."""
    execution = Execution(target)
    with execution.around():
        try:
            call_without_loop(lambda: _flask(value, path, source) if is_flask(value) else _advanced_alchemy(value))
        except SeedDbError:
            raise
        except (Exception, SystemExit) as error:
            output = execution.output.getvalue()
            raise failure(f"The migrations of {path}", error, place_of(error, target.root), source, output) from error


def _flask(app: Any, path: str, source: str) -> None:  # noqa: ANN401 - as above
    with app.app_context():
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


def _advanced_alchemy(config: Any) -> None:  # noqa: ANN401 - as above
    from advanced_alchemy.alembic.commands import AlembicCommands

    AlembicCommands(sqlalchemy_config=config).upgrade()
