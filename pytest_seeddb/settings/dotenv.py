"""Reads the file ``.env`` in the project's root, by python-dotenv's rules. None of it gets into ``os.environ``."""

from __future__ import annotations

import io
from collections import ChainMap
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE_NAME: Final = ".env"


@dataclass(frozen=True)
class Variable:
    """A variable that the file sets, and the line where it does."""

    name: str
    value: str = field(repr=False)
    path: Path
    line: int

    @property
    def place(self) -> str:
        """The file and the line."""
        return f"{self.path}, line {self.line}"


def has_settings(root: Path) -> bool:
    """Whether it is worth importing python-dotenv for the settings: every pytest run asks this."""
    path = root / FILE_NAME
    with suppress(OSError):
        return path.is_file() and b"SEEDDB_" in path.read_bytes()
    return False


def read_dotenv(root: Path, environ: Mapping[str, str]) -> tuple[Variable, ...]:
    """The variables that the file sets; none if there is no file.

    ``${NAME}`` stands for a variable. Applications differ in which they prefer, the environment's or the file's, so a
    variable with another value for each is there twice, last the one that python-dotenv's ``dotenv_values`` gives.

    Raises:
        ConfigError: The file cannot be read.
    """
    path = root / FILE_NAME
    try:
        if not (path.is_file() or path.is_fifo()):  # it may be a virtual environment
            return ()
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "save it as UTF-8" if isinstance(error, UnicodeDecodeError) else "let this account read it"
        remedy += "; or write dotenv = false into [tool.seeddb] if the application does not use it"
        raise ConfigError(f"{FILE_NAME} cannot be read", saw=str(error), source=str(path), remedy=remedy) from None
    # Not earlier: with all that it brings, python-dotenv's import takes 20 ms.
    from dotenv.parser import parse_stream
    from dotenv.variables import parse_variables

    bindings = [*parse_stream(io.StringIO(text))]
    variables: dict[tuple[bool, str], Variable] = {}
    for prefers_file in (False, True):
        values: dict[str, str] = {}
        lookup = ChainMap(values, dict(environ)) if prefers_file else ChainMap(dict(environ), values)
        for binding in bindings:
            if binding.key is None or binding.value is None:
                continue
            value = "".join(atom.resolve(lookup) for atom in parse_variables(binding.value))
            text = binding.original.string
            line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            values[binding.key] = value
            variables[prefers_file, binding.key] = Variable(binding.key, value, path, line)
    return tuple(dict.fromkeys(variables.values()))
