"""Connections that the application opens to databases of its own, while it is redirected to none of a test's."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from pytest_seeddb.application.imports import module_of
from pytest_seeddb.application.offspring import has_outlived
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.servers.naming import parse_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy.engine.interfaces import Dialect

    from pytest_seeddb.settings.settings import Settings

_ALL: Final = "an engine"
_ENTRY: Final = 4
"""The words of a command that say what it runs; those behind may be others in each test."""
_WHERE: Final = {"host": ("host", "unix_sock", "HOST"), "dbname": ("dbname", "database", "NAME", "user", "USER")}


class Asker(NamedTuple):
    """Who is running now, whether for seeded tests alone, the settings of its table, whether it knows an address."""

    name: str
    is_for_seeded: bool
    settings: Settings
    knows_address: bool


class Outside:
    """Refuses, or notes, what the engines of the settings and Django open outside of seeded tests.

    Attributes:
        connected: Who connected first, by engine and database, for the end of the run.
    """

    def __init__(self, asker: Callable[[], Asker]) -> None:
        self._asker = asker
        self._watching = ExitStack()
        self._tables: list[Settings] = []
        self._names: weakref.WeakKeyDictionary[Dialect, str] = weakref.WeakKeyDictionary()
        self._places: weakref.WeakKeyDictionary[Dialect, str] = weakref.WeakKeyDictionary()
        self._asking = threading.local()
        self._children: dict[tuple[str, ...], str] = {}
        self.connected: dict[str, str] = {}

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch Django in the block, also where it is imported in it, and the engines of `add`."""
        from pytest_seeddb.application.children import watch_children
        from pytest_seeddb.application.django import watch_django

        with self._watching:
            self._watching.enter_context(watch_django(self.check_django))
            self._watching.enter_context(watch_children(self.note_child))
            yield

    def add(self, settings: Settings) -> None:
        """Watch the engines that these settings name, too, also where SQLAlchemy has yet to be imported."""
        from pytest_seeddb.application.redirection import watch_engines

        if settings.engines and not any(table.engines for table in self._tables):
            self._watching.enter_context(watch_engines(self))
        self._tables.append(settings)

    def check_connect(self, dialect: Dialect, positional: list[Any], named: Mapping[str, Any]) -> None:
        """An engine is about to open a connection that leads to no test's database."""
        given = dict(named)
        for text in (*positional, given.get("dsn"), given.get("conninfo")):
            with suppress(Exception):
                from psycopg.conninfo import conninfo_to_dict

                given = {**conninfo_to_dict(text), **given}
        self._places.pop(dialect, None)
        if (name := self._name(dialect)) and not _is_ours(given):
            self._places[dialect] = _place(given)
            self._check(name, self._places[dialect])

    def check_checkout(self, dialect: Dialect) -> None:
        """An engine is about to use a connection that it opened before."""
        if dialect in self._places:
            self._check(self._names.get(dialect, _ALL), self._places[dialect])

    def check_thread(self, dialect: Dialect) -> None:
        """An engine is about to use a test's database in a thread that an earlier test left running."""
        if name := self._name(dialect):
            self._check_thread(name)

    def check_django(self, alias: str, settings: Mapping[str, Any]) -> None:
        """Django is about to use a connection outside of a test, or in a thread that outlived its own."""
        if has_outlived():
            self._check_thread(f"Django's database {alias!r}")
        if not _is_ours(settings):
            self._check(f"Django's database {alias!r}", _place(settings), is_engine=False)

    def note_child(self, command: Sequence[str], directory: str) -> None:
        """A child process begins, which has none of what redirects connections here."""
        from pytest_seeddb.application.children import entry_of

        asker = self._asker()
        is_told = asker.knows_address or any(_is_url_of_ours(os.environ.get(name, "")) for name in asker.settings.env)
        if asker.is_for_seeded and not is_told and asker.settings.outside != "allow":
            key = (directory, *command[:_ENTRY])
            if key not in self._children:
                self._children[key] = ""
                self._children[key] = entry_of(command, directory, asker.settings)
            if entry := self._children[key]:
                text = f"the child process `{entry}` knows the application's own database and not the test's "
                naming = "" if asker.settings.env else "name the variable that it reads in `env`, and "
                text += f"({naming}start it in the test or in a fixture of the setting `scope`, "
                text += f"{asker.settings.scope!r}; or give it `seeded_db.url`)"
                self.connected.setdefault(text, asker.name)

    def _name(self, dialect: Dialect) -> str:
        """The entry of a table's ``engines`` that names the dialect's engine; empty where none does."""
        from pytest_seeddb.application.redirection import engines_of

        paths = dict.fromkeys(path for table in self._tables for path in table.engines)
        is_any = paths.pop("all", "") is None and dialect.name == "postgresql"
        if dialect not in self._names and not getattr(self._asking, "now", False):
            self._asking.now = True  # a function that is named may connect
            try:
                for path in paths:
                    value: Any = sys.modules.get(module_of(path))
                    for attribute in filter(None, path.partition(":")[2].split(".")):
                        value = getattr(value, attribute, None)
                    with suppress(Exception):  # not made yet, or a function that needs what is not there
                        self._names.update({engine.dialect: path for engine in engines_of(value)})
            finally:
                self._asking.now = False
        return self._names.get(dialect, _ALL if is_any else "")

    def _check_thread(self, name: str) -> None:
        asker, _, settings, _ = self._asker()
        if settings.outside == "say":
            self.connected.setdefault(f"{name} connected to the database of a later test", asker)
        elif settings.outside != "allow":
            raise ConfigError(
                f"{name} was about to connect to the database of a later test",
                saw=f"{asker}, which an earlier seeded test started and left running",
                source=f"the setting `outside`: {settings.source('outside')}",
                remedy="end the thread in the test that starts it, or start it in a fixture of a wider scope; "
                'or let it connect: outside = "say"',
            )

    def _check(self, name: str, place: str, *, is_engine: bool = True) -> None:
        asker, is_for_seeded, settings, _ = self._asker()
        mode = settings.outside
        if mode == "allow" or (is_engine and not {name, "all"} & {*settings.engines}):
            return
        if mode != "refuse" and (mode == "say" or not is_for_seeded):
            self.connected.setdefault(f"{name} connected to its own database {place}", asker)
            return
        remedy = (
            "move what it does into a seeder, into the test, or into a fixture of the setting `scope`, "
            f"{settings.scope!r}; or give it a database: `with seeded_db_factory() as database, "
            'database.activate(): ...`; or let it connect: outside = "say"'
        )
        if not is_for_seeded:
            remedy = 'mark the test with @pytest.mark.seeded, or let it connect: outside = "say"'
        raise ConfigError(
            f"{name} was about to connect to its own database instead of a seeded test's",
            saw=f"{place}, asked for by {asker}",
            source=f"the setting `outside`: {settings.source('outside')}",
            remedy=remedy,
        )


def _is_ours(given: Mapping[str, Any]) -> bool:
    """Whether it was made for one of our databases, by its URL."""
    return any(parse_name(str(given.get(key, ""))) for key in _WHERE["dbname"])


def _is_url_of_ours(url: str) -> bool:
    return parse_name(urlsplit(url).path.removeprefix("/")) is not None


def _place(given: Mapping[str, Any]) -> str:
    """The host and the database, without user and password."""
    host, database = (
        next((str(given[key]) for key in keys if given.get(key)), default)
        for keys, default in ((_WHERE["host"], "localhost"), (_WHERE["dbname"], ""))
    )
    return f"{host}/{database}"
