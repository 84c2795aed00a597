"""Draw docs/explanation/architecture.svg: the folders on their floors, and the two walks through them.

Run ``python docs/architecture.py`` after changing a floor. A test compares the picture with what this makes.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PICTURE: Final = ROOT / "docs" / "explanation" / "architecture.svg"

WALKS: Final = {
    "From the settings to a test's clone": (
        "#0b7285",
        (
            ("settings", "load the settings"),
            ("plugin", "begin the run"),
            ("seeds", "compose the plan"),
            ("servers", "open the server"),
            ("templates", "find or build the template"),
            ("clones", "lend a clone"),
        ),
    ),
    "From a used clone to its settlement": (
        "#c2255c",
        (
            ("plugin", "tear down"),
            ("clones", "observe, then keep, rewind or discard"),
        ),
    ),
}
WIDTH: Final = 960
FLOOR: Final = 58
BOX: Final = 36
TOP: Final = 46
LEFT: Final = 60
HOUSE: Final = 470


def floors() -> tuple[tuple[str, ...], ...]:
    """The floors as the test holds them, from the ground up."""
    tree = ast.parse((ROOT / "tests" / "unit" / "test_layers.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS":
            value: tuple[tuple[str, ...], ...] = ast.literal_eval(node.value)
            return value
    raise LookupError("tests/unit/test_layers.py has no FLOORS")


def text(x: float, y: float, words: str, **style: object) -> str:
    """A line of text; an underscore in an attribute's name stands for a hyphen."""
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:g}" y="{y:g}"{attributes}>{words}</text>'


def draw() -> str:
    """The whole picture."""
    house = floors()
    height = TOP + FLOOR * len(house) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-size="14">',
        "<style>text { font-family: system-ui, sans-serif }</style>",
        "<title>The folders of pytest_seeddb on their floors, and the two walks through them</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(LEFT, 26, "Imports go down, never up or across a floor", font_weight="bold", fill="#212529"),
    ]
    centres: dict[str, tuple[float, float]] = {}
    for number, names in enumerate(house, start=1):
        y = TOP + FLOOR * (len(house) - number)
        parts.append(
            f'<rect x="{LEFT}" y="{y}" width="{HOUSE}" height="{FLOOR - 6}" rx="4" fill="#f1f3f5" stroke="#dee2e6"/>'
        )
        parts.append(text(LEFT - 14, y + 31, str(number), text_anchor="end", fill="#868e96"))
        room = HOUSE / len(names)
        for place, name in enumerate(names):
            x = LEFT + room * place + 10
            shape = f'x="{x:g}" y="{y + 8}" width="{room - 20:g}" height="{BOX}" rx="4"'
            parts.append(f'<rect {shape} fill="#ffffff" stroke="#495057"/>')
            parts.append(text(x + room - 34, y + 31, name, text_anchor="end", fill="#212529"))
            centres[name] = (x + 16, y + 26)
    y = TOP + 10.0
    for shift, (title, (colour, stops)) in enumerate(WALKS.items()):
        parts.append(text(LEFT + HOUSE + 40, y, title, font_weight="bold", fill=colour))
        marks = []
        for number, (name, words) in enumerate(stops, start=1):
            y += 26
            x, middle = centres[name]
            marks.append((x + 30 * shift, middle))
            parts.append(text(LEFT + HOUSE + 40, y, f"{number}  {name}: {words}", fill="#212529"))
        line = " ".join(f"{x:g},{middle:g}" for x, middle in marks)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" opacity="0.45"/>')
        for number, (x, middle) in enumerate(marks, start=1):
            parts.append(f'<circle cx="{x:g}" cy="{middle:g}" r="11" fill="{colour}"/>')
            parts.append(text(x, middle + 5, str(number), text_anchor="middle", fill="#ffffff", font_size="13"))
        y += 50
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
