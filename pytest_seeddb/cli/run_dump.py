"""Write a dump: of a plan's state, or of a database that people work with."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pytest_seeddb.cli.database import database_of
from pytest_seeddb.clones.worker import open_worker
from pytest_seeddb.dumps.formats import Kind, Origin, format_by_name, recognized
from pytest_seeddb.dumps.ordering import put_in_order
from pytest_seeddb.dumps.restoring import Restoring, restore, server_major
from pytest_seeddb.dumps.stage import STAGE
from pytest_seeddb.dumps.writing import Output, write
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.atomic import beside
from pytest_seeddb.fingerprint.opened import begin
from pytest_seeddb.plan import ledger
from pytest_seeddb.plan.plan import Plan, Target
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.templates.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.plan.numbering import Numbering
    from pytest_seeddb.plan.plan import Progress
    from pytest_seeddb.settings.settings import Settings


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    Attributes:
        output: The file or the directory; the settings' own dump where there is none.
        format: ``plain``, ``custom``, ``directory`` or ``tar``; where it is empty, the name tells.
        url: A database to dump instead of the plan's state; where it is empty, the environment names it.
        in_order: Whether its rows are to be put in the order of their keys, in a private copy.
        privileges: Whether owners and privileges belong into the dump.
        from_scratch: Whether to leave the settings' own dump aside, and to migrate and seed from the beginning.
    """

    output: Path | None = None
    format: str = ""
    url: str | None = field(default=None, repr=False)
    in_order: bool = False
    privileges: bool = False
    from_scratch: bool = False


@dataclass(frozen=True)
class Dumped:
    """What `dump` wrote.

    Attributes:
        path: The file or the directory.
        format: ``plain``, ``custom``, ``directory`` or ``tar``.
        of: The plan with its profile, or the database's URL, its password masked.
        size: In bytes.
        seconds: How long it took, a build included.
    """

    path: Path
    format: str
    of: str
    size: int
    seconds: float


def dump(settings: Settings, request: Request, progress: Progress) -> Dumped:
    """Write a dump of the plan's state, which is built if need be, or of another database.

    Of the plan's state: from a clone, which is gone afterwards, rows in the order of their keys, with the
    ledger that says which steps it holds. Two of them are the same, byte for byte, as long as the plan is
    and its seeds make the same rows each time. Another database is only read.

    Raises:
        ConfigError: The settings are wrong, or the file cannot be written.
        BuildError: A step failed.
        ServerError: A server cannot be used, there is no ``pg_dump`` for it, or that failed.
    """
    started = perf_counter()
    _check(request)
    output = _output(settings, request)
    if request.url is not None:
        of, size = _of_url(settings, request, database_of(settings, request.url), output)
    else:
        of, size = _of_plan(settings, request, output, progress)
    return Dumped(output.path, output.kind, of, size, round(perf_counter() - started, 3))


def _of_plan(settings: Settings, request: Request, output: Output, progress: Progress) -> tuple[str, int]:
    begin(settings.root)
    plan = plan_of(replace(settings, dump=None) if request.from_scratch else settings)
    with open_worker(settings, progress) as worker:
        server = worker.server
        template = worker.template(plan)
        clone = worker.clones.make(template)
        with server_errors("The clone could not be prepared for a dump", server.address):
            _note(plan, clone.address, template.record.numbering)
            put_in_order(clone.address)
        size = write(output, clone.address, find_program(settings, "pg_dump", wanted=server.major, least=server.major))
    return f"{plan.name}/{plan.profile}", size


def _note(plan: Plan, address: Address, numbering: Numbering) -> None:
    """Write the ledger anew, and what the dump is.

    Without the step that restored an earlier dump: else each dump of the same state would be another one.
    """
    own = replace(plan, stages=tuple(stage for stage in plan.stages if stage.name != STAGE), recipe=None)
    marker = replace(ledger.marker_of(own), tier=ledger.marker_of(plan).tier)
    origin = Origin(plan.name, plan.profile, marker.tier)
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {ledger.SCHEMA} CASCADE")
        ledger.write_finished(connection, own, marker, numbering)
        about = sql.SQL("COMMENT ON SCHEMA {} IS {}")
        connection.execute(about.format(sql.Identifier(ledger.SCHEMA), sql.Literal(origin.to_comment())))


# -- another database -----------------------------------------------------------------------------


def _of_url(settings: Settings, request: Request, address: Address, output: Output) -> tuple[str, int]:
    with server_errors("The database cannot be dumped", address), psycopg.connect(address.conninfo) as connection:
        major = connection.info.server_version // 10_000
        address = _completed(address, connection.info.password)
    pg_dump = find_program(settings, "pg_dump", wanted=major, least=major, why=f"a server of version {major}")
    guarded = replace(output, guarded=True)
    if not request.in_order:
        return address.masked, write(guarded, address, pg_dump)
    with _copy(settings, address, major) as copy:
        put_in_order(copy)
        of_copy = server_major(copy)
        pg_dump = find_program(settings, "pg_dump", wanted=of_copy, least=of_copy)
        return address.masked, write(guarded, copy, pg_dump)


def _completed(address: Address, password: str) -> Address:
    """The address with what libpq took from the environment and from a password file."""
    options = [(each.keyword.decode(), (each.envvar or b"").decode()) for each in psycopg.pq.Conninfo.get_defaults()]
    around = {keyword: os.environ[variable] for keyword, variable in options if variable in os.environ}
    return Address({**around, **address.params, **({"password": password} if password else {})})


@contextmanager
def _copy(settings: Settings, address: Address, major: int) -> Iterator[Address]:
    """A private copy of the database, on the settings' own server."""
    pg_dump = find_program(settings, "pg_dump", wanted=major, least=major)
    with beside(Path(tempfile.gettempdir(), "seeddb-copy"), directory=True) as place:
        file = place / "copy.dump"
        write(Output(file, "custom"), address, pg_dump)
        with open_server(settings) as server, Scratch(server.address) as scratch:
            copy = scratch.empty()
            made = recognized(file, source=address.masked)
            restore(Restoring(made, settings, address.masked), Target(copy, settings.root))
            yield copy


# -- what to write --------------------------------------------------------------------------------


def _check(request: Request) -> None:
    """Refuse what would be ignored."""
    if request.in_order and request.url is None:
        saw, remedy = "--in-order without --url", "leave it out: rows of the plan's state are always in that order"
    elif request.from_scratch and request.url is not None:
        saw, remedy = "--from-scratch with --url", "leave one out: another database is dumped as it is"
    else:
        return
    raise ConfigError("These options do not go together", saw=saw, source="the command line", remedy=remedy)


def _output(settings: Settings, request: Request) -> Output:
    path = request.output or settings.dump
    if path is None:
        raise ConfigError(
            "Into which file?",
            saw="no --output, and no `dump` in the settings",
            source="the command line",
            remedy="name it: seeddb dump -o seed-db.sql",
        )
    named = format_by_name(path)
    if not request.format and named is None:
        raise ConfigError(
            f"The name {path.name} does not tell the format of the dump",
            saw=str(path),
            source="the option --output",
            remedy="end it in .sql, .sql.gz, .dump or .tar, or give --format plain, custom, directory or tar",
        )
    kind: Kind = request.format or named[0]  # type: ignore[assignment, index]  # the parser knows the choices
    compression = "gzip" if kind == "plain" and path.name.endswith(".gz") else ""
    return Output(path, kind, compression, request.privileges)
