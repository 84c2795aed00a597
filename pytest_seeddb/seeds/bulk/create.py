"""Many objects of a factory at once: built one by one, loaded by ``COPY``."""

from __future__ import annotations

import gc
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from factory.alchemy import SESSION_PERSISTENCE_COMMIT, SQLAlchemyModelFactory
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import Session, scoped_session

from pytest_seeddb.errors import BulkError
from pytest_seeddb.seeds.bulk.building import Batch
from pytest_seeddb.seeds.bulk.keys import Keys
from pytest_seeddb.seeds.bulk.loading import load
from pytest_seeddb.seeds.factories import wired_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from factory.base import BaseFactory

T = TypeVar("T")

__all__ = ["bulk_create"]

_RARELY: Final = 50_000
"""New containers between two runs of the garbage collector; Python's own number is some hundreds or thousands."""
_NOT_YET: Final = "Object of type .* not in session, .* operation along"
"""What SQLAlchemy says of an object that is not in the session although one of its own refers to it."""


def bulk_create(factory: type[BaseFactory[T]], n: int, /, **overrides: object) -> list[T]:
    """``n`` objects as ``factory.create_batch(n, **overrides)`` makes them, loaded by one ``COPY`` for each table.

    The objects are built with the factory: SubFactories, traits, sequences and ``_build`` work as ever. What
    they refer to and is new is loaded with them, parents first. Keys are taken from the database's sequences
    in advance, and are known as soon as an object is built. Post-generation hooks and RelatedFactories run
    when ``create_batch`` would run them: before the rows are written where the factory has no
    ``sqlalchemy_session_persistence``, after that where it has.

    Returns:
        The objects, in order, with their keys, persistent in the factory's session. What the server filled
        in is read when somebody asks for it. The rows are in the session's transaction, which is committed
        only if the factory's persistence is ``"commit"``.

    Mapper events (``before_insert``, ``after_insert``) are called; a session's flush events know nothing of
    these rows. Factories with ``sqlalchemy_get_or_create`` look each object up, and insert it by itself.
    After an error the session's transaction has failed and wants a rollback, as after any other.

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
    session = _session_of(factory)
    session.flush()  # what the overrides refer to needs its keys
    batch = Batch(Keys(session, n, options.model), f"bulk_create({factory.__name__}, {n})")
    with _without_warnings(), _rare_collections():
        made = [batch.build(factory, overrides) for _ in range(n)]
        load(session, batch)
        while batch.run_hooks():
            load(session, batch)
    if options.sqlalchemy_session_persistence == SESSION_PERSISTENCE_COMMIT:
        session.commit()
    return made


def _session_of(factory: Any) -> Session:  # noqa: ANN401 - a factory class
    found = wired_session(factory)
    if isinstance(found, scoped_session):
        found = found()
    if isinstance(found, Session):
        return found
    raise BulkError(
        f"bulk_create has no session for the objects of {_name(factory)}",
        saw="none" if found is None else f"{type(found).__module__}.{type(found).__qualname__}",
        remedy="call it in a seeder or a seeded test, or set sqlalchemy_session in the factory's Meta to a Session. "
        "For an AsyncSession that is its sync_session: await session.run_sync(lambda _: bulk_create(...))",
    )


def _name(factory: type) -> str:
    return f"{factory.__module__}:{factory.__qualname__}"


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Objects by the thousand, all of which stay, would have the garbage collector go through them again and again.

    It took a quarter of the time. It still runs, so that what factory_boy leaves behind does not pile up.
    """
    before = gc.get_threshold()
    if 0 < before[0] < _RARELY:
        gc.set_threshold(_RARELY, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Objects that are not in the session yet, which SQLAlchemy warns of, will be there in a moment."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_NOT_YET, category=SAWarning)
        yield
