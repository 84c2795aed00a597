"""The templates that are compared: how big they are, and how long each way may be measured on them."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

if TYPE_CHECKING:
    from pytest_seeddb import Server

ROWS: Final = 300
"""In each table but the big one."""


@dataclass(frozen=True)
class Size:
    """A template to measure on.

    Attributes:
        tables: Of `ROWS` rows; one more, ``big``, is there as well.
        big_rows: Rows of ``big``.
        filler: Bytes of text in each of them.
        rounds: How often each way does each test, if that does not take too long.
        seconds: How long one way may take with one kind of test; it does it once at least.
        copies: As many times its size is needed while all ways are measured, for all of them keep
            a database of their own, some for a moment two, and the server writes its log.
    """

    name: str
    tables: int
    big_rows: int
    filler: int
    rounds: int
    seconds: float
    copies: int = 11

    def with_limits(self, rounds: int | None, seconds: float | None) -> Size:
        """The same, measured for longer or shorter."""
        return replace(self, rounds=rounds or self.rounds, seconds=seconds or self.seconds)

    @property
    def bytes(self) -> int:
        """About what a database of it takes."""
        return 8_000_000 + self.tables * 100_000 + self.big_rows * (self.filler + 70)

    @property
    def table_names(self) -> list[str]:
        """All of them."""
        return [*(f"t{number}" for number in range(self.tables)), "big"]


SIZES: Final = {
    size.name: size
    for size in (
        Size("60", tables=60, big_rows=20_000, filler=130, rounds=30, seconds=1.6),
        Size("500", tables=500, big_rows=20_000, filler=130, rounds=20, seconds=1.0),
        Size("1gb", tables=60, big_rows=900_000, filler=1000, rounds=20, seconds=1.0),
    )
}


def write_project(place: Path, size: Size) -> None:
    """A project whose template has that size. Its fingerprint is its own: nobody else uses that template."""
    (place / "pyproject.toml").write_text('[project]\nname = "bench"\n[tool.seeddb]\nmigrations = "db"\n')
    (place / ".git").mkdir()
    (place / "db").mkdir()
    made = [
        f"CREATE TABLE t{n} (id serial PRIMARY KEY, name text);"
        f"INSERT INTO t{n} (name) SELECT 'row ' || g FROM generate_series(1, {ROWS}) g;"
        for n in range(size.tables)
    ]
    big = (
        "CREATE TABLE big (id serial PRIMARY KEY, name text, filler text);"
        f"INSERT INTO big (name, filler) SELECT 'n', repeat('x', {size.filler}) "
        f"FROM generate_series(1, {size.big_rows}) g;"
    )
    (place / "db" / "001.sql").write_text("\n".join([f"-- {uuid.uuid4()}", *made, big]))


def lacks_room(server: Server, size: Size) -> str:
    """Why the template is left out; empty where there is room, or nobody here can tell."""
    free, needed = free_bytes(server), size.copies * size.bytes
    if free is None or free >= needed:
        return ""
    return f"{needed / 2**30:.0f} GB are needed where the server keeps its files, {free / 2**30:.0f} GB are free"


def free_bytes(server: Server) -> int | None:
    """What the server's files may still take; less where they are in memory. None for a server elsewhere."""
    directory = Path(data_directory(server))
    if not directory.exists():
        return None
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    return min(free, free_memory()) if in_memory(directory) else free


def data_directory(server: Server) -> str:
    with psycopg.connect(server.address.conninfo) as connection:
        row: tuple[Any, ...] | None = connection.execute("SHOW data_directory").fetchone()
    return str(row[0]) if row else ""


def in_memory(directory: Path) -> bool:
    """Whether it is on a tmpfs."""
    mounts = (line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines())
    above = [(Path(point), kind) for point, kind in mounts if directory.is_relative_to(point)]
    return max(above, key=lambda each: len(each[0].parts))[1] == "tmpfs"


def free_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
