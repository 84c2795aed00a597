"""Every connection of Django's goes to our databases, in all threads, whatever its settings say.

Django's wrappers of one alias share one dictionary of settings with each other and with
``django.db.connections``, in all threads, and read it anew for each connection that they open. So the
dictionary is changed where it stands, and the connections that were open before are laid aside.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.awaited_imports import once_imported
from pytest_seeddb.application.django_project import DEFAULT, is_postgres, is_set_up, standing_for
from pytest_seeddb.application.driver_arguments import says_where

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from pytest_seeddb.plan.plan import Mark
    from pytest_seeddb.servers.address import Address

_PLACE: Final = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
_NOWHERE: Final = "this alias has no database here (pytest-seeddb)"

_changing: Final = threading.RLock()
_active: Final[list[DjangoRedirection]] = []
_listening: Final[list[bool]] = []
_parked: Final[list[Any]] = []
"""Wrappers of redirections that are off, and will be on again."""
_standing: Final[dict[str, str]] = {}
"""Which alias has the database that each one leads to, by the settings as they are outside of all redirections."""
_opened: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""Every wrapper that has opened a connection, of all threads."""


class DjangoRedirection:
    """One ``with django_redirected(...)``."""

    def __init__(self, addresses: Mapping[str, Address]) -> None:
        self._addresses = addresses
        self._thread = threading.get_ident()
        self._before: dict[str, dict[str, Any]] = {}
        self._aside: dict[str, Any] = {}
        self._pools: dict[tuple[Any, str], Any] = {}
        self._used = False

    def begin(self, connections: Any) -> None:  # noqa: ANN401 - django.db.utils.ConnectionHandler
        """Change the settings of every PostgreSQL database, and lay aside what is connected to it."""
        for alias in tuple(connections.settings):
            if is_postgres(alias):
                wanted = connections.settings[alias]
                self._before[alias] = _place_in(wanted)
                self._lay_aside(connections, alias)
                wanted.update(_settings_for(self._address(alias), wanted))

    def _address(self, alias: str) -> Address | None:
        return self._addresses.get(alias) or self._addresses.get(_standing.get(alias, alias))

    def _lay_aside(self, connections: Any, alias: str) -> None:  # noqa: ANN401 - as above
        """This thread's own wrapper keeps its connection, and its transaction; other threads' are closed."""
        own = connections[alias]
        self._aside[alias] = own
        for pool_owner in _pool_owners(own):
            self._pools[pool_owner, alias] = pool_owner._connection_pools.pop(alias, None)  # noqa: SLF001 - told nowhere else
        del connections[alias]
        for wrapper in _in_use(alias):
            close(wrapper)

    def holds(self, wrapper: object) -> bool:
        """Whether a wrapper is laid aside until the end."""
        return any(wrapper is each for each in self._aside.values())

    def was_used(self) -> bool:
        """Whether a connection was opened through it since this was last asked. Closes them."""
        used, self._used = self._used, False
        if used:
            self.close_connections()
        return used

    def note(self, wrapper: Any) -> None:  # noqa: ANN401 - a DatabaseWrapper
        """Hear of a connection that was opened while this one decided."""
        self._used = self._used or wrapper.alias in self._before

    def end(self, connections: Any) -> None:  # noqa: ANN401 - as above
        """Close what was opened, and put everything back."""
        self.close_connections()
        self._put_back(connections)
        for (owner, alias), pool in self._pools.items():
            if pool is not None:
                owner._connection_pools[alias] = pool  # noqa: SLF001 - told nowhere else

    def _put_back(self, connections: Any) -> None:  # noqa: ANN401 - as above
        for alias, before in self._before.items():
            connections.settings[alias].update(before)
            if threading.get_ident() == self._thread:
                connections[alias] = self._aside[alias]

    def close_connections(self) -> None:
        """Close what was opened so far, in any thread; whoever needs a connection afterwards gets a new one."""
        for wrapper in _in_use(*self._before):
            close(wrapper)
        for owner, alias in self._pools:
            if (pool := owner._connection_pools.pop(alias, None)) is not None:  # noqa: SLF001 - as above
                pool.close()


