"""``seeddb shell``."""

from __future__ import annotations

import code
import contextlib
import signal
import subprocess
from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli.options import add_command, settings_of
from pytest_seeddb.cli.progress import shown_progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_seeddb.cli.options import Commands
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings

_BANNER: Final = """{url}
engine, session: SQLAlchemy; connection: psycopg; url: text. The application's engines reach this database, too."""


def add(commands: Commands) -> None:
    """Declare it."""
    about = "open psql on the database of a failed test, or on a fresh clone"
    shell = add_command(commands, "shell", _shell, about, json=False)
    which = shell.add_mutually_exclusive_group()
    which.add_argument("database", nargs="?", default="", metavar="DATABASE", help="its name; the newest by default")
    which.add_argument("--fresh", action="store_true", help="a clone of the template, discarded afterwards")
    shell.add_argument(
        "--python",
        action="store_true",
        help="a Python prompt instead, with engine, session, connection and url",
    )


def _shell(parsed: argparse.Namespace) -> int:
    from pytest_seeddb.cli.run_shell import fresh_clone, kept_database

    settings = settings_of(parsed)
    opened = fresh_clone(settings, shown_progress()) if parsed.fresh else kept_database(settings, parsed.database)
    with opened as address:
        return _python(settings, address) if parsed.python else _psql(settings, address)


def _psql(settings: Settings, address: Address) -> int:
    from pytest_seeddb.cli.run_shell import psql, psql_environment

    # In its environment, so that no password stands in the list of processes.
    environment = psql_environment(settings, address)
    with _interrupts_for_the_child():
        ended = subprocess.run([psql(settings)], check=False, env=environment)  # noqa: S603 - psql, as it was found
    return 0 if ended.returncode == 0 else 1


@contextlib.contextmanager
def _interrupts_for_the_child() -> Iterator[None]:
    """Ctrl-C reaches both of us: in psql it ends a query, and this process is to wait for psql all the same."""
    before = signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which psql would inherit
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _python(settings: Settings, address: Address) -> int:
    from pytest_seeddb.cli.run_shell import python_names

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives the prompt its history; not everywhere

    with python_names(settings, address) as names, contextlib.suppress(SystemExit):
        code.interact(_BANNER.format(url=address.masked), local=names, exitmsg="")
    return 0
