"""Point the application under test at a seeded database, and back."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pytest_seeddb.application.django import DEFAULT, is_set_up
from pytest_seeddb.application.surroundings import url_in_environment
from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Engine

    from pytest_seeddb.clones.database import SeededDatabase
    from pytest_seeddb.settings.settings import Settings


@contextmanager
def activated(
    settings: Settings, database: SeededDatabase, django: AbstractContextManager[object] | None = None
) -> Iterator[None]:
    """For a block, the settings' ``env`` holds the database's URL, and its ``engines`` and Django connect to it.

    Args:
        settings: Name them.
        database: Where they lead.
        django: What points Django at the database, where that is made already.

    Raises:
        ConfigError: An entry of ``engines`` cannot be imported, is no engine, or cannot be redirected.
    """
    with ExitStack() as stack:
        # Before the engines are imported: their module may read its URL from the environment.
        stack.enter_context(url_in_environment(settings.env, database.address))
        if settings.engines:
            stack.enter_context(_redirected(settings, database))
        if django is not None or is_set_up():
            stack.enter_context(django or _django(database))
        yield


@contextmanager
def _django(database: SeededDatabase) -> Iterator[None]:
    from pytest_seeddb.application.django import redirect_django

    beside = {alias: each.address_for_writing for alias, each in database.beside.items()}
    with redirect_django({DEFAULT: database.address_for_writing, **beside}) as redirection:
        database.before_reset(redirection.close_connections)
        yield


@contextmanager
def _redirected(settings: Settings, database: SeededDatabase) -> Iterator[None]:
    from pytest_seeddb.application.redirection import redirect

    engines = None if settings.engines == ("all",) else _engines(settings)
    with ExitStack() as stack:
        with _sourced(settings.source("engines")):
            redirection = stack.enter_context(redirect(database.address, engines))
        database.before_reset(redirection.close_connections)
        yield


def _engines(settings: Settings) -> tuple[Engine, ...]:
    from pytest_seeddb.application.imports import load
    from pytest_seeddb.application.redirection import engines_of

    found: dict[int, Engine] = {}
    for path in settings.engines:
        value = load(path, source=settings.source("engines"), root=settings.root)
        with _sourced(f"{path!r} of {settings.source('engines')}"):
            found.update({id(engine): engine for engine in engines_of(value)})
    return tuple(found.values())


@contextmanager
def _sourced(source: str) -> Iterator[None]:
    """Say where the value came from in an error that does not know."""
    try:
        yield
    except ConfigError as error:
        if error.source:
            raise
        raise error.with_source(source) from None
