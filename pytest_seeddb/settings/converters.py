"""Converts settings: values that TOML has typed, and texts from anywhere else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

Reader = Callable[[object, Path], object]

OLDEST_POSTGRES: Final = 15

YES_NO: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
"""The words for a boolean."""

TYPE: Final = "type:"
"""Before the name of a type in `VerifySpec`; two of them are also kinds of texts."""
UUIDS: Final = f"{TYPE}uuid"
HASHES: Final = f"{TYPE}hash"

_LONGEST_FORM: Final = len("{clone}") + 24

_URL: Final = re.compile(r"postgres(ql)?(\+[a-z0-9_]+)?://", re.IGNORECASE)


class NotAllowed(ValueError):  # noqa: N818 - read as "the value is not allowed"
    """The value has the wrong type or is not allowed; the text says which values are."""


@dataclass(frozen=True)
class CommandSpec:
    """A shell command, and patterns of the files that determine it: ``{command = "dbmate up", inputs = ["db/**"]}``."""

    command: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class SqlSpec:
    """SQL migrations in one tool's format: ``{directory = "db", format = "flyway", placeholders = {owner = "shop"}}``.

    ``placeholders`` is ``None`` where the table says ``false``: none are replaced.
    """

    directory: str
    format: str = ""
    placeholders: tuple[tuple[str, str], ...] | None = field(default=(), repr=False)


@dataclass(frozen=True)
class VerifySpec:
    """What `seeddb verify` does not compare: ``{ignore = ["*.created_at", "user.password", "type:uuid"]}``."""

    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class DjangoSpec:
    """A management command of Django: ``{django = "seed_demo --idempotent", tier = "demo", idempotent = true}``."""

    command: str
    inputs: tuple[str, ...] = ()
    tier: Literal["essential", "demo"] = "essential"
    idempotent: bool = False


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """The question, or "" if no allowed word is similar."""
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


def report_file(value: object, root: Path) -> bool | Path:
    """A boolean, or a file for a page or its data, relative to the working directory."""
    with suppress(NotAllowed):
        return yes_no(value, root)
    path = Path(text(value, root)).expanduser().absolute()
    if path.suffix not in {".html", ".json"}:
        raise NotAllowed(
            "give a file that ends in .html or .json: --seed-db-report=report.html. For the list in the terminal, put "
            "--seed-db-report behind the tests' paths, or write --seed-db-report=yes"
        )
    return path


def names(value: object, _root: Path) -> tuple[str, ...]:
    """A string, a list of strings, or text with commas between them."""
    words = [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) and word.strip() for word in words):
        raise NotAllowed("give a string or a list of strings")
    return tuple(words)


def variable_names(value: object, root: Path) -> tuple[str, ...]:
    """Like `names`, for environment variables."""
    variables = names(value, root)
    if not all(re.fullmatch(r"[^\W\d]\w*", variable, re.ASCII) for variable in variables):
        raise NotAllowed('give the name of a variable, or several: "DATABASE_URL"')
    return variables


def environment_names(value: object, root: Path) -> tuple[str, ...]:
    """Like `variable_names`; also import paths of the application's own values."""
    paths = names(value, root)
    if not all(is_import_path(path) or re.fullmatch(r"[^\W\d]\w*", path, re.ASCII) for path in paths):
        raise NotAllowed(
            'give the name of a variable, or several: "APP_ENV"; or the import path of a value: '
            '"app.config:settings.environment"'
        )
    return paths


def import_paths(value: object, root: Path) -> tuple[str, ...]:
    """Like `names`, for import paths."""
    paths = names(value, root)
    if not all(map(is_import_path, paths)):
        raise NotAllowed('give an import path, package.module:attribute, or a list of them: "app.db:SessionLocal"')
    return paths


def is_import_path(text: str) -> bool:
    """Whether it is spelled ``package.module:attribute``."""
    return re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", text) is not None


def memory(value: object, root: Path) -> str:
    """An amount of memory, as tmpfs takes it."""
    amount = text(value, root)
    if not re.fullmatch(r"[1-9][0-9]*[kmg%]?", amount, re.IGNORECASE):
        raise NotAllowed('give an amount of memory: "512m" or "4g"')
    return amount


def clone_form(value: object, root: Path) -> str:
    """The form of a clone's name: `{clone}`, and letters around it that leave room for it in 63 bytes."""
    form = text(value, root)
    around = form.replace("{worker}", "master", 1)
    if not re.fullmatch(r"([a-z0-9_]*_)?\{clone\}(_[a-z0-9_]*)?", around) or len(around) > _LONGEST_FORM:
        raise NotAllowed(
            'write {clone}, and before or after it, joined with "_", small letters, digits and {worker}, at most 24 '
            'in all: "test_{clone}_{worker}"'
        )
    return form


def profile_name(value: object, root: Path) -> str:
    """A profile's name; a table here was meant as a profile itself."""
    if isinstance(value, Mapping):
        first = next(iter(value), "NAME")
        raise NotAllowed(f"give a profile's name. Did you mean the table [tool.seeddb.profiles.{first}]?")
    return text(value, root)


