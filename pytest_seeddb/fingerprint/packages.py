"""Which installed distribution provides a module, and in which version.

``importlib.metadata.packages_distributions`` answers the first question for all modules at once, by
parsing the record of every distribution: tens of milliseconds. Here the directory names are enough
for the version and, mostly, for the name; records are searched for the few other modules only, and
what that found is remembered for as long as nothing is installed or removed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.fingerprint.digests import Part, digest, file_digest

if TYPE_CHECKING:
    from pytest_seeddb.fingerprint.modules import Foreign

_METADATA: Final = (".dist-info", ".egg-info")
# What makes the data, where that is another distribution than the one that is imported.
_COMPANIONS: Final = {"factory": ("faker",), "polyfactory": ("faker",)}

Owners = MutableMapping[str, list[str]]
"""The distributions that provide a top-level name."""


class Packages:
    """Versions of installed distributions, as they are at the first look.

    Args:
        distributions: What `installed` found.
        owners: Remembered answers; what is found out is added to it.
    """

    def __init__(self, distributions: dict[str, Path], owners: Owners) -> None:
        self._owners = owners
        self._installed = distributions
        self._known: dict[Foreign, tuple[Part, ...]] = {}

    def parts(self, foreign: Foreign) -> tuple[Part, ...]:
        """``package <distribution>`` with its version, for each distribution that has the module."""
        if foreign not in self._known:
            self._known[foreign] = self._looked_up(foreign)
        return self._known[foreign]

    def _looked_up(self, foreign: Foreign) -> tuple[Part, ...]:
        top = foreign.top
        if not foreign.installed:
            return (Part(f"package {_normalized(top)}", "not installed"),)
        names = [top] if _normalized(top) in self._installed else self._having(top)
        parts = [Part(f"package {_normalized(name)}", self._version(name)) for name in names]
        parts += [
            Part(f"package {name}", self._version(name)) for name in _COMPANIONS.get(top, ()) if name in self._installed
        ]
        return tuple(parts) or (_single_file(foreign),)

    def _having(self, top: str) -> list[str]:
        known = self._owners.get(top)
        if known is None or any(name not in self._installed for name in known):
            known = sorted(name for name, place in self._installed.items() if _provides(place, top))
            self._owners[top] = known
        return known

    def _version(self, name: str) -> str:
        stem = self._installed[_normalized(name)].stem
        found = re.search(r"-(\d[^-]*)", stem)
        return found[1] if found else _declared_version(name)


def installed() -> dict[str, Path]:
    """Each distribution's normalized name and metadata directory; the first on ``sys.path`` counts."""
    found: dict[str, Path] = {}
    for place in dict.fromkeys(sys.path):
        try:
            entries = sorted(os.listdir(place or "."))  # noqa: PTH208 - names only, and fast
        except OSError:
            continue
        for entry in entries:
            if entry.endswith(_METADATA):
                found.setdefault(_normalized(entry.partition("-")[0].removesuffix(".egg")), Path(place, entry))
    return found


def state(distributions: dict[str, Path]) -> str:
    """Changes whenever a distribution is installed, removed or replaced by another version."""
    words = sorted(map(str, distributions.values()))
    return digest("\0".join(words))


def _normalized(name: str) -> str:
    """The name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _provides(metadata: Path, top: str) -> bool:
    word = re.escape(top.encode())
    for file, pattern in (
        ("top_level.txt", rb"(?m)^%b\s*$" % word),
        ("RECORD", rb"(?m)^%b(/|\.py,|\.[^/,\n]*\.(so|pyd),)" % word),
    ):
        try:
            data = (metadata / file).read_bytes()
        except OSError:
            continue
        if top.encode() in data and re.search(pattern, data):
            return True
    return False


def _declared_version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except (PackageNotFoundError, KeyError):
        return "unknown"


def _single_file(foreign: Foreign) -> Part:
    """Somebody put it there without a package manager: only its content can tell."""
    name = f"package {_normalized(foreign.top)}"
    try:
        return Part(name, file_digest(foreign.origin))
    except OSError:
        return Part(name, "unknown")
