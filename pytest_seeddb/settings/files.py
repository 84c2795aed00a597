"""Finds the table of settings: the nearest ``seeddb.toml`` or ``pyproject.toml``."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE_NAME: Final = "seeddb.toml"
_ORIGIN: Final = re.compile(
    r'^\[remote "origin"\][^\[]*?^\s*url[ \t]*=[ \t]*"?(?:file://)?(.+?)(?:\.git)?/*"?\s*$', re.MULTILINE
)
_ELSEWHERE: Final = re.compile(r"(?:\w[\w+]*://(?:[^/]*@)?([^/:]+)(?::\d+)?/|(?:[^/]*@)?([^/:]+):)/*(.+)")
"""An origin on another machine: host and path, without the protocol, the user, a password and the port."""


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
    git, origin = _repository(root)
    if origin:
        return re.split(r"[/:\s]", origin)[-1] or root.name
    return git.parent.name if git and git.name == ".git" else root.name


def project_identity(root: Path) -> str:
    """A digest that tells the project with this root from others of its name.

    It is the same in each clone and work tree of a repository: made of the origin, and of the root's path within it.
    """
    root = root.resolve()
    top = next((place for place in (root, *root.parents) if (place / ".git").exists()), root)
    git, origin = _repository(top)
    if elsewhere := _ELSEWHERE.fullmatch(origin):
        place = "/".join(filter(None, elsewhere.groups())).casefold()
    else:
        place = str((top / origin).resolve()) if origin else str(git.parent if git and git.name == ".git" else git)
    words = (place, root.relative_to(top).as_posix()) if git else (str(root),)
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _repository(top: Path) -> tuple[Path | None, str]:
    """The directory that all work trees of a repository share, if it can be read, and the origin's URL, if there is."""
    git = top / ".git"
    try:
        if git.is_file():  # a further work tree, or a submodule
            git = top / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
            common = git / "commondir"
            git = (git / common.read_text(encoding="utf-8").strip() if common.is_file() else git).resolve()
        origin = _ORIGIN.search((git / "config").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, ""
    return git, origin[1] if origin else ""


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        remedy = "save it as UTF-8" if isinstance(error, UnicodeDecodeError) else "correct the file"
        raise ConfigError(f"{path.name} cannot be read", saw=str(error), source=str(path), remedy=remedy) from None
