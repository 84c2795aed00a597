"""Django's migrations, run by Django's own executor."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import re
import weakref
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.calling import call_without_loop
from pytest_seeddb.application.django import DEFAULT, require_postgres, set_up, settings_module
from pytest_seeddb.application.imports import describe, is_users, place_of
from pytest_seeddb.errors import ConfigError, SeedDbError, names_a_secret, passwords_in
from pytest_seeddb.fingerprint.digests import SET, Part, chain, digest, file_digest
from pytest_seeddb.fingerprint.django_settings import APPS, installed_apps
from pytest_seeddb.fingerprint.sources import Sources
from pytest_seeddb.migrations.django_apps import apps_that_count
from pytest_seeddb.migrations.execution import SESSION, Execution, failure
from pytest_seeddb.plan.plan import Indivisible, Note, Stage, Step, step_of_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from pytest_seeddb.plan.plan import Target

# The settings that decide which migrations there are and where they run.
_SETTINGS: Final = (APPS, "MIGRATION_MODULES", "AUTH_USER_MODEL", "DATABASE_ROUTERS")
_READ: Final = re.compile(rb"\bsettings\.([A-Z][A-Z0-9_]+)")
_ENVIRONMENT: Final = "Django and its settings"
_SYNC: Final = "tables of the apps without migrations"
_SIGNALS: Final = "signals after the migrations"


def stages(root: Path, *, source: str, alias: str = DEFAULT) -> tuple[Stage, ...]:
    """The ``migrations`` stage of a Django project, and the one that sends ``post_migrate``; raises `ConfigError`.

    A layer is kept before the signal, so that a further migration runs alone, and what the signal makes (permissions,
    sites) comes out as from scratch.
    """
    set_up(root, source=source)
    require_postgres(source)
    history = _History(root, source, alias)
    signals = history.signals()

    def migrate(target: Target, _first: int) -> None:  # the database itself knows what it has
        execution = Execution(target, prints=True)
        upgrade = _Upgrade(history, target, execution)
        with _errors(lambda: upgrade.running or "Django's migrate", history, execution):
            try:
                call_without_loop(upgrade.run)
            except Exception as error:
                if upgrade.later and not upgrade.running:
                    raise Indivisible from error  # a receiver of pre_migrate may need all migrations
                raise

    def send(target: Target, first: int) -> None:
        from django.core.management import call_command

        if first or not target.marks.wants(signals):
            return
        target.started(signals)
        # The command sends it; nothing is left to migrate.
        options = {"database": alias, "verbosity": 0, "interactive": False, "skip_checks": True}
        execution = Execution(target, prints=True)
        with target.marks.around(signals), _errors(lambda: "A receiver of Django's signals", history, execution):
            call_without_loop(lambda: call_command("migrate", **options))

    taken = Note(f"Django's settings: {settings_module()}. DJANGO_SETTINGS_MODULE names others", is_usual=True)
    migrations = Stage(
        "migrations",
        history.steps,
        migrate,
        in_any_order=True,
        steps_in=history.steps_in,
        notes=(taken,),
        stops=range(len(history.steps) - len(history.keys) + 1, len(history.steps)),
    )
    return (migrations, Stage("signals", (signals,), send))


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
            raise ConfigError(
                "Django cannot read the migrations",
                saw=describe(error, self.root),
                source=self.source,
                remedy="correct them; `python manage.py showmigrations` must work",
            ) from error
        if conflicts := loader.detect_conflicts():
            raise ConfigError(
                "The migrations conflict: an app has several leaf nodes",
                saw="\n".join(f"{app}: {', '.join(sorted(names))}" for app, names in sorted(conflicts.items())),
                source=self.source,
                remedy="join them: python manage.py makemigrations --merge",
            )
        return loader

    @cached_property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """App and name of each migration, in the order in which an empty database gets them."""
        graph = self._loader.graph
        return tuple(dict.fromkeys(key for leaf in graph.leaf_nodes() for key in graph.forwards_plan(leaf)))

    @cached_property
    def labels(self) -> frozenset[str]:
        """The labels of the apps that have models and no migrations."""
        from django.apps import apps

        labels = self._loader.unmigrated_apps
        return frozenset(label for label in labels if any(apps.get_app_config(label).get_models()))

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """A step for each migration; those apps that have none come first, as in ``migrate --run-syncdb``."""
        from django.apps import apps
        from django.conf import settings

        sources = Sources(self.root)
        steps = [self._step(key, sources) for key in self.keys]
        if self.labels:
            step = Step(_SYNC, rerun="always")
            for label in sorted(self.labels):
                module = apps.get_app_config(label).models_module.__name__
                step = step_of_code(step, sources.of_module(module), sources.files_of_module(module))
            steps.insert(0, step)
        environment = Step(_ENVIRONMENT, tuple(sorted(set(self._environment()))), rerun="always")
        for router in settings.DATABASE_ROUTERS:
            module = router.rpartition(".")[0] if isinstance(router, str) else type(router).__module__
            code = sources.of_module(module, source="the setting DATABASE_ROUTERS")
            environment = step_of_code(environment, code, sources.files_of_module(module))
        return (environment, *steps) if steps else ()

    def steps_in(self, connection: psycopg.Connection[Any]) -> set[str]:
        """The names of the steps that the database has."""
        names = {_ENVIRONMENT}  # which is no work
        if connection.execute("SELECT to_regclass('django_migrations') IS NOT NULL").fetchone() == (True,):
            rows = set(connection.execute("SELECT app, name FROM django_migrations").fetchall())
            for key in self.keys:
                replaced = self._loader.graph.nodes[key].replaces
                if key in rows or (replaced and rows.issuperset(map(tuple, replaced))):
                    names.add(f"migration {key[0]}.{key[1]}")
        return names

    def _step(self, key: tuple[str, str], sources: Sources) -> Step:
        name = f"migration {key[0]}.{key[1]}"
        path = Path(inspect.getfile(type(self._loader.graph.nodes[key])))
        if not is_users(str(path), self.root):
            return Step(name, (Part(f"{key[0]}/migrations/{path.name}", file_digest(path)),), rerun="always")
        read = {name.decode() for name in _READ.findall(path.read_bytes())} - {"AUTH_USER_MODEL"}
        step = Step(name, tuple(_setting_part(name) for name in sorted(read)), rerun="always")
        return step_of_code(step, sources.of_file(path), [sources.file(path)])

    def _environment(self) -> Iterator[Part]:
        """What all migrations share, beside code."""
        import django

        yield Part("package django", django.get_version())
        if self.alias != DEFAULT:
            yield Part("alias", self.alias)
        for name in _SETTINGS:
            yield _apps_part(self.root) if name == APPS else _setting_part(name)

    def signals(self) -> Step:
        """The step for the signals: who listens to them, with the source of those that are the project's."""
        from django.db.models.signals import post_migrate, pre_migrate

        sources = Sources(self.root)
        parts: set[Part] = set()
        step = Step(_SIGNALS, rerun="safe")
        for _, reference, *_ in (*pre_migrate.receivers, *post_migrate.receivers):
            receiver: Any = reference() if isinstance(reference, weakref.ReferenceType) else reference
            if receiver is None:
                continue
            receiver = inspect.unwrap(getattr(receiver, "__func__", receiver))
            name = f"{receiver.__module__}:{getattr(receiver, '__qualname__', type(receiver).__qualname__)}"
            parts.add(Part("receiver", name))
            with contextlib.suppress(ConfigError):  # a module that was made and not read from a file
                module = receiver.__module__
                step = step_of_code(step, sources.of_module(module), sources.files_of_module(module))
        step = replace(step, parts=tuple(sorted({*step.parts, *parts})))
        # The signal is sent again where there are more migrations, or other receivers.
        migrations = Part("migrations", digest(repr(self.keys)))
        return replace(step, version=chain("", _SIGNALS, (*step.parts, migrations)))


