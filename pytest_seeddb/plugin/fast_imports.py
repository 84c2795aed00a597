"""Let the package's own modules be imported past pytest's rewriting of asserts, which takes three times as long.

pytest rewrites all modules of the distribution of a plugin. The finder below comes before its hook. Import this module
before the others.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_OWN: Final = f"{__name__.partition('.')[0]}."


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, path, target) if name.startswith(_OWN) else None


sys.meta_path.insert(0, _Finder)
