"""Settings: the table, the environment and the command line, each value with its source."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from pytest_seeddb.errors import ConfigError, conceal
from pytest_seeddb.settings.converters import (
    CommandSpec,
    DjangoSpec,
    Key,
    NotAllowed,
    choice,
    did_you_mean,
    directory,
    file_or_directory,
    integer,
    memory,
    name_or_command,
    names,
    names_or_commands,
    postgres_major,
    profile_name,
    profile_tables,
    server_choice,
    text,
    variables,
    without_secrets,
    yes_no,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_seeddb.settings.files import Table

__all__ = ["KEYS", "CommandSpec", "DjangoSpec", "Key", "Settings", "load_settings"]

_SEED: Final = "SEEDDB_SEED_"
SCOPES: Final = ("function", "class", "module", "package", "session")
ISOLATIONS: Final = ("clone", "rollback", "readonly")

KEEPS: Final = ("failed", "all", "none")
RESETS: Final = ("auto", "clone")

Scope = Literal["function", "class", "module", "package", "session"]


KEYS: Final[Mapping[str, Key]] = {
    key.name: key
    for key in (
        Key(
            "migrations",
            name_or_command,
            None,
            "What makes the schema: `alembic.ini`, `django`, a directory of `*.sql` files, `package.module:attribute` "
            "(a `MetaData` or a callable) or `{command = ..., inputs = [...]}`.",
        ),
        Key(
            "dump",
            file_or_directory,
            None,
            "A dump that is restored first, in any format of `pg_dump`; then only those migrations and seeds run that "
            "it does not hold. See [dumps](../how-to/dumps.md).",
        ),
        Key(
            "seeds",
            names_or_commands,
            (),
            "What fills it, in order: modules with `@seeder` functions, callables (`package.module:function`), "
            "SQL files (patterns allowed), `{command = ..., inputs = [...]}`, and management commands of Django's "
            "(`{django = 'seed_demo --idempotent', tier = 'demo', idempotent = true}`).",
        ),
        Key(
            "engines",
            names,
            (),
            "The application's own SQLAlchemy engines or sessionmakers (`package.module:attribute`), or `all`: "
            "during a seeded test their connections go to its clone.",
        ),
        Key("scope", choice(*SCOPES), "function", "How long a clone lives."),
        Key(
            "isolation",
            choice(*ISOLATIONS),
            "clone",
            "How tests without `isolation=` in their marker are kept apart.",
        ),
        Key("extensions", names, (), "Extensions that the database has before the first migration."),
        Key(
            "server",
            server_choice,
            "auto",
            "Where PostgreSQL comes from: `auto`, `embedded`, `container` or a `postgresql://` URL.",
            option="--seed-db-server",
        ),
        Key("postgres", postgres_major, None, "The major version wanted, 15 or newer."),
        Key(
            "binaries",
            directory,
            None,
            "The directory that holds `postgres` and `initdb` for the embedded server.",
        ),
        Key("image", text, None, "The container's image; `postgres` in the wanted major version by default."),
        Key("tmpfs", memory, "2g", "How much memory the container's data directory may take."),
        Key("reuse", yes_no, False, "The container stays after the run, and the next one finds it."),
        Key(
            "init_scripts",
            names,
            (),
            "Files for the image's `docker-entrypoint-initdb.d`, run once when the container starts.",
        ),
        Key("watch", names, (), "Further files (patterns) whose contents belong to the fingerprint."),
        Key("env", variables, (), "Environment variables that hold the clone's URL during a seeded test."),
        Key(
            "profile",
            profile_name,
            None,
            "The profile of tests that name none.",
            option="--seed-db-profile",
        ),
        Key(
            "profiles",
            profile_tables,
            {},
            "The profiles: a table of seed parameters each.",
            in_environment=False,
        ),
        Key(
            "environment",
            variables,
            ("ENVIRONMENT", "APP_ENV", "DJANGO_ENV", "FLASK_ENV", "ENV"),
            "The environment variables that say where this is. Where one of them says `production`, `prod`, `prd` or "
            "`live`, `seeddb apply` refuses demo seeds, `--reset` and `--force`.",
        ),
        Key(
            "enabled",
            choice("option", "always"),
            "option",
            "`always` runs seeded tests without `--seed-db`.",
        ),
        Key(
            "random_seed",
            integer,
            0,
            "What `random`, Faker, factory_boy and NumPy are seeded with, with the name of the seeder or the test.",
        ),
        Key(
            "name",
            text,
            None,
            "What the plan is called in database names and messages; the project's name by default.",
        ),
        Key(
            "reset",
            choice(*RESETS),
            "auto",
            "What becomes of a clone after a test: `auto` keeps or rewinds it where that is exact and cheaper, `clone` "
            "makes a new one each time.",
            option="--seed-db-reset",
        ),
        Key(
            "keep",
            choice(*KEEPS),
            "failed",
            "Whose databases stay on the server after the run, the newest 20 of all runs: those of `failed` tests, "
            "`all`, or `none`.",
            option="--seed-db-keep",
        ),
        Key(
            "report",
            yes_no,
            False,
            "Say at the end which tests wrote what, and what each database cost afterwards, the slowest first.",
            option="--seed-db-report",
            in_table=False,
        ),
        Key(
            "reseed",
            yes_no,
            False,
            "Build the template anew although its fingerprint matches.",
            option="--seed-db-reseed",
            in_table=False,
        ),
    )
}


@dataclass(frozen=True)
class Found:
    """A value as it was found, before it is read, and where.

    Attributes:
        is_ambient: Whether it holds for all that is started there, and was not given for this run.
    """

    value: object
    source: str
    is_ambient: bool = False


@dataclass(frozen=True)
class Settings:
    """All settings of a run. `source` tells where each came from.

    Attributes:
        root: The directory of the table; relative paths and patterns start here.
        origin: The file that holds the table; ``None`` where there is none.

        parameters: Seed parameters from the environment (``SEEDDB_SEED_STORES=3``) and from ``--set``.

    The others are the keys of the table; see the reference.
    """

    root: Path
    origin: Path | None = None
    name: str = ""
    migrations: str | CommandSpec | None = None
    dump: Path | None = None
    seeds: tuple[str | CommandSpec | DjangoSpec, ...] = ()
    engines: tuple[str, ...] = ()
    scope: Scope = "function"
    isolation: str = "clone"
    extensions: tuple[str, ...] = ()
    server: str = field(default="auto", repr=False)
    postgres: int | None = None
    binaries: Path | None = None
    image: str | None = None
    tmpfs: str = "2g"
    reuse: bool = False
    init_scripts: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    profile: str | None = None
    profiles: Mapping[str, Mapping[str, object]] = field(default_factory=dict, repr=False)
    environment: tuple[str, ...] = ("ENVIRONMENT", "APP_ENV", "DJANGO_ENV", "FLASK_ENV", "ENV")
    enabled: str = "option"
    random_seed: int = 0
    reset: str = "auto"
    keep: str = "failed"
    report: bool = False
    reseed: bool = False
    parameters: Mapping[str, Found] = field(default_factory=dict, repr=False)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False)

    def source(self, key: str) -> str:
        """Where the value of ``key`` came from, for an error or for `seeddb explain`."""
        return self.sources.get(key, "the default")

    def replace(self, **changes: object) -> Settings:
        """The same settings with some values changed, read and checked as if they stood in the table.

        For a ``conftest.py`` that overrides the ``seeddb_settings`` fixture.

        Raises:
            ConfigError: Unknown key or a value that is not allowed.
        """
        found = {key: Found(value, "Settings.replace()") for key, value in changes.items()}
        _refuse_unknown(changes, "Settings.replace()", list(KEYS))
        read = {key: _read(KEYS[key], each, self.root) for key, each in found.items()}
        sources = {**self.sources, **{key: each.source for key, each in found.items()}}
        return dataclasses.replace(self, **read, sources=sources)  # type: ignore[arg-type]  # values are read per key

    @property
    def plans_nothing(self) -> bool:
        """Whether neither a schema nor seeds are declared."""
        return self.migrations is None and self.dump is None and not self.seeds and not self.extensions


def load_settings(
    start: Path,
    *,
    options: Mapping[str, Found] | None = None,
    parameters: Mapping[str, Found] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings that hold for a run started in ``start``.

    The command line goes before the environment, that before the table, that before the defaults.

    Args:
        start: The directory where the search for the table begins; it goes upward to the one that
            holds ``.git``.
        options: What was given on the command line, by key.
        parameters: Seed parameters that were given there, by name.
        environ: The environment; the process's own by default.

    Raises:
        ConfigError: Names the key, where it stands, what was found and what is allowed.
    """
    from pytest_seeddb.settings.files import find_table

    table = find_table(start)
    root = table.path.parent if table.path else start
    environ = os.environ if environ is None else environ
    conceal(environ.get("PGPASSWORD", ""), environ.get("PGUSER"), environ.get("PGDATABASE"), environ.get("PGHOST"))
    found = {**_from_table(table), **_from_environment(environ), **(options or {})}
    values = {key: _read(KEYS[key], each, root) for key, each in found.items()}
    values["name"] = values.get("name") or table.project or root.name
    sources = {key: each.source for key, each in found.items()}
    given = {**_seed_parameters(environ), **(parameters or {})}
    return Settings(root=root, origin=table.path, parameters=given, sources=sources, **values)  # type: ignore[arg-type]  # likewise


