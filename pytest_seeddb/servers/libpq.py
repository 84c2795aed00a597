"""libpq's variables of the shell: they are about other servers than those that we start.

A shell often has some for a server elsewhere (``PGCHANNELBINDING=require``, ``PGSERVICE=production``). libpq follows
them on every connection that does not say otherwise, and a URL cannot say otherwise of all of them. So they are out of
``os.environ`` while a database on a server that we started is in use. What the project's own code sets stays.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PLACE: Final = frozenset({"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGPASSFILE"})
"""Each of our addresses says this itself, and applications read it as their own configuration."""

VARIABLES: Final = _PLACE | {
    "PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGLOCALEDIR", "PGOPTIONS", "PGAPPNAME",
    "PGCONNECT_TIMEOUT", "PGCLIENTENCODING", "PGDATESTYLE", "PGTZ", "PGGEQO", "PGTARGETSESSIONATTRS",
    "PGLOADBALANCEHOSTS", "PGCHANNELBINDING", "PGREQUIREAUTH", "PGREQUIREPEER", "PGREQUIRESSL", "PGSSLMODE",
    "PGSSLNEGOTIATION", "PGSSLCOMPRESSION", "PGSSLCERT", "PGSSLKEY", "PGSSLCERTMODE", "PGSSLROOTCERT", "PGSSLCRL",
    "PGSSLCRLDIR", "PGSSLSNI", "PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION", "PGMINPROTOCOLVERSION",
    "PGMAXPROTOCOLVERSION", "PGGSSENCMODE", "PGGSSLIB", "PGGSSDELEGATION", "PGKRBSRVNAME", "PGOAUTHDEBUG",
    "PGOAUTHCAFILE", "PGSSLKEYLOGFILE",
}  # fmt: skip
"""PostgreSQL's manual, "libpq: Environment Variables", up to version 18."""

_INSTEAD: Final[Mapping[str, str]] = {"PGSSLMODE": "prefer"}
"""What applications read themselves, and may miss."""

_SHELL: Final = {name: os.environ[name] for name in sorted(VARIABLES - _PLACE) if name in os.environ}
"""Read when pytest, or the command, starts: before any code of the project."""


def names_in_shell() -> list[str]:
    """The names of those whose value is still the shell's, for another process."""
    from pytest_seeddb.fingerprint.environment import ASIDE

    return [name for name, value in _SHELL.items() if ASIDE.get(name, os.environ.get(name)) == value]


def narrow_shell(names: list[str]) -> None:
    """In another process of the run: leave only what the first found, whose conftests may have set others since."""
    for name in _SHELL.keys() - names:
        del _SHELL[name]


_depth = 0
_changing: Final = threading.RLock()


@contextmanager
def without_shell_variables() -> Iterator[None]:
    """For a block, the variables of the shell are not in ``os.environ``; blocks may be nested, in any threads."""
    if not _SHELL:
        yield
        return
    _change(1)
    try:
        yield
    finally:
        _change(-1)


def _change(step: int) -> None:
    global _depth  # noqa: PLW0603 - one for the process, as os.environ is
    from pytest_seeddb.fingerprint.environment import ASIDE

    with _changing:
        _depth += step
        if step == _depth == 1:
            ASIDE.update({name: value for name, value in _SHELL.items() if os.environ.get(name) == value})
            for name in ASIDE:
                del os.environ[name]
            os.environ.update({name: value for name, value in _INSTEAD.items() if name in ASIDE})
        elif not _depth:
            for name, value in ASIDE.items():
                if os.environ.get(name, _INSTEAD.get(name)) == _INSTEAD.get(name):  # nobody has set it meanwhile
                    os.environ[name] = value
            ASIDE.clear()


def variables_set() -> list[str]:
    """Those that are set now, as ``NAME=value``, for an error; not those that hold a password."""
    names = sorted(name for name in (VARIABLES - _PLACE) & os.environ.keys() if os.environ[name] != _SHELL.get(name))
    return [f"{name}={os.environ[name]}" for name in names]