class KeptRedirection:
    """Redirects Django to one database again and again, over one connection that stays open in between.

    For the thread that makes it, and the default alias; other threads' connections are closed each time.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._wrapper: Any = None

    @contextmanager
    def on(self) -> Iterator[DjangoRedirection]:
        """Redirect inside the block."""
        from django.db import connections

        with django_redirected({DEFAULT: self._address}) as redirection:
            if self._wrapper is not None:
                _parked.remove(self._wrapper)
                connections[DEFAULT] = self._wrapper
            try:
                yield redirection
            finally:
                self._wrapper = connections[DEFAULT]
                _parked.append(self._wrapper)

    def backend(self) -> int:
        """The process number of the connection's backend, after it told the server what it did; 0 where there is none.

        Only inside of `on`. There is none where the connection is closed, or in the middle of something.
        """
        from django.db import connections

        driver = connections[DEFAULT].connection
        if driver is None or driver.closed:
            return 0
        return _reported(driver)

    def connect(self) -> int:
        """Open the connection now, as Django does. Only inside of `on`."""
        from django.db import connections

        connections[DEFAULT].ensure_connection()
        return self.backend()

    def close(self) -> None:
        """Close the connection. Only outside of `on`."""
        if self._wrapper is not None:
            _parked.remove(self._wrapper)
            close(self._wrapper)
            self._wrapper = None


def _reported(driver: Any) -> int:  # noqa: ANN401 - psycopg's or psycopg2's connection
    """Without a commit: those of the tests are what is counted."""
    if driver.info.transaction_status != 0:
        return 0
    with driver.cursor() as cursor:
        cursor.execute("BEGIN; SELECT pg_stat_force_next_flush(), pg_advisory_unlock_all(); ROLLBACK")
    return int(driver.info.backend_pid)


@contextmanager
def django_redirected(addresses: Mapping[str, Address]) -> Iterator[DjangoRedirection]:
    """Inside the block Django connects to these databases, by alias, and to none of the others' own.

    Aliases that mirror one of them, or lead to the same database in the settings, go along. A
    PostgreSQL alias that is not among them can connect to nothing; those of other vendors are left alone.
    Holds for all threads, for pools, and where Django is only set up inside the block. What was open
    before is as it was afterwards, transactions included; what was opened inside is closed at the end.

    Imports nothing: a process without Django is left without.

    Args:
        addresses: By alias.
    """
    redirection = DjangoRedirection(addresses)
    with ExitStack() as stack:
        stack.enter_context(
            once_imported("django.db.utils", lambda module: stack.enter_context(_within(module, redirection)))
        )
        yield redirection


@contextmanager
def _within(module: ModuleType, redirection: DjangoRedirection) -> Iterator[None]:
    """Redirect now where Django is set up, else as soon as it reads its settings."""
    if is_set_up():
        with _redirecting(redirection):
            yield
        return
    handler = module.ConnectionHandler
    configure = handler.configure_settings
    begun: list[Any] = []

    def configured(self: Any, databases: Any) -> Any:  # noqa: ANN401 - Django's own
        found = configure(self, databases)
        _listen()
        for alias, wanted in found.items():
            if "postg" in str(wanted.get("ENGINE", "")):
                begun.append((wanted, _place_in(wanted)))
                wanted.update(_settings_for(redirection._addresses.get(alias), wanted))  # noqa: SLF001 - one module
        return found

    handler.configure_settings = configured
    try:
        yield
    finally:
        handler.configure_settings = configure
        for wrapper in tuple(_opened):
            close(wrapper)
        for wanted, before in begun:
            wanted.update(before)


@contextmanager
def _redirecting(redirection: DjangoRedirection) -> Iterator[None]:
    from django.db import connections

    _listen()
    with _changing:
        if not _active:
            _standing.update({alias: standing_for(alias) for alias in connections.settings})
        _active.append(redirection)
        redirection.begin(connections)
    try:
        yield
    finally:
        with _changing:
            redirection.end(connections)
            _active.remove(redirection)


def _in_use(*aliases: str) -> list[Any]:
    """The wrappers of all threads that are not laid aside."""
    return [
        wrapper
        for wrapper in tuple(_opened)
        if wrapper.alias in aliases
        and not any(wrapper is each for each in _parked)
        and not any(each.holds(wrapper) for each in _active)
    ]


def _listen() -> None:
    from django.db.backends.signals import connection_created

    if _listening:
        return
    connection_created.connect(_on_created, dispatch_uid="pytest_seeddb")
    if threading.active_count() > 1:
        _opened.update(_connected_before())
    _listening.append(True)


def _connected_before() -> list[Any]:
    """The wrappers that other threads connected before anybody listened.

    Looked for by their types alone: to ask a lazy object for its class is to evaluate it.
    """
    from django.db.backends.base.base import BaseDatabaseWrapper

    return [each for each in gc.get_objects() if issubclass(type(each), BaseDatabaseWrapper) and each.connection]


def _on_created(connection: Any, **_more: object) -> None:  # noqa: ANN401 - a DatabaseWrapper
    _opened.add(connection)
    if _active:
        _active[-1].note(connection)


def _pool_owners(wrapper: Any) -> tuple[Any, ...]:  # noqa: ANN401 - as above
    """The class that keeps the pools by alias, since Django 5.1."""
    return tuple(each for each in type(wrapper).__mro__ if "_connection_pools" in vars(each))[:1]


def _place_in(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What `_settings_for` replaces in the dictionary, for `update` to put back."""
    return {key: wanted.get(key) for key in (*_PLACE.values(), "OPTIONS")}


