"""Which of Django's settings were read: the object that code reads them from keeps each value that it gave.

Django itself reads the list of applications when it is set up, and looks into them later for what they have. So that
counts as read only where other code asks for it by the setting's name or from Django's registry.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pytest_seeddb.fingerprint.digests import digest
from pytest_seeddb.fingerprint.stack import top_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

OUR_APP: Final = "pytest_seeddb.django"
"""It brings a command, and nothing that a build could meet."""
APPS: Final = "INSTALLED_APPS"
PART: Final = f"setting {APPS}"
LIST: Final = "list of Django's applications"
ASKS_FOR_APPS: Final = frozenset(
    {APPS, "get_app_configs", "get_app_config", "app_configs", "is_installed", "get_containing_app_config"}
)
"""Words of code that asks for applications."""
LISTS: Final = "Apps.get_app_configs"
"""The function that gives all of them."""
_OURSELVES: Final = __name__.partition(".")[0]
_forgotten: list[object] = []
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


def installed_apps() -> Sequence[Any]:
    """The setting's value, without reading it as others do."""
    settings: Any = sys.modules["django.conf"].settings
    return tuple(settings._wrapped.INSTALLED_APPS)  # noqa: SLF001 - which keeps no note


def apps() -> str:
    """The digest of all applications; empty where Django has not loaded them."""
    registry: Any = getattr(sys.modules.get("django.apps"), "apps", None)
    if registry is None or not registry.ready:
        return ""
    return digest("\n".join(f"{c.label} {c.name}" for c in registry.app_configs.values() if c.name != OUR_APP))


def forget_apps() -> None:
    """Let the setting count as unread, until something reads it again: once, after Django's own."""
    settings: Any = getattr(sys.modules.get("django.conf"), "settings", None)
    if settings is not None and not _forgotten:
        _forgotten.append(vars(settings).pop(APPS, None))


def asks_for_apps(frame: FrameType | None) -> bool:
    """Whether this code is neither Django's, which looks only for what applications have, nor our own."""
    return frame is None or top_of(frame) not in {"django", _OURSELVES}
