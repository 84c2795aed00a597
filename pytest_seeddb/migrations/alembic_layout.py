"""Where an Alembic project keeps its files, read from its configuration without importing Alembic."""

from __future__ import annotations

import configparser
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.imports import find
from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECTION: Final = "alembic"
# ``path_separator`` and, before Alembic 1.16, ``version_path_separator`` name one of these.
_SEPARATORS: Final[Mapping[str, str]] = {"space": " ", "newline": "\n", "os": os.pathsep, ":": ":", ";": ";"}
_OLD_SEPARATOR: Final = re.compile(r", *|(?: +)")
_OLD_SEARCH_SEPARATOR: Final = re.compile(r", *|(?: +)|:")


@dataclass(frozen=True)
class Layout:
    """An Alembic project's files.

    Attributes:
        ini: The ini file, where there is one.
        toml: The ``pyproject.toml`` with ``[tool.alembic]``, where there is one.
        directory: Where Alembic is meant to be run: relative paths start here.
        script: The script directory, with ``env.py``.
        versions: The directories with the migrations.
        recursive: Whether their subdirectories count, too.
        search: What Alembic puts in front of ``sys.path``.
    """

    ini: Path | None
    toml: Path | None
    directory: Path
    script: Path
    versions: tuple[Path, ...]
    recursive: bool
    search: tuple[Path, ...] = ()

    @property
    def env(self) -> Path:
        """The project's ``env.py``."""
        return self.script / "env.py"


def read_layout(path: Path, root: Path, *, source: str) -> Layout:
    """Read an ``alembic.ini`` or the ``[tool.alembic]`` of a ``pyproject.toml``.

    Relative paths start in the file's own directory; where nothing is there, in ``root``, for
    projects that run ``alembic -c backend/alembic.ini``.

    Raises:
        ConfigError: The file cannot be read, or the script directory is not there.
    """
    options = _Options(path, source)
    location = options.text("script_location")
    if location is None:
        raise ConfigError(
            f"{path.name} does not say where Alembic's scripts are",
            saw=f"no script_location in {options.place}",
            source=source,
            remedy="add script_location, or name the file that Alembic is run with",
        )
    search = options.paths("prepend_sys_path") or []
    for directory in dict.fromkeys((path.parent, root)):
        script = _directory(location, directory, root, search)
        if script is not None and (script / "env.py").is_file():
            return _layout(options, directory, script, root)
    raise ConfigError(
        "Alembic's script directory has no env.py",
        saw=f"script_location = {location}, looked for in {path.parent}",
        source=f"{options.place} in {path}, named by {source}",
        remedy="mend script_location, or name the file that Alembic is run with",
    )


def _layout(options: _Options, directory: Path, script: Path, root: Path) -> Layout:
    search = options.paths("prepend_sys_path") or []
    named = options.paths("version_locations")
    found = [_directory(each, directory, root, search) for each in named or ()]
    return Layout(
        ini=options.ini,
        toml=options.toml,
        directory=directory,
        script=script,
        versions=tuple(each for each in found if each is not None) if named else (script / "versions",),
        recursive=options.flag("recursive_version_locations"),
        search=tuple(directory / each for each in search),
    )


def _directory(location: str, directory: Path, root: Path, search: list[str]) -> Path | None:
    """A directory as Alembic names it: a path, or ``package:directory``."""
    if not Path(location).is_absolute() and ":" in location:
        package, *inside = location.split(":")
        spec = find(package, root, str(directory), *(str(directory / each) for each in search))
        places = list(spec.submodule_search_locations or ()) if spec else []
        return Path(places[0], *inside) if places else None
    found = directory / location
    return Path(os.path.normpath(found)) if found.is_dir() else None


class _Options:
    """Alembic's options from both files that may hold them; the ini goes first."""

    def __init__(self, path: Path, source: str) -> None:
        self._source = source
        is_toml = path.suffix == ".toml"
        self.place = "[tool.alembic]" if is_toml else f"[{_SECTION}]"
        beside = path.with_name("alembic.ini") if is_toml else path.with_name("pyproject.toml")
        self.ini = _file(beside) if is_toml else path
        self._ini = self._read_ini(self.ini)
        toml = path if is_toml else _file(beside)
        self._toml = self._read_toml(toml)
        self.toml = toml if self._toml else None
        self._here = {"here": path.parent.absolute().as_posix()}

    def text(self, name: str) -> str | None:
        try:
            found: str | None = self._ini.get(_SECTION, name, fallback=None)
        except configparser.Error as error:
            raise self._unreadable(self.ini, error) from None
        if found is not None:
            return found
        value = self._toml.get(name)
        return value % self._here if isinstance(value, str) else None

    def flag(self, name: str) -> bool:
        if self._ini.has_option(_SECTION, name):
            return self.text(name) == "true"
        return self._toml.get(name) is True

    def paths(self, name: str) -> list[str] | None:
        """A list of paths, split as Alembic splits it."""
        if not self._ini.has_option(_SECTION, name):
            value = self._toml.get(name)
            return [each % self._here for each in value] if isinstance(value, list) else None
        text = self.text(name) or ""
        named = self.text("path_separator") or self.text("version_path_separator")
        if named is None:
            separator = _OLD_SEARCH_SEPARATOR if name == "prepend_sys_path" else _OLD_SEPARATOR
            return [each for each in separator.split(text) if each]
        return [each.strip() for each in text.split(_SEPARATORS.get(named, named)) if each.strip()]

    def _read_ini(self, path: Path | None) -> configparser.ConfigParser:
        here = path.parent.absolute().as_posix() if path else ""
        parser = configparser.ConfigParser({"here": here})
        try:
            if path is not None:
                parser.read(path, encoding="locale")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise self._unreadable(path, error) from None
        return parser

    def _read_toml(self, path: Path | None) -> dict[str, Any]:
        if path is None:
            return {}
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("alembic", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise self._unreadable(path, error) from None
        return found if isinstance(found, dict) else {}

    def _unreadable(self, path: Path | None, error: Exception) -> ConfigError:
        return ConfigError(
            "Alembic's configuration cannot be read",
            saw=f"{path}: {error}",
            source=self._source,
            remedy="correct the file",
        )


def _file(path: Path) -> Path | None:
    return path if path.is_file() else None
