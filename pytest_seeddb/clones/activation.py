"""Point the application under test at a seeded database, and back."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pytest_seeddb.application.django import DEFAULT, is_set_up, redirect_django
from pytest_seeddb.application.offspring import Offspring
from pytest_seeddb.application.surroundings import url_in_environment
from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from pytest_seeddb.clones.database import SeededDatabase
    from pytest_seeddb.settings.settings import Settings


@contextmanager
def activate(
    settings: Settings, database: SeededDatabase, django: AbstractContextManager[object] | None = None
) -> Iterator[None]:
    """For a block, the settings' ``env`` holds the database's URL, and its ``engines`` and Django connect to it.

    Args:
        settings: Name them.
        database: Where they lead.
        django: Points Django at the database, where that is made already.

    Raises:
        ConfigError: An entry of ``engines`` cannot be imported, is not an engine, or cannot be redirected.
    """
    with ExitStack() as stack:
        stack.enter_context(database.own_address.alone())
        stack.callback(Offspring().end, settings.root)
        roles = database.application_roles(settings)
        # Before the engines are imported: their module may read its URL from the environment.
        stack.enter_context(url_in_environment(settings.env, database.own_address, roles))
        if settings.engines:
            from pytest_seeddb.application.redirection import redirect
            from pytest_seeddb.application.sessions import ALL, load_engines

            engines = None if settings.engines == ALL else load_engines(settings)
            with _source(settings.source("engines")):
                redirection = stack.enter_context(redirect(database.own_address, engines, roles))
            database.before_reset(redirection.close_connections)
            database.before_changes(redirection.ask)
        if django is not None:
            stack.enter_context(django)
        elif is_set_up():
            beside = {alias: other.address_for_writing for alias, other in database.beside.items()}
            of_django = stack.enter_context(redirect_django({DEFAULT: database.address_for_writing, **beside}, roles))
            database.before_reset(of_django.close_connections)
            database.before_changes(of_django.ask)
        yield


@contextmanager
def _source(source: str) -> Iterator[None]:
    """Give an error without a source this one."""
    try:
        yield
    except ConfigError as error:
        if error.source:
            raise
        raise error.with_source(source) from None
