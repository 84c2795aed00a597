"""What the user's code finds around it while it builds: where it runs, and the database it reaches."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.imports import put_on_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_seeddb.plan import Target

_SCHEME: Final = re.compile(r"^(postgresql\+[a-z0-9_]+)://", re.IGNORECASE)


@contextlib.contextmanager
def surroundings(target: Target, directory: Path | None = None) -> Iterator[None]:
    """Let unchanged application code reach the target and nothing else.

    Inside the block every SQLAlchemy engine of the process is redirected to the target, the
    variables in ``target.env`` hold its URL, modules are found from ``target.root``, and the
    working directory is ``directory``. All of it is as before afterwards, whatever happened.

    Args:
        target: The database being built.
        directory: Where to run; ``target.root`` by default.
    """
    from pytest_seeddb.application.redirection import redirected

    with (
        contextlib.chdir(directory or target.root),
        _search_path(target.root),
        _variables(target),
        redirected(target.address),
    ):
        yield


@contextlib.contextmanager
def _search_path(root: Path) -> Iterator[None]:
    before = list(sys.path)
    put_on_path(root)
    try:
        yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _variables(target: Target) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in target.env}
    for name, value in before.items():
        os.environ[name] = target.address.url_for(_scheme(value or ""))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _scheme(url: str) -> str:
    """The driver that the application asks for in this variable is still the one it gets."""
    found = _SCHEME.match(url)
    return found[1] if found else "postgresql"
