"""The platform's database: one engine for the whole process, and sessions that see one store only."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, create_engine, event, make_url, select
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker, with_loader_criteria

from store_platform.models import Domain, OfStore
from store_platform.settings import settings


class UnknownStoreError(LookupError):
    """No store has this domain."""


def database_url() -> URL:
    """From the settings, with the platform's own driver: hosting platforms hand out ``postgres://...``."""
    return make_url(settings.database_url.get_secret_value()).set(drivername="postgresql+psycopg")


engine = create_engine(database_url())
SessionLocal = sessionmaker(engine)


@contextmanager
def store_session(host: str) -> Iterator[Session]:
    """One transaction in which queries see the rows of one store, committed at the end.

    Raises:
        UnknownStoreError: No store has this domain.
    """
    with SessionLocal.begin() as session:
        store_id = session.scalar(select(Domain.store_id).filter_by(host=host))
        if store_id is None:
            raise UnknownStoreError(host)
        session.info["store_id"] = store_id
        yield session


@event.listens_for(SessionLocal, "do_orm_execute")
def _see_one_store_only(state: ORMExecuteState) -> None:
    store_id = state.session.info.get("store_id")
    if store_id is not None and not state.is_column_load and not state.is_relationship_load:
        only = with_loader_criteria(OfStore, lambda model: model.store_id == store_id, include_aliases=True)
        state.statement = state.statement.options(only)
