"""Write a dump: by ``pg_dump``, beside the old file, which is replaced when the new one is complete."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, cast

from pytest_seeddb.dumps.formats import CONTENTS
from pytest_seeddb.errors import ConfigError, ServerError
from pytest_seeddb.fingerprint.atomic import beside, free_name, remove
from pytest_seeddb.servers.address import environment_for
from pytest_seeddb.servers.remedies import connection_remedy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pytest_seeddb.dumps.formats import Kind
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.programs import Program

_WITHOUT_PRIVILEGES: Final = ("--no-owner", "--no-privileges", "--no-tablespaces")
_VERSION: Final = re.compile(rb"(?P<what>-- Dumped (?:from database|by pg_dump) version )(?P<major>\d+)")

# The primary key, else the first unique index that every row is in. A table's name comes from regclass,
# which quotes what needs quotes.
_KEYS: Final = """
SELECT DISTINCT ON (c.oid) c.oid::regclass::text, i.relname,
       (SELECT o.relname FROM pg_index u JOIN pg_class o ON o.oid = u.indexrelid
        WHERE u.indrelid = c.oid AND u.indisclustered)
FROM pg_class c JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid
     JOIN pg_am a ON a.oid = i.relam
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND a.amname = 'btree'
  AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
  AND x.indisunique AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL
  AND NOT EXISTS (SELECT FROM pg_attribute t
                  WHERE t.attrelid = c.oid AND t.attnum = ANY (x.indkey) AND NOT t.attnotnull)
  AND pg_has_role(c.relowner, 'USAGE') AND pg_relation_size(c.oid) > 0
ORDER BY c.oid, x.indisprimary DESC, i.relname
"""


@dataclass(frozen=True)
class Output:
    """The dump to be written."""

    path: Path
    kind: Kind
    compression: str = ""  # "gzip", of a plain one
    privileges: bool = False
    guarded: bool = (
        False  # by pg_dump's \restrict, against a server that others control; psql knows it since August 2025
    )

    def dump(self, address: Address, pg_dump: Program, path: Path) -> None:
        """Have ``pg_dump`` write straight to ``path``, which may be an empty file or directory."""
        options = (f"--format={self.kind}", f"--file={path}")
        run_pg_dump(pg_dump, address, *options, privileges=self.privileges)


def write(output: Output, address: Address, pg_dump: Program) -> int:
    """Dump the database, and return the size in bytes; raises `ConfigError` where the path cannot be written to.

    A plain dump depends on the contents and the major versions alone. Killed at any moment, it leaves a complete file.
    A directory is replaced by two renames: between them the old one is there under a name of its own.
    """
    path = output.path
    _check(output)
    try:
        with beside(path, directory=output.kind == "directory") as partial:
            if output.kind == "plain":
                _write_plain(output, address, pg_dump, partial)
            else:
                output.dump(address, pg_dump, partial)
            if path.is_dir():
                old = free_name(path)
                path.rename(old)
                partial.rename(path)
                remove(old)
            else:
                partial.replace(path)
    except OSError as error:
        raise _unwritable(path, str(error)) from error
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _write_plain(output: Output, address: Address, pg_dump: Program, partial: Path) -> None:
    with beside(output.path) as spool:
        output.dump(address, pg_dump, spool)
        key = b""
        if output.guarded:
            # Nobody who writes into the database can know it: it depends on all that is there.
            hashed = hashlib.sha256()
            with spool.open("rb") as lines:
                for line in stable_lines(lines):
                    hashed.update(line)
            key = hashed.hexdigest().encode()
        with spool.open("rb") as lines, partial.open("wb") as raw:
            if output.compression == "gzip":  # without a time, which would differ each time
                with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream:
                    cast("IO[bytes]", stream).writelines(stable_lines(lines, key))
            else:
                raw.writelines(stable_lines(lines, key))
            raw.flush()
            os.fsync(raw.fileno())


def stable_lines(lines: Iterable[bytes], key: bytes = b"") -> Iterator[bytes]:
    r"""The text of ``pg_dump`` without minor versions; the random key of ``\restrict`` becomes ``key``, or goes."""
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
        elif is_head and (version := _VERSION.match(line)):
            yield version["what"] + version["major"] + b"\n"
        else:
            is_head = is_head and (line.startswith(b"--") or not line.strip())
            yield line


def run_pg_dump(pg_dump: Program, address: Address, *options: str, privileges: bool = False) -> bytes:
    """Run ``pg_dump``, by default without privileges, owners and tablespaces; raises `ServerError`."""
    options += () if privileges else _WITHOUT_PRIVILEGES
    run = subprocess.run(  # noqa: S603 - pg_dump, as it was found
        [*pg_dump.command, *options, "--encoding=UTF8", "--no-password"],
        env={**environment_for(address), "PGAPPNAME": "pytest-seeddb"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if run.returncode:
        message, secret = run.stderr.decode(errors="replace"), address.params.get("password")
        raise ServerError(
            "pg_dump could not dump the database",
            saw=(message.replace(secret, "***") if secret else message).strip() or "it said nothing",
            source=f"{address.masked}, with {pg_dump.path} ({pg_dump.version})",
            remedy=_remedy(message, address),
        )
    return run.stdout


def _remedy(message: str, address: Address) -> str:
    if "row-level security" in message:
        return "dump as a superuser, as the tables' owner, or as a role with BYPASSRLS"
    if "permission denied" in message:
        role = address.params.get("user") or "the role"
        return f"let the role read everything: GRANT pg_read_all_data TO {role};  or dump as the database's owner"
    if "version mismatch" in message:
        return "install the client programs of the server's version, or name their directory in the setting `binaries`"
    return connection_remedy(message) or "see to what pg_dump says"


def put_in_order(address: Address) -> None:
    """Write each table anew in the order of its key, if it has one: updated rows lie elsewhere from run to run."""
    from psycopg import sql

    with address.connect(autocommit=True) as connection:
        connection.execute("SET statement_timeout = 0")
        for table, key, clustered in connection.execute(_KEYS).fetchall():
            name = sql.SQL(table)
            connection.execute(sql.SQL("CLUSTER {} USING {}").format(name, sql.Identifier(key)))
            # CLUSTER remembers its index, and pg_dump would say so.
            before = "CLUSTER ON {}" if clustered else "SET WITHOUT CLUSTER"
            alter = sql.SQL(f"ALTER TABLE {{}} {before}")
            connection.execute(alter.format(name, *([sql.Identifier(clustered)] if clustered else [])))


def _check(output: Output) -> None:
    path, is_directory = output.path, output.kind == "directory"
    if not path.parent.is_dir():
        raise _unwritable(path, f"there is no directory {path.parent}")
    if is_directory and path.exists() and not path.is_dir():
        raise _unwritable(path, "this is a file, but the format writes a directory")
    if not is_directory and path.is_dir():
        raise _unwritable(path, "this is a directory, but the format writes a file")
    if path.is_dir() and not (path / CONTENTS).is_file() and any(path.iterdir()):
        raise _unwritable(path, "this directory exists and is not a dump; nothing in it was changed")


def _unwritable(path: Path, saw: str) -> ConfigError:
    return ConfigError(
        f"The dump {path.name} cannot be written",
        saw=saw,
        source=str(path),
        remedy="name a file in an existing directory, or a directory that is a dump or does not exist yet: -o FILE",
    )
