"""Files that Django finds by name in each application: another one may take the place of what a build found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.django import is_set_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_COMMANDS: Final = ("management", "commands")
_FIXTURES: Final = "fixtures"
_IN_APPS: Final = frozenset({"templates", "jinja2", "static", _FIXTURES})


def missing_rivals(files: Iterable[str], root: Path) -> Iterator[str]:
    """The missing files by which other apps, or directories of the settings, would take the place of one of these.

    Of a management command, template or static file the first one counts, in the order of the applications; of a
    fixture all.
    """
    if not is_set_up():
        return
    from django.apps import apps

    places = [Path(config.path) for config in apps.get_app_configs()]
    rivals: dict[Path, None] = {}
    for path in filter(Path.is_file, (root / file for file in files)):
        app = next((place for place in places if path.is_relative_to(place)), None)
        kind, *rest = path.relative_to(app).parts if app else ("",)
        is_command = (kind, *rest[:-1]) == _COMMANDS
        if app is None or not (is_command or (kind in _IN_APPS and rest)):
            continue
        name = Path(*rest)
        others = places if kind == _FIXTURES else places[: places.index(app)]
        rivals |= dict.fromkeys([*(place / kind / name for place in others), *_in_settings(kind, name)])
    for rival in rivals:
        if rival.is_relative_to(root) and not rival.exists() and rival.name != "__init__.py":
            yield rival.relative_to(root).as_posix()


def _in_settings(kind: str, name: Path) -> Iterator[Path]:
    """Where a file of that name would be in the directories that the settings name for its kind."""
    from django.conf import settings

    directories = {
        "templates": [place for engine in settings.TEMPLATES for place in engine.get("DIRS", ())],
        "jinja2": [place for engine in settings.TEMPLATES for place in engine.get("DIRS", ())],
        "static": [place[1] if isinstance(place, list | tuple) else place for place in settings.STATICFILES_DIRS],
        _FIXTURES: [*settings.FIXTURE_DIRS],
    }
    yield from (Path(place) / name for place in directories.get(kind, ()))