def _seed_parameters(environ: Mapping[str, str]) -> dict[str, Found]:
    return {
        variable.removeprefix(_SEED).lower(): Found(value, f"the environment variable {variable}", is_ambient=True)
        for variable, value in environ.items()
        if variable.startswith(_SEED)
    }


def _from_table(table: Table) -> dict[str, Found]:
    if not isinstance(table.values, dict):
        raise ConfigError(
            "[tool.seeddb] is not a table",
            saw=repr(table.values),
            source=table.heading,
            remedy="write it as a table: a line [tool.seeddb], and below it the settings, a line each",
        )
    _refuse_unknown(table.values, table.heading, [key.name for key in KEYS.values() if key.in_table])
    return {key: Found(value, f"`{key}` in {table.heading}") for key, value in table.values.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Found]:
    known = {key.variable: key.name for key in KEYS.values() if key.in_environment}
    for variable in environ:
        # Other tools may use the prefix; only what looks like a misspelling of ours is refused.
        is_setting = variable.startswith("SEEDDB_") and not variable.startswith(_SEED)
        if is_setting and variable not in known and (near := did_you_mean(variable, known)):
            raise ConfigError(
                f"The environment variable {variable} is not a setting of pytest-seeddb",
                saw=variable,  # not its value: it may be a secret parameter's
                source="the environment",
                remedy=f"{near} Or unset it",
            )
    return {
        known[each]: Found(value, f"the environment variable {each}")
        for each, value in environ.items()
        if each in known
    }


def _refuse_unknown(given: Mapping[str, object], source: str, allowed: list[str]) -> None:
    for key, value in given.items():
        if key not in allowed:
            raise ConfigError(
                f"`{key}` is not a setting of pytest-seeddb",
                saw=f"{key} = {without_secrets(value)}",
                source=source,
                remedy=f"{_near_or_elsewhere(key, allowed)} Allowed are {', '.join(sorted(allowed))}".strip(),
            )


def _near_or_elsewhere(key: str, allowed: list[str]) -> str:
    known = KEYS.get(key)
    if known is None:
        return did_you_mean(key, allowed)
    return f"It is for one run alone: give the option {known.option}, or {known.variable} in the environment."


def _read(key: Key, found: Found, root: Path) -> object:
    try:
        return key.reader(found.value, root)
    except NotAllowed as error:
        raise ConfigError(
            f"The setting `{key.name}` has a value that is not allowed",
            saw=without_secrets(found.value) if key.name.startswith("profile") else repr(found.value),
            source=found.source,
            remedy=str(error),
        ) from None
