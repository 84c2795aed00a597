"""How the value of a setting is read: from TOML as it is typed there, from text elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Reader = Callable[[object, Path], object]

OLDEST_POSTGRES: Final = 15

YES_NO: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
"""The words for a boolean."""

_URL: Final = re.compile(r"postgres(ql)?(\+[a-z0-9_]+)?://", re.IGNORECASE)


class NotAllowed(ValueError):  # noqa: N818 - read as "the value is not allowed"
    """The value is of the wrong type or not among those allowed; the text of a setting's error says which are."""


@dataclass(frozen=True)
class CommandSpec:
    """A command of the user's: ``{command = "dbmate up", inputs = ["db/**"]}``.

    Attributes:
        command: What the shell is given.
        inputs: Patterns of the files that determine what it does; they make its fingerprint.
    """

    command: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class DjangoSpec:
    """A management command of a Django project: ``{django = "seed_demo --idempotent", tier = "demo"}``.

    Attributes:
        command: Its name and arguments.
        inputs: Patterns of further files that determine what it does.
        tier: ``essential`` or ``demo``.
        idempotent: Whether it may run again where its rows are.
    """

    command: str
    inputs: tuple[str, ...] = ()
    tier: Literal["essential", "demo"] = "essential"
    idempotent: bool = False


@dataclass(frozen=True)
class Key:
    """One setting: how it is spelled, read and described.

    Attributes:
        name: As in the table; the environment variable is ``SEEDDB_`` and the name in capitals.
        reader: Turns what was found into the value, or raises `NotAllowed`.
        default: The value where nobody sets one.
        about: One sentence for the reference.
        option: The command-line spelling, where there is one.
        in_table: Whether the table may hold it; a wish for one run only may not stand there.
        in_environment: Whether ``SEEDDB_...`` may hold it; a table of tables has no such spelling.
    """

    name: str
    reader: Reader
    default: object
    about: str
    option: str = ""
    in_table: bool = True
    in_environment: bool = True

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"SEEDDB_{self.name.upper()}"


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """The question, or nothing where no allowed word is near."""
    import difflib  # costs 2 ms of every pytest run, and nearly none has a slip in it

    near = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.7)
    return f"Did you mean {near[0]!r}?" if near else ""


def text(value: object, _root: Path) -> str:
    """A string that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise NotAllowed("give a string that is not empty")
    return value


def choice(*allowed: str) -> Reader:
    """One of the words."""

    def read(value: object, _root: Path) -> str:
        if value in allowed:
            return str(value)
        raise NotAllowed(f"{did_you_mean(str(value), allowed)} Give one of {', '.join(allowed)}".strip())

    return read


def integer(value: object, _root: Path) -> int:
    """A whole number, or its digits."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+", value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise NotAllowed("give a whole number")


def yes_no(value: object, _root: Path) -> bool:
    """A boolean, or a word for one."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in YES_NO:
        return YES_NO[value.strip().lower()]
    raise NotAllowed("give true or false")


def names(value: object, _root: Path) -> tuple[str, ...]:
    """A string, a list of strings, or text with commas between them."""
    found = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) and each.strip() for each in found):
        raise NotAllowed("give a string or a list of strings")
    return tuple(found)


def variables(value: object, root: Path) -> tuple[str, ...]:
    """Names of environment variables, as `names`."""
    found = names(value, root)
    for each in found:
        if not re.fullmatch(r"[^\W\d]\w*", each, re.ASCII):
            raise NotAllowed('give the name of a variable, or several: "DATABASE_URL"')
    return found


def memory(value: object, root: Path) -> str:
    """An amount of memory, as tmpfs takes it."""
    found = text(value, root)
    if not re.fullmatch(r"[1-9][0-9]*[kmg%]?", found, re.IGNORECASE):
        raise NotAllowed('give an amount of memory: "512m" or "4g"')
    return found


def profile_name(value: object, root: Path) -> str:
    """A profile's name; a table there was meant for those of the profiles."""
    if isinstance(value, Mapping):
        first = next(iter(value), "NAME")
        raise NotAllowed(f"give a profile's name. Did you mean the table [tool.seeddb.profiles.{first}]?")
    return text(value, root)


