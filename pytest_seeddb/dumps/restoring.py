"""Restore a dump into an empty database: any format becomes a script, which psql runs."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
import zlib
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from lzma import LZMAError
from typing import IO, TYPE_CHECKING, Final

from pytest_seeddb.dumps.failures import Failure, archive_failed, damaged, failed_statement, unfit
from pytest_seeddb.dumps.formats import opened
from pytest_seeddb.dumps.script import Script, Unfit, rules_for_copies, rules_for_dumps
from pytest_seeddb.fingerprint.digests import relative_name
from pytest_seeddb.servers.address import environment_for
from pytest_seeddb.servers.programs import find_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_seeddb.dumps.formats import DumpFile
    from pytest_seeddb.plan.plan import Target
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.programs import Program
    from pytest_seeddb.settings.settings import Settings

_FIRST: Final = "SET synchronous_commit = off; SET statement_timeout = 0; SET default_transaction_read_only = off"
_NOT_OURS: Final = ("--no-owner", "--no-privileges", "--no-tablespaces", "--no-subscriptions")
_SHOWN_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class Restored:
    """What became of a dump.

    Attributes:
        left_out: How many statements were left out, by what they were about: owners, privileges, roles, ...
        version: That of the server that it is from, as far as a dump tells.
    """

    left_out: Mapping[str, int] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True)
class Restoring:
    """How a dump is restored.

    Attributes:
        dump: The dump.
        settings: Say where client programs are looked for.
        source: Where the dump's name came from, for errors.
        exact: Whether it is a copy of our own, with owners and privileges, of which nothing is left out.
    """

    dump: DumpFile
    settings: Settings
    source: str
    exact: bool = False

    @property
    def name(self) -> str:
        """The dump's name from the project's root."""
        return relative_name(self.dump.path, self.settings.root)


def restore(wanted: Restoring, target: Target) -> Restored:
    """Run the dump into the target, which is empty, and let psql commit each statement.

    Statements about what belongs to the server and not to a database are left out: owners, privileges,
    roles, databases, tablespaces, subscriptions, and settings that only a newer server has. Nothing is
    ever run in another database than the target. Whoever is interrupted takes psql and pg_restore along.

    Raises:
        BuildError: A statement failed, or the dump is damaged, cut or of another kind. What ran before stays.
        ServerError: There is no client program that can read it.
    """
    server = server_major(target.address)
    script = Script(rules_for_copies(server) if wanted.exact else rules_for_dumps(server))
    psql = find_program(wanted.settings, "psql", wanted=server, why=f"restoring {wanted.name}")
    with ExitStack() as stack:
        lines = stack.enter_context(_lines(wanted, server, script))
        _run(psql, wanted, target, script, lines)
    return Restored(dict(script.left_out), script.versions.get("from database", ""))


def read_through(wanted: Restoring, server: int) -> Restored:
    """Read a dump to its end as `restore` would on a server of this major version, without one.

    Raises:
        BuildError: It is damaged or cut, or holds something that is not run.
        ServerError: There is no ``pg_restore`` that can read it.
    """
    script = Script(rules_for_dumps(server))
    with _lines(wanted, server, script) as lines:
        try:
            for _ in script.filter(lines):
                pass
        except Unfit as error:
            raise unfit(_failure(wanted, script), error) from None
    return Restored(dict(script.left_out), script.versions.get("from database", ""))


def server_major(address: Address) -> int:
    """The major version of the server that a database is on.

    Raises:
        psycopg.OperationalError: It cannot be reached.
    """
    import psycopg

    with psycopg.connect(address.conninfo) as connection:
        return connection.info.server_version // 10_000


def _run(psql: Program, wanted: Restoring, target: Target, script: Script, lines: Iterable[bytes]) -> None:
    command = [*psql.command, "-X", "-q", "-b", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"]
    command += ["-c", _FIRST, "-f", "-"]
    environment = {
        **environment_for(target.address),
        "PGCLIENTENCODING": "UTF8",
        "PGAPPNAME": "pytest-seeddb",
    }
    with tempfile.TemporaryFile() as said, _started(command, environment, said, stdin=subprocess.PIPE) as process:
        try:
            _feed(process, script.filter(lines))
        except Unfit as error:
            raise unfit(_failure(wanted, script), error) from None
        except (OSError, EOFError, zlib.error, LZMAError) as error:
            raise damaged(_failure(wanted, script), str(error)) from None
        finally:
            with suppress(BrokenPipeError):
                _pipe(process.stdin).close()
        if process.wait():
            raise failed_statement(_failure(wanted, script), _beginning(said))


def _feed(process: subprocess.Popen[bytes], lines: Iterator[bytes]) -> None:
    """Write until psql reads no more, which it says itself why."""
    pipe = _pipe(process.stdin)
    for line in lines:
        try:
            pipe.write(line)
        except BrokenPipeError:
            return


@contextmanager
def _lines(wanted: Restoring, server: int, script: Script) -> Iterator[Iterable[bytes]]:
    """The dump as lines of a script."""
    if wanted.dump.kind == "plain":
        with opened(wanted.dump) as stream:
            yield _without_mark(stream)
        return
    if wanted.dump.kind == "tar" and (said := _tars_end(wanted.dump)):
        raise damaged(_failure(wanted, script), said)
    why = f"the dump {wanted.name}"
    program = find_program(wanted.settings, "pg_restore", wanted=server, least=wanted.dump.needs, why=why)
    options = () if wanted.exact else _NOT_OURS
    command = [*program.command, *options, "-f", "-", str(wanted.dump.path)]
    with tempfile.TemporaryFile() as told, _started(command, None, told, stdout=subprocess.PIPE) as process:
        yield _checked(process, wanted, script, told)


def _tars_end(dump: DumpFile) -> str:
    """What is wrong with the end of a tar; ``pg_restore`` itself looks for it forever in one that was cut."""
    try:
        with tarfile.open(dump.path, "r:") as archive:
            last = archive.getmembers()[-1]
            end = last.offset_data + last.size
        return "" if end <= dump.path.stat().st_size else f"{last.name} in it ends too early"
    except (tarfile.TarError, OSError, IndexError) as error:
        return f"it is cut: {error}"


def _checked(process: subprocess.Popen[bytes], wanted: Restoring, script: Script, said: IO[bytes]) -> Iterator[bytes]:
    """What pg_restore writes; its failure goes before that the script ends too early."""
    yield from _pipe(process.stdout)
    if process.wait():
        raise archive_failed(_failure(wanted, script), _beginning(said))


def _without_mark(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines, the first without a byte order mark."""
    for number, line in enumerate(stream):
        yield line if number else line.removeprefix(b"\xef\xbb\xbf")


@contextmanager
def _started(
    command: list[str],
    environment: dict[str, str] | None,
    said: IO[bytes],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """A client program that does not outlive the block. What it says goes into a file: nobody needs to read along."""
    process = subprocess.Popen(command, env=environment, stdin=stdin, stdout=stdout, stderr=said)  # noqa: S603 - as found
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in filter(None, (process.stdin, process.stdout)):
            with suppress(BrokenPipeError):
                pipe.close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - it was asked for
    return stream


def _beginning(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read(_SHOWN_BYTES).decode(errors="replace")


def _failure(wanted: Restoring, script: Script) -> Failure:
    return Failure(wanted.name, wanted.source, script, is_text=wanted.dump.kind == "plain")
