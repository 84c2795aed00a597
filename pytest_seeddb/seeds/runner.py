"""Run the steps of a stage of seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_seeddb.application.django_project import is_set_up
from pytest_seeddb.application.surroundings import surroundings
from pytest_seeddb.errors import BulkError, SeedDbError
from pytest_seeddb.seeds.counters import going_on
from pytest_seeddb.seeds.factories import Source, writing_through
from pytest_seeddb.seeds.failures import failed
from pytest_seeddb.seeds.kinds import CommandSeed, Declaration, DjangoSeed, Seed, SqlSeed
from pytest_seeddb.seeds.loading import check_seeders, loaded
from pytest_seeddb.seeds.parameters import Profile, arguments
from pytest_seeddb.seeds.randomness import own_iterators, own_randomness, seed_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pytest_seeddb.application.calling import Transaction
    from pytest_seeddb.application.resources import AsyncResources, SyncResources
    from pytest_seeddb.plan.plan import Step, Target

__all__ = ["Runner"]

Action = Callable[[], None]


@dataclass(frozen=True)
class Runner:
    """The seeds of a stage, ready to run.

    Attributes:
        seeds: In order.
        steps: The step of each.
        profile: Gives the parameters.
        random_seed: The plan's.
        modules: What the source of each module says that it declares.
    """

    seeds: tuple[Seed, ...]
    steps: tuple[Step, ...]
    profile: Profile
    random_seed: int
    modules: Mapping[str, tuple[Declaration, ...]]

    def run(self, target: Target, first: int) -> None:
        """Run the seeds from the ``first`` on, each in a transaction of its own.

        All modules are imported and all parameters checked before the first one runs. The process's
        random numbers, working directory and environment are afterwards as they were.

        Raises:
            ConfigError: A declaration or a parameter is wrong; nothing has run.
            BuildError: A seed failed; those before it are committed.
        """
        with surroundings(target):
            pairs = list(zip(self.seeds[first:], self.steps[first:], strict=True))
            actions = [(step, self._action(seed, target)) for seed, step in pairs if target.marks.wants(step)]
            for step, action in actions:
                target.started(step)
                action()

    def _action(self, seed: Seed, target: Target) -> Action:
        if isinstance(seed, SqlSeed):
            return partial(_run_sql, seed, target, self._step(seed))
        if isinstance(seed, CommandSeed):
            return partial(_run_command, seed, target, self._step(seed))
        if isinstance(seed, DjangoSeed):
            return self._django_action(seed, target)
        return self._call_action(seed, target)

    def _django_action(self, seed: DjangoSeed, target: Target) -> Action:
        from pytest_seeddb.seeds.django import run_management_command

        step = self._step(seed)

        def action() -> None:
            with self._surroundings(seed, target), target.marks.around(step):
                run_management_command(seed, target)

        return action

    def _call_action(self, seed: Declaration, target: Target) -> Action:
        from pytest_seeddb.application.calling import call

        said = self.modules.get(seed.module)
        if seed.is_seeder and said is not None:
            check_seeders(seed.module, said, root=target.root, source=seed.place)
        found = loaded(seed, root=target.root)
        # Once more, and with the hints themselves: not all can be read from source.
        given = arguments(found.declaration, self.profile)

        def action() -> None:
            with _explained(seed, target.root), self._surroundings(seed, target):
                call(
                    found.function,
                    target,
                    arguments=given,
                    step=self._step(seed),
                    around=partial(_wired, target),
                    transaction=_transaction_of(seed),
                )

        return action

    @contextmanager
    def _surroundings(self, seed: Declaration | DjangoSeed, target: Target) -> Iterator[None]:
        """What a seeder draws depends on itself, and its factories' sequences on the seeders before it."""
        with own_randomness(seed_for(self.random_seed, seed.identity)), own_iterators():
            name = self._step(seed).name
            with going_on(target.numbering.start(name)) as counters:
                yield
                drawn = counters.drawn()  # inside: afterwards the process's own counters are back
            target.numbering.note(name, drawn)

    def _step(self, seed: Seed) -> Step:
        return self.steps[self.seeds.index(seed)]


def _transaction_of(seed: Declaration) -> Transaction | None:
    """Django's, for a seeder that asks for none of ours: it writes through Django's own connection."""
    if not seed.is_seeder or not is_set_up():
        return None
    from pytest_seeddb.application.django_connections import in_transaction

    return in_transaction


def _wired(target: Target, given: SyncResources | AsyncResources) -> AbstractContextManager[None]:
    """Let factories write through the seeder's session.

    A seeder that asks for none may have one of the application's, to which its factories are wired, and
    which leads here as well: then that is theirs, too, and what they write is committed all the same.
    """
    asked = given.has_transaction

    def kept(wired: Callable[[], Any], model: object) -> Any:  # noqa: ANN401 - whatever the user wired
        from pytest_seeddb.application.redirection import leading_to

        session = None if asked else leading_to(target.address, wired, model)
        if session is not None:
            given.adopt(session)
        return session

    return writing_through(Source(given.session, given.further_session, kept))


def _run_sql(seed: SqlSeed, target: Target, step: Step) -> None:
    from pytest_seeddb.migrations.sql import run_sql_file

    run_sql_file(seed.path, target, step)


def _run_command(seed: CommandSeed, target: Target, step: Step) -> None:
    from pytest_seeddb.application.commands import run_command

    with target.marks.around(step):
        run_command(seed.spec, target, what="seeds", source=seed.source)


@contextmanager
def _explained(seed: Declaration, root: Path) -> Iterator[None]:
    try:
        yield
    except BulkError as error:
        raise failed(seed, error, root) from error
    except SeedDbError:
        raise
    except (Exception, SystemExit) as error:
        raise failed(seed, error, root) from error
