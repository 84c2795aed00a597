"""Run the steps of a stage of seeds."""

from __future__ import annotations

import contextlib
import io
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_seeddb.application.django import is_set_up
from pytest_seeddb.application.imports import innermost_frame, is_users, place_of
from pytest_seeddb.application.surroundings import surroundings
from pytest_seeddb.errors import BuildError, BulkError, SeedDbError
from pytest_seeddb.fingerprint.digests import relative_name
from pytest_seeddb.seeds.counters import sequences_from
from pytest_seeddb.seeds.discovery import check_seeders, load_function
from pytest_seeddb.seeds.factories import Source, redirect_factories
from pytest_seeddb.seeds.kinds import CommandSeed, Declaration, DjangoSeed, Seed, SqlSeed
from pytest_seeddb.seeds.parameters import Profile, arguments
from pytest_seeddb.seeds.randomness import own_iterators, own_randomness, seed_for
from pytest_seeddb.servers.database_errors import describe_failure, failure_remedy

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_seeddb.application.calling import Transaction
    from pytest_seeddb.application.resources import AsyncResources, SyncResources
    from pytest_seeddb.plan.plan import Step, Target

Action = Callable[[], object]


@dataclass(frozen=True)
class Runner:
    """The seeds of a stage in order, and the seeders that each module declares by its source."""

    seeds: tuple[Seed, ...]
    steps: tuple[Step, ...]
    profile: Profile
    random_seed: int
    outlines: Mapping[str, tuple[Declaration, ...]]

    def run(self, target: Target, first: int) -> None:
        """Run the seeds from the ``first`` on, each in a transaction of its own; raises `BuildError` where one fails.

        All modules are imported and all parameters checked, with a `ConfigError`, before the first one runs.
        """
        with surroundings(target):
            pairs = list(zip(self.seeds[first:], self.steps[first:], strict=True))
            actions = [(step, self._action(seed, step, target)) for seed, step in pairs if target.marks.wants(step)]
            for step, action in actions:
                target.started(step)
                action()

    def _action(self, seed: Seed, step: Step, target: Target) -> Action:
        if isinstance(seed, SqlSeed):
            from pytest_seeddb.migrations.script import SEED
            from pytest_seeddb.migrations.sql import run_sql_file

            return partial(run_sql_file, seed.path, target, step, SEED)
        if isinstance(seed, Declaration):
            return self._call(seed, step, target)

        def action() -> None:
            if isinstance(seed, DjangoSeed):
                with self._surroundings(seed, step, target), target.marks.around(step):
                    _run_management_command(seed, target)
            elif isinstance(seed, CommandSeed):
                from pytest_seeddb.application.commands import run_command

                with target.marks.around(step):
                    run_command(seed.spec, target, what="seeds", source=seed.source)

        return action

    def _call(self, seed: Declaration, step: Step, target: Target) -> Action:
        from pytest_seeddb.application.calling import call

        outline = self.outlines.get(seed.module)
        if seed.is_seeder and outline is not None:
            check_seeders(seed.module, outline, root=target.root, source=seed.place)
        function, declaration = load_function(seed, root=target.root)
        # Once more, and with the hints themselves: not all can be read from source.
        given = arguments(declaration, self.profile)
        transaction: Transaction | None = None
        if seed.is_seeder and is_set_up():
            from pytest_seeddb.application.django import in_transaction

            transaction = in_transaction  # for a seeder that asks for none: it writes through Django's own connection

        def action() -> None:
            around = partial(_factories_write, target)
            on = replace(target, needs_psycopg=seed.is_seeder)  # for bulk_create
            try:
                with self._surroundings(seed, step, target):
                    call(function, on, arguments=given, step=step, around=around, transaction=transaction)
            except (Exception, SystemExit) as error:
                if isinstance(error, SeedDbError) and not isinstance(error, BulkError):
                    raise
                raise _failure(seed, error, target.root) from error

        return action

    @contextmanager
    def _surroundings(self, seed: Declaration | DjangoSeed, step: Step, target: Target) -> Iterator[None]:
        """What a seeder draws depends on itself, and its factories' sequences on the seeders before it."""
        with own_randomness(seed_for(self.random_seed, seed.identity)), own_iterators():
            with sequences_from(target.numbering.start(step.name)) as counters:
                yield
                drawn = counters.draws()  # inside: afterwards the process's own counters are back
            target.numbering.note(step.name, drawn)


def _factories_write(target: Target, given: SyncResources | AsyncResources) -> AbstractContextManager[None]:
    """Let factories write through the seeder's session, or the application's to which they are wired if it has none."""
    has_own = given.has_transaction

    def kept(wired: Callable[[], Any], model: object) -> Any:  # noqa: ANN401 - what the user wired
        from pytest_seeddb.application.redirection import bound_session, is_redirected

        bound = bound_session(wired, model)
        if bound is None or not (given.has_engine(bound[1]) if has_own else is_redirected(bound[1], target.address)):
            return None
        given.adopt(bound[0])
        return bound[0]

    return redirect_factories(Source(given.session, given.further_session, kept))


def _run_management_command(seed: DjangoSeed, target: Target) -> None:
    """Run it in this process, on the target; what it prints is shown only when it fails."""
    from django.core.management import call_command

    from pytest_seeddb.application.calling import call_without_loop

    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            call_without_loop(lambda: call_command(*shlex.split(seed.spec.command), stdout=output, stderr=output))
    except SeedDbError:
        raise
    except (Exception, SystemExit) as error:
        place = place_of(error, target.root)
        raise BuildError(
            f"The seed {seed.identity} failed" + (f" at {place}" if place else ""),
            saw=describe_failure(error, output.getvalue()),
            source="`seeds` in the settings",
            remedy=failure_remedy(error) or "correct the command; it must run without asking questions",
        ) from error


def _failure(seed: Declaration, error: BaseException, root: Path) -> BuildError:
    """Where in the user's code a seeder failed, what the database said, what to do."""
    source = seed.place
    frame = innermost_frame(error, root)
    if frame is not None and is_users(frame.filename, root):
        source = f"{relative_name(root / frame.filename, root)}:{frame.lineno}, in {frame.name}"
        source += f": {frame.line.splitlines()[0]}" if frame.line else ""
    what = f"The seeder {seed.identity} failed"
    if isinstance(error, BulkError):  # knows more than the database
        saw = "\n".join(filter(None, (error.what, error.saw)))
        return BuildError(what, saw=saw, source=source, remedy=error.remedy)
    remedy = failure_remedy(error, "seeder") or "correct the seeder; what it had not committed was rolled back"
    return BuildError(what, saw=describe_failure(error), source=source, remedy=remedy)
