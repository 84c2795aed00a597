"""The page of ``seeddb show --html``: the tables of a template, and a picture of how they refer to each other."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


_CHARACTER: Final = 7.3
_HEIGHT: Final = 40
_GAP: Final = 22
_ACROSS: Final = 90
"""Pixels: a character's width, a box's height, and the room between boxes and between layers."""


class Reference(NamedTuple):
    """A foreign key: the columns of one table that refer to another."""

    table: str
    columns: tuple[str, ...]
    target: str


@dataclass(frozen=True)
class TableState:
    """A table of the template: its rows by the step that wrote them last, and the first few by its key."""

    name: str
    rows: int
    by: dict[str, int]
    columns: tuple[str, ...]
    sample: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class State:
    """What a template holds."""

    plan: str
    profile: str
    template: str
    tables: tuple[TableState, ...]
    references: tuple[Reference, ...]


def write_page(state: State, path: Path) -> None:
    """Write the page, complete or not at all.

    Raises:
        ConfigError: The file cannot be written.
    """
    page = resources.files("pytest_seeddb.cli").joinpath("show.html").read_text(encoding="utf-8")
    title = f"{state.plan}/{state.profile}"
    parts = {
        "TITLE": escape(title),
        "SUMMARY": f"{len(state.tables)} tables, {sum(each.rows for each in state.tables)} rows",
        "PICTURE": _picture(state.tables, state.references)
        if state.references
        else "<p>No table refers to another.</p>",
        "TABLES": "".join(_section(each) for each in state.tables) or "<p>The template has no tables.</p>",
    }
    for name, text in parts.items():  # the texts of users come last, so that no mark in them is filled
        page = page.replace(f"<!-- {name} -->", text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.beside(path) as partial:
            partial.write_text(page, encoding="utf-8")
            partial.replace(path)
    except OSError as error:
        raise ConfigError(
            "The page cannot be written",
            saw=str(error),
            source="the option --html",
            remedy="name a file in a directory in which you may make files",
        ) from None


def _section(table: TableState) -> str:
    by = "".join(f"<li>{escape(step)}: {number}</li>" for step, number in table.by.items())
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(value)}</td>' for value in row)}</tr>" for row in table.sample)
    sample = f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return (
        f'<section id="{escape(_anchor(table.name))}" data-name="{escape(table.name.lower())}">'
        f"<h2>{escape(table.name)} <small>{table.rows} rows</small></h2><ul>{by}</ul>{sample if rows else ''}</section>"
    )


def _anchor(name: str) -> str:
    return f"table-{'-'.join(name.split())}"


def layers_of(names: Iterable[str], references: Iterable[Reference]) -> list[list[str]]:
    """The tables in layers: each stands to the right of those it refers to, unless these lead back to it."""
    targets: dict[str, set[str]] = {name: set() for name in names}
    for key in references:
        if key.target != key.table:
            targets[key.table].add(key.target)
    depths: dict[str, int] = {}
    while len(depths) < len(targets):
        free = [name for name in targets if name not in depths and targets[name] <= depths.keys()]
        # In a circle, the one begins that waits for the fewest.
        rest = [name for name in targets if name not in depths]
        for name in free or [min(rest, key=lambda name: (len(targets[name] - depths.keys()), name))]:
            depths[name] = max((depths[target] + 1 for target in targets[name] & depths.keys()), default=0)
    return [
        [name for name in targets if depths[name] == depth] for depth in range(max(depths.values(), default=-1) + 1)
    ]


def _picture(tables: Sequence[TableState], references: Sequence[Reference]) -> str:
    rows = {table.name: table.rows for table in tables}
    linked = {name for key in references for name in (key.table, key.target)}
    places: dict[str, tuple[float, float, float]] = {}
    left = 10.0
    for layer in layers_of([name for name in rows if name in linked], references):
        # Near those that they refer to, so that lines cross less often.
        order = sorted(layer, key=lambda name: (_middle(name, references, places), name))
        width = max(len(name) for name in order) * _CHARACTER + 24
        for at, name in enumerate(order):
            places[name] = (left, 10.0 + at * (_HEIGHT + _GAP), width)
        left += width + _ACROSS
    height = max(top for _, top, _ in places.values()) + _HEIGHT + 10
    shapes = "".join([*_arrows(references, places), *_boxes(rows, places)])
    width = left - _ACROSS + 40
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        'role="img" aria-label="Foreign keys between the tables">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z"/></marker></defs>{shapes}</svg>'
    )


def _middle(name: str, references: Iterable[Reference], places: Mapping[str, tuple[float, float, float]]) -> float:
    tops = [places[key.target][1] for key in references if key.table == name and key.target in places]
    return sum(tops) / len(tops) if tops else 0.0


def _boxes(rows: Mapping[str, int], places: Mapping[str, tuple[float, float, float]]) -> Iterator[str]:
    for name, (left, top, width) in places.items():
        yield (
            f'<a href="#{escape(_anchor(name))}">'
            f'<rect x="{left}" y="{top}" width="{width:.0f}" height="{_HEIGHT}" rx="6"/>'
            f'<text x="{left + 12}" y="{top + 17}">{escape(name)}</text>'
            f'<text x="{left + 12}" y="{top + 32}" class="soft">{rows[name]} rows</text></a>'
        )


def _arrows(references: Iterable[Reference], places: Mapping[str, tuple[float, float, float]]) -> Iterator[str]:
    for key in references:
        (left, top, width), (aim, aim_top, aim_width) = places[key.table], places[key.target]
        start, end = top + _HEIGHT / 2, aim_top + _HEIGHT / 2
        if aim < left:
            right, half = aim + aim_width, _ACROSS / 2
            path = f"M{left} {start}C{left - half} {start} {right + half} {end} {right} {end}"
        else:  # to itself, or back in a circle: around the right side
            far = max(left + width, aim + aim_width) + 30
            path = f"M{left + width} {start - 6}C{far} {start - 6} {far} {end + 6} {aim + aim_width} {end + 6}"
        title = escape(f"{key.table} ({', '.join(key.columns)})")
        yield f'<path class="key" d="{path}"><title>{title}</title></path>'
