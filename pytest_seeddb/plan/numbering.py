"""The numbers that factory_boy's sequences gave out in each step of a plan.

A sequence is a counter in the process, and knows nothing of rows that other processes made. So the numbers are kept
with the template, in a dump, and in the ledger.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Drawn = dict[str, tuple[int, int]]
"""By the factory's path (``shop.factories:CustomerFactory``): the first number, and the one after the last."""


@dataclass
class Numbering:
    """The numbers that steps have drawn so far, by the step's name."""

    steps: dict[str, Drawn] = field(default_factory=dict)

    def start(self, step: str) -> dict[str, int]:
        """Where the factories' sequences begin for a step.

        A step that is new begins after all that was drawn. One that drew before begins where it did
        then, so that a seeder which may run again meets its own rows, and makes no others.
        """
        return {**self.after(), **{path: first for path, (first, _) in self.steps.get(step, {}).items()}}

    def after(self) -> dict[str, int]:
        """For each factory, the smallest number that no step has drawn."""
        after: dict[str, int] = {}
        for drawn in self.steps.values():
            for path, (_, following) in drawn.items():
                after[path] = max(after.get(path, 0), following)
        return after

    def note(self, step: str, drawn: Mapping[str, tuple[int, int]]) -> None:
        """Keep what a step drew, if anything."""
        self.steps.pop(step, None)
        if drawn:
            self.steps[step] = dict(drawn)

    def copy(self) -> Numbering:
        """An independent copy."""
        return Numbering(dict(self.steps))


def to_text(drawn: Mapping[str, tuple[int, int]]) -> str:
    """What one step drew, as JSON: the same text for the same numbers."""
    return json.dumps(drawn, sort_keys=True)


def from_text(text: str) -> Drawn:
    """The counterpart of `to_text`.

    Raises:
        ValueError: It is not such a text.
    """
    return drawn_from(json.loads(text))


def drawn_from(value: object) -> Drawn:
    """What one step drew, from JSON that was read already.

    Raises:
        ValueError: It is of another shape.
    """
    if not isinstance(value, dict):
        raise ValueError(value)  # noqa: TRY004 - of a text, as json's own errors are
    return {str(path): (int(first), int(following)) for path, (first, following) in value.items()}
