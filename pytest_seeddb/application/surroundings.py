"""What the user's code finds around it while it builds: where it runs, and the database it reaches."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.imports import put_on_path
from pytest_seeddb.application.roles import Roles, forget, remember

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pytest_seeddb.plan.plan import Target
    from pytest_seeddb.servers.address import Address

_OWNER: Final = Roles()
_SCHEME: Final = re.compile(r"(postgres(?:ql)?(?:\+[a-z0-9_]+)?)://", re.IGNORECASE)


@contextlib.contextmanager
def surroundings(target: Target, directory: Path | None = None) -> Iterator[None]:
    """Let unchanged application code reach the target and nothing else, with the root on ``sys.path``.

    All SQLAlchemy engines and Django's connections lead to it (further aliases of Django to ``target.beside``), and the
    variables in ``target.env`` hold its URL. The working directory is ``directory``, or ``target.root``.
    """
    from pytest_seeddb.application.django import redirect_django
    from pytest_seeddb.application.redirection import redirect

    before = list(sys.path)
    put_on_path(target.root)
    try:
        with (
            contextlib.chdir(directory or target.root),
            target.address.alone(),
            url_in_environment(target.env, target.address),
            redirect(target.address),
            redirect_django({target.alias: target.address, **target.beside}),
        ):
            yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def url_in_environment(names: Iterable[str], address: Address, roles: Roles = _OWNER) -> Iterator[None]:
    """Let the variables hold the address's URL for a block, in this process, each for the role of its own URL."""
    variables = url_variables(names, address, roles)
    remembered = [name for name in variables if remember(name)]
    try:
        with environment(variables):
            yield
    finally:
        for name in remembered:
            forget(name)


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a block, in this process; afterwards they are as they were."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def url_variables(names: Iterable[str], address: Address, roles: Roles = _OWNER) -> dict[str, str]:
    """The variables with the address's URL, each in the scheme that it has now, such as ``postgresql+asyncpg``."""
    matches = {name: _SCHEME.match(os.environ.get(name, "")) for name in names}
    schemes = {name: match[1] if match else "postgresql" for name, match in matches.items()}
    return {name: roles.address_for_variable(name, address, scheme).url_for(scheme) for name, scheme in schemes.items()}
