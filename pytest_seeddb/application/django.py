"""Django's settings and connections: every connection goes to our databases, whatever the settings say.

Django's wrappers of one alias share one dictionary of settings with each other and with
``django.db.connections``, in all threads, and read it anew for each connection that they open. So the
dictionary is changed where it stands, and the connections that were open before are laid aside.

Nothing here imports Django before it is asked to.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import weakref
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.disconnection import cut
from pytest_seeddb.application.flushing import ask
from pytest_seeddb.application.imports import describe, enter_on_import, put_on_path
from pytest_seeddb.application.offspring import has_outlived
from pytest_seeddb.application.redirection import says_where
from pytest_seeddb.application.roles import Roles
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.django_settings import OUR_APP
from pytest_seeddb.settings.pytest_files import django_settings_in, pytest_file

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping
    from types import ModuleType

    from pytest_seeddb.application.flushing import Told
    from pytest_seeddb.plan.plan import Mark
    from pytest_seeddb.servers.address import Address

DEFAULT: Final = "default"
"""The alias of the database that Django uses where nothing names another."""

VARIABLE: Final = "DJANGO_SETTINGS_MODULE"
_PLACE: Final = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
_NOWHERE: Final = "this alias has no database here (pytest-seeddb)"

_changing: Final = threading.RLock()
_active: Final[list[DjangoRedirection]] = []
_parked: Final[list[Any]] = []
"""Wrappers of redirections that are off, and will be on again."""
_main_aliases: Final[dict[str, str]] = {}
"""By alias, as the settings are outside of all redirections: see `_main_alias`."""
_users: Final[dict[str, tuple[str, str]]] = {}
"""User and password by alias, as the settings are outside of all redirections."""
_opened: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""Every wrapper that has opened a connection, of all threads."""


def is_set_up() -> bool:
    """Whether this process has a Django whose settings and models are loaded."""
    if "django.apps" not in sys.modules or "django.conf" not in sys.modules:
        return False
    from django.apps import apps
    from django.conf import settings

    return bool(settings.configured and apps.ready)


def has_settings(root: Path) -> bool:
    """Whether the settings are loaded, or the environment or pytest's configuration names them: not ``manage.py``."""
    conf: Any = sys.modules.get("django.conf")
    return bool((conf and conf.settings.configured) or os.environ.get(VARIABLE) or pytest_file(root).django_settings)


def set_up(root: Path, *, source: str) -> None:
    """Load the project's settings and models, unless that was done; ``source`` asks for it.

    Raises:
        ConfigError: Django is not installed, or the settings are not found, or they or a model fail.
    """
    if is_set_up():
        return
    try:
        import django
        from django.conf import settings
    except ImportError as error:
        remedy = "pip install django"
        raise ConfigError("Django is not installed", saw=str(error), source=source, remedy=remedy) from error
    if not settings.configured:
        module, directory = find_settings(root, source)
        put_on_path(directory)
        put_on_path(root)
        os.environ[VARIABLE] = module
    try:
        django.setup()
    except (Exception, SystemExit) as error:
        raise ConfigError(
            "Django cannot be set up",
            saw=describe(error, root),
            source=f"{VARIABLE}={os.environ.get(VARIABLE, '')}, as {source} asks for Django",
            remedy="correct the error; `python manage.py check` must work",
        ) from error


def find_settings(root: Path, source: str, variable: str | None = None) -> tuple[str, Path]:
    """The settings' module and the directory of ``manage.py``, or the root; imports nothing. Raises `ConfigError`."""
    places = (path for pattern in ("manage.py", "*/manage.py", "*/*/manage.py") for path in sorted(root.glob(pattern)))
    manage = next(filter(Path.is_file, places), None)
    module = (os.environ.get(VARIABLE, "") if variable is None else variable) or pytest_file(root).django_settings
    if not module and manage:
        module = django_settings_in(manage.read_text(encoding="utf-8", errors="replace"))
    if not module:
        raise ConfigError(
            "Django's settings are not found",
            saw=f"no {VARIABLE} in the environment or in pytest's configuration, and no manage.py in {root} "
            "that sets it",
            source=source,
            remedy=f"set {VARIABLE} in the environment or in pytest's configuration, or start where manage.py is",
        )
    return module, manage.parent if manage else root


def settings_module() -> str:
    """The dotted name of the settings that are in use; empty where they come from no module."""
    from django.conf import settings

    return str(getattr(settings, "SETTINGS_MODULE", "") or "")


