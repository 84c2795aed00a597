"""A database's schema, and how two of them differ, as lines that a person can read."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.dumps.writing import run_pg_dump
from pytest_seeddb.plan.ledger import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.programs import Program

_ENTRY: Final = re.compile(
    r"^--\n-- Name: (?P<name>.*); Type: (?P<type>[^;\n]*); Schema: (?P<schema>[^;\n]*); .*\n--\n", re.MULTILINE
)
_NOT_THE_SCHEMA: Final = ("SET default_", "\\unrestrict ", "-- PostgreSQL database dump complete", "--\n")

Schema = dict[str, str]
"""The definition of each object, by its kind and name: ``TABLE public.orders``."""


@dataclass(frozen=True)
class SchemaDifference:
    """An object, ``TABLE public.orders``, with the lines that only the first (``-``) or the second (``+``) has."""

    name: str
    lines: tuple[str, ...]


def schema_of(address: Address, pg_dump: Program) -> Schema:
    """The schema of a database, without owners, privileges and the ledger; raises `ServerError`."""
    return parse_schema(run_pg_dump(pg_dump, address, "--schema-only", f"--exclude-schema={SCHEMA}").decode())


def parse_schema(text: str) -> Schema:
    """The schema in a plain dump; the definitions of objects of one kind and name follow each other."""
    schema: Schema = {}
    heads = list(_ENTRY.finditer(text))
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        namespace = "" if head["schema"] == "-" else f"{head['schema']}."
        label = f"{head['type']} {namespace}{head['name']}"
        schema[label] = schema.get(label, "") + text[head.end() : after.start() if after else len(text)]
    return schema


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[SchemaDifference]:
    """The objects that only one schema has, or that they define differently."""
    compared = [
        SchemaDifference(name, tuple(_changes(_lines(one.get(name, "")), _lines(other.get(name, "")))))
        for name in sorted({*one, *other})
    ]
    return [difference for difference in compared if difference.lines]


def _changes(one: list[str], other: list[str]) -> Iterator[str]:
    if sorted(one) == sorted(other):  # in another order, or not at all
        moved = [(line, there) for line, there in zip(one, other, strict=True) if line != there]
        yield from (f"- {line}" for line, _ in moved)
        yield from (f"+ {there}" for _, there in moved)
        return
    # A whole definition says no more than its first line where there is nothing to compare it with.
    yield from (f"- {line}" for line in _without(one, other)[: None if other else 1])
    yield from (f"+ {line}" for line in _without(other, one)[: None if one else 1])


def _without(lines: list[str], others: list[str]) -> list[str]:
    """The lines without as many of each as the others have; the first ones go."""
    left = Counter(others)
    kept = []
    for line in lines:
        if left[line]:
            left[line] -= 1
        else:
            kept.append(line)
    return kept


def _lines(definition: str) -> list[str]:
    kept = (line.strip().rstrip(",") for line in definition.splitlines() if not line.startswith(_NOT_THE_SCHEMA))
    return [line for line in kept if line and line != "--"]
