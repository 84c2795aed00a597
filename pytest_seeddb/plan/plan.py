"""The plan: an ordered list of steps that make a seeded database, grouped into stages."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from pytest_seeddb.errors import HIDDEN, names_a_secret
from pytest_seeddb.fingerprint.digests import Part, chain, chain_of_set, digest, seal
from pytest_seeddb.fingerprint.participation import Participation, Root
from pytest_seeddb.plan.numbering import Numbering
from pytest_seeddb.settings.files import project_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    import psycopg

    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings

    StepsIn = Callable[[psycopg.Connection[Any]], Collection[str]]

_ALL: Final = sys.maxsize


@dataclass(frozen=True)
class Step:
    """One thing that a build does, with the parts that determine its result.

    Attributes:
        name: What a person calls it: ``migration 0003_orders``, ``seed shop.seeds:roles``.
        parts: Everything that determines what it does; see `pytest_seeddb.fingerprint.digests`.
        version: What of it counts on a database that has it already; all its parts by default.
        before: Its parts by the rule that earlier notes in ledgers follow, where these are other files.
        version_before: The version by that rule, where there is one.
        code: The names of those parts that are code, with its packages. A template depends on what ran instead.
        roots: The files of the project that it runs.
        rerun: On such a database: ``never`` (it would do its work twice), ``safe``, or ``always`` where
            the tool that runs it knows by itself what is missing.
        check: Raises the `SeedDbError` with which it is certain to end, as far as its files tell; runs nothing.
    """

    name: str
    parts: tuple[Part, ...] = ()
    version: str = field(default="", compare=False)
    before: tuple[Part, ...] = field(default=(), compare=False)
    version_before: str = field(default="", compare=False)
    rerun: Literal["never", "safe", "always"] = field(default="never", compare=False)
    code: frozenset[str] = field(default=frozenset(), compare=False)
    roots: tuple[Root, ...] = field(default=(), compare=False)
    check: Callable[[], object] = field(default=tuple, repr=False, compare=False)

    @property
    def declared(self) -> tuple[Part, ...]:
        """The parts that are not code."""
        return tuple(part for part in self.parts if part.name not in self.code)

    @property
    def version_now(self) -> str:
        """The digest that tells whether it has changed since it was applied; the values of secrets do not count."""
        return self.version or chain("", self.name, self.parts)

    @property
    def parts_before(self) -> tuple[Part, ...]:
        """Its parts as version 0.1.0 had them."""
        return as_before(self.before or self.parts)

    @property
    def versions(self) -> tuple[str, ...]:
        """The version now, and the one that version 0.1.0 noted for the same inputs."""
        before = self.version_before or (not self.version and chain("", self.name, self.parts_before))
        return (self.version_now, *([before] if before else ()))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of its secrets."""
        return tuple(part.secret for part in self.parts if part.secret)


def names_of(parts: Iterable[Part]) -> frozenset[str]:
    """The names of these parts."""
    return frozenset(part.name for part in parts)


def step_of_code(step: Step, code: Iterable[Part], files: Iterable[str]) -> Step:
    """The step with the parts of the code that it may run, and the files that it runs first."""
    code = set(code)
    roots = (*step.roots, *(Root(file) for file in dict.fromkeys(files)))
    return replace(step, parts=tuple(sorted({*step.parts, *code})), code=step.code | names_of(code), roots=roots)


@dataclass(frozen=True)
class Mark:
    """How a step is noted inside of its own transaction: SQL, and its parameters at the start and at the end."""

    statement: str
    begun: tuple[object, ...]
    finished: Callable[[], tuple[object, ...]]


class Marks:
    """Which steps are to run, and how the database notes them. Here: all, and not at all, as for a template.

    See `pytest_seeddb.plan.ledger` for the other kind.
    """

    @property
    def are_kept(self) -> bool:
        """Whether the database notes them, in a ledger of its own."""
        return False

    def wants(self, step: Step) -> bool:  # noqa: ARG002 - for those that choose
        """Whether the step is to run."""
        return True

    def mark(self, step: Step) -> Mark | None:  # noqa: ARG002 - for those that note
        """How it is noted inside of its own transaction."""
        return None

    @contextmanager
    def around(self, step: Step) -> Iterator[None]:  # noqa: ARG002 - as above
        """Note a step that makes its own transactions."""
        yield

    def renew(self) -> None:
        """Note the start again: a restored dump has replaced the ledger."""