def postgres_major(value: object, root: Path) -> int:
    """A supported major version of PostgreSQL."""
    try:
        found = integer(value, root)
    except NotAllowed:
        found = 0
    if found < OLDEST_POSTGRES:
        raise NotAllowed(f'give a major version, "{OLDEST_POSTGRES}" or newer: older ones are past their end of life')
    return found


def server_choice(value: object, _root: Path) -> str:
    """``auto``, ``embedded``, ``container`` or a PostgreSQL URL."""
    words = ("auto", "embedded", "container")
    if isinstance(value, str) and (value in words or _URL.match(value)):
        return value
    near = did_you_mean(str(value), words)
    raise NotAllowed(f"{near} Give auto, embedded, container or postgresql://user@host:port/database".strip())


def directory(value: object, root: Path) -> Path:
    """A directory that exists, relative to the root."""
    found = root / Path(text(value, root)).expanduser()
    if not found.is_dir():
        raise NotAllowed(f"give a directory that exists: {found} does not")
    return found


def file_or_directory(value: object, root: Path) -> Path:
    """A file or a directory, relative to the root; whether it is there is seen when it is used."""
    return root / Path(text(value, root)).expanduser()


def name_or_command(value: object, root: Path) -> str | CommandSpec:
    """A path, an import path, or a command with its inputs."""
    return _command(value, root) if isinstance(value, Mapping) else text(value, root)


def names_or_commands(value: object, root: Path) -> tuple[str | CommandSpec | DjangoSpec, ...]:
    """A list of paths, import paths, patterns and commands; a lone one may stand without the list."""
    if isinstance(value, str):
        return names(value, root)
    if isinstance(value, Mapping):
        return (_seed_command(value, root),)
    if not isinstance(value, list | tuple):
        raise NotAllowed("give a list of strings and commands")
    return tuple(_element(each, root) for each in value)


def _element(value: object, root: Path) -> str | CommandSpec | DjangoSpec:
    try:
        return _name_or_seed_command(value, root)
    except NotAllowed as error:
        raise NotAllowed(f"correct {value!r}: {error}") from None


def _name_or_seed_command(value: object, root: Path) -> str | CommandSpec | DjangoSpec:
    if isinstance(value, CommandSpec | DjangoSpec):
        return value
    return _seed_command(value, root) if isinstance(value, Mapping) else text(value, root)


def _seed_command(value: Mapping[object, object], root: Path) -> CommandSpec | DjangoSpec:
    if "django" not in value:
        return _command(value, root)
    if unknown := set(value) - {"django", "inputs", "tier", "idempotent"}:
        near = did_you_mean(str(min(unknown, key=str)), ("inputs", "tier", "idempotent"))
        raise NotAllowed(f'{near} Write {{django = "command", tier = "demo", idempotent = true}}'.strip())
    tier = choice("essential", "demo")(value.get("tier", "essential"), root)
    return DjangoSpec(
        text(value["django"], root),
        names(value.get("inputs", ()), root),
        "demo" if tier == "demo" else "essential",
        yes_no(value.get("idempotent", False), root),
    )


def _command(value: Mapping[object, object], root: Path) -> CommandSpec:
    if set(value) - {"command", "inputs"} or "command" not in value:
        raise NotAllowed('write a command as {command = "...", inputs = ["..."]}, with no other keys')
    if not value.get("inputs"):
        raise NotAllowed(
            "name the files that determine what the command does: {command = ..., inputs = [...]}. "
            "Without them nobody could tell when the template is stale"
        )
    return CommandSpec(text(value["command"], root), names(value["inputs"], root))


def profile_tables(value: object, _root: Path) -> Mapping[str, Mapping[str, object]]:
    """A table of tables."""
    if not isinstance(value, Mapping) or not all(isinstance(each, Mapping) for each in value.values()):
        raise NotAllowed("write each profile as a table, [tool.seeddb.profiles.NAME], of seed parameters")
    return {str(name): dict(parameters) for name, parameters in value.items()}


def without_secrets(value: object) -> str:
    """A value as an error shows it. Of a table there are names, and no texts: it may be a profile with secrets."""
    if not isinstance(value, Mapping):
        return repr(value)
    shown = (f"{name!r}: {_hidden(each)}" for name, each in value.items())
    return f"{{{', '.join(shown)}}}"


def _hidden(value: object) -> str:
    if isinstance(value, Mapping):
        return "{...}" if value else "{}"
    return repr(value) if isinstance(value, bool | int | float) else "..."
