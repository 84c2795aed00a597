"""Which of Django's settings were read: the object that code reads them from keeps each value that it gave."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

_AT_FIRST = "LOGGING_CONFIG"
"""Read by `django.setup()` and by nothing later: still there unless other settings took the place of all."""
_ALWAYS = frozenset({"TIME_ZONE"})
"""What the settings read themselves."""


class Reads(NamedTuple):
    """The path and name of the settings' module, and the names that were read; those that are another value by now."""

    path: str
    module: str
    names: frozenset[str]


def reads() -> Reads | None:
    """What was read of Django's settings in this process; ``None`` where that cannot be told."""
    settings: Any = getattr(sys.modules.get("django.conf"), "settings", None)
    own: dict[str, object] = getattr(settings, "__dict__", {})
    values: Any = own.get("_wrapped")
    module = sys.modules.get(getattr(values, "SETTINGS_MODULE", None) or "")
    path = getattr(module, "__file__", None)
    is_plain = type(values).__module__ == "django.conf" and type(values).__name__ == "Settings"
    if _AT_FIRST not in own or not is_plain or not isinstance(path, str) or module is None:
        return None
    changed = {name for name, value in vars(module).items() if getattr(values, name, value) is not value}
    return Reads(path, module.__name__, frozenset({*own, *changed, *_ALWAYS}))