def postgres_major(value: object, root: Path) -> int:
    """A supported major version of PostgreSQL."""
    with suppress(NotAllowed):
        if (major := integer(value, root)) >= OLDEST_POSTGRES:
            return major
    raise NotAllowed(f'give a major version, "{OLDEST_POSTGRES}" or newer: older ones are past their end of life')


def server_choice(value: object, _root: Path) -> str:
    """``auto``, ``embedded``, ``container`` or a PostgreSQL URL."""
    words = ("auto", "embedded", "container")
    if isinstance(value, str) and (value in words or _URL.match(value)):
        return value
    near = did_you_mean(str(value), words)
    raise NotAllowed(f"{near} Give auto, embedded, container or postgresql://user@host:port/database".strip())


def directory(value: object, root: Path) -> Path:
    """A directory that exists, relative to the root."""
    path = file_or_directory(value, root)
    if not path.is_dir():
        raise NotAllowed(f"give a directory that exists: {path} does not")
    return path


def file_or_directory(value: object, root: Path) -> Path:
    """A path relative to the root; it need not exist yet."""
    return root / Path(text(value, root)).expanduser()


def name_or_command(value: object, root: Path) -> str | CommandSpec | SqlSpec:
    """A path, an import path, a command with its inputs, or a directory with its format."""
    if not isinstance(value, Mapping):
        return text(value, root)
    return _sql(value, root) if "directory" in value else _command(value, root)


def _sql(value: Mapping[object, object], root: Path) -> SqlSpec:
    if set(value) - {"directory", "format", "placeholders"}:
        raise NotAllowed('write {directory = "...", format = "...", placeholders = {name = "..."}}, with no other keys')
    placeholders = value.get("placeholders", {})
    if placeholders is not False and not isinstance(placeholders, Mapping):
        raise NotAllowed('write placeholders as a table, {name = "value"}, or false to leave all as they are')
    pairs = None if placeholders is False else tuple((str(key), str(given)) for key, given in placeholders.items())
    return SqlSpec(text(value["directory"], root), text(value["format"], root) if "format" in value else "", pairs)


def names_or_commands(value: object, root: Path) -> tuple[str | CommandSpec | DjangoSpec, ...]:
    """A list of paths, import paths, patterns and commands, or a single one."""
    if isinstance(value, str):
        return names(value, root)
    if isinstance(value, Mapping):
        return (_seed_command(value, root),)
    if not isinstance(value, list | tuple):
        raise NotAllowed("give a list of strings and commands")
    seeds: list[str | CommandSpec | DjangoSpec] = []
    for seed in value:
        try:
            if isinstance(seed, CommandSpec | DjangoSpec):
                seeds.append(seed)
            else:
                seeds.append(_seed_command(seed, root) if isinstance(seed, Mapping) else text(seed, root))
        except NotAllowed as error:
            raise NotAllowed(f"correct {seed!r}: {error}") from None
    return tuple(seeds)


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
            "Without them, nothing shows that the template is stale"
        )
    return CommandSpec(text(value["command"], root), names(value["inputs"], root))


def profile_tables(value: object, _root: Path) -> Mapping[str, Mapping[str, object]]:
    """A table of tables."""
    if not isinstance(value, Mapping) or not all(isinstance(profile, Mapping) for profile in value.values()):
        raise NotAllowed("write each profile as a table, [tool.seeddb.profiles.NAME], of seed parameters")
    return {str(name): dict(parameters) for name, parameters in value.items()}


def verify_table(value: object, root: Path) -> VerifySpec:
    """The table of what `seeddb verify` leaves out."""
    if isinstance(value, VerifySpec):
        return value
    if not isinstance(value, Mapping) or set(value) - {"ignore"}:
        near = did_you_mean(str(min(value, key=str)), ("ignore",)) if isinstance(value, Mapping) else ""
        raise NotAllowed(f'{near} Write verify.ignore = ["table.column", "type:uuid"], with no other keys'.strip())
    entries = names(value.get("ignore", ()), root)
    for entry in entries:
        if entry == TYPE or not (entry.startswith(TYPE) or re.fullmatch(r"(.+\.)?[^.]+\.[^.]+", entry)):
            near = f'Did you mean "*.{entry}" or "{TYPE}{entry}"?' if re.fullmatch(r"[\w*]+", entry) else ""
            raise NotAllowed(
                f'correct {entry!r}: {near} Write "table.column", with * for any text, or "type:uuid"'.replace(
                    "  ", " "
                )
            )
    return VerifySpec(entries)


def without_secrets(value: object) -> str:
    """A value for an error. A table may be a profile with secrets: it is shown without its texts."""
    if not isinstance(value, Mapping):
        return repr(value)
    items = (f"{name!r}: {_without_text(item)}" for name, item in value.items())
    return f"{{{', '.join(items)}}}"


def _without_text(value: object) -> str:
    if isinstance(value, Mapping):
        return "{...}" if value else "{}"
    return repr(value) if isinstance(value, bool | int | float) else "..."