def _setting_part(name: str) -> Part:
    """A setting's value; only its type if it is Django's own key, which may be drawn for each process, or not JSON."""
    from django.conf import settings

    return _value_part(name, getattr(settings, name, None))


def _apps_part(root: Path) -> Part:
    """The applications that a build could meet."""
    installed = installed_apps()
    part, others = _value_part(APPS, installed), apps_that_count(installed, root)
    if others == [*installed]:
        return part
    return replace(_value_part(APPS, others), before=part.before or part.digest)


def _value_part(name: str, value: object) -> Part:
    kind = type(value).__name__
    try:
        text = kind if name.startswith("SECRET_KEY") else json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        text = kind
    if text != kind and names_a_secret(name):
        return Part(f"setting {name}", SET, text, digest(kind))
    content = digest(text)
    return Part(f"setting {name}", SET, text, content) if passwords_in(text) else Part(f"setting {name}", content)


class _Upgrade:
    """One run of ``migrate``, without the signal at its end; ``running`` is what is under way, for an error."""

    def __init__(self, history: _History, target: Target, execution: Execution) -> None:
        self._history = history
        self._target = target
        self._execution = execution
        self._steps = {step.name: step for step in history.steps}
        self.later = frozenset([*self._steps][target.end :])
        self.running = ""

    def run(self) -> None:
        from django.core.management.commands.migrate import Command
        from django.core.management.sql import emit_pre_migrate_signal
        from django.db import connections
        from django.db.migrations.executor import MigrationExecutor

        alias, labels = self._history.alias, self._history.labels
        connection = connections[alias]
        connection.prepare_database()
        executor = MigrationExecutor(connection, self._progress)
        if not self._target.marks.are_kept:
            _forget_dates(executor.recorder)
        executor.loader.check_consistent_history(connection)
        targets = executor.loader.graph.leaf_nodes()
        plan = [step for step in executor.migration_plan(targets) if _step_name(step[0]) not in self.later]
        state = executor._create_project_state(with_applied_migrations=True)  # noqa: SLF001 - what the command calls
        emit_pre_migrate_signal(0, False, alias, apps=state.apps, plan=plan)
        if labels:
            self._start(_SYNC)
            command = Command(stdout=io.StringIO())
            command.verbosity = 0
            command.sync_apps(connection, labels)
            self.running = ""
        before = self._session(connection)
        executor.migrate(targets, plan=plan, state=state.clone())
        self.running = ""
        if self._session(connection) != before:
            raise Indivisible

    def _session(self, connection: Any) -> object:  # noqa: ANN401 - django.db.backends.base.base.BaseDatabaseWrapper
        """What later migrations would find, if there are any."""
        if not self.later:
            return None
        with connection.cursor() as cursor:
            cursor.execute(SESSION)
            return cursor.fetchone()

    def _progress(self, action: str, migration: Any = None, fake: bool = False) -> None:  # noqa: ANN401, ARG002 - Django's
        if action == "apply_start":
            self._start(_step_name(migration))

    def _start(self, name: str) -> None:
        self.running = f"The {name}"
        if name in self._steps:
            self._execution.announce(self._steps[name])


def _step_name(migration: Any) -> str:  # noqa: ANN401 - django.db.migrations.Migration
    return f"migration {migration.app_label}.{migration.name}"


def _forget_dates(recorder: Any) -> None:  # noqa: ANN401 - django.db.migrations.recorder.MigrationRecorder
    """Let it write one day only: nobody asks when a private database was migrated, and builds are to be the same."""
    from django.utils import timezone

    day = timezone.now().replace(year=2000, month=1, day=1, hour=0, minute=0, second=0, microsecond=0)

    def record_applied(app: str, name: str) -> None:
        recorder.ensure_schema()
        recorder.migration_qs.create(app=app, name=name, applied=day)

    recorder.record_applied = record_applied


@contextlib.contextmanager
def _errors(what: Callable[[], str], history: _History, execution: Execution) -> Iterator[None]:
    try:
        with execution.around():
            yield
    except (SeedDbError, Indivisible):
        raise
    except (Exception, SystemExit) as error:
        place, output = place_of(error, history.root), execution.output.getvalue()
        raise failure(what(), error, place, history.source, output) from error
