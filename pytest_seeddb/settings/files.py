"""Finds the table of settings: the nearest ``seeddb.toml`` or ``pyproject.toml``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE_NAME: Final = "seeddb.toml"
_ORIGIN: Final = re.compile(r'^\[remote "origin"\][^\[]*?^\s*url\s*=.*?([^/:\s]+?)(?:\.git)?/?\s*$', re.MULTILINE)


@dataclass(frozen=True)
class Table:
    """A file's table of settings, and the name of the project there."""

    path: Path | None
    values: Mapping[str, Any]
    project: str = ""

    @property
    def heading(self) -> str:
        """The table's place, for an error."""
        within = "" if self.path is None or self.path.name == FILE_NAME else "[tool.seeddb] in "
        return f"{within}{self.path}"


def find_table(start: Path) -> Table:
    """The nearest ``seeddb.toml`` or ``pyproject.toml`` with ``[tool.seeddb]``, from ``start`` upward.

    Raises:
        ConfigError: A file is not TOML, or one directory has both tables.
    """
    for place in (start, *start.parents):
        project = _toml(place / "pyproject.toml")
        name = str(project.get("project", {}).get("name", ""))
        own = place / FILE_NAME
        tables = [Table(own, _toml(own), name)] if own.is_file() else []
        if "seeddb" in project.get("tool", {}):
            tables.append(Table(place / "pyproject.toml", project["tool"]["seeddb"], name))
        if len(tables) > 1:
            raise ConfigError(
                "Two tables declare the plan of this project",
                saw="\n".join(table.heading for table in tables),
                source=str(place),
                remedy="keep one of the two",
            )
        if tables:
            return tables[0]
        if (place / ".git").exists():
            break
    return Table(None, {})


def has_table(directory: Path) -> bool:
    """Whether the directory itself has a table."""
    return (directory / FILE_NAME).is_file() or "seeddb" in _toml(directory / "pyproject.toml").get("tool", {})


def checkout_name(root: Path) -> str:
    """The name of a project that has not declared one: the same in each clone and work tree of its repository."""
    git = root / ".git"
    try:
        if git.is_file():  # a further work tree, or a submodule
            git = root / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
            common = git / "commondir"
            git = (git / common.read_text(encoding="utf-8").strip()).resolve() if common.is_file() else git
        origin = _ORIGIN.search((git / "config").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return root.name
    return origin[1] if origin else git.parent.name if git.name == ".git" else root.name


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        remedy = "save it as UTF-8" if isinstance(error, UnicodeDecodeError) else "correct the file"
        raise ConfigError(f"{path.name} cannot be read", saw=str(error), source=str(path), remedy=remedy) from None
