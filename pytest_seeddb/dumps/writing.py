"""Write a dump: by ``pg_dump``, beside the old file, which is replaced when the new one is complete."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from pytest_seeddb.dumps.formats import is_replaceable
from pytest_seeddb.errors import ConfigError, ServerError
from pytest_seeddb.fingerprint.atomic import beside, free_name, remove
from pytest_seeddb.servers.address import environment_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pytest_seeddb.dumps.formats import Kind
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.programs import Program

_NOT_OURS: Final = ("--no-owner", "--no-privileges", "--no-tablespaces")
_MADE_BY: Final = re.compile(rb"(?P<what>-- Dumped (?:from database|by pg_dump) version )(?P<major>\d+)")


@dataclass(frozen=True)
class Output:
    r"""What is to be written.

    Attributes:
        path: The file or the directory.
        kind: Its format.
        compression: ``gzip`` or nothing; of a plain one.
        privileges: Whether owners and privileges belong into it.
        guarded: Whether a plain one gets pg_dump's ``\restrict``, which lets psql run no commands of its
            own: for what comes from somebody else's server. Versions of psql before August 2025 do not know it.
    """

    path: Path
    kind: Kind
    compression: str = ""
    privileges: bool = False
    guarded: bool = False


def write(output: Output, address: Address, pg_dump: Program) -> int:
    """Dump the database.

    A plain dump is a function of the database's contents and of the major versions: no dates, no minor
    versions, no random key. Rows stand in their physical order (`pytest_seeddb.dumps.ordering`).

    Killed at any moment, the file that was there before is there still, and complete. A directory is
    replaced by two renames: between them it is there under a name of its own.

    Returns:
        Its size in bytes.

    Raises:
        ConfigError: The path cannot be written to, or something else lies there.
        ServerError: ``pg_dump`` failed.
    """
    _check(output)
    try:
        with beside(output.path, directory=output.kind == "directory") as partial:
            if output.kind == "plain":
                _write_plain(output, address, pg_dump, partial)
            else:
                run_pg_dump(output, address, pg_dump, partial)
            _replace(partial, output.path)
    except OSError as error:
        raise _not_written(output.path, str(error)) from error
    return _size(output.path)


def _write_plain(output: Output, address: Address, pg_dump: Program, partial: Path) -> None:
    with beside(output.path) as spool:
        run_pg_dump(output, address, pg_dump, spool)
        key = _key(spool) if output.guarded else b""
        with spool.open("rb") as lines, partial.open("wb") as raw:
            with _compressed(raw, output.compression) as stream:
                stream.writelines(settled(lines, key))
            raw.flush()
            os.fsync(raw.fileno())


def settled(lines: Iterable[bytes], key: bytes = b"") -> Iterator[bytes]:
    r"""The text of ``pg_dump`` without what differs although the database is the same.

    Minor versions go, and the random key of ``\restrict`` is replaced by ``key``; without one, the
    command goes.
    """
    random: bytes | None = None
    is_head, was_removed = True, False
    for line in lines:
        if was_removed and not line.strip():
            was_removed = False  # the empty line goes as well
        elif is_head and line.startswith(b"\\restrict "):
            random, was_removed = line.split()[1], not key
            yield from [b"\\restrict %b\n" % key] if key else []
        elif random is not None and line.rstrip() == b"\\unrestrict " + random:
            yield from [b"\\unrestrict %b\n" % key] if key else []
        elif is_head and (made := _MADE_BY.match(line)):
            yield made["what"] + made["major"] + b"\n"
        else:
            is_head = is_head and (line.startswith(b"--") or not line.strip())
            yield line


def _key(spool: Path) -> bytes:
    """A key that nobody can know who writes into the database: it depends on all that stands there."""
    hashed = hashlib.sha256()
    with spool.open("rb") as lines:
        for line in settled(lines):
            hashed.update(line)
    return hashed.hexdigest().encode()


@contextmanager
def _compressed(raw: IO[bytes], compression: str) -> Iterator[IO[bytes]]:
    if compression != "gzip":
        yield raw
        return
    with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream:  # a time would differ each time
        yield stream  # type: ignore[misc]  # it is one, for what is done with it


def run_pg_dump(output: Output, address: Address, pg_dump: Program, path: Path) -> None:
    """Have ``pg_dump`` write straight to ``path``, which may be there, empty.

    Raises:
        ServerError: It failed.
    """
    options = [f"--format={output.kind}", "--encoding=UTF8", f"--file={path}"]
    options += [] if output.privileges else _NOT_OURS
    environment = {**environment_for(address), "PGAPPNAME": "pytest-seeddb"}
    done = subprocess.run(  # noqa: S603 - pg_dump, as it was found
        [*pg_dump.command, *options, "--no-password"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise _failed(address, pg_dump, done.stderr.decode(errors="replace"))


# -- files ---------------------------------------------------------------------------------------


def _check(output: Output) -> None:
    if not output.path.parent.is_dir():
        raise _not_written(output.path, f"there is no directory {output.path.parent}")
    if output.kind == "directory" and output.path.exists() and not output.path.is_dir():
        raise _not_written(output.path, "a file is there, and the dump is to be a directory")
    if output.kind != "directory" and output.path.is_dir():
        raise _not_written(output.path, "a directory is there, and the dump is to be a file")
    if not is_replaceable(output.path):
        raise _not_written(output.path, "a directory is there that is no dump; nothing in it was touched")


def _replace(partial: Path, path: Path) -> None:
    if not path.is_dir():
        partial.replace(path)
        return
    old = free_name(path)
    path.rename(old)
    partial.rename(path)
    remove(old)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files if each.is_file())


def _not_written(path: Path, saw: str) -> ConfigError:
    return ConfigError(
        f"The dump {path.name} cannot be written",
        saw=saw,
        source=str(path),
        remedy="name a file in a directory that is there, or a directory that is a dump or is not there yet: -o FILE",
    )


def _failed(address: Address, pg_dump: Program, said: str) -> ServerError:
    secret = address.params.get("password")
    return ServerError(
        "pg_dump could not dump the database",
        saw=(said.replace(secret, "***") if secret else said).strip() or "it said nothing",
        source=f"{address.masked}, with {pg_dump.path} ({pg_dump.version})",
        remedy="let the role read everything: GRANT pg_read_all_data TO ROLE, or dump as the database's owner",
    )
