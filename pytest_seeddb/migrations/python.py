"""Schemas that the project's own Python makes: a ``MetaData`` or a callable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_seeddb.application.calling import call, name_of
from pytest_seeddb.application.imports import check, load, module_of, place_of
from pytest_seeddb.application.surroundings import surroundings
from pytest_seeddb.errors import BuildError, ConfigError, SeedDbError
from pytest_seeddb.fingerprint.sources import Sources
from pytest_seeddb.plan.plan import Stage, Step
from pytest_seeddb.servers.database_errors import describe_failure, failure_remedy

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import MetaData

    from pytest_seeddb.plan.plan import Target


def stage(path: str, root: Path, *, source: str) -> Stage:
    """The ``migrations`` stage for ``shop.models:Base.metadata`` or ``shop.db:migrate``.

    The module is imported when the stage runs, not before.

    Raises:
        ConfigError: There is no such module.
    """
    check(path, source=source, root=root)
    step = Step(f"schema {path}", Sources(root).of_module(module_of(path)), rerun="safe")

    def run(target: Target, first: int) -> None:
        if first or not target.marks.wants(step):
            return
        target.started(step)
        with surroundings(target), target.marks.around(step):
            _apply(load(path, source=source, root=root), path, source, target)

    return Stage("migrations", (step,), run)


def _apply(value: object, path: str, source: str, target: Target) -> None:
    metadata = _metadata(value)
    if metadata is None and (isinstance(value, type) or not callable(value)):
        raise ConfigError(
            f"{path} is neither a MetaData nor a function",
            saw="a class without `metadata`"
            if isinstance(value, type)
            else f"a value of the type {type(value).__qualname__}",
            source=source,
            remedy="name the MetaData that holds the tables, or a function that makes them",
        )
    try:
        _create_all(metadata, path, target) if metadata is not None else call(value, target)  # type: ignore[arg-type]  # callable, as said above
    except SeedDbError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(value, path, error, target) from error


def _metadata(value: object) -> MetaData | None:
    """The ``MetaData`` itself, or that of a declarative base class."""
    from sqlalchemy import MetaData

    found: Any = getattr(value, "metadata", None) if isinstance(value, type) else value
    return found if isinstance(found, MetaData) else None


def _create_all(metadata: MetaData, path: str, target: Target) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool
    from sqlalchemy.schema import CreateSchema

    if not metadata.tables:
        raise BuildError(
            f"{path} holds no tables",
            saw="an empty MetaData",
            source=path,
            remedy="name it in a module that imports all models; a model is known once its module is imported",
        )
    engine = create_engine(target.address.url_for("postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        for schema in sorted({table.schema for table in metadata.tables.values() if table.schema}):
            connection.execute(CreateSchema(schema, if_not_exists=True))
        metadata.create_all(connection)


def _failed(value: Any, path: str, error: BaseException, target: Target) -> BuildError:  # noqa: ANN401 - any object
    where = place_of(error, target.root)
    return BuildError(
        f"{path} failed" + (f" at {where}" if where else ""),
        saw=describe_failure(error),
        source=name_of(value) if callable(value) else path,
        remedy=failure_remedy(error) or "mend it; it runs against an empty database",
    )