def _settings_for(address: Address | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What the dictionary is to say; what it says beside where and as whom stays."""
    kept = {key: value for key, value in (wanted.get("OPTIONS") or {}).items() if not says_where(key)}
    if address is None:
        # A directory that is not there: without a host libpq would look where its environment says.
        return {**dict.fromkeys(_PLACE.values(), ""), "NAME": "postgres", "HOST": f"/{_NOWHERE}", "OPTIONS": kept}
    place = {setting: address.params.get(key, "") for key, setting in _PLACE.items()}
    rest = {key: value for key, value in address.params.items() if key not in _PLACE}
    options = " ".join(filter(None, (kept.get("options", ""), rest.pop("options", ""))))
    return {**place, "OPTIONS": {**kept, **rest, **({"options": options} if options else {})}}


def close(wrapper: Any) -> None:  # noqa: ANN401 - as above
    """Close a wrapper's connection, whichever thread it belongs to, and whatever it is in the middle of."""
    wrapper.inc_thread_sharing()
    try:
        with contextlib.suppress(Exception):  # a connection that is broken already
            wrapper.close()
    finally:
        wrapper.dec_thread_sharing()


@contextmanager
def in_transaction(alias: str, mark: Mark | None) -> Iterator[None]:
    """A transaction of Django's around a block, in which a step is noted as begun and as finished."""
    from django.db import connections, transaction

    with transaction.atomic(using=alias):
        if mark:
            _execute(connections[alias], mark.statement, mark.begun)
        yield
        if mark:
            _execute(connections[alias], mark.statement, mark.finished())


def _execute(connection: Any, statement: str, parameters: tuple[object, ...]) -> None:  # noqa: ANN401 - a DatabaseWrapper
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def address_of(alias: str = DEFAULT) -> Mapping[str, str]:
    """What Django's settings say of where an alias leads, as libpq's parameters."""
    from django.db import connections

    wanted = connections.settings[alias]
    place = {key: str(wanted[setting]) for key, setting in _PLACE.items() if wanted.get(setting)}
    more = {key: str(value) for key, value in (wanted.get("OPTIONS") or {}).items() if says_where(key)}
    return {**more, **place}