def app_modules() -> tuple[str, ...]:
    """The modules of the apps, which Django imports by itself: each app's configuration and its models."""
    from django.apps import apps

    configs = [config for config in apps.get_app_configs() if config.name != OUR_APP]
    modules = [name for c in configs for name in (type(c).__module__, c.name, getattr(c.models_module, "__name__", ""))]
    return tuple(dict.fromkeys(filter(None, modules)))


def require_postgres(source: str) -> None:
    """Raise a `ConfigError` for settings without a PostgreSQL database: a build from them would be empty."""
    from django.core.exceptions import ImproperlyConfigured
    from django.db import connections

    where = f"DATABASES in {settings_module() or 'its settings'}, as {source} asks for Django"
    try:
        if postgres_aliases():
            return
    except ImproperlyConfigured as error:
        remedy = "correct them; `python manage.py check --database default` must work"
        raise ConfigError("Django cannot use its databases", saw=str(error), source=where, remedy=remedy) from error
    raise ConfigError(
        "None of Django's databases is a PostgreSQL database",
        saw="\n".join(f"{alias}: {connections.settings[alias]['ENGINE']}" for alias in connections.settings),
        source=where,
        remedy='give `default` the ENGINE "django.db.backends.postgresql"; if an environment variable decides, set it '
        "to any PostgreSQL URL: nothing connects to it",
    )


def is_postgres(alias: str) -> bool:
    """Whether the alias's backend is one for PostgreSQL, its own or one built on it."""
    from django.db import connections

    return getattr(connections[alias], "vendor", "") == "postgresql"


def postgres_aliases() -> tuple[str, ...]:
    """The aliases with a PostgreSQL database of their own, the default one first.

    An alias that mirrors another (``TEST = {"MIRROR": ...}``), or leads to the same database as one
    before it, has none of its own.
    """
    from django.db import connections

    aliases: dict[tuple[object, ...], str] = {}
    for alias in sorted(connections.settings, key=lambda alias: alias != DEFAULT):
        settings = connections.settings[alias]
        if is_postgres(alias) and not settings["TEST"].get("MIRROR"):
            aliases.setdefault(_place_of(settings), alias)
    return tuple(aliases.values())


def _main_alias(alias: str) -> str:
    """The alias among `postgres_aliases` whose database this one shares; itself where it shares none."""
    from django.db import connections

    settings = connections.settings[alias]
    if mirrored := settings["TEST"].get("MIRROR"):
        return _main_alias(str(mirrored))
    place = _place_of(settings)
    return next((main for main in postgres_aliases() if _place_of(connections.settings[main]) == place), alias)


def _place_of(settings: Mapping[str, Any]) -> tuple[object, ...]:
    service = (settings.get("OPTIONS") or {}).get("service")
    return (*(settings.get(key) for key in ("ENGINE", "HOST", "PORT", "NAME")), service)


def _user_of(settings: Mapping[str, Any]) -> tuple[str, str]:
    return str(settings.get("USER") or ""), str(settings.get("PASSWORD") or "")


def address_of(alias: str = DEFAULT) -> Mapping[str, str]:
    """Where an alias leads by Django's settings, as libpq's parameters."""
    from django.db import connections

    settings = connections.settings[alias]
    place = {key: str(settings[setting]) for key, setting in _PLACE.items() if settings.get(setting)}
    more = {key: str(value) for key, value in (settings.get("OPTIONS") or {}).items() if says_where(key)}
    return {**more, **place}


@contextmanager
def in_transaction(alias: str, mark: Mark | None) -> Iterator[None]:
    """A transaction of Django around a block, in which a step is noted as begun and as finished."""
    from django.db import connections, transaction

    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        if mark:
            cursor.execute(mark.statement, mark.begun)
        yield
        if mark:
            cursor.execute(mark.statement, mark.finished())


@contextmanager
def redirect_django(addresses: Mapping[str, Address], roles: Roles | None = None) -> Iterator[DjangoRedirection]:
    """Inside the block Django connects to these databases, by alias, and to none that its settings name.

    Aliases that mirror one of them, or lead to the same database in the settings, go along. Any other
    PostgreSQL alias can connect to nothing; those of other vendors are left alone. Holds for all
    threads, for pools, and where Django is only set up inside the block. What was open before is as it
    was afterwards, transactions included; what was opened inside is closed at the end.

    Imports nothing: a process without Django is left without.
    """
    redirection = DjangoRedirection(addresses, roles or Roles())
    with enter_on_import("django.db.utils", lambda module: _redirect(module, redirection)):
        yield redirection


