"""The chart that the documentation shows: each way's overhead over the floor, by kind of test and by template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from comparison.tables import LEAST
from comparison.ways import CLONING, FLOOR, OURS, TESTS

if TYPE_CHECKING:
    from pathlib import Path

    from comparison.timing import Figures

LABELS: Final = {OURS: "pytest-seeddb", CLONING: "with --seed-db-reset=clone"}
LOOKS: Final = dict(
    zip(TESTS, (("#1b7f79", "o"), ("#d1792c", "s"), ("#3f62b5", "^"), ("#a23b72", "D"), ("#5b5b5b", "X")), strict=True)
)
SETTINGS: Final = {
    "svg.hashsalt": "pytest-seeddb",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
}


def draw(templates: dict[str, Any], path: Path) -> None:
    """Write it as SVG; the same figures give the same file."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(4.2 * len(templates) + 2.0, 5.2), layout="constrained")
        panels = figure.subplots(1, len(templates), sharey=True, sharex=True, squeeze=False)[0]
        for panel, found in zip(panels, templates.values(), strict=True):
            fill(panel, found)
        figure.supxlabel("milliseconds over the floor, one test of many such, back to back (logarithmic)", fontsize=10)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(TESTS), frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def fill(panel: Any, found: dict[str, Any]) -> None:
    """One template's panel."""
    figures: Figures = found["back to back"]
    ways = [way for way in figures if way != FLOOR]
    for number, (test, (colour, marker)) in enumerate(LOOKS.items()):
        points = [(figures[way][test], place) for place, way in enumerate(ways) if test in figures[way]]
        over = [max(ms - figures[FLOOR][test], LEAST) for ms, _ in points]
        panel.plot(over, [at + 0.12 * (number - 2) for _, at in points], marker, color=colour, label=test, ms=6)
    panel.set_title(f"{found['tables']} tables and a big one, {found['mb']:,.0f} MB", fontsize=11)
    panel.set_yticks(range(len(ways)), [LABELS.get(way, way) for way in ways])
    panel.set_xscale("log")
    panel.set_ylim(len(ways) - 0.5, -0.5)
    panel.grid(visible=True, axis="x", which="major", color="#d8d8d8", linewidth=0.8)
    panel.set_axisbelow(True)
