"""Django's migrations, run by Django's own executor."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import re
import sys
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.calling import call_without_loop
from pytest_seeddb.application.django import DEFAULT, require_postgres, set_up
from pytest_seeddb.application.imports import is_users, place_of
from pytest_seeddb.application.surroundings import surroundings
from pytest_seeddb.errors import BuildError, ConfigError, SeedDbError, names_a_secret
from pytest_seeddb.fingerprint.digests import Part, chain, digest, file_digest
from pytest_seeddb.fingerprint.sources import Sources
from pytest_seeddb.migrations.logging_state import logging_kept
from pytest_seeddb.plan.plan import Stage, Step
from pytest_seeddb.servers.database_errors import describe_failure, failure_remedy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_seeddb.plan.plan import Target

_SETTINGS: Final = ("INSTALLED_APPS", "MIGRATION_MODULES", "AUTH_USER_MODEL", "DATABASE_ROUTERS")
"""What of the settings decides which migrations there are and where they run."""
_READ: Final = re.compile(rb"\bsettings\.([A-Z][A-Z0-9_]+)")
_SETTINGS_STEP: Final = "Django and its settings"
_SYNC: Final = "tables of the apps without migrations"
_SIGNALS: Final = "signals after the migrations"


def stages(root: Path, *, source: str, alias: str = DEFAULT) -> tuple[Stage, ...]:
    """The ``migrations`` stage of a Django project, and the one that sends ``post_migrate``.

    The signal has a stage of its own: a layer is kept before it, so that one migration more is one
    migration to run, and what the signal makes (content types, permissions, sites) comes out as it does
    when all is migrated from scratch.

    Args:
        root: The project's root.
        source: Where the setting came from.
        alias: Of the database that is migrated.

    Raises:
        ConfigError: Django cannot be set up, none of its databases is PostgreSQL's, or the migrations cannot be read
            or contradict each other.
    """
    set_up(root, source=source)
    require_postgres(source)
    history = _History(root, source, alias)
    migrations = _Migrations(history)
    signals = Step(_SIGNALS, history.signal_parts(), version=history.signal_version(), rerun="safe")

    def send(target: Target, first: int) -> None:
        if not first and target.marks.wants(signals):
            target.started(signals)
            with target.marks.around(signals):
                _Sender(history, target).run()

    migrated = Stage("migrations", history.steps, migrations.run, in_any_order=True)
    return (migrated, Stage("signals", (signals,), send))


@dataclass(frozen=True)
class _History:
    """The project's migrations as Django reads them from the files, whatever has been applied where."""

    root: Path
    source: str
    alias: str

    @cached_property
    def _loader(self) -> Any:  # noqa: ANN401 - Django has no types
        from django.db.migrations.loader import MigrationLoader

        try:
            loader = MigrationLoader(None)
        except (Exception, SystemExit) as error:
            where = place_of(error, self.root)
            raise ConfigError(
                "Django cannot read the migrations",
                saw=f"{type(error).__name__}: {error}" + (f"\nat {where}" if where else ""),
                source=self.source,
                remedy="mend them; `python manage.py showmigrations` must work",
            ) from error
        if conflicts := loader.detect_conflicts():
            raise _conflicting(conflicts, self.source)
        return loader

    @cached_property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """App and name of each migration, in the order in which an empty database gets them."""
        graph = self._loader.graph
        return tuple(dict.fromkeys(key for leaf in graph.leaf_nodes() for key in graph.forwards_plan(leaf)))

    @cached_property
    def unmigrated(self) -> frozenset[str]:
        """The labels of the apps that have models and no migrations."""
        from django.apps import apps

        labels = self._loader.unmigrated_apps
        return frozenset(each for each in labels if any(apps.get_app_config(each).get_models()))

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """A step for each migration; those apps that have none come first, as in ``migrate --run-syncdb``."""
        sources = Sources(self.root)
        found = [Step(_name(key), self._parts(key, sources), rerun="always") for key in self.keys]
        if self.unmigrated:
            found.insert(0, Step(_SYNC, self._parts_of_models(sources), rerun="always"))
        environment = Step(_SETTINGS_STEP, tuple(sorted(set(self._environment()))), rerun="always")
        return (environment, *found) if found else ()

    def _parts(self, key: tuple[str, str], sources: Sources) -> tuple[Part, ...]:
        path = Path(inspect.getfile(type(self._loader.graph.nodes[key])))
        if not is_users(str(path), self.root):
            return (Part(f"{key[0]}/migrations/{path.name}", file_digest(path)),)
        read = {name.decode() for name in _READ.findall(path.read_bytes())} - {"AUTH_USER_MODEL"}
        return (*sources.of_file(path), *(_setting_part(name) for name in sorted(read)))

    def _parts_of_models(self, sources: Sources) -> tuple[Part, ...]:
        from django.apps import apps

        modules = [apps.get_app_config(label).models_module.__name__ for label in sorted(self.unmigrated)]
        return tuple(sorted({part for module in modules for part in sources.of_module(module)}))

    def _environment(self) -> Iterator[Part]:
        """What all migrations share."""
        import django
        from django.conf import settings

        yield Part("package django", django.get_version())
        if self.alias != DEFAULT:
            yield Part("alias", self.alias)
        for name in _SETTINGS:
            yield _setting_part(name)
        sources = Sources(self.root)
        for router in settings.DATABASE_ROUTERS:
            module = router.rpartition(".")[0] if isinstance(router, str) else type(router).__module__
            yield from sources.of_module(module, source="the setting DATABASE_ROUTERS")

    def signal_parts(self) -> tuple[Part, ...]:
        """Who listens to the signals, with the source of those that are the project's."""
        from django.db.models.signals import post_migrate, pre_migrate

        sources = Sources(self.root)
        found: set[Part] = set()
        for receiver in (*_receivers(pre_migrate), *_receivers(post_migrate)):
            name = f"{receiver.__module__}:{getattr(receiver, '__qualname__', type(receiver).__qualname__)}"
            found.add(Part("receiver", name))
            with contextlib.suppress(ConfigError):  # a module that was made and not read from a file
                found.update(sources.of_module(receiver.__module__))
        return tuple(sorted(found))

    def signal_version(self) -> str:
        """It is sent again where there are more migrations, or other receivers."""
        return chain("", _SIGNALS, (*self.signal_parts(), Part("migrations", digest(repr(self.keys)))))


