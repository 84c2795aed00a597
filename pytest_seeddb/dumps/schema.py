"""What a database's schema is, and how two of them differ, as lines that a person can read."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.plan.ledger import SCHEMA
from pytest_seeddb.servers.address import environment_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.programs import Program

_ENTRY: Final = re.compile(
    r"^--\n-- Name: (?P<name>.*); Type: (?P<type>[^;\n]*); Schema: (?P<schema>[^;\n]*); .*\n--\n", re.MULTILINE
)
_OPTIONS: Final = ("--schema-only", "--no-owner", "--no-privileges", "--no-tablespaces", f"--exclude-schema={SCHEMA}")
_NOT_THE_SCHEMA: Final = ("SET default_", "\\unrestrict ", "-- PostgreSQL database dump complete", "--\n")

Schema = dict[str, str]
"""The definition of each object, by its kind and name: ``TABLE public.orders``."""


@dataclass(frozen=True)
class SchemaDifference:
    """How one object differs.

    Attributes:
        name: Its kind and name.
        lines: Of its definition, with ``-`` before what only the first schema has, ``+`` the second.
    """

    name: str
    lines: tuple[str, ...]


def schema_of(address: Address, pg_dump: Program) -> Schema:
    """The schema of a database, without owners, privileges and the ledger.

    Raises:
        ServerError: ``pg_dump`` failed.
    """
    done = subprocess.run(  # noqa: S603 - pg_dump, as it was found
        [*pg_dump.command, *_OPTIONS, "--encoding=UTF8", "--no-password"],
        env=environment_for(address),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise ServerError(
            "pg_dump could not read the schema",
            saw=done.stderr.decode(errors="replace").strip(),
            source=address.masked,
            remedy="look into the server's log",
        )
    return _entries(done.stdout.decode())


def _entries(text: str) -> Schema:
    found: Schema = {}
    heads = list(_ENTRY.finditer(text))
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        body = text[head.end() : after.start() if after else len(text)]
        schema = "" if head["schema"] == "-" else f"{head['schema']}."
        label = f"{head['type']} {schema}{head['name']}"
        found[label] = found.get(label, "") + body
    return found


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[SchemaDifference]:
    """Each object that only one of them has, or that they define otherwise."""
    found = [
        SchemaDifference(name, tuple(_changes(_lines(one.get(name, "")), _lines(other.get(name, "")))))
        for name in sorted({*one, *other})
        if _lines(one.get(name, "")) != _lines(other.get(name, ""))
    ]
    return [each for each in found if each.lines]


def _changes(one: list[str], other: list[str]) -> Iterator[str]:
    if sorted(one) == sorted(other):
        yield from (f"- {line}" for line, there in zip(one, other, strict=True) if line != there)
        yield from (f"+ {there}" for line, there in zip(one, other, strict=True) if line != there)
        return
    # A whole definition says no more than its first line where there is nothing to compare it with.
    yield from (f"- {line}" for line in _without(one, other)[: None if other else 1])
    yield from (f"+ {line}" for line in _without(other, one)[: None if one else 1])


def _without(lines: list[str], others: list[str]) -> list[str]:
    left = list(others)
    found = []
    for line in lines:
        if line in left:
            left.remove(line)
        else:
            found.append(line)
    return found


def _lines(definition: str) -> list[str]:
    kept = (line.strip().rstrip(",") for line in definition.splitlines() if not line.startswith(_NOT_THE_SCHEMA))
    return [line for line in kept if line and line != "--"]
