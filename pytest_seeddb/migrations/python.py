"""Schemas that the project's own Python makes: a ``MetaData`` or a callable."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_seeddb.application.calling import call, name_of
from pytest_seeddb.application.imports import check, check_source, load, module_of, place_of
from pytest_seeddb.application.surroundings import surroundings
from pytest_seeddb.errors import BuildError, ConfigError, SeedDbError
from pytest_seeddb.fingerprint.digests import chain
from pytest_seeddb.fingerprint.participation import Root
from pytest_seeddb.fingerprint.sources import Sources
from pytest_seeddb.migrations.execution import failure
from pytest_seeddb.migrations.frameworks import is_migrated, migrate
from pytest_seeddb.plan.plan import Step, Work, as_before, names_of

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import MetaData

    from pytest_seeddb.fingerprint.digests import Part
    from pytest_seeddb.plan.plan import Target


def read_steps(path: str, root: Path, *, source: str, beside: tuple[Part, ...] = ()) -> Work:
    """The step for ``shop.models:Base.metadata`` or ``shop.db:migrate``, whose module is imported when it runs.

    A template depends on the parts ``beside`` its code, too; a database that has the schema already does not.
    """
    check(path, source=source, root=root)
    sources, module = Sources(root), module_of(path)
    name, code = f"schema {path}", sources.of_module(module)
    before = sources.plain.of_module(module) if sources.plain else code
    step = Step(
        name,
        (*code, *beside),
        version=chain("", name, code),
        before=before,
        version_before=chain("", name, as_before(before)),
        rerun="safe",
        code=names_of(code),
        roots=tuple(map(Root, sources.files_of_module(module))),
        check=partial(check_source, path, source=source, root=root),
    )

    def run(target: Target, first: int) -> None:
        if first or not target.marks.wants(step):
            return
        target.started(step)
        with surroundings(target), target.marks.around(step):
            _apply(load(path, source=source, root=root), path, source, target)

    return Work((step,), run)


def _apply(value: Any, path: str, source: str, target: Target) -> None:  # noqa: ANN401 - any object of the user's
    from sqlalchemy import MetaData

    is_class = isinstance(value, type)  # a declarative base has its MetaData
    metadata = getattr(value, "metadata", None) if is_class else value
    if is_migrated(value):
        migrate(value, path, source, target)
        return
    if not isinstance(metadata, MetaData) and (is_class or not callable(value)):
        raise ConfigError(
            f"{path} is neither a MetaData nor a function",
            saw="a class without `metadata`" if is_class else f"a value of the type {type(value).__qualname__}",
            source=source,
            remedy="name the MetaData that holds the tables, or a function that makes them",
        )
    try:
        if isinstance(metadata, MetaData):
            _create_all(metadata, path, target)
            return
        result = call(value, target)
    except SeedDbError:
        raise
    except (Exception, SystemExit) as error:
        name = name_of(value) if callable(value) else path
        raise failure(path, error, place_of(error, target.root), name) from error
    if is_migrated(result):  # the function makes an application
        migrate(result, path, source, target)


def _create_all(metadata: MetaData, path: str, target: Target) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool
    from sqlalchemy.schema import CreateSchema

    if not metadata.tables:
        raise BuildError(
            f"{path} holds no tables",
            saw="an empty MetaData",
            source=path,
            remedy="name it in a module that imports all models; a model joins it when the model's module is imported",
        )
    engine = create_engine(target.address.url_for("postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        for schema in sorted({table.schema for table in metadata.tables.values() if table.schema}):
            connection.execute(CreateSchema(schema, if_not_exists=True))
        metadata.create_all(connection)