def _receivers(signal: Any) -> Iterator[Any]:  # noqa: ANN401 - django.dispatch.Signal
    import weakref

    for _, receiver, *_ in signal.receivers:
        found: Any = receiver() if isinstance(receiver, weakref.ReferenceType) else receiver
        if found is not None:
            yield inspect.unwrap(getattr(found, "__func__", found))


def _setting_part(name: str) -> Part:
    """A setting's value as a digest; of a secret, and of what has no value to compare, only the type."""
    from django.conf import settings

    value: object = getattr(settings, name, None)
    try:
        text = type(value).__name__ if names_a_secret(name) else json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        text = type(value).__name__
    return Part(f"setting {name}", digest(text))


def _name(key: tuple[str, str]) -> str:
    return f"migration {key[0]}.{key[1]}"


def _conflicting(conflicts: dict[str, Iterable[str]], source: str) -> ConfigError:
    return ConfigError(
        "The migrations have several ends",
        saw="\n".join(f"{app}: {', '.join(sorted(names))}" for app, names in sorted(conflicts.items())),
        source=source,
        remedy="join them: python manage.py makemigrations --merge",
    )


class _Quiet:
    """What Django prints while it works, kept for the error."""

    def __init__(self) -> None:
        self.output = io.StringIO()
        self._outside = (sys.stdout, sys.stderr)

    @contextlib.contextmanager
    def broken(self) -> Iterator[None]:
        """Let what is printed in the block be seen."""
        out, err = self._outside
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield

    @contextlib.contextmanager
    def around(self, target: Target) -> Iterator[None]:
        with (
            surroundings(target),
            logging_kept(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(self.output),
            contextlib.redirect_stderr(self.output),
        ):
            # What Django deprecates in the project's files is the project's to hear from its own command.
            warnings.simplefilter("ignore")
            yield


class _Migrations:
    """Runs what a database lacks; the database itself knows what it has."""

    def __init__(self, history: _History) -> None:
        self._history = history

    def run(self, target: Target, _first: int) -> None:
        """Raises `BuildError` that names the migration."""
        quiet = _Quiet()
        run = _Run(self._history, target, quiet)
        with _explained(run.what, self._history, quiet), quiet.around(target):
            call_without_loop(run.migrate)


class _Run:
    """One run of ``migrate``, without the signal at its end."""

    def __init__(self, history: _History, target: Target, quiet: _Quiet) -> None:
        self._alias = history.alias
        self._unmigrated = history.unmigrated
        self._target = target
        self._quiet = quiet
        self._steps = {step.name: step for step in history.steps}
        self._running = ""

    def what(self) -> str:
        """What is under way, for an error."""
        return f"The {self._running}" if self._running else "Django's migrate"

    def migrate(self) -> None:
        """As the command does."""
        from django.core.management.sql import emit_pre_migrate_signal
        from django.db import connections
        from django.db.migrations.executor import MigrationExecutor

        connection = connections[self._alias]
        connection.prepare_database()
        executor = MigrationExecutor(connection, self._progress)
        if not self._target.marks.are_kept:
            executor.recorder = _without_a_date(executor.recorder)
        executor.loader.check_consistent_history(connection)
        targets = executor.loader.graph.leaf_nodes()
        plan = executor.migration_plan(targets)
        state = executor._create_project_state(with_applied_migrations=True)  # noqa: SLF001 - what the command calls
        emit_pre_migrate_signal(0, False, self._alias, apps=state.apps, plan=plan)
        self._sync(connection)
        executor.migrate(targets, plan=plan, state=state.clone())
        self._running = ""

    def _sync(self, connection: Any) -> None:  # noqa: ANN401 - a DatabaseWrapper
        from django.core.management.commands.migrate import Command

        if not self._unmigrated:
            return
        self._start(_SYNC)
        command = Command(stdout=io.StringIO())
        command.verbosity = 0
        command.sync_apps(connection, self._unmigrated)
        self._running = ""

    def _progress(self, action: str, migration: Any = None, fake: bool = False) -> None:  # noqa: ANN401, ARG002 - Django's
        if action == "apply_start":
            self._start(_name((migration.app_label, migration.name)))

    def _start(self, name: str) -> None:
        self._running = name
        if name in self._steps:
            with self._quiet.broken():
                self._target.started(self._steps[name])


def _without_a_date(recorder: Any) -> Any:  # noqa: ANN401 - django.db.migrations.recorder.MigrationRecorder
    """One that writes no day: when a private database was migrated matters to nobody, and builds are to be the same."""
    from django.utils import timezone

    day = timezone.now().replace(year=2000, month=1, day=1, hour=0, minute=0, second=0, microsecond=0)

    def record_applied(app: str, name: str) -> None:
        recorder.ensure_schema()
        recorder.migration_qs.create(app=app, name=name, applied=day)

    recorder.record_applied = record_applied
    return recorder


class _Sender:
    """Sends ``post_migrate``, by the command itself: nothing is left to migrate."""

    def __init__(self, history: _History, target: Target) -> None:
        self._history = history
        self._target = target

    def run(self) -> None:
        """Raises `BuildError` that says where the receiver failed."""
        quiet = _Quiet()
        with _explained(lambda: "A receiver of Django's signals", self._history, quiet), quiet.around(self._target):
            call_without_loop(self._send)

    def _send(self) -> None:
        from django.core.management import call_command

        call_command("migrate", database=self._history.alias, verbosity=0, interactive=False, skip_checks=True)


@contextlib.contextmanager
def _explained(what: Callable[[], str], history: _History, quiet: _Quiet) -> Iterator[None]:
    try:
        yield
    except SeedDbError:
        raise
    except (Exception, SystemExit) as error:
        raise _failure(what(), error, history, quiet.output.getvalue()) from error


def _failure(what: str, error: BaseException, history: _History, printed: str) -> BuildError:
    where = place_of(error, history.root)
    return BuildError(
        f"{what} failed" + (f" at {where}" if where else ""),
        saw=describe_failure(error, printed),
        source=history.source,
        remedy=failure_remedy(error) or "mend it; it runs against an empty database",
    )
