"""factory_boy's factories write through the right session, wherever they are declared and however they are wired.

A factory asks its options for its session when it saves: ``cls._meta.sqlalchemy_session``. So one descriptor on the
class of these options answers for every factory, and the options, which hold the user's wiring, are not written to.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.imports import enter_on_import

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from sqlalchemy.orm import Session

_SESSION: Final = "sqlalchemy_session"
_MAKER: Final = "sqlalchemy_session_factory"
_FILL: Final = "_fill_from_meta"

_changing: Final = threading.RLock()
_blocks: Final[list[_Block]] = []
_hooks: Final[list[object]] = []
_inside: Final[ContextVar[_Block | None]] = ContextVar("pytest_seeddb_factories", default=None)
_declaring: Final = threading.local()


@dataclass(frozen=True)
class Source:
    """Where factories get their session inside of a block.

    ``kept`` gets a function that finds the session that the user wired to a factory, often the user's own code, and
    the factory's model; it gives that session where it is right as it is, else ``None``.
    """

    session: Callable[[], Session | None]  # for the thread that entered the block; without one, the wiring holds
    another: Callable[[], Session]  # a new one for a further thread; its giver closes it
    kept: Callable[[Callable[[], Any], object], Any]


@contextmanager
def redirect_factories(source: Source) -> Iterator[None]:
    """Inside the block, every ``SQLAlchemyModelFactory`` writes through the source's session. Imports nothing.

    A session that is assigned to its ``_meta`` inside the block goes first, then the one that it is wired to, if it is
    asynchronous or the source keeps it, then the source's. Of nested blocks the innermost holds in the thread and
    context that entered it, the outermost in threads that know of none. Afterwards each factory is wired as before.
    """
    block = _Block(source)
    before = _inside.get()
    with enter_on_import("factory.alchemy", _hook):
        with _changing:
            _blocks.append(block)
        _inside.set(block)
        try:
            yield
        finally:
            # Not by a token: a fixture's two halves need not run in the same context.
            _inside.set(before)
            with _changing:
                _blocks.remove(block)


def factory_session(factory: Any) -> Any:  # noqa: ANN401 - a factory class, and the session that it is wired to
    """The session through which a factory would write now; ``None`` where it has none."""
    make = getattr(factory._meta, _MAKER)  # noqa: SLF001 - factory_boy's documented way
    return make() if make else getattr(factory._meta, _SESSION)  # noqa: SLF001 - as above


class _Block:
    def __init__(self, source: Source) -> None:
        self.assigned: dict[tuple[Any, str], Any] = {}
        self._source = source
        self._thread = threading.get_ident()
        self._kept: dict[int, Any] = {}
        self._given: dict[int, Session | None] = {}

    def get(self, options: Any, name: str) -> Any:  # noqa: ANN401 - as in factory_boy
        assigned = self.assigned.get((options, name))
        if assigned is not None:
            return assigned
        wiring = vars(options)
        module: Any = sys.modules.get("sqlalchemy.ext.asyncio")
        kinds = module and (module.AsyncSession, module.async_scoped_session, module.async_sessionmaker)
        if kinds and isinstance(wiring[name], kinds):
            return wiring[name]
        return self._choose(wiring, options.model) if name == _SESSION else None

    def _choose(self, wiring: dict[str, Any], model: object) -> Any:  # noqa: ANN401 - as above
        """Once a thread has used one kind of session it stays with it: objects of two cannot refer to each other."""
        thread = threading.get_ident()

        def find_session() -> Any:  # noqa: ANN401 - as above
            return wiring[_MAKER]() if wiring[_MAKER] else wiring[_SESSION]

        if (wiring[_MAKER] or wiring[_SESSION]) is not None and thread not in self._given:
            kept = self._source.kept(find_session, model)
            if kept is not None:
                self._kept[thread] = kept
                return kept
        if thread in self._kept:
            return self._kept[thread]
        if thread == self._thread:
            self._given[thread] = self._source.session()
        with _changing:
            if thread not in self._given:
                self._given[thread] = self._source.another()
        given = self._given[thread]
        return find_session() if given is None else given


class _Wiring:
    """Stands on the class of the options, before what stands in each of them."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, options: Any, owner: type) -> Any:  # noqa: ANN401 - a descriptor's
        if options is None or self._name not in vars(options):
            raise AttributeError(self._name)  # factory_boy asks, before it fills the options of a new class
        block = _block_for(options)
        return vars(options)[self._name] if block is None else block.get(options, self._name)

    def __set__(self, options: Any, value: object) -> None:  # noqa: ANN401 - as above
        block = _block_for(options)
        if block is None:
            vars(options)[self._name] = value
        else:
            block.assigned[options, self._name] = value


def _block_for(options: Any) -> _Block | None:  # noqa: ANN401 - as above
    from factory.alchemy import SQLAlchemyModelFactory

    # A class that is being declared inherits its base's wiring, which is the user's.
    if getattr(_declaring, "depth", 0) or not issubclass(options.factory, SQLAlchemyModelFactory):
        return None
    inner = _inside.get()
    return inner if inner in _blocks else next(iter(_blocks), None)


@contextmanager
def _hook(module: ModuleType) -> Iterator[None]:
    """Keep the descriptors in place as long as any block needs them."""
    kind: Any = module.SQLAlchemyOptions
    hook = object()
    with _changing:
        _hooks.append(hook)
        if len(_hooks) == 1:
            fill = getattr(kind, _FILL)  # its base's: it has none of its own

            def fill_from_meta(self: Any, meta: object, base_meta: object) -> None:  # noqa: ANN401 - as above
                _declaring.depth = getattr(_declaring, "depth", 0) + 1
                try:
                    fill(self, meta=meta, base_meta=base_meta)
                finally:
                    _declaring.depth -= 1

            setattr(kind, _FILL, fill_from_meta)
            for name in (_SESSION, _MAKER):
                setattr(kind, name, _Wiring(name))
    try:
        yield
    finally:
        with _changing:
            _hooks.remove(hook)
            if not _hooks:
                for name in (_SESSION, _MAKER, _FILL):
                    delattr(kind, name)
