"""Many objects of a factory at once: built one by one, loaded by ``COPY``.

factory_boy builds with one strategy all the way down, and tells hooks which one: so it is ``create`` here, and an
object is kept for loading where a factory would save it. (factory_boy's builder has no types: hence the comments for
mypy.)
"""

from __future__ import annotations

import gc
import warnings
from collections import deque
from collections.abc import Hashable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from factory import enums
from factory.alchemy import SESSION_PERSISTENCE_COMMIT, SQLAlchemyModelFactory
from factory.builder import BuildStep, StepBuilder, parse_declarations
from sqlalchemy import inspect
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import InstanceState, Session, scoped_session

from pytest_seeddb.errors import BulkError
from pytest_seeddb.seeds.bulk_keys import Keys
from pytest_seeddb.seeds.bulk_loading import load
from pytest_seeddb.seeds.factories import factory_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from factory.base import BaseFactory
    from factory.builder import DeclarationSet

T = TypeVar("T")

__all__ = ["bulk_create"]

_RARELY: Final = 50_000
"""New containers between two runs of the garbage collector; Python's own number is some hundreds or thousands."""
_NOT_YET: Final = "Object of type .* not in session, .* operation along"
"""What SQLAlchemy says of an object that is not in the session although one of its own refers to it."""
_SAVING: Final = ("create", "_generate", "_create", "_save")
"""The methods that a factory may override to save its objects in its own way, which is not known here."""


def bulk_create(factory: type[BaseFactory[T]], n: int, /, **overrides: object) -> list[T]:
    """``n`` objects as ``factory.create_batch(n, **overrides)`` makes them, loaded by one ``COPY`` for each table.

    The objects are built with the factory: SubFactories, traits, sequences and ``_build`` work as ever. What
    they refer to and is new is loaded with them, parents first. Keys are taken from the database's sequences
    in advance, and are known as soon as an object is built. Post-generation hooks and RelatedFactories run
    when ``create_batch`` would run them: before the rows are written where the factory has no
    ``sqlalchemy_session_persistence``, after that where it has.

    Returns:
        The objects, in order, with their keys, persistent in the factory's session. Values that the server
        filled in are read when they are first used. The rows are in the session's transaction, which is
        committed only if the factory's persistence is ``"commit"``.

    Mapper events (``before_insert``, ``after_insert``) are called; a session's flush events know nothing of
    these rows. Factories with ``sqlalchemy_get_or_create`` look each object up, and insert it by itself.
    After an error the session's transaction has failed and must be rolled back, as after any other.

    Raises:
        BulkError: The factory or a model does something that cannot be done this way, or the database
            refused the rows. Names the factory, or the table.
    """
    if not issubclass(factory, SQLAlchemyModelFactory):
        raise BulkError(
            f"bulk_create cannot use {_name(factory)}",
            saw="it is not a SQLAlchemyModelFactory, so it has no session",
            remedy="derive it from factory.alchemy.SQLAlchemyModelFactory",
        )
    options: Any = factory._meta  # noqa: SLF001 - factory_boy's documented way
    session = factory_session(factory)
    session = session() if isinstance(session, scoped_session) else session
    if not isinstance(session, Session):
        raise BulkError(
            f"bulk_create has no session for the objects of {_name(factory)}",
            saw="none" if session is None else f"{type(session).__module__}.{type(session).__qualname__}",
            remedy="call it in a seeder or a seeded test, or set sqlalchemy_session in the factory's Meta to a "
            "Session. For an AsyncSession that is its sync_session: "
            "await session.run_sync(lambda _: bulk_create(...))",
        )
    session.flush()  # what the overrides refer to needs its keys
    batch = _Batch(Keys(session, n, options.model), f"bulk_create({factory.__name__}, {n})")
    with _without_interruptions():
        objects = [batch.build(factory, overrides) for _ in range(n)]
        load(session, batch.take(), batch.keys, batch.call)
        while batch.run_hooks():
            load(session, batch.take(), batch.keys, batch.call)
    if options.sqlalchemy_session_persistence == SESSION_PERSISTENCE_COMMIT:
        session.commit()
    return objects


def _name(factory: type) -> str:
    return f"{factory.__module__}:{factory.__qualname__}"


@contextmanager
def _without_interruptions() -> Iterator[None]:
    """Without warnings of objects that will be in the session in a moment, and with rare garbage collections.

    The collector took a quarter of the time for objects that stay; it still runs, for what factory_boy leaves behind.
    """
    before = gc.get_threshold()
    if 0 < before[0] < _RARELY:
        gc.set_threshold(_RARELY, *before[1:])
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_NOT_YET, category=SAWarning)
            yield
    finally:
        gc.set_threshold(*before)


