"""How to reach a database: libpq's parameters, as a URL, as a connection string and as variables."""

from __future__ import annotations

import getpass
import os
import re
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from pytest_seeddb.errors import HIDDEN, ConfigError, conceal, passwords_in
from pytest_seeddb.servers.libpq import VARIABLES, without_shell_variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import psycopg

_DRIVER: Final = re.compile(r"^postgres(?:ql)?(?:\+[a-z0-9_]+)?://", re.IGNORECASE)
_IN_URL: Final = ("host", "port", "user", "password", "dbname")
_VARIABLES: Final = dict(zip(_IN_URL, ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"), strict=True))
_ESCAPES: Final = (
    "correct the URL; in its user and password write %40 for @, %3A for :, %2F for /, %3F for ?, %25 for %"
)
_WRONG: Final = "-"
"""A value that libpq takes for no parameter of `_service`, and a role's name that nobody has."""
# Variables that libpq would follow instead of, or beside, what the address says.
_MISLEADING: Final = {"host": ("PGHOSTADDR", "PGSERVICE"), "dbname": ("PGSERVICE",)}


@dataclass(frozen=True)
class Address:
    """Where a database is and as whom to connect, as libpq parameters.

    Its ``repr`` and ``masked`` never show the password.
    """

    params: Mapping[str, str] = field(repr=False)
    is_ours: bool = field(default=False, compare=False)
    """Whether it is on a server that we started, of which the shell's variables say nothing."""

    @classmethod
    def parse(cls, url: str, *, source: str) -> Address:
        """Read a URL, with or without a SQLAlchemy driver (``postgresql+asyncpg://``), or raise `ConfigError`.

        Args:
            url: Any URL that libpq takes.
            source: Where the URL came from, for the error.
        """
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        if not _DRIVER.match(url):
            with suppress(ProgrammingError, UnicodeDecodeError):
                conceal(conninfo_to_dict(url).get("password", ""))  # libpq's keywords and values
            raise ConfigError(
                "The server's URL is not a PostgreSQL URL",
                saw=url,
                source=source,
                remedy="write postgresql://user@host:port/database",
            )
        try:
            given = conninfo_to_dict(_DRIVER.sub("postgresql://", url))
        except ProgrammingError as error:
            raise _unreadable(url, source, str(error)) from None
        except UnicodeDecodeError:
            raise _unreadable(url, source, "a % escape in it is not UTF-8") from None
        if not all(port.isdigit() for port in str(given.get("port") or 0).split(",") if port):
            raise _unreadable(url, source, "its port is not a number")
        params = _with_service({key: str(value) for key, value in given.items() if value is not None})
        if "@" in params.get("host", "")[1:] or _has_password_in_path(url):
            raise _unreadable(url, source)
        for key in ("password", "sslpassword"):
            conceal(params.get(key, ""), *(params.get(beside) for beside in ("user", "dbname", "host")))
        return cls(params)

    def with_database(self, name: str) -> Address:
        """The same server and role, another database."""
        return self.having(dbname=name)

    def having(self, **params: str) -> Address:
        """The same with other parameters of libpq."""
        return replace(self, params={**self.params, **params})

    def connect(self, **parameters: Any) -> psycopg.Connection[Any]:
        """Connect, as `psycopg.connect` does."""
        import psycopg

        with self.alone():
            return psycopg.connect(self.conninfo, **parameters)

    def alone(self) -> AbstractContextManager[None]:
        """Within, variables of the shell do not change what connections to it do, whoever makes them."""
        return without_shell_variables() if self.is_ours else nullcontext()

    @property
    def database(self) -> str:
        """The database's name; empty where the address leaves it to libpq."""
        return self.params.get("dbname", "")

    @property
    def resolved(self) -> Address:
        """The same with what the service file says of its service, or of the environment's."""
        return replace(self, params=_with_service(dict(self.params)))

    @property
    def hosts(self) -> tuple[str, ...]:
        """All that it may lead to: names, IP addresses, socket directories; none where libpq's default is a socket."""
        params = self.resolved.params
        host = params.get("host") or os.environ.get("PGHOST", "")
        number = params.get("hostaddr") or ("" if "host" in params else os.environ.get("PGHOSTADDR", ""))
        return tuple(filter(None, f"{host},{number}".split(",")))

    @property
    def conninfo(self) -> str:
        """The libpq string, for `psycopg.connect`. Holds the password."""
        from psycopg.conninfo import make_conninfo

        # Given empty, it keeps PGHOSTADDR of the environment from leading to another server.
        return make_conninfo(**{"hostaddr": "", **self.params} if "host" in self.params else self.params)

    @property
    def url(self) -> str:
        """The URL, ``postgresql://...``. Holds the password."""
        return self.url_for("postgresql")

    def url_for(self, scheme: str) -> str:
        """The URL under another scheme, such as ``postgresql+asyncpg``. Holds the password."""
        params = dict(self.params)
        host, port = params.get("host", ""), params.get("port", "")
        netloc = ""
        if "user" in params or "password" in params:
            password = f":{quote(params['password'], safe='')}" if "password" in params else ""
            netloc = f"{quote(params.get('user', ''), safe='')}{password}@"
        rest = {key: value for key, value in params.items() if key not in _IN_URL}
        if not host.startswith(("/", "@")) and "," not in host:
            netloc += (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
        else:
            rest = {**{key: params[key] for key in ("host", "port") if key in params}, **rest}
        query = f"?{urlencode(rest, safe='/', quote_via=quote)}" if rest else ""
        return f"{scheme}://{netloc}/{quote(params.get('dbname', ''), safe='')}{query}"

    @property
    def masked(self) -> str:
        """The URL with ``***`` in the password's place, for people to read."""
        params = {key: value for key, value in self.params.items() if key != "sslpassword"}
        if "password" in params:
            params["password"] = HIDDEN
        return replace(self, params=params).url.replace(quote(HIDDEN), HIDDEN)

    @property
    def without_password(self) -> Address:
        """The same without its passwords, for a client that has a password file or asks."""
        kept = {key: value for key, value in self.params.items() if key not in {"password", "sslpassword"}}
        return replace(self, params=kept)

    def environment(self) -> dict[str, str]:
        """``PGHOST``, ``PGPORT`` and the like, for a child process. Holds the password."""
        return {name: self.params[key] for key, name in _VARIABLES.items() if key in self.params}

    def __repr__(self) -> str:
        return f"Address({self.masked!r})"


def _with_service(params: dict[str, str]) -> dict[str, str]:
    """Replace the service by the parameters that the service file has for it; the URL's own go first.

    A child process gets its address in variables, and libpq prefers its service to them: it would use the service's
    database instead of ours. A service without parameters stays, for libpq to complain about.
    """
    name = params.get("service") or os.environ.get("PGSERVICE")
    service = dict(_service(name)) if name else {}
    return {**service, **{key: value for key, value in params.items() if key != "service"}} if service else params


def _service(name: str) -> Iterator[tuple[str, str]]:
    """What libpq takes from its service file, and from nowhere else.

    It reads the file and connects to nothing, because one parameter is wrong. Two of them are tried, since each
    hides what the service says of it. Where no database is named, libpq takes the role's name for it, so one attempt
    has a role of its own: only there, a database of another name is the service's.
    """
    from psycopg import pq
    from psycopg.conninfo import make_conninfo

    attempts: tuple[tuple[dict[str, str], str], ...] = (
        ({"sslmode": _WRONG}, "dbname"),
        ({"channel_binding": _WRONG, "user": _WRONG}, ""),
    )
    for given, derived in attempts:
        connection = pq.PGconn.connect_start(make_conninfo(service=name, **given).encode())
        for option in connection.info:
            key, value = option.keyword.decode(), (option.val or b"").decode()
            defaults = {"", (option.compiled or b"").decode(), os.environ.get((option.envvar or b"").decode(), "")}
            defaults |= {getpass.getuser() if key == "user" else str(Path.home() / ".pgpass"), _WRONG}
            if key not in {*given, derived, "service"} and value not in defaults:
                yield key, value
        connection.finish()


def _has_password_in_path(url: str) -> bool:
    netloc, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    return "@" in path and ":" in netloc


def _unreadable(url: str, source: str, reason: str = "") -> ConfigError:
    """The error for a URL that libpq refuses, or misreads, as one with an unescaped ``@`` or ``/`` in its password."""
    # Also where a report shows the variables of this place: in one piece, and in the pieces that libpq made of it.
    up_to_the_last_at = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    passwords = passwords_in(url)
    for password in {up_to_the_last_at, *passwords}:
        conceal([password, *re.split("[@/:?#&=]", password)])
    for password in passwords:
        reason = reason.replace(password, HIDDEN)  # libpq quotes what it does not understand
    saw, remedy = url, _ESCAPES
    if not reason or _has_password_in_path(url):
        scheme, _, rest = url.partition("://")
        saw = f"{scheme}://{HIDDEN}@{rest.rpartition('@')[2]}"
    elif "query parameter" in reason:
        remedy = "correct or remove the part after the ?: it takes the parameters of libpq, such as sslmode=require"
    misread = "" if reason else ": it has more than one @, or one after a /"
    return ConfigError(
        f"The server's URL cannot be read{misread}",
        saw="\n".join(filter(None, (saw, reason))),
        source=source,
        remedy=remedy,
    )


def environment_for(address: Address, env: Iterable[str] = ()) -> dict[str, str]:
    """The environment of a child process that is to use this database and no other. Holds the password.

    The URL is in ``DATABASE_URL`` and in the variables ``env``. ``PGSERVICE`` and ``PGHOSTADDR`` are left out where
    they would lead to another server. On a server that the user named, the other variables of libpq hold for the child
    as they hold for our own connections: a password may be in ``PGPASSWORD`` or ``PGPASSFILE`` alone.
    """
    from psycopg import pq

    misleading = {name for key in address.params for name in _MISLEADING.get(key, ())}
    # What the project's own code may read as its configuration, and no server of ours minds.
    misleading |= VARIABLES - {"PGPASSWORD", "PGPASSFILE"} if address.is_ours else set()
    inherited = {name: value for name, value in os.environ.items() if name not in misleading}
    variables = {option.keyword.decode(): option.envvar for option in pq.Conninfo.get_defaults()}
    own = {variable.decode(): value for key, value in address.params.items() if (variable := variables.get(key))}
    return {**inherited, **own, **address.environment(), **dict.fromkeys(("DATABASE_URL", *env), address.url)}
