"""``seeddb dump``: write a dump of a plan's state, or of a database that people work with."""

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
from pytest_seeddb.cli.output import make_progress, show
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.clones.opening import open_worker
from pytest_seeddb.dumps.formats import Kind, Origin, format_by_name, recognize
from pytest_seeddb.dumps.restoring import Restoring, restore, server_major
from pytest_seeddb.dumps.stage import STAGE
from pytest_seeddb.dumps.writing import Output, put_in_order, write
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.atomic import beside
from pytest_seeddb.fingerprint.recording import begin
from pytest_seeddb.plan import ledger
from pytest_seeddb.plan.plan import Target
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.templates.scratch import Scratch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_seeddb.plan.plan import Progress
    from pytest_seeddb.settings.settings import Settings


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; an empty ``url`` means the environment's database."""

    output: Path | None = None
    format: str = ""
    url: str | None = field(default=None, repr=False)
    in_order: bool = False
    privileges: bool = False
    from_scratch: bool = False


@dataclass(frozen=True)
class Dumped:
    """The dump that was written, of which plan or database, its bytes, and the seconds with a build included."""

    path: Path
    format: str
    of: str
    size: int
    seconds: float


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    output = (parsed.directory or Path.cwd()) / parsed.output if parsed.output else None
    request = Request(output, parsed.format, parsed.url, parsed.in_order, parsed.privileges, parsed.from_scratch)
    dumped = dump(settings_of(parsed), request, make_progress(parsed))
    here = Path.cwd()
    path = dumped.path.relative_to(here) if dumped.path.is_relative_to(here) else dumped.path
    size = f"{dumped.size / 2**20:.2f} MB"
    show(parsed, dumped, [f"{path}: {dumped.of}, {dumped.format}, {size}, in {dumped.seconds:.1f} s"])
    return 0


def dump(settings: Settings, request: Request, progress: Progress) -> Dumped:
    """Write a dump of the plan's state, from a clone and in the order of keys, or of another database as it is."""
    started = perf_counter()
    output = _output(settings, request)
    if request.url is not None:
        of, size = _of_url(settings, request, database_of(settings, request.url), output)
    else:
        of, size = _of_plan(settings, request, output, progress)
    return Dumped(output.path, output.kind, of, size, round(perf_counter() - started, 3))


def _output(settings: Settings, request: Request) -> Output:
    saw = remedy = ""
    if request.in_order and request.url is None:
        saw, remedy = "--in-order without --url", "omit --in-order: a dump of the plan's state is always in that order"
    elif request.from_scratch and request.url is not None:
        saw, remedy = "--from-scratch with --url", "omit one of them: --url dumps another database as it is"
    if saw:
        raise ConfigError("These options cannot be combined", saw=saw, source="the command line", remedy=remedy)
    path = request.output or settings.dump
    if path is None:
        raise ConfigError(
            "The dump needs an output file",
            saw="no --output, and no `dump` in the settings",
            source="the command line",
            remedy="name one: seeddb dump -o seed-db.sql",
        )
    named = format_by_name(path)
    if not request.format and named is None:
        raise ConfigError(
            f"The name {path.name} does not say which format the dump has",
            saw=str(path),
            source="the option --output",
            remedy="use the ending .sql, .sql.gz, .dump or .tar, or give --format plain, custom, directory or tar",
        )
    kind: Kind = request.format or named[0]  # type: ignore[assignment, index]  # the parser knows the choices
    compression = "gzip" if kind == "plain" and path.name.endswith(".gz") else ""
    return Output(path, kind, compression, request.privileges)


def _of_plan(settings: Settings, request: Request, output: Output, progress: Progress) -> tuple[str, int]:
    begin(settings.root)
    plan = plan_of(replace(settings, dump=None) if request.from_scratch else settings)
    with open_worker(settings, progress) as worker:
        server = worker.server
        template = worker.template(plan)
        clone = worker.clone(template)
        with server_errors("The clone could not be prepared for a dump", server.address):
            # Without the step that restored an earlier dump: two dumps of one state must not differ.
            own = replace(plan, stages=tuple(stage for stage in plan.stages if stage.name != STAGE), recipe=None)
            marker = replace(ledger.marker_of(own), tier=ledger.marker_of(plan).tier)
            origin = Origin(plan.name, plan.profile, marker.tier)
            with clone.address.connect(autocommit=True) as connection:
                connection.execute(f"DROP SCHEMA IF EXISTS {ledger.SCHEMA} CASCADE")
                record = template.record
                ledger.write_finished(connection, own, marker, record.numbering, record.opened)
                comment = sql.SQL("COMMENT ON SCHEMA {} IS {}")
                connection.execute(comment.format(sql.Identifier(ledger.SCHEMA), sql.Literal(origin.to_comment())))
            put_in_order(clone.address)
        size = write(output, clone.address, find_program(settings, "pg_dump", wanted=server.major, least=server.major))
    return f"{plan.name}/{plan.profile}", size


def _of_url(settings: Settings, request: Request, address: Address, output: Output) -> tuple[str, int]:
    with server_errors("The database cannot be dumped", address), address.connect() as connection:
        major = connection.info.server_version // 10_000
        # With what libpq took from the environment and from a password file.
        options = [(option.keyword.decode(), option.envvar) for option in psycopg.pq.Conninfo.get_defaults()]
        variables = {keyword: variable.decode() for keyword, variable in options if variable}
        around = {keyword: os.environ[name] for keyword, name in variables.items() if name in os.environ}
        password = {"password": connection.info.password} if connection.info.password else {}
        address = Address({**around, **address.params, **password})
    pg_dump = find_program(settings, "pg_dump", wanted=major, least=major, why=f"a server of version {major}")
    guarded = replace(output, guarded=True)
    if not request.in_order:
        return address.masked, write(guarded, address, pg_dump)
    with _copy(settings, address, major) as copy:
        put_in_order(copy)
        copy_major = server_major(copy)
        pg_dump = find_program(settings, "pg_dump", wanted=copy_major, least=copy_major)
        return address.masked, write(guarded, copy, pg_dump)


@contextmanager
def _copy(settings: Settings, address: Address, major: int) -> Iterator[Address]:
    """A private copy of the database, on the settings' own server."""
    pg_dump = find_program(settings, "pg_dump", wanted=major, least=major)
    with beside(Path(tempfile.gettempdir(), "seeddb-copy"), directory=True) as place:
        file = place / "copy.dump"
        write(Output(file, "custom"), address, pg_dump)
        with open_server(settings) as server, Scratch(server.address) as scratch:
            copy = scratch.empty()
            restoring = Restoring(recognize(file, source=address.masked), settings, address.masked)
            restore(restoring, Target(copy, settings.root))
            yield copy
