"""What the user's code finds around it while it builds: where it runs, and the database it reaches."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from pytest_seeddb.application.awaited_imports import once_imported
from pytest_seeddb.application.environment import url_in_environment
from pytest_seeddb.application.imports import put_on_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from pytest_seeddb.plan.plan import Target
    from pytest_seeddb.servers.address import Address


@contextlib.contextmanager
def surroundings(target: Target, directory: Path | None = None) -> Iterator[None]:
    """Let unchanged application code reach the target and nothing else.

    Inside the block every SQLAlchemy engine of the process and Django's connections are redirected to
    the target (Django's further aliases to ``target.beside``), the variables in ``target.env`` hold its
    URL, modules are found from ``target.root``, and the working directory is ``directory``. All of it
    is as before afterwards, whatever happened.

    Args:
        target: The database being built.
        directory: Where to run; ``target.root`` by default.
    """
    from pytest_seeddb.application.django_connections import django_redirected

    with (
        contextlib.chdir(directory or target.root),
        _search_path(target.root),
        url_in_environment(target.env, target.address),
        _sqlalchemy_redirected(target.address),
        django_redirected({target.alias: target.address, **target.beside}),
    ):
        yield


@contextlib.contextmanager
def _sqlalchemy_redirected(address: Address) -> Iterator[None]:
    """At once where SQLAlchemy is there, else when somebody imports it: that takes 0.2 seconds, and not all need it."""

    def redirect(_module: ModuleType) -> None:
        from pytest_seeddb.application.redirection import redirected

        stack.enter_context(redirected(address))

    with contextlib.ExitStack() as stack:
        stack.enter_context(once_imported("sqlalchemy", redirect))
        yield


@contextlib.contextmanager
def _search_path(root: Path) -> Iterator[None]:
    before = list(sys.path)
    put_on_path(root)
    try:
        yield
    finally:
        sys.path[:] = before
