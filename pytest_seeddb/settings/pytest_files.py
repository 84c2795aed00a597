"""pytest's own configuration, read without pytest: so that ``seeddb`` sees the project as its tests do."""

from __future__ import annotations

import argparse
import ast
import configparser
import os
import re
import shlex
import sys
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field
from glob import glob
from importlib.util import find_spec
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping
    from pathlib import Path

_FILES: Final = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
"""In pytest's order; the first that has a table for pytest is the one."""
_SECTIONS: Final = {"setup.cfg": "tool:pytest"}
_ALWAYS: Final = ("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml")
"""These are pytest's even without a table."""
_YES: Final = {"1", "true", "yes", "on", "t", "y"}
_DJANGO: Final = "DJANGO_SETTINGS_MODULE"
_FLAGGED: Final = re.compile(r"(?P<flags>([DRU]:)*)(?P<name>[^=\s]+)\s*=\s*(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class PytestFile:
    """pytest's configuration file, with its options."""

    path: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def words(self, option: str) -> list[str]:
        """A list of words, as a list of TOML or as words in an INI file."""
        value = self.options.get(option, ())
        return shlex.split(value) if isinstance(value, str) else [str(word) for word in value]

    def lines(self, option: str) -> list[str]:
        """A list of lines."""
        value = self.options.get(option, ())
        lines = value.splitlines() if isinstance(value, str) else value
        return [str(line).strip() for line in lines if str(line).strip()]

    def text(self, option: str) -> str:
        """A single value."""
        return str(self.options.get(option, "") or "")

    @property
    def command_line(self) -> argparse.Namespace:
        """The options that stand before those of the command line: of ``addopts``, then of the variable."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        parser.add_argument("--ds", default="")
        parser.add_argument("--import-mode", default="prepend")
        with suppress(ValueError, argparse.ArgumentError):  # such as an unclosed quote, which pytest reports
            words = [*self.words("addopts"), *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
            return parser.parse_known_args(words)[0]
        return parser.parse_args([])

    @property
    def django_settings(self) -> str:
        """The module that pytest-django's option or its setting names."""
        return str(self.command_line.ds) or self.text(_DJANGO)

    @property
    def python_path(self) -> list[str]:
        """The directories of ``pythonpath``."""
        return [str(self.path.parent / word) for word in self.words("pythonpath")] if self.path else []


def pytest_file(start: Path) -> PytestFile:
    """The configuration file that pytest uses when it is started in a directory without arguments."""
    for directory in (start, *start.parents):
        for name in _FILES:
            if (read := _read(directory / name)) is not None:
                return read
    return PytestFile()


def _read(path: Path) -> PytestFile | None:
    """The file's table for pytest; ``None`` if it has none, or cannot be read: pytest reports that."""
    if not path.is_file():
        return None
    with suppress(OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, configparser.Error):
        if path.suffix == ".toml":
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            if path.name == "pyproject.toml":
                pytest = table.get("tool", {}).get("pytest", {})
                return PytestFile(path, pytest.get("ini_options", pytest)) if pytest else None
            return PytestFile(path, table.get("pytest", {}))
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]  # DJANGO_SETTINGS_MODULE
        parser.read(path, encoding="utf-8")
        section = _SECTIONS.get(path.name, "pytest")
        if parser.has_section(section):
            return PytestFile(path, dict(parser[section]))
    return PytestFile(path) if path.name in _ALWAYS else None


def put_on_path(start: Path) -> None:
    """Put the directories of ``pythonpath``, and those of the conftests, on ``sys.path``, as pytest does."""
    file = pytest_file(start)
    mode = file.command_line.import_mode
    for place in reversed(file.python_path):
        if place not in sys.path:
            sys.path.insert(0, place)
    for conftest in () if mode == "importlib" else _conftests(start):
        packages = takewhile(lambda place: (place / "__init__.py").is_file(), conftest.parents)
        place = str([conftest, *packages][-1].parent)
        if place not in sys.path:
            sys.path.insert(len(sys.path) if mode == "append" else 0, place)


def _conftests(start: Path) -> list[Path]:
    """The files that pytest imports before it collects, in its order, when it is started without arguments."""
    file = pytest_file(start)
    top = file.path.parent if file.path else start
    patterns = file.words("testpaths") if start == top else []
    names = [sorted(glob(pattern, root_dir=top, recursive=True)) for pattern in patterns]  # noqa: PTH207 - as pytest
    places: list[Path] = []
    for anchor in [top / name for some in names for name in some] or [start]:
        places += [place for place in (*reversed(anchor.parents), anchor) if place.is_relative_to(top)]
        places += sorted(anchor.glob("test*"))
    return [path for place in dict.fromkeys(places) if (path := place / "conftest.py").is_file()]