@contextmanager
def _redirect(module: ModuleType, redirection: DjangoRedirection) -> Iterator[None]:
    """Redirect now where Django is set up, else as soon as it reads its settings."""
    if is_set_up():
        from django.db import connections

        _listen()
        with _changing:
            if not _active:
                _main_aliases.update({alias: _main_alias(alias) for alias in connections.settings})
                _users.update({alias: _user_of(settings) for alias, settings in connections.settings.items()})
            _active.append(redirection)
            redirection.begin(connections)
        try:
            yield
        finally:
            with _changing:
                redirection.end()
                _active.remove(redirection)
        return
    handler = module.ConnectionHandler
    configure = handler.configure_settings

    def configure_settings(self: Any, databases: Any) -> Any:  # noqa: ANN401 - Django's own
        databases = configure(self, databases)
        _listen()
        for alias, settings in databases.items():
            if "postg" in str(settings.get("ENGINE", "")):
                redirection.point(alias, settings)
        return databases

    handler.configure_settings = configure_settings
    try:
        yield
    finally:
        handler.configure_settings = configure
        redirection.end()


@contextmanager
def watch_django(check: Callable[[str, Mapping[str, Any]], None]) -> Iterator[None]:
    """Inside the block ``check`` hears of each use of PostgreSQL that nothing redirects, or by a thread of an old test.

    It gets the alias and the settings.
    """
    with enter_on_import("django.db.backends.base.base", lambda module: _watch(module.BaseDatabaseWrapper, check)):
        yield


