"""What was measured, as tables for people to read: Markdown, so that they can stand in the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from comparison.crowd import THROUGHPUT
from comparison.ways import BARE, CLONING, FLOOR, OURS, PEERS, TESTS

if TYPE_CHECKING:
    from comparison.timing import Figures

    Cells = dict[str, dict[str, str]]

LEAST: Final = 0.1
"""Milliseconds: less overhead than this is not told from none."""


def show(found: dict[str, Any]) -> None:
    """All tables of one template."""
    print(f"\n## {found['tables']} tables and a big one, {found['mb']:.0f} MB; load before: {found['load before']}\n")
    show_table("In turn: what a test waits for, medians", times(found["in turn"]))
    print(f"{told_counts(found['counts'])}\n")
    show_table("Times the overhead of `auto`, in turn", multiples(found["ratios"]["in turn"]))
    show_table("Back to back: what a suite of nothing else takes, each test", times(found["back to back"]))
    show_table("Times the overhead of `auto`, back to back", multiples(found["ratios"]["back to back"]))
    if found["workers"]:
        title = (
            f"Back to back, processes at once: {' / '.join(found['workers'])}; {THROUGHPUT} of reads and small writes"
        )
        show_table(title, side_by_side(found["workers"]), (*TESTS, THROUGHPUT))


def ratios(figures: Figures) -> Figures:
    """How many times this project's overhead over the floor each other way's is."""
    floor, ours = figures[FLOOR], figures[OURS]
    return {
        way: {test: round((ms - floor[test]) / max(ours[test] - floor[test], LEAST), 1) for test, ms in by_test.items()}
        for way, by_test in figures.items()
        if way in (CLONING, BARE, *PEERS)
    }


def times(figures: Figures) -> Cells:
    """Milliseconds, and multiples of the floor."""
    return {
        way: {test: f"{digits(ms)} ms, {digits(ms / figures[FLOOR][test])} x" for test, ms in by_test.items()}
        for way, by_test in figures.items()
    }


def multiples(found: Figures) -> Cells:
    return {way: {test: f"{digits(ratio)} x" for test, ratio in by_test.items()} for way, by_test in found.items()}


def side_by_side(found: dict[str, Figures]) -> Cells:
    """The same with 1, 2, 4 processes."""
    return {
        way: {column: " / ".join(digits(figures[way][column]) for figures in found.values()) for column in columns}
        for way, columns in next(iter(found.values())).items()
    }


def told_counts(counts: Figures) -> str:
    """How many tests the medians are of: the fewest, where a way's kinds of test differ."""
    fewest = {way: int(min(by_test.values())) for way, by_test in counts.items()}
    fewer = "".join(f"; {way}: {number}" for way, number in fewest.items() if number < max(fewest.values()))
    return f"Medians of {max(fewest.values())} tests each{fewer}."


def show_table(title: str, cells: Cells, columns: tuple[str, ...] = tuple(TESTS)) -> None:
    rows = [["", *columns], *([way, *(by_test.get(each, "") for each in columns)] for way, by_test in cells.items())]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    print(f"{title}:\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n")


def digits(value: float) -> str:
    """Two or three of them, as many as there is sense in."""
    return f"{value:.1f}" if abs(value) < 10 else f"{value:,.0f}"
