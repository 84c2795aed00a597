"""Outlines and fillings of files by their content, kept between runs."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pytest_seeddb.fingerprint.digests import digest
from pytest_seeddb.fingerprint.fillings import Fillings, read_fillings
from pytest_seeddb.fingerprint.outline import Outline, Unit, read_outline
from pytest_seeddb.fingerprint.scanning import SCAN, Imports
from pytest_seeddb.fingerprint.sources import write_cache

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_FORMAT: Final = f"5 {SCAN} {sys.version_info[:3]}"
_KEPT: Final = 4000


class Outlines:
    """Outlines, read from a file in the user's cache when the first one is wanted; see `save`."""

    def __init__(self) -> None:
        self._known: dict[str, Any] | None = None
        self._used: dict[str, Any] = {}
        self._new: dict[str, Any] = {}

    def of(self, data: bytes, *, docs: bool) -> Outline | None:
        """The outline of a file with this content; ``None`` where it is not Python."""
        key = f"{digest(data)}{'d' if docs else ''}"
        return self._remembered(key, lambda: read_outline(data, docs=docs), _pack, _unpack)

    def fillings(self, data: bytes) -> Fillings:
        """What a file with this content changes of objects that it imports."""
        key = f"{digest(data)}f"
        return self._remembered(key, lambda: read_fillings(data), Fillings.pack, Fillings.unpack)

    def _remembered(
        self, key: str, read: Callable[[], T], pack: Callable[[Any], list[Any]], unpack: Callable[[Any], T]
    ) -> T:
        if key not in self._used:
            if self._known is None:
                self._known = _content()
            value = None
            with suppress(ValueError, TypeError, LookupError, AttributeError):
                value = unpack(self._known[key]) if key in self._known else None
            if value is None and (value := read()) is not None:
                self._new[key] = pack(value)
            self._used[key] = value
        return cast("T", self._used[key])

    def save(self) -> None:
        """Write what is new, if anything is; failing to only costs time."""
        if self._new:
            kept = {key: value for key, value in (self._known or {}).items() if key in self._used}
            others = [(key, value) for key, value in (self._known or {}).items() if key not in kept]
            kept = {**dict(others[-_KEPT:]), **kept, **self._new}
            self._known, self._new = kept, {}
            write_cache(_file(), {"format": _FORMAT, "outlines": kept})


def _file() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("pytest-seeddb")) / f"outlines-{_VERSION}.json"


def _content() -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError, TypeError, LookupError):
        data = json.loads(_file().read_bytes())
        if data["format"] == _FORMAT:
            return dict(data["outlines"])
    return {}


def _pack(outline: Outline) -> list[Any]:
    units = {
        name: [unit.digest, sorted(unit.asks), unit.executes, " ".join(sorted(unit.words)), unit.imports.pack()]
        for name, unit in outline.units.items()
    }
    return [outline.statements, sorted(outline.optional), sorted(outline.classes), units, sorted(outline.literals)]


def _unpack(packed: Any) -> Outline:  # noqa: ANN401 - JSON
    statements, optional, classes, units, literals = packed
    return Outline(
        tuple((str(name), str(value)) for name, value in statements),
        frozenset(optional),
        frozenset(classes),
        {str(name): _unit(*fields) for name, fields in units.items()},
        frozenset(literals),
    )


def _unit(value: str, asks: list[str], executes: bool, words: str, packed: str) -> Unit:
    imports = Imports.unpack(packed)
    if imports is None:
        raise ValueError(packed)
    return Unit(value, frozenset(asks), executes, frozenset(words.split()), imports)
