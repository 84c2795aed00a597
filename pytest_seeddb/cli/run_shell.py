"""A prompt on a database: that of a failed test, or a fresh clone."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from pytest_seeddb.clones.worker import open_worker
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.templates.registry import kept_databases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.plan.plan import Progress
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings


@contextmanager
def kept_database(settings: Settings, database: str = "") -> Iterator[Address]:
    """A database of a failed test, with the server running for the block.

    Args:
        settings: Where the server comes from.
        database: Its name; by default the newest that was kept.

    Raises:
        ConfigError: There is no such database.
        SeedDbError: There is no usable server.
    """
    with open_server(settings) as server, Admin(server.address) as admin:
        kept = [each.name for each in kept_databases(admin)]
        wanted = database or (kept[-1] if kept else "")
        if not wanted or not admin.exists(wanted):
            raise _not_kept(wanted, kept, server.address)
        yield server.address.with_database(wanted)


def _not_kept(wanted: str, kept: list[str], address: Address) -> ConfigError:
    named = "name one of those (a failed test's report shows its name)"
    failing = "let a test fail: its database is kept, unless the setting `keep` says none"
    return ConfigError(
        f"There is no database {wanted!r}" if wanted else "No database of a failed test was kept",
        saw="\n".join(kept) or "none is kept",
        source=address.masked,
        remedy=f"{named if kept else failing}; or take a clone with --fresh",
    )


@contextmanager
def fresh_clone(settings: Settings, progress: Progress) -> Iterator[Address]:
    """A clone of the plan's template for the block, discarded afterwards; the template is built if need be.

    Raises:
        SeedDbError: The settings are wrong, there is no usable server, or a step failed.
    """
    from pytest_seeddb.fingerprint.opened import begin
    from pytest_seeddb.seeds.planning import plan_of

    begin(settings.root)
    plan = plan_of(settings)
    with open_worker(settings, progress) as worker:
        yield worker.clones.make(worker.template(plan)).address


def psql(settings: Settings) -> str:
    """The program: on the path, else beside the programs of some server on this machine.

    Raises:
        ServerError: There is none.
    """
    return str(find_program(settings, "psql", why="seeddb shell; --python takes a Python prompt instead").path)


def psql_environment(settings: Settings, address: Address) -> dict[str, str]:
    """The environment that leads psql, and what is started from it, to the database. Holds the password."""
    from pytest_seeddb.servers.address import environment_for

    return environment_for(address, settings.env)


@contextmanager
def python_names(settings: Settings, address: Address) -> Iterator[dict[str, Any]]:
    """What a Python prompt knows: ``engine``, ``session``, ``connection`` and ``url``, as the fixtures give them.

    Inside the block the project's modules can be imported, and whatever engine they make reaches this
    database and no other. Afterwards all connections are closed; what was not committed is gone.

    Raises:
        SeedDbError: The database cannot be reached.
    """
    import psycopg
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    from pytest_seeddb.application.surroundings import surroundings
    from pytest_seeddb.plan.plan import Target
    from pytest_seeddb.servers.database_errors import server_errors

    with ExitStack() as stack:
        stack.enter_context(surroundings(Target(address, settings.root, settings.env)))
        with server_errors("The database cannot be opened", address):
            connection = stack.enter_context(psycopg.connect(address.conninfo))
        engine = create_engine(address.url_for("postgresql+psycopg"))
        stack.callback(engine.dispose)
        session = stack.enter_context(Session(engine))
        yield {"engine": engine, "session": session, "connection": connection, "url": address.url}
