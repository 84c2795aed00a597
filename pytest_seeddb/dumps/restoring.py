"""Restore a dump into an empty database: any format becomes a script, which psql runs."""

from __future__ import annotations

import tarfile
import tempfile
import zlib
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from lzma import LZMAError
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, TYPE_CHECKING, Final, cast

from pytest_seeddb.dumps.failures import Failure
from pytest_seeddb.dumps.formats import open_dump
from pytest_seeddb.dumps.script import Script, Unfit, rules_for_copies, rules_for_dumps
from pytest_seeddb.fingerprint.digests import relative_name
from pytest_seeddb.servers.address import environment_for
from pytest_seeddb.servers.programs import find_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_seeddb.dumps.formats import DumpFile
    from pytest_seeddb.plan.plan import Target
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings

_FIRST: Final = "SET synchronous_commit = off; SET statement_timeout = 0; SET default_transaction_read_only = off"
_LEFT_OUT: Final = ("--no-owner", "--no-privileges", "--no-tablespaces", "--no-subscriptions")
_MESSAGE_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class Restoring:
    """How a dump is restored; ``exact`` where it is a copy with owners and privileges, of which nothing is left out."""

    dump: DumpFile
    settings: Settings
    source: str
    exact: bool = False

    @property
    def name(self) -> str:
        """The dump's name from the project's root."""
        return relative_name(self.dump.path, self.settings.root)

    def failure(self, script: Script) -> Failure:
        """What makes the errors about it."""
        return Failure(self.name, self.source, script, is_text=self.dump.kind == "plain")

    @contextmanager
    def lines(self, server: int, script: Script) -> Iterator[Iterable[bytes]]:
        """The dump as lines of a script, for a server of this major version."""
        if self.dump.kind == "plain":
            with open_dump(self.dump) as stream:
                # The first one goes without a byte order mark.
                yield (line if number else line.removeprefix(b"\xef\xbb\xbf") for number, line in enumerate(stream))
            return
        if self.dump.kind == "tar" and (damage := _tar_damage(self.dump)):
            raise self.failure(script).damage(damage)
        why = f"the dump {self.name}"
        program = find_program(self.settings, "pg_restore", wanted=server, least=self.dump.needs, why=why)
        command = [*program.command, *(() if self.exact else _LEFT_OUT), "-f", "-", str(self.dump.path)]
        with _program(command, None, stdout=PIPE) as (process, errors):

            def output() -> Iterator[bytes]:
                yield from cast("IO[bytes]", process.stdout)
                if process.wait():  # it goes before that the script ends too early
                    raise self.failure(script).archive(_beginning(errors))

            yield output()


def restore(wanted: Restoring, target: Target) -> Script:
    """Run the dump into the target, which is empty, and let psql commit each statement.

    What belongs to the server and not to a database is left out, and nothing ever runs in another database. After a
    `BuildError`, what ran before stays; a `ServerError` where no client program can read the dump.
    """
    server = server_major(target.address)
    script = Script(rules_for_copies(server) if wanted.exact else rules_for_dumps(server))
    psql = find_program(wanted.settings, "psql", wanted=server, why=f"restoring {wanted.name}")
    command = [*psql.command, "-X", "-q", "-b", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"]
    command += ["-c", _FIRST, "-f", "-"]
    environment = {**environment_for(target.address), "PGCLIENTENCODING": "UTF8", "PGAPPNAME": "pytest-seeddb"}
    failure = wanted.failure(script)
    with wanted.lines(server, script) as lines, _program(command, environment, stdin=PIPE) as (process, errors):
        pipe = cast("IO[bytes]", process.stdin)
        try:
            with suppress(BrokenPipeError):  # psql reads no more, and says itself why
                for text in script.filter(lines):
                    pipe.write(text)
        except Unfit as error:
            raise failure.unfit(error) from None
        except (OSError, EOFError, zlib.error, LZMAError) as error:
            raise failure.damage(str(error)) from None
        finally:
            with suppress(BrokenPipeError):
                pipe.close()
        if process.wait():
            raise failure.statement(_beginning(errors))
    return script


def read_through(wanted: Restoring, server: int) -> Script:
    """Read a dump to its end as `restore` would on a server of this major version, without one; raises the same."""
    script = Script(rules_for_dumps(server))
    with wanted.lines(server, script) as lines:
        try:
            deque(script.filter(lines), maxlen=0)
        except Unfit as error:
            raise wanted.failure(script).unfit(error) from None
    return script


def server_major(address: Address) -> int:
    """The major version of the server that a database is on."""
    with address.connect() as connection:
        return connection.info.server_version // 10_000


def _tar_damage(dump: DumpFile) -> str:
    """The damage at the end of a tar; ``pg_restore`` itself looks for the end forever in one that was cut."""
    try:
        with tarfile.open(dump.path, "r:") as archive:
            last = archive.getmembers()[-1]
            end = last.offset_data + last.size
        return "" if end <= dump.path.stat().st_size else f"{last.name} in it ends too early"
    except (tarfile.TarError, OSError, IndexError) as error:
        return f"it is cut: {error}"


@contextmanager
def _program(
    command: list[str], environment: dict[str, str] | None, *, stdin: int = DEVNULL, stdout: int = DEVNULL
) -> Iterator[tuple[Popen[bytes], IO[bytes]]]:
    """A client program that does not outlive the block, and a file of its messages, which nobody needs to empty."""
    with tempfile.TemporaryFile() as errors:
        process = Popen(command, env=environment, stdin=stdin, stdout=stdout, stderr=errors)  # noqa: S603 - as found
        try:
            yield process, errors
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            for pipe in filter(None, (process.stdin, process.stdout)):
                with suppress(BrokenPipeError):
                    pipe.close()


def _beginning(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read(_MESSAGE_BYTES).decode(errors="replace")
