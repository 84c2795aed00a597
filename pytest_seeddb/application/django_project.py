"""Django's settings: found as Django finds them, and set up once per process.

Nothing here imports Django before it is asked to; whether it is set up can be asked at any time.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
import tomllib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.imports import place_of, put_on_path
from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARIABLE: Final = "DJANGO_SETTINGS_MODULE"
DEFAULT: Final = "default"
"""The alias of the database that Django uses where nothing names another."""

_SET_IN_CODE: Final = re.compile(rf"""setdefault\(\s*["']{VARIABLE}["']\s*,\s*["']([\w.]+)["']""")
_INI_SECTIONS: Final = (("pytest.ini", "pytest"), (".pytest.ini", "pytest"), ("tox.ini", "pytest"))
_HOW: Final = f"set {VARIABLE} in the environment or in pytest's configuration, or start where manage.py is"


def is_set_up() -> bool:
    """Whether this process has a Django whose settings and models are loaded."""
    if "django.apps" not in sys.modules or "django.conf" not in sys.modules:
        return False
    from django.apps import apps
    from django.conf import settings

    return bool(settings.configured and apps.ready)


def set_up(root: Path, *, source: str) -> None:
    """Load the project's settings and models, unless that was done.

    The settings are those that are configured already; else ``DJANGO_SETTINGS_MODULE`` names them, in
    the environment, in pytest's configuration, or in ``manage.py``.

    Args:
        root: The project's root.
        source: What asks for Django, for the error.

    Raises:
        ConfigError: Django is not installed, or the settings are not found, or they or a model fail.
    """
    if is_set_up():
        return
    try:
        import django
        from django.conf import settings
    except ImportError as error:
        raise ConfigError(
            "Django is not installed", saw=str(error), source=source, remedy="pip install django"
        ) from error
    if not settings.configured:
        _name_settings(root, source)
    try:
        django.setup()
    except (Exception, SystemExit) as error:
        where = place_of(error, root)
        raise ConfigError(
            "Django cannot be set up",
            saw=f"{type(error).__name__}: {error}" + (f"\nat {where}" if where else ""),
            source=f"{VARIABLE}={os.environ.get(VARIABLE, '')}, as {source} asks for Django",
            remedy="mend it; `python manage.py check` must work",
        ) from error


def _name_settings(root: Path, source: str) -> None:
    found = next(_settings_modules(root), None)
    if found is None:
        raise ConfigError("Django's settings are not found", saw=_looked_at(root), source=source, remedy=_HOW)
    module, place = found
    for each in {place: 0, root: 0}:
        put_on_path(each)
    os.environ[VARIABLE] = module


def _settings_modules(root: Path) -> Iterator[tuple[str, Path]]:
    """What names the settings, the first that does first, with the directory that they are found from."""
    manage = next((each for each in (root / "manage.py", *sorted(root.glob("*/manage.py"))) if each.is_file()), None)
    place = manage.parent if manage else root
    if named := os.environ.get(VARIABLE) or _in_pytest(root):
        yield named, place
    if manage and (found := _SET_IN_CODE.search(manage.read_text(encoding="utf-8", errors="replace"))):
        yield found[1], place


def _in_pytest(root: Path) -> str:
    with suppress(OSError, tomllib.TOMLDecodeError):
        table: Any = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        if named := table.get("tool", {}).get("pytest", {}).get("ini_options", {}).get(VARIABLE):
            return str(named)
    for name, section in (*_INI_SECTIONS, ("setup.cfg", "tool:pytest")):
        with suppress(configparser.Error, UnicodeDecodeError):
            parser = configparser.ConfigParser(interpolation=None)
            parser.read(root / name, encoding="utf-8")
            if named := parser.get(section, VARIABLE, fallback=""):
                return named
    return ""


def _looked_at(root: Path) -> str:
    return f"no {VARIABLE} in the environment or in pytest's configuration, and no manage.py in {root} that sets it"


def settings_module() -> str:
    """The dotted name of the settings that are in use; empty where they come from no module."""
    from django.conf import settings

    return str(getattr(settings, "SETTINGS_MODULE", "") or "")


def postgres_aliases() -> tuple[str, ...]:
    """The aliases of the databases that are PostgreSQL's and of their own, the default one first.

    An alias that mirrors another (``TEST = {"MIRROR": ...}``), or leads to the same database as one
    before it, is none of its own.
    """
    from django.db import connections

    found: dict[tuple[object, ...], str] = {}
    for alias in sorted(connections.settings, key=lambda alias: alias != DEFAULT):
        wanted = connections.settings[alias]
        if is_postgres(alias) and not wanted["TEST"].get("MIRROR"):
            found.setdefault(_place_of(wanted), alias)
    return tuple(found.values())


def require_postgres(source: str) -> None:
    """Refuse settings without any database of PostgreSQL's: what would be built from them is empty.

    Args:
        source: What asks for Django, for the error.

    Raises:
        ConfigError: There is none, or Django cannot load a backend.
    """
    from django.core.exceptions import ImproperlyConfigured
    from django.db import connections

    where = f"DATABASES in {settings_module() or 'its settings'}, as {source} asks for Django"
    try:
        if postgres_aliases():
            return
    except ImproperlyConfigured as error:
        remedy = "mend them; `python manage.py check --database default` must work"
        raise ConfigError("Django cannot use its databases", saw=str(error), source=where, remedy=remedy) from error
    raise ConfigError(
        "None of Django's databases is PostgreSQL's",
        saw="\n".join(f"{alias}: {connections.settings[alias]['ENGINE']}" for alias in connections.settings),
        source=where,
        remedy='give `default` the ENGINE "django.db.backends.postgresql"; where an environment variable decides, set '
        "it to any URL of PostgreSQL: nobody connects there",
    )


def is_postgres(alias: str) -> bool:
    """Whether the alias' backend is one for PostgreSQL, its own or one built on it."""
    from django.db import connections

    return getattr(connections[alias], "vendor", "") == "postgresql"


def standing_for(alias: str) -> str:
    """The alias among `postgres_aliases` whose database this one shares; itself where it shares none."""
    from django.db import connections

    wanted = connections.settings[alias]
    if mirrored := wanted["TEST"].get("MIRROR"):
        return standing_for(str(mirrored))
    own = _place_of(wanted)
    return next((each for each in postgres_aliases() if _place_of(connections.settings[each]) == own), alias)


def _place_of(wanted: dict[str, Any]) -> tuple[object, ...]:
    named = tuple(wanted.get(key) for key in ("ENGINE", "HOST", "PORT", "NAME"))
    return (*named, (wanted.get("OPTIONS") or {}).get("service"))