@dataclass(frozen=True)
class Target:
    """The database being built, as a stage sees it.

    Attributes:
        address: Where it is. Nobody else is connected to it.
        root: The project's root, which is the working directory while a stage runs.
        env: Names of further environment variables that hold the URL, from the settings.
        started: Call it as each step begins, for the progress line.
        marks: Which steps are to run, and how the database notes them.
        numbering: Which numbers of factory_boy's sequences the steps so far have drawn; each seeder goes on
            from there, and notes what it draws.
        alias: What Django calls the database.
        beside: A Django project's further databases, by alias.
        settings: Those that name the application's own engines and session factories; ``None`` without any.
        needs_psycopg: Whether what is called gets psycopg 3 in place of the application's own engines.
        end: How many of the stage's steps are wanted.
    """

    address: Address
    root: Path
    env: tuple[str, ...] = ()
    started: Callable[[Step], None] = lambda _step: None
    marks: Marks = field(default_factory=Marks)
    numbering: Numbering = field(default_factory=Numbering)
    alias: str = "default"
    beside: Mapping[str, Address] = field(default_factory=dict)
    settings: Settings | None = None
    needs_psycopg: bool = False
    end: int = _ALL


class Indivisible(Exception):  # noqa: N818 - a verdict, which never leaves the worker
    """A stage cannot stop at `Target.end`: something beside its steps failed there."""


class Note(NamedTuple):
    """What a person should know about the sources of a stage; what is usual is not said in a build."""

    text: str
    is_usual: bool = False


def nothing(_connection: psycopg.Connection[Any]) -> Collection[str]:
    """The answer of a stage whose tool keeps no notes."""
    return ()


class Work(NamedTuple):
    """The steps of a stage, what runs them, and what to know about them, as `Stage` has them."""

    steps: tuple[Step, ...]
    run: Callable[[Target, int], None]
    notes: tuple[Note, ...] = ()
    steps_in: StepsIn = nothing
    stops: Collection[int] = ()


@dataclass(frozen=True)
class Stage:
    """Consecutive steps that one tool executes. A layer is kept after it.

    Attributes:
        name: ``extensions``, ``migrations``, ``essential seeds``, ``demo seeds``.
        steps: In the order in which they run.
        run: ``run(target, first)`` applies ``steps[first:]`` to a database that has
            ``steps[:first]`` already; everything is committed when it returns. Raises `BuildError`
            that names the step.
        layered: Whether a template of its own is worth keeping after this stage.
        tier: That of its seeds; empty where it holds none.
        in_any_order: Whether its steps come to the same in whatever order they were run, as long as each
            came after those that it names itself: a database that has some of them needs only the others.
        notes: About its sources: their format, files that are not run, and why.
        steps_in: Reads the names of the steps that a database has from its tool's own notes there, and runs nothing.
        stops: After how many of its steps it can stop, and go on later, with the same result.
    """

    name: str
    steps: tuple[Step, ...]
    run: Callable[[Target, int], None] = field(repr=False)
    layered: bool = True
    tier: str = ""
    in_any_order: bool = False
    notes: tuple[Note, ...] = field(default=(), compare=False)
    steps_in: StepsIn = field(default=nothing, repr=False, compare=False)
    stops: Collection[int] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Recipe:
    """What a plan was made from, so that it can be made again or varied; without seeds where ``seeds`` is false."""

    settings: Settings
    overrides: Mapping[str, object]
    alias: str
    seeds: bool = True