class _Batch:
    """The objects that one call of ``bulk_create`` has built and not loaded yet."""

    def __init__(self, keys: Keys, call: str) -> None:
        self.call = call
        self.keys = keys
        self.hooks: list[Iterator[bool]] = []
        self._built: list[InstanceState[Any]] = []
        self._shared: dict[Hashable, object] = {}
        self._checked: set[type] = set()
        self._parsed: dict[Hashable, tuple[DeclarationSet, DeclarationSet]] = {}

    def build(self, factory: Any, overrides: Mapping[str, object]) -> Any:  # noqa: ANN401 - the factory's model
        """One more object, with all that its factory makes beside it."""
        if factory._meta.abstract:  # noqa: SLF001 - factory_boy's documented way
            raise BulkError(f"{self.call} has no model to build", remedy="set model in the factory's Meta")
        return _Builder(factory._meta, dict(overrides), self, is_root=True).build()  # noqa: SLF001 - as above

    def take(self) -> list[InstanceState[Any]]:
        """The states of the objects that were built since the last call."""
        built, self._built = self._built, []
        return built

    def run_hooks(self) -> bool:
        """Run the next hook of each object that was loaded and has one left; whether there was any."""
        waiting, self.hooks = self.hooks, []
        unfinished = [hooks for hooks in waiting if next(hooks, False)]
        self.hooks = [*unfinished, *self.hooks]
        return bool(waiting)

    def instantiate(self, step: BuildStep, arguments: tuple[object, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401
        """The object of a step, kept for loading instead of saved."""
        options = step.builder.factory_meta
        factory: Any = options.factory
        if not issubclass(factory, SQLAlchemyModelFactory):
            return options.instantiate(step=step, args=arguments, kwargs=named)
        if factory not in self._checked:
            self._refuse_own_saving(factory)
            self._checked.add(factory)
        if options.sqlalchemy_get_or_create:  # it may be there already; each is looked for once
            key = (factory, *(named.get(name) for name in options.sqlalchemy_get_or_create))
            if not all(isinstance(part, Hashable) for part in key):
                return options.instantiate(step=step, args=arguments, kwargs=named)
            if key not in self._shared:
                self._shared[key] = options.instantiate(step=step, args=arguments, kwargs=named)
            return self._shared[key]
        instance = factory._build(options.get_model_class(), *arguments, **named)  # noqa: SLF001 - factory_boy's way
        state = inspect(instance, raiseerr=False)
        if not isinstance(state, InstanceState):
            raise BulkError(
                f"{self.call} cannot load what {_name(factory)} builds",
                saw=f"{type(instance).__module__}.{type(instance).__qualname__}, which is not a mapped class",
                remedy="set the factory's model to one",
            )
        if state.transient:
            self.keys.assign(state)
            self._built.append(state)
        return instance

    def declarations(self, options: Any, extras: dict[str, object], *, is_root: bool) -> Any:  # noqa: ANN401 - factory_boy's
        """What is declared before and after an object, parsed once for all objects that are built alike."""
        key = (options, is_root and bool(extras))
        if key in self._parsed and (is_root or not extras):
            return self._parsed[key]
        parsed = parse_declarations(  # type: ignore[no-untyped-call]
            extras, options.pre_declarations, options.post_declarations
        )
        # Some declarations take out of the context what was meant for them: then it serves once.
        if (is_root or not extras) and not any(any(declarations.contexts.values()) for declarations in parsed):
            self._parsed[key] = parsed
        return parsed

    def _refuse_own_saving(self, factory: Any) -> None:  # noqa: ANN401 - a factory class
        base: Any = SQLAlchemyModelFactory
        own = [name for name in _SAVING if getattr(factory, name).__func__ is not getattr(base, name).__func__]
        if own:
            raise BulkError(
                f"{self.call} cannot save as {_name(factory)} does",
                saw=f"it overrides {', '.join(own)}",
                remedy="override _build, or use create_batch",
            )


class _Builder(StepBuilder):
    """Builds one object, and those below it, into a batch."""

    def __init__(self, options: Any, extras: dict[str, object], batch: _Batch, *, is_root: bool = False) -> None:  # noqa: ANN401
        super().__init__(options, extras, enums.CREATE_STRATEGY)  # type: ignore[no-untyped-call]
        self._batch = batch
        self._is_root = is_root

    def recurse(self, factory_meta: Any, extras: dict[str, object]) -> _Builder:  # noqa: ANN401 - as above
        return _Builder(factory_meta, extras, self._batch)

    def build(self, parent_step: BuildStep | None = None, force_sequence: int | None = None) -> Any:  # noqa: ANN401
        """As factory_boy's own; the hooks of a factory that saves at once wait until its object is loaded."""
        options: Any = self.factory_meta
        pre, post = self._batch.declarations(options, self.extras, is_root=self._is_root)
        number = self.force_init_sequence if force_sequence is None else force_sequence
        number = options.next_sequence() if number is None else number
        step: Any = BuildStep(self, number, parent_step)  # type: ignore[no-untyped-call]
        step.resolve(pre)
        instance = self._batch.instantiate(step, *options.prepare_arguments(step.attributes))
        hooks = _hooks(instance, step, post)
        if getattr(options, "sqlalchemy_session_persistence", None) and not options.sqlalchemy_get_or_create:
            self._batch.hooks.append(hooks)
        else:
            deque(hooks, maxlen=0)
        return instance


def _hooks(instance: object, step: BuildStep, post: DeclarationSet) -> Iterator[bool]:
    """Run the post-generation declarations of one object, one at a time, then what factory_boy does after the last."""
    results: dict[str, object] = {}
    for name in post.sorted():  # type: ignore[no-untyped-call]
        hook = post[name]
        results[name] = hook.declaration.evaluate_post(instance=instance, step=step, overrides=hook.context)
        yield True
    step.builder.factory_meta.use_postgeneration_results(instance=instance, step=step, results=results)
