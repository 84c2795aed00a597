"""``seeddb shell``: a prompt on the database of a failed test, or on a fresh clone."""

from __future__ import annotations

import code
import contextlib
import signal
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli.output import make_progress
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.cli.status import own_entries
from pytest_seeddb.clones.apart import own_data
from pytest_seeddb.clones.opening import open_worker
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.recording import begin
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.address import environment_for
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.templates.inventory import inventory, kept_databases

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_seeddb.plan.plan import Progress
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings

_MOMENT: Final = len("seeddb_k_20250102030405")
"""How much of a kept database's name says when it was kept."""
_BANNER: Final = """{url}
engine, session: SQLAlchemy; connection: psycopg; url: text. The application's engines reach this database, too."""


def run(parsed: argparse.Namespace) -> int:
    """Run the command: 0 where the prompt ended well."""
    settings = settings_of(parsed)
    opened = (
        _fresh_clone(settings, make_progress(parsed))
        if parsed.fresh
        else _database_of_failed_test(settings, parsed.database)
    )
    with opened as address:
        return _python(settings, address) if parsed.python else _psql(settings, address)


@contextmanager
def _database_of_failed_test(settings: Settings, database: str) -> Iterator[Address]:
    """A database of a failed test, by default the project's newest; the server runs for the block."""
    with ExitStack() as stack:
        server = stack.enter_context(open_server(settings))
        addresses: dict[str, Address] = {}
        newest = ""
        for key in ("", *own_data(server, settings.root)):
            place = stack.enter_context(open_server(settings, key)) if key else server
            admin = stack.enter_context(Admin(place.address))
            own = {entry.name for entry in own_entries(inventory(admin), settings)}
            names = [kept.name for kept in kept_databases(admin) if kept.name in own]
            if database and database not in names and admin.exists(database):
                names.insert(0, database)
            addresses |= {name: place.address.with_database(name) for name in names}
            newest = max((newest, *names[-1:]), key=lambda name: name[:_MOMENT])
        kept, wanted = list(addresses), database or newest
        if wanted not in addresses:
            named = "name one of those (a failed test's report shows its name)"
            failing = "run a test that fails: its database is kept, unless the setting `keep` is none"
            raise ConfigError(
                f"There is no database {wanted!r}" if wanted else "No database of a failed test was kept",
                saw="\n".join(kept) or "none is kept",
                source=server.address.masked,
                remedy=f"{named if kept else failing}; or open a new clone: --fresh",
            )
        yield addresses[wanted]


@contextmanager
def _fresh_clone(settings: Settings, progress: Progress) -> Iterator[Address]:
    """A clone of the plan's template for the block; the template is built if need be."""
    begin(settings.root)
    plan = plan_of(settings)
    with open_worker(settings, progress) as worker:
        yield worker.clone(worker.template(plan)).address


def _psql(settings: Settings, address: Address) -> int:
    program = find_program(settings, "psql", why="seeddb shell; --python takes a Python prompt instead")
    # Ctrl-C reaches both processes: in psql it ends a query, and this one waits for psql all the same.
    before = signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which psql would inherit
    try:
        # The password is in its environment, where the list of processes does not show it.
        environment = environment_for(address, settings.env)
        ended = subprocess.run([str(program.path)], check=False, env=environment)  # noqa: S603 - psql, as it was found
    finally:
        signal.signal(signal.SIGINT, before)
    return 0 if ended.returncode == 0 else 1


def _python(settings: Settings, address: Address) -> int:
    """A Python prompt. The project's modules can be imported, and their engines reach this database and no other."""
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    from pytest_seeddb.application.surroundings import surroundings
    from pytest_seeddb.plan.plan import Target
    from pytest_seeddb.servers.database_errors import server_errors

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives the prompt its history; not everywhere

    with ExitStack() as stack:
        stack.enter_context(surroundings(Target(address, settings.root, settings.env)))
        with server_errors("The database cannot be opened", address):
            connection = stack.enter_context(address.connect())
        engine = create_engine(address.url_for("postgresql+psycopg"))
        stack.callback(engine.dispose)
        session = stack.enter_context(Session(engine))
        names = {"engine": engine, "session": session, "connection": connection, "url": address.url}
        with contextlib.suppress(SystemExit):
            code.interact(_BANNER.format(url=address.masked), local=names, exitmsg="")
    return 0
