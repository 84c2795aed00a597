"""Every way does every kind of test: in turn with all others, and by itself, test after test."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Final

import psycopg

from comparison.ways import FLOOR, READ, SCHEMA, TESTS, Way

if TYPE_CHECKING:
    from collections.abc import Iterator

    from comparison.sizes import Size

WARM_UP: Final = 3
"""Tests that do not count, where there are enough others."""
BLOCKS: Final = 5

Figures = dict[str, dict[str, float]]
"""Milliseconds by way and kind of test."""


@dataclass
class Cell:
    """What one way took with one kind of test: seconds of one test, and of all."""

    taken: list[float] = field(default_factory=list)
    spent: float = 0.0

    def goes_on(self, seconds: float) -> bool:
        """At least once, and as long as the time lasts."""
        return not self.taken or self.spent < seconds

    def add(self, seconds: float, tests: int = 1) -> None:
        self.taken.append(seconds)
        self.spent += seconds * tests

    @property
    def settled(self) -> list[float]:
        """Without the first ones, where there are others."""
        return self.taken[WARM_UP:] if len(self.taken) > 2 * WARM_UP else self.taken[1:] or self.taken


def timed(way: Way, test: str, *, is_floor: bool) -> float:
    """Seconds of one test, from asking for the database to having given it back."""
    started = perf_counter()
    with way.give() as address:
        way.work(address, TESTS[test])
    seconds = perf_counter() - started
    if is_floor and test == SCHEMA:
        with psycopg.connect(address.conninfo, autocommit=True) as connection:
            connection.execute("DROP TABLE extra")
    return seconds


def in_turn(ways: dict[str, Way], size: Size) -> tuple[Figures, Figures]:
    """Medians, and how many tests they are of.

    All ways take turns, in a new order each time, and what one does beside its tests (drops and
    spares) is done before the next one's turn: no way pays for another one's.
    """
    cells = {pair: Cell() for pair in pairs(ways)}
    order, shuffled = list(cells), random.Random(0)
    for name, way in ways.items():
        timed(way, READ, is_floor=name == FLOOR)  # some make what they need when they are first asked
    for _ in range(size.rounds + WARM_UP):
        shuffled.shuffle(order)
        for name, test in order:
            take_turn(ways[name], name, test, size, cells[name, test])
    counts: Figures = {}
    for (name, test), cell in cells.items():
        counts.setdefault(name, {})[test] = len(cell.settled)
    return by_way({pair: statistics.median(cell.settled) for pair, cell in cells.items()}), counts


def take_turn(way: Way, name: str, test: str, size: Size, cell: Cell) -> None:
    if cell.goes_on(size.seconds):
        cell.add(timed(way, test, is_floor=name == FLOOR))
        way.finish()


def back_to_back(ways: dict[str, Way], size: Size) -> Figures:
    """What a test costs in a suite of nothing but such tests, drops and spares included.

    Each way does some tests after each other, then the next way, and all of that again: what else
    the machine does meanwhile comes upon all of them. Medians of the means of these blocks. One
    test, and one before each block, warm up; where one takes all of the time, it counts.
    """
    cells = {pair: Cell() for pair in pairs(ways)}
    for _ in range(BLOCKS + 1):
        for (name, test), cell in cells.items():
            if cell.goes_on(size.seconds):
                add_block(ways[name], name, test, size, cell)
    return by_way({pair: statistics.median(cell.taken[1:] or cell.taken) for pair, cell in cells.items()})


def add_block(way: Way, name: str, test: str, size: Size, cell: Cell) -> None:
    tests = fitting(size.seconds / BLOCKS, cell.taken[-1], size.rounds // BLOCKS) if cell.taken else 1
    if tests > 1:
        mean(way, name, test, 1)
    cell.add(mean(way, name, test, tests), tests)


def fitting(seconds: float, one: float, most: int) -> int:
    """How many tests fit in that time; one at least."""
    return max(1, min(int(seconds / one), most))


def mean(way: Way, name: str, test: str, tests: int) -> float:
    """Seconds of one of so many tests after each other."""
    seconds = sum(timed(way, test, is_floor=name == FLOOR) for _ in range(tests))
    started = perf_counter()
    way.finish()
    return (seconds + perf_counter() - started) / tests


def pairs(ways: dict[str, Way]) -> Iterator[tuple[str, str]]:
    """Each way with each kind of test that it can do; one kind after the other."""
    for test in TESTS:
        for name, way in ways.items():
            if test not in way.without:
                yield name, test


def by_way(seconds: dict[tuple[str, str], float]) -> Figures:
    found: Figures = {}
    for (name, test), value in seconds.items():
        found.setdefault(name, {})[test] = round(1000 * value, 2)
    return found