@contextmanager
def _watch(wrapper: Any, check: Callable[[str, Mapping[str, Any]], None]) -> Iterator[None]:  # noqa: ANN401 - Django's class
    def checking(method: Any) -> Any:  # noqa: ANN401 - as above
        @wraps(method)
        def call(self: Any, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - as above
            if (not _active or has_outlived()) and self.vendor == "postgresql":
                check(self.alias, self.settings_dict)
            return method(self, *args, **named)

        return call

    methods = {name: getattr(wrapper, name) for name in ("connect", "_cursor")}
    for name, method in methods.items():
        setattr(wrapper, name, checking(method))
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(wrapper, name, method)


class DjangoRedirection:
    """One ``with redirect_django(...)``."""

    def __init__(self, addresses: Mapping[str, Address], roles: Roles) -> None:
        self._addresses = addresses
        self._roles = roles
        self._thread = threading.get_ident()
        self._aliases: set[str] = set()
        self._pools: dict[str, dict[str, Any]] = {}
        self._undo = ExitStack()
        self._used = False
        self.aside: list[Any] = []

    def begin(self, connections: Any) -> None:  # noqa: ANN401 - django.db.utils.ConnectionHandler
        """Point every PostgreSQL alias at its address; lay this thread's wrappers aside, and close the others'."""
        for alias in tuple(connections.settings):
            if not is_postgres(alias):
                continue
            self.point(alias, connections.settings[alias])
            wrapper = connections[alias]
            self.aside.append(wrapper)
            self._undo.callback(self._put_back, connections, wrapper)
            del connections[alias]
            self._pools[alias] = pools = getattr(wrapper, "_connection_pools", {})  # the class's, since Django 5.1
            if (pool := pools.pop(alias, None)) is not None:
                self._undo.callback(pools.__setitem__, alias, pool)
            for used in _in_use({alias}):
                close(used)

    def point(self, alias: str, settings: dict[str, Any]) -> None:
        """Have an alias's settings lead to its address; what they say beside where and as whom stays."""
        self._aliases.add(alias)
        self._undo.callback(settings.update, {key: settings.get(key) for key in (*_PLACE.values(), "OPTIONS")})
        kept = {key: value for key, value in (settings.get("OPTIONS") or {}).items() if not says_where(key)}
        address = self._addresses.get(alias) or self._addresses.get(_main_aliases.get(alias, alias))
        if address is None:
            # A directory that is not there: without a host libpq would look where its environment says.
            settings.update(dict.fromkeys(_PLACE.values(), ""), NAME="postgres", HOST=f"/{_NOWHERE}", OPTIONS=kept)
            return
        address = self._roles.address(address, *(_users.get(alias) or _user_of(settings)))
        rest = {key: value for key, value in address.params.items() if key not in _PLACE}
        options = " ".join(filter(None, (kept.get("options", ""), rest.pop("options", ""))))
        settings.update({setting: address.params.get(key, "") for key, setting in _PLACE.items()})
        settings["OPTIONS"] = {**kept, **rest, **({"options": options} if options else {})}

    def _put_back(self, connections: Any, wrapper: Any) -> None:  # noqa: ANN401 - as above
        if threading.get_ident() == self._thread:
            connections[wrapper.alias] = wrapper

    def note(self, wrapper: Any) -> None:  # noqa: ANN401 - a DatabaseWrapper
        """Hear of a connection that was opened while this one decided."""
        self._used = self._used or wrapper.alias in self._aliases

    def was_used(self) -> bool:
        """Whether a connection was opened through it since this was last asked. Closes them."""
        used, self._used = self._used, False
        if used:
            self.close_connections()
        return used

    def ask(self) -> Told:
        """Ask the open connections of all threads what they have written, those of pools included."""
        told: Told = {}
        for wrapper in _in_use(self._aliases):
            told |= ask(wrapper.connection, is_ours=wrapper._thread_ident == threading.get_ident())  # noqa: SLF001 - Django's name
        for pool in [pools[alias] for alias, pools in self._pools.items() if alias in pools]:
            for driver in tuple(pool._pool):  # noqa: SLF001 - psycopg_pool shows them nowhere
                told |= ask(driver)
        return told

    def close_connections(self) -> None:
        """Close what was opened so far, in any thread; whoever needs a connection afterwards gets a new one."""
        for wrapper in _in_use(self._aliases):
            close(wrapper)
        for alias, pools in self._pools.items():
            if (pool := pools.pop(alias, None)) is not None:
                pool.close()

    def end(self) -> None:
        """Close what was opened, and put everything back."""
        self.close_connections()
        self._undo.close()


class KeptRedirection:
    """Redirects the default alias to one database again and again, in one thread, over one connection."""

    def __init__(self, address: Address, roles: Roles | None = None) -> None:
        self._address = address
        self._roles = roles
        self._wrapper: Any = None

    @contextmanager
    def on(self) -> Iterator[DjangoRedirection]:
        """Redirect inside the block."""
        from django.db import connections

        with redirect_django({DEFAULT: self._address}, self._roles) as redirection:
            if self._wrapper is not None:
                _parked.remove(self._wrapper)
                connections[DEFAULT] = self._wrapper
            try:
                yield redirection
            finally:
                self._wrapper = connections[DEFAULT]
                _parked.append(self._wrapper)

    def backend(self) -> int:
        """The process number of the connection's backend, after it told the server what it did. Only inside of `on`.

        0 where the connection is closed, or in the middle of something.
        """
        from django.db import connections

        driver = connections[DEFAULT].connection
        if driver is None or driver.closed or driver.info.transaction_status != 0:
            return 0
        with driver.cursor() as cursor:
            # Without a commit: those of the tests are counted.
            cursor.execute("BEGIN; SELECT pg_stat_force_next_flush(), pg_advisory_unlock_all(); ROLLBACK")
        return int(driver.info.backend_pid)

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


def _in_use(aliases: Container[str]) -> list[Any]:
    """The wrappers of all threads that are not laid aside."""
    aside = [*_parked, *(wrapper for redirection in _active for wrapper in redirection.aside)]
    return [wrapper for wrapper in tuple(_opened) if wrapper.alias in aliases and wrapper not in aside]


@cache
def _listen() -> None:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.signals import connection_created

    connection_created.connect(_on_connection, dispatch_uid="pytest_seeddb")
    if threading.active_count() > 1:
        # Other threads may have connected before. By the type alone: to ask a lazy object for its class evaluates it.
        wrappers: list[Any] = [value for value in gc.get_objects() if issubclass(type(value), BaseDatabaseWrapper)]
        _opened.update(wrapper for wrapper in wrappers if wrapper.connection)


def _on_connection(connection: Any, **_more: object) -> None:  # noqa: ANN401 - a DatabaseWrapper
    _opened.add(connection)
    if _active:
        _active[-1].note(connection)


def close(wrapper: Any) -> None:  # noqa: ANN401 - a DatabaseWrapper
    """Close a wrapper's connection, whichever thread it belongs to, and whatever it is in the middle of."""
    is_pooled = getattr(wrapper.connection, "_pool", None) is not None
    if wrapper._thread_ident != threading.get_ident() and not is_pooled:  # noqa: SLF001 - Django shows it nowhere else
        cut(wrapper.connection)  # else psycopg2 would wait for the end of that thread's statement
    wrapper.inc_thread_sharing()
    try:
        with contextlib.suppress(Exception):  # a connection that is broken already
            wrapper.close()
    finally:
        wrapper.dec_thread_sharing()
