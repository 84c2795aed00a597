"""Settings: the table, the environment and the command line, each value with its source."""

# ruff: noqa: RUF009 - each call makes a field

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from pytest_seeddb.errors import ConfigError, conceal
from pytest_seeddb.settings import converters
from pytest_seeddb.settings.converters import (
    CommandSpec,
    DjangoSpec,
    NotAllowed,
    SqlSpec,
    VerifySpec,
    choice,
    did_you_mean,
    without_secrets,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_seeddb.settings.converters import Reader
    from pytest_seeddb.settings.files import Table

__all__ = ["KEYS", "CommandSpec", "DjangoSpec", "Key", "Settings", "load_settings"]

_PREFIX: Final = "SEEDDB_"
_SEED: Final = "SEEDDB_SEED_"
_DOTENV: Final = "dotenv"

Scope = Literal["function", "class", "module", "package", "session"]
SCOPES: Final[tuple[str, ...]] = get_args(Scope)
ISOLATIONS: Final = ("clone", "rollback", "readonly")
KEEPS: Final = ("failed", "all", "none")
RESETS: Final = ("auto", "clone")
BUILDS: Final = ("here", "process")
STORAGES: Final = ("auto", "disk", "memory")
OUTSIDES: Final = ("refuse", "say", "allow")


@dataclass(frozen=True)
class Found:
    """A value before it is converted, and its source; ambient if it was not given for this run alone."""

    value: object
    source: str
    is_ambient: bool = False


@dataclass(frozen=True)
class Key:
    """One setting: its name in the table, how it is converted, its default, and a sentence for the reference."""

    name: str
    reader: Reader
    default: object
    about: str
    has_option: bool = False
    in_table: bool = True
    in_environment: bool = True

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"SEEDDB_{self.name.upper()}"

    @property
    def option(self) -> str:
        """The command-line option, or ""."""
        return f"--seed-db-{self.name}" if self.has_option else ""

    @property
    def takes(self) -> str:
        """How a value is given to the option: always, if wanted, or never."""
        if not isinstance(self.default, bool):
            return "=..."
        return "" if self.reader is converters.yes_no else "[=...]"


def _setting(reader: Reader, about: str, default: object = None, *, is_secret: bool = False, **spellings: bool) -> Any:  # noqa: ANN401 - the field's annotation says
    """A field of `Settings` that is a setting: see `Key`."""
    metadata = {"reader": reader, "default": default, "about": about, **spellings}
    return field(default_factory=lambda: default, repr=not is_secret, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """All settings of a run. `source` says where each came from.

    Attributes:
        root: The directory of the table; relative paths and patterns start here.
        origin: The file with the table; ``None`` if there is none.
        parameters: Seed parameters from the environment (``SEEDDB_SEED_STORES=3``) and from ``--set``.

    The others are the keys of the table; see the reference.
    """

    root: Path
    origin: Path | None = None
    migrations: str | CommandSpec | SqlSpec | None = _setting(
        converters.name_or_command,
        "The source of the schema: `alembic.ini`, `django`, a directory of SQL migrations in [any tool's "
        "format](migration-formats.md) or one `*.sql` file, `package.module:attribute` (a `MetaData`, a callable, a "
        "[Flask application or a configuration of Advanced Alchemy](../how-to/frameworks.md)) or "
        '`{command = ..., inputs = [...]}`. `{directory = ..., format = "flyway", placeholders = {...}}` says which '
        "format a directory has.",
    )
    dump: Path | None = _setting(
        converters.file_or_directory,
        "A dump to restore first, in any format of `pg_dump`. Then only the migrations and seeds run that it does not "
        "contain. See [dumps](../how-to/dumps.md).",
    )
    seeds: tuple[str | CommandSpec | DjangoSpec, ...] = _setting(
        converters.names_or_commands,
        "The sources of the data, in order: modules with `@seeder` functions, callables (`package.module:function`), "
        "SQL files (patterns allowed), commands (`{command = ..., inputs = [...]}`), and Django's management commands "
        "(`{django = 'seed_demo --idempotent', tier = 'demo', idempotent = true}`).",
        (),
    )
    engines: tuple[str, ...] = _setting(
        converters.names,
        "The application's own SQLAlchemy engines or sessionmakers (`package.module:attribute`), or `all`. "
        "During a seeded test their connections go to the test's clone.",
        (),
    )
    session: tuple[str, ...] = _setting(
        converters.import_paths,
        "The application's session factory or class of sessions (`package.module:attribute`), or two: a synchronous "
        "and an asynchronous one. `seeded_session`, `seeded_async_session` and the sessions of seeders and callables "
        "are of its class, with its options. By default it is the first in `engines`; in a SQLModel project, "
        "SQLModel's.",
        (),
    )
    outside: str | None = _setting(
        choice(*OUTSIDES),
        "What happens when an engine of `engines`, or Django, connects to its own database while seeded tests run. By "
        "default that is refused on behalf of seeded tests (in fixtures, `setup_class` and the like that no other test "
        "uses, and inside `seeded_db_factory`); elsewhere it connects, and the run says so at its end. `refuse` "
        "refuses it elsewhere, too; `say` refuses nothing; `allow` does not even say it. The same holds for a thread "
        "of the project that a seeded test left running, when it connects to the database of a later test. Unless it "
        "is `allow`, the run also says which child process of a seeded test knows the application's own database only.",
    )
    build: str = _setting(
        choice(*BUILDS),
        "Where templates are built: in the process that asks (`here`), or in a `process` of its own, for an "
        "application that can be made only once. See [frameworks](../how-to/frameworks.md).",
        "here",
    )
    scope: Scope = _setting(choice(*SCOPES), "The lifetime of a clone.", "function")
    isolation: str = _setting(choice(*ISOLATIONS), "The isolation of tests whose marker sets none.", "clone")
    extensions: tuple[str, ...] = _setting(converters.names, "Extensions to create before the first migration.", ())
    server: str = _setting(
        converters.server_choice,
        "The PostgreSQL server: `auto`, `embedded`, `container` or a `postgresql://` URL.",
        "auto",
        is_secret=True,
        has_option=True,
    )
    postgres: int | None = _setting(converters.postgres_major, "The major version of PostgreSQL, 15 or newer.")
    binaries: Path | None = _setting(
        converters.directory, "The directory with `postgres` and `initdb` for the embedded server."
    )
    storage: str = _setting(
        choice(*STORAGES),
        "Where the embedded server makes clones: on the `disk`, in `memory` (`/dev/shm`), or `auto`: in memory where "
        "the disk is slow with new files. Templates are always on the disk. See "
        "[performance](../explanation/performance.md#clones-in-memory).",
        "auto",
    )
    image: str | None = _setting(
        converters.text, "The container's image. By default it is `postgres` in the major version that `postgres` sets."
    )
    tmpfs: str = _setting(
        converters.memory, "The maximum size of the container's data directory, which is in memory.", "2g"
    )
    reuse: bool = _setting(converters.yes_no, "Keep the container after the run, for the next one.", default=False)
    init_scripts: tuple[str, ...] = _setting(
        converters.names,
        "Files for the image's `docker-entrypoint-initdb.d`. They run once, when the container starts.",
        (),
    )
    watch: tuple[str, ...] = _setting(converters.names, "Further files (patterns) that belong to the fingerprint.", ())
    watch_env: tuple[str, ...] = _setting(
        converters.names,
        "Further environment variables (patterns) that belong to the fingerprint. Those that the project's own code "
        "asks for by name do anyway.",
        (),
    )
    ignore_env: tuple[str, ...] = _setting(
        converters.names,
        "Environment variables (patterns) that do not belong to the fingerprint, although the project's code asks for "
        "them.",
        (),
    )
    env: tuple[str, ...] = _setting(
        converters.variable_names, "Environment variables that hold the clone's URL during a seeded test.", ()
    )
    role: str = _setting(
        converters.text,
        "The role of the connections of `engines`, `env` and Django. `application` is the role that their own URL "
        "names, if the migrations and seeds made it or granted it something, and it is neither a superuser nor the "
        "owner. `owner` is the owner of the clone; any other value names a role. The fixtures are always the owner.",
        "application",
    )
    profile: str | None = _setting(
        converters.profile_name, "The profile of tests that do not name one.", has_option=True
    )
    profiles: Mapping[str, Mapping[str, object]] = _setting(
        converters.profile_tables,
        "The profiles, each a table of seed parameters.",
        {},
        is_secret=True,
        in_environment=False,
    )
    environment: tuple[str, ...] = _setting(
        converters.environment_names,
        "The environment variables that name the environment, or the import path of the application's own value "
        "(`app.config:settings.environment`). If one of them says `production`, `prod`, `prd` or `live`, "
        "`seeddb apply` refuses demo seeds, `--reset` and `--force`. A word such as `demo` or `development` says what "
        "the database is where no variable does. See [production](../how-to/apply.md#production).",
        ("ENVIRONMENT", "APP_ENV", "DJANGO_ENV", "FLASK_ENV", "ENV"),
    )
    dotenv: bool = _setting(
        converters.yes_no,
        "Read the file `.env` in the project's root. See [`.env`](#values-from-env).",
        default=True,
    )
    enabled: str = _setting(choice("option", "always"), "`always` runs seeded tests without `--seed-db`.", "option")
    random_seed: int = _setting(
        converters.integer,
        "The seed of `random`, Faker, factory_boy and NumPy. Each seeder and each test combines it with its own name.",
        0,
    )
    clone_name: str = _setting(
        converters.clone_form,
        "The form of the names of tests' databases, for code that checks the name before it writes: "
        "`test_{clone}_{worker}` begins with `test_` and ends in pytest-xdist's worker (`gw0`; `master` without "
        "pytest-xdist). `{clone}` is a name that no other database has.",
        "{clone}",
    )
    verify: VerifySpec = _setting(
        converters.verify_table,
        "What `seeddb verify` does not compare, a table with the key `ignore`: columns (`table.column`, patterns "
        "allowed), and types (`type:timestamptz`). `type:uuid` also means texts that are a UUID, and `type:hash` means "
        "salted hashes of passwords. See [check the seeds](../how-to/verify.md).",
        VerifySpec(),
        in_environment=False,
    )
    name: str = _setting(
        converters.text,
        "The plan's name in messages and in the names of databases. By default it is the project's name. Projects with "
        "different names never share a template; those with the same name share one only if all its inputs are the "
        "same.",
        "",
    )
    reset: str = _setting(
        choice(*RESETS),
        "How a clone is reset after a test: `auto` keeps or rewinds it if that is exact and cheaper, `clone` always "
        "makes a new one.",
        "auto",
        has_option=True,
    )
    keep: str = _setting(
        choice(*KEEPS),
        "Which tests' databases stay on the server after the run: those of `failed` tests, `all`, or `none`. The "
        "newest 20 of all runs are kept.",
        "failed",
        has_option=True,
    )
    report: bool | Path = _setting(
        converters.report_file,
        "At the end, list which tests wrote what, and how long each database took to reset, the slowest first. With a "
        "file that ends in `.html` or `.json`, write a [page](report.md) there, or its data, instead of the list.",
        default=False,
        has_option=True,
        in_table=False,
    )
    reseed: bool = _setting(
        converters.yes_no,
        "Build the template again even if one with its fingerprint exists.",
        default=False,
        has_option=True,
        in_table=False,
    )
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
        source = "Settings.replace()"
        _refuse_unknown(changes, source, list(KEYS))
        values = {key: _convert(KEYS[key], Found(value, source), self.root) for key, value in changes.items()}
        sources = {**self.sources, **dict.fromkeys(changes, source)}
        return dataclasses.replace(self, **values, sources=sources)  # type: ignore[arg-type]  # each key has its type

    @property
    def plans_nothing(self) -> bool:
        """Whether neither a schema nor seeds are declared."""
        return self.migrations is None and self.dump is None and not self.seeds and not self.extensions


KEYS: Final[Mapping[str, Key]] = {
    declared.name: Key(declared.name, **declared.metadata)
    for declared in dataclasses.fields(Settings)
    if declared.metadata
}


def load_settings(
    start: Path,
    *,
    options: Mapping[str, Found] | None = None,
    parameters: Mapping[str, Found] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings for a run that starts in ``start``.

    The command line goes before the environment, that before ``.env``, that before the table, that before the defaults.

    Args:
        start: The directory where the search for the table begins; it ends at the one with ``.git``.
        options: The command line's values, by key.
        parameters: The command line's seed parameters, by name.
        environ: The environment; by default the process's own.

    Raises:
        ConfigError: Names the key, its place, its value and the values that are allowed.
    """
    from pytest_seeddb.settings.dotenv import has_settings
    from pytest_seeddb.settings.files import checkout_name, find_table

    table = find_table(start)
    root = table.path.parent if table.path else start
    environ = os.environ if environ is None else environ
    conceal(environ.get("PGPASSWORD", ""), environ.get("PGUSER"), environ.get("PGDATABASE"), environ.get("PGHOST"))
    variables = {
        name: Found(value, f"the environment variable {name}", is_ambient=True)
        for name, value in environ.items()
        if name.startswith(_PREFIX)
    }
    given = {**_from_table(table), **_from_variables(variables)}
    dotenv = given.get(_DOTENV)
    if (dotenv is None or _convert(KEYS[_DOTENV], dotenv, root)) and has_settings(root):
        variables = {**_variables_in_dotenv(root, environ), **variables}
        given |= _from_variables(variables)
    given |= options or {}
    values = {key: _convert(KEYS[key], value, root) for key, value in given.items()}
    values["name"] = values.get("name") or table.project or checkout_name(root)
    sources = {key: value.source for key, value in given.items()}
    ambient = {name.removeprefix(_SEED).lower(): value for name, value in variables.items() if name.startswith(_SEED)}
    seed = {**ambient, **(parameters or {})}
    return Settings(root=root, origin=table.path, parameters=seed, sources=sources, **values)  # type: ignore[arg-type]  # as above


def _from_table(table: Table) -> dict[str, Found]:
    if not isinstance(table.values, dict):
        raise ConfigError(
            "[tool.seeddb] is not a table",
            saw=repr(table.values),
            source=table.heading,
            remedy="write it as a table: a line [tool.seeddb], and below it the settings, one per line",
        )
    _refuse_unknown(table.values, table.heading, [key.name for key in KEYS.values() if key.in_table])
    return {key: Found(value, f"`{key}` in {table.heading}") for key, value in table.values.items()}


def _variables_in_dotenv(root: Path, environ: Mapping[str, str]) -> dict[str, Found]:
    from pytest_seeddb.settings.dotenv import read_dotenv

    variables = {
        variable.name: Found(variable.value, f"{variable.name} in {variable.place}", is_ambient=True)
        for variable in read_dotenv(root, environ)
        if variable.name.startswith(_PREFIX)
    }
    if itself := variables.get(KEYS[_DOTENV].variable):
        raise ConfigError(
            f"{KEYS[_DOTENV].variable} has no effect in .env",
            saw=f"{KEYS[_DOTENV].variable}={itself.value}",
            source=itself.source,
            remedy=f"write dotenv = false into [tool.seeddb], or set {KEYS[_DOTENV].variable} in the environment",
        )
    return variables


def _from_variables(variables: Mapping[str, Found]) -> dict[str, Found]:
    known = {key.variable: key.name for key in KEYS.values() if key.in_environment}
    given = {}
    for variable, value in variables.items():
        if variable in known:
            given[known[variable]] = value
        # Other tools may use the prefix, so only a likely misspelling is refused.
        elif not variable.startswith(_SEED) and (near := did_you_mean(variable, known)):
            raise ConfigError(
                f"The environment variable {variable} is not a setting of pytest-seeddb",
                saw=variable,  # not its value: it may be a secret parameter's
                source=value.source,
                remedy=f"{near} Or unset it",
            )
    return given


def _refuse_unknown(given: Mapping[str, object], source: str, allowed: list[str]) -> None:
    for key, value in given.items():
        if key in allowed:
            continue
        if key in KEYS:
            option, variable = KEYS[key].option, KEYS[key].variable
            hint = f"It applies to a single run: give the option {option}, or {variable} in the environment."
        else:
            hint = did_you_mean(key, allowed)
        raise ConfigError(
            f"`{key}` is not a setting of pytest-seeddb",
            saw=f"{key} = {without_secrets(value)}",
            source=source,
            remedy=f"{hint} Allowed are {', '.join(sorted(allowed))}".strip(),
        )


def _convert(key: Key, given: Found, root: Path) -> object:
    try:
        return key.reader(given.value, root)
    except NotAllowed as error:
        may_be_secret = key.name.startswith("profile") or "placeholders" in repr(given.value)
        raise ConfigError(
            f"The setting `{key.name}` has a value that is not allowed",
            saw=without_secrets(given.value) if may_be_secret else repr(given.value),
            source=given.source,
            remedy=str(error),
        ) from None