@dataclass(frozen=True)
class Plan:
    """What a seeded database is.

    Attributes:
        name: The project's name: people read it in database names and messages.
        profile: The profile's name, with its overrides, as people read it.
        root: The project's root.
        stages: In order. Stages without steps are left out.
        env: Names of environment variables that hold the URL while it is built.
        ignore_env: Patterns of the environment variables that do not count, though the project's code asks for them.
        alias: What Django calls the database.
        recipe: What it was made from; ``None`` where it was put together by hand.
        imported: The code that a build depends on which is to be restored from a file, in place of the steps.
        salt: With which its secrets are sealed; empty before that.
    """

    name: str
    profile: str
    root: Path
    stages: tuple[Stage, ...] = ()
    env: tuple[str, ...] = ()
    ignore_env: tuple[str, ...] = ()
    alias: str = "default"
    recipe: Recipe | None = field(default=None, repr=False, compare=False)
    imported: Participation = field(default_factory=Participation, repr=False, compare=False)
    salt: str = ""

    @cached_property
    def project(self) -> str:
        """Tells the project from others of its name; see `project_identity`."""
        return project_identity(self.root)

    @property
    def settings(self) -> Settings | None:
        """What it was made from; ``None`` where it was put together by hand."""
        return self.recipe.settings if self.recipe else None

    @property
    def ignored_variables(self) -> tuple[str, ...]:
        """Patterns of environment variables that do not count."""
        return (*self.env, *self.ignore_env)

    @property
    def without_seeds(self) -> Plan:
        """The same database, migrated and not seeded."""
        stages = tuple(stage for stage in self.stages if not stage.tier)
        recipe = self.recipe and replace(self.recipe, seeds=False)
        return replace(self, profile="without seeds", stages=stages, recipe=recipe)

    @cached_property
    def key(self) -> str:
        """Tells plans from each other in one process. It is not stored: secrets could be guessed from it."""
        return digest(repr((self.fingerprints(())[-1], [step.secrets for step in self.steps])))

    @property
    def has_secrets(self) -> bool:
        """Whether there is something to seal."""
        return any(step.secrets for step in self.steps)

    def sealed(self, salt: str) -> Plan:
        """The same plan with its secrets sealed, so that its parts and fingerprints may be stored."""

        def sealed(step: Step) -> Step:
            return replace(step, parts=seal(step.parts, salt), version=step.version_now) if step.secrets else step

        stages = (replace(stage, steps=tuple(map(sealed, stage.steps))) for stage in self.stages)
        return replace(self, stages=tuple(stages), salt=salt)

    @property
    def steps(self) -> Sequence[Step]:
        """All steps of all stages."""
        return [step for stage in self.stages for step in stage.steps]

    def unusual(self, most: int = 10) -> list[str]:
        """What is unusual about its sources, in so many lines: a tool's format, files that are not run, and why."""
        lines = [note.text for stage in self.stages for note in stage.notes if not note.is_usual]
        more = len(lines) - most
        return [*lines[:most], *([f"... and {more} more: see `seeddb explain`"] if more > 0 else [])]

    def keys(self, base: tuple[Part, ...]) -> list[str]:
        """The fingerprints of what the steps declare: templates have these, and say themselves what code they need."""
        return self._chain((Part("plan", self.name), *base), lambda step: step.declared)

    def fingerprints(self, base: tuple[Part, ...]) -> list[str]:
        """The fingerprint of each prefix, with all code that its steps may run: after no step, after one, ... all.

        Another project's plan has others, even if its sources are the same: its environment is not.

        Args:
            base: What the server contributes: major version, encoding, locale, role.
        """
        return self._chain((Part("plan", self.name), *base), lambda step: step.parts)

    @property
    def noted_fingerprints(self) -> tuple[str, str]:
        """What a database's marker has for this plan, and what version 0.1.0 noted for it."""
        return self.fingerprints(())[-1], self._chain((), lambda step: step.parts_before)[-1]

    def _chain(self, base: tuple[Part, ...], parts_of: Callable[[Step], tuple[Part, ...]]) -> list[str]:
        prints = [chain("", "base", base)]
        for stage in self.stages:
            start = prints[-1]
            for step in stage.steps:
                prints.append(chain(prints[-1], step.name, parts_of(step)))
            if stage.in_any_order:
                prints[-1] = chain_of_set(start, [(step.name, parts_of(step)) for step in stage.steps])
        return prints

    def stage_ends(self) -> Iterator[tuple[int, Stage]]:
        """Each stage with the number of steps that are done when it has ended."""
        done = 0
        for stage in self.stages:
            done += len(stage.steps)
            yield done, stage

    def stages_between(self, done: int, end: int) -> Iterator[tuple[Stage, int]]:
        """The stages between two numbers of steps, up to the second, with the number of steps that are done in each."""
        for at, stage in self.stage_ends():
            start = at - len(stage.steps)
            if at > done and start < end:
                yield replace(stage, steps=stage.steps[: end - start]), max(0, done - start)


def shown_profile(profile: str | None, overrides: Mapping[str, object], hidden: Iterable[str] = ()) -> str:
    """A profile with its overrides, as people read it: ``demo(stores=10)``.

    A value in ``hidden``, or of a parameter that is named like a secret, is not shown.
    """
    secret = {name for name in overrides if name in set(hidden) or names_a_secret(name)}
    texts = {name: HIDDEN if name in secret else repr(value) for name, value in overrides.items()}
    changes = ", ".join(f"{name}={text}" for name, text in sorted(texts.items()))
    return f"{profile or 'default'}({changes})" if changes else profile or "default"


def as_before(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The parts with the digests that ledgers have from before there were secrets."""
    return tuple(Part(part.name, part.before or part.digest) for part in parts)


class Progress:
    """Hears how far a build is; this one shows nothing."""

    def begin(self, plan: Plan, stages: str, total: int) -> None:
        """A build begins, of ``total`` steps in the stages named; a plan may take several."""

    def step(self, step: Step) -> None:
        """A step begins."""

    def waiting(self, why: str) -> None:
        """Nothing happens for a while, and why."""

    def again(self, why: str) -> None:
        """The build begins anew, and why."""

    def end(self) -> None:
        """The build is over, however it went."""
