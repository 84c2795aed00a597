"""How sizes, days and tables are written, and how the first two are read."""

from __future__ import annotations

import argparse
import datetime as dt
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# As PostgreSQL counts them: each is 1024 of the one before.
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_SIZE: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?b|[kmgt])", re.IGNORECASE)
_DAYS: Final = re.compile(r"(?P<number>\d{1,5})\s*(?P<unit>d|days?|w|weeks?)", re.IGNORECASE)


def size(given: str) -> int:
    """Bytes, from ``500MB``, ``1.5 GB`` or ``2G``.

    Raises:
        argparse.ArgumentTypeError: It is spelled otherwise.
    """
    found = _SIZE.fullmatch(given.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"write a size as a number and a unit, 500MB or 5GB, not {given!r}")
    steps = [unit[0].lower() for unit in _UNITS].index(found["unit"][0].lower())
    return int(float(found["number"]) * 1024**steps)


def days(given: str) -> int:
    """Days, from ``14d``, ``2w`` or ``3 weeks``.

    Raises:
        argparse.ArgumentTypeError: It is spelled otherwise.
    """
    found = _DAYS.fullmatch(given.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"write days or weeks, 14d or 2w (uses are known to the day), not {given!r}")
    return int(found["number"]) * (7 if found["unit"][0] in "wW" else 1)


def sized(found: int | None) -> str:
    """Bytes as people read them: ``8.1 MB``."""
    if found is None:
        return "?"
    number, unit = float(found), 0
    while number >= 1000 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - three digits at most
        number, unit = number / 1024, unit + 1
    return f"{number:.1f} {_UNITS[unit]}" if unit else f"{found} B"


def ago(moment: str) -> str:
    """How long ago an ISO time or day was: ``3 h``, ``12 d``; ``?`` where there is none."""
    try:
        then = dt.datetime.fromisoformat(moment)
    except ValueError:
        return "?"
    seconds = (dt.datetime.now(dt.UTC) - (then if then.tzinfo else then.replace(tzinfo=dt.UTC))).total_seconds()
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table, indented by two, each column as wide as it needs."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        yield "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
