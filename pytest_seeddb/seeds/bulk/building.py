"""Objects of a factory that are built as if they were created, without a session.

factory_boy builds with one strategy all the way down, and tells hooks which one it is. So the strategy
here is ``create``; only where a factory would save its object, it is put aside instead. (factory_boy's
builder has no types: hence the comments for mypy.)
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Final

from factory import enums
from factory.alchemy import SQLAlchemyModelFactory
from factory.builder import BuildStep, StepBuilder, parse_declarations
from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState

from pytest_seeddb.errors import BulkError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from factory.builder import DeclarationSet

    from pytest_seeddb.seeds.bulk.keys import Keys

_SAVING: Final = ("create", "_generate", "_create", "_save")
"""What a factory may override to save its objects in its own way, which is not known here."""


class Batch:
    """What one call of ``bulk_create`` has built and not loaded yet.

    Attributes:
        call: How the call looks, for errors.
        keys: Gives new objects their keys.
    """

    def __init__(self, keys: Keys, call: str) -> None:
        self.call = call
        self.keys = keys
        self._built: list[InstanceState[Any]] = []
        self._waiting: list[_Hooks] = []
        self._found: dict[Hashable, object] = {}
        self._checked: set[type] = set()
        self._parsed: dict[Hashable, tuple[DeclarationSet, DeclarationSet]] = {}

    def build(self, factory: Any, overrides: Mapping[str, object]) -> Any:  # noqa: ANN401 - the factory's model
        """One more object, with all that its factory makes beside it."""
        if factory._meta.abstract:  # noqa: SLF001 - factory_boy's documented way
            raise BulkError(f"{self.call} has no model to build", remedy="set model in the factory's Meta")
        return _Builder(factory._meta, dict(overrides), self, is_root=True).build()  # noqa: SLF001 - likewise

    def take(self) -> list[InstanceState[Any]]:
        """The states of the objects that were built since the last call."""
        built, self._built = self._built, []
        return built

    def run_hooks(self) -> bool:
        """Run the next hook of each object that was loaded and has one left; whether there was any."""
        waiting, self._waiting = self._waiting, []
        going_on = [each for each in waiting if each.run_next()]
        self._waiting = [*going_on, *self._waiting]
        return bool(waiting)

    def instantiate(self, step: BuildStep, arguments: tuple[object, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401
        """The object of a step, put aside instead of saved."""
        options = step.builder.factory_meta
        factory: Any = options.factory
        if not issubclass(factory, SQLAlchemyModelFactory):
            return options.instantiate(step=step, args=arguments, kwargs=named)
        self._check(factory)
        if options.sqlalchemy_get_or_create:
            return self._looked_up(step, arguments, named)
        instance = factory._build(options.get_model_class(), *arguments, **named)  # noqa: SLF001 - factory_boy's way
        self._put_aside(instance, factory)
        return instance

    def declarations(self, options: Any, extras: dict[str, object], *, is_root: bool) -> Any:  # noqa: ANN401 - factory_boy's
        """What is declared before and after an object, taken apart once for all objects that are built alike."""
        key = (options, is_root and bool(extras))
        if key in self._parsed and (is_root or not extras):
            return self._parsed[key]
        parsed = parse_declarations(  # type: ignore[no-untyped-call]
            extras, options.pre_declarations, options.post_declarations
        )
        # Some declarations take out of the context what was meant for them: then it serves once.
        if (is_root or not extras) and not any(any(each.contexts.values()) for each in parsed):
            self._parsed[key] = parsed
        return parsed

    def wait(self, hooks: _Hooks) -> None:
        """Run the hooks when the object was loaded."""
        self._waiting.append(hooks)

    def _check(self, factory: Any) -> None:  # noqa: ANN401 - a factory class
        if factory in self._checked:
            return
        own = [name for name in _SAVING if not _same(factory, name)]
        if own:
            raise BulkError(
                f"{self.call} cannot save as {factory.__module__}:{factory.__qualname__} does",
                saw=f"it overrides {', '.join(own)}",
                remedy="override _build, or use create_batch",
            )
        self._checked.add(factory)

    def _looked_up(self, step: BuildStep, arguments: tuple[object, ...], named: dict[str, Any]) -> object:
        """An object that may be there already; each is looked for once."""
        options = step.builder.factory_meta
        key = (options.factory, *(named.get(name) for name in options.sqlalchemy_get_or_create))
        if not all(isinstance(part, Hashable) for part in key):
            return options.instantiate(step=step, args=arguments, kwargs=named)
        if key not in self._found:
            self._found[key] = options.instantiate(step=step, args=arguments, kwargs=named)
        return self._found[key]

    def _put_aside(self, instance: object, factory: type) -> None:
        state = inspect(instance, raiseerr=False)
        if not isinstance(state, InstanceState):
            raise BulkError(
                f"{self.call} cannot load what {factory.__module__}:{factory.__qualname__} builds",
                saw=f"{type(instance).__module__}.{type(instance).__qualname__}, which is not a mapped class",
                remedy="set the factory's model to one",
            )
        if state.transient:
            self.keys.assign(state)
            self._built.append(state)


def _same(factory: Any, name: str) -> bool:  # noqa: ANN401 - a factory class
    return getattr(factory, name).__func__ is getattr(SQLAlchemyModelFactory, name).__func__


class _Builder(StepBuilder):
    """Builds one object, and those below it, into a batch."""

    def __init__(self, options: Any, extras: dict[str, object], batch: Batch, *, is_root: bool = False) -> None:  # noqa: ANN401
        super().__init__(options, extras, enums.CREATE_STRATEGY)  # type: ignore[no-untyped-call]
        self._batch = batch
        self._is_root = is_root

    def recurse(self, factory_meta: Any, extras: dict[str, object]) -> _Builder:  # noqa: ANN401 - likewise
        return _Builder(factory_meta, extras, self._batch)

    def build(self, parent_step: BuildStep | None = None, force_sequence: int | None = None) -> Any:  # noqa: ANN401
        """As factory_boy's own; the hooks of a factory that saves at once wait until its object is loaded."""
        options: Any = self.factory_meta
        pre, post = self._batch.declarations(options, self.extras, is_root=self._is_root)
        given = (each for each in (force_sequence, self.force_init_sequence) if each is not None)
        sequence = next(given, None)
        number = options.next_sequence() if sequence is None else sequence
        step: Any = BuildStep(self, number, parent_step)  # type: ignore[no-untyped-call]
        step.resolve(pre)
        instance = self._batch.instantiate(step, *options.prepare_arguments(step.attributes))
        hooks = _Hooks(instance, step, post)
        if getattr(options, "sqlalchemy_session_persistence", None) and not options.sqlalchemy_get_or_create:
            self._batch.wait(hooks)
        else:
            while hooks.run_next():
                pass
        return instance


class _Hooks:
    """The post-generation declarations of one object, in order."""

    def __init__(self, instance: object, step: BuildStep, post: DeclarationSet) -> None:
        self._instance = instance
        self._step = step
        self._post = post
        self._left: list[str] = list(reversed(post.sorted()))  # type: ignore[no-untyped-call]
        self._results: dict[str, object] = {}

    def run_next(self) -> bool:
        """Run one, or what factory_boy does after the last; whether one was left."""
        if not self._left:
            options = self._step.builder.factory_meta
            options.use_postgeneration_results(instance=self._instance, step=self._step, results=self._results)
            return False
        name = self._left.pop()
        found = self._post[name]
        self._results[name] = found.declaration.evaluate_post(
            instance=self._instance, step=self._step, overrides=found.context
        )
        return True