def set_variables(start: Path, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables that pytest-env and pytest-dotenv would set, where these are installed."""
    file = pytest_file(start)
    if find_spec("pytest_env"):
        from dotenv import dotenv_values

        table = dict(_table_of_pytest_env(file.path.parent if file.path else start))
        names = table.pop("env_files", None)
        keep = table.pop("env_files_skip_if_set", file.text("env_files_skip_if_set"))
        before = {*environ} if str(keep).lower() in _YES else set()
        for name in names if isinstance(names, list) else file.lines("env_files"):
            values = dotenv_values((file.path.parent if file.path else start) / name)
            environ.update({key: text for key, text in values.items() if text is not None and key not in before})
        for name, value, keeps in _of_pytest_env(table or file.lines("env"), environ):
            if value is None:
                environ.pop(name, None)
            elif not (keeps and name in environ):
                environ[name] = value
    if find_spec("pytest_dotenv"):
        from dotenv import dotenv_values

        overrides = file.text("env_override_existing_values").lower() in _YES
        for name in file.lines("env_files") or [".env"]:  # its default
            path = next((place / name for place in (start, *start.parents) if (place / name).is_file()), start / name)
            for key, text in dotenv_values(path).items():
                if text is not None and (overrides or key not in environ):
                    environ[key] = text


def _table_of_pytest_env(start: Path) -> Mapping[str, Any]:
    """The nearest table of pytest-env, whichever file pytest itself reads."""
    for directory in (start, *start.parents):
        for name in ("pytest.toml", ".pytest.toml", "pyproject.toml"):
            with suppress(OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
                table = tomllib.loads((directory / name).read_text(encoding="utf-8"))
                table = table.get("tool", {}) if name == "pyproject.toml" else table
                if isinstance(own := table.get("pytest_env"), dict):
                    return own
    return {}


def set_django_settings(start: Path, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the variable with the module of Django's settings as pytest-django does, or as a ``conftest.py`` does."""
    conf: Any = sys.modules.get("django.conf")
    if conf and conf.settings.configured:  # as under manage.py
        return
    file = pytest_file(start)
    module = file.command_line.ds or environ.get(_DJANGO) or file.text(_DJANGO)
    for conftest in () if module else _conftests(start):
        with suppress(OSError, UnicodeDecodeError):
            module = module or django_settings_in(conftest.read_text(encoding="utf-8"))
    if module:
        environ[_DJANGO] = module


def django_settings_in(text: str) -> str:
    """The module of Django's settings that Python code puts into the environment first; empty where it names none."""
    try:
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call | ast.Assign)]
    except (SyntaxError, ValueError):
        return ""
    constants: dict[str, ast.expr] = {}
    for node in sorted(nodes, key=lambda node: node.lineno):
        pairs: list[tuple[ast.expr | None, ast.expr]] = []
        if isinstance(node, ast.Assign):
            constants |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
            pairs = [(target.slice, node.value) for target in node.targets if isinstance(target, ast.Subscript)]
        elif len(node.args) > 1:
            pairs = [(node.args[0], node.args[1])]
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "update":
            dictionary = node.args[0] if node.args else None
            pairs = [*zip(dictionary.keys, dictionary.values, strict=True)] if isinstance(dictionary, ast.Dict) else []
            pairs += [(ast.Constant(keyword.arg), keyword.value) for keyword in node.keywords]
        for pair in pairs:
            key, value = (constants.get(end.id) if isinstance(end, ast.Name) else end for end in pair)
            if isinstance(key, ast.Constant) and key.value == _DJANGO and isinstance(value, ast.Constant):
                return str(value.value)
    return ""


def _of_pytest_env(
    entries: dict[str, Any] | list[str], environ: Mapping[str, str]
) -> Iterator[tuple[str, str | None, bool]]:
    """The name, the value (``None`` to unset it), and whether a value that is there stays: of a table, or of lines."""
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        if not isinstance(entry, dict):
            yield name, str(entry), False
        elif entry.get("unset"):
            yield name, None, False
        else:
            text = str(entry.get("value", ""))
            text = text.format(**environ) if entry.get("transform") else text
            yield name, text, bool(entry.get("skip_if_set"))
    for line in entries if isinstance(entries, list) else ():
        if match := _FLAGGED.fullmatch(line):
            flags, text = match["flags"], match["value"].strip()
            with suppress(KeyError, ValueError, IndexError):
                text = text if "R:" in flags else text.format(**environ)
            yield match["name"], None if "U:" in flags else text, "D:" in flags
