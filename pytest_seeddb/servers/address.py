"""How to reach a database: what libpq is told, in each of the forms that people need."""

from __future__ import annotations

import getpass
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from pytest_seeddb.errors import ConfigError, conceal, passwords_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_MASK: Final = "***"
_DRIVER: Final = re.compile(r"^postgres(?:ql)?(?:\+[a-z0-9_]+)?://", re.IGNORECASE)
_IN_URL: Final = ("host", "port", "user", "password", "dbname")
_ENVIRONMENT: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
}


@dataclass(frozen=True)
class Address:
    """Where a database is and as whom to connect, as libpq parameters.

    Its ``repr`` and ``masked`` never show the password.
    """

    params: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, url: str, *, source: str) -> Address:
        """Read a URL, with or without a SQLAlchemy driver (``postgresql+asyncpg://``).

        Args:
            url: Any URL that libpq takes.
            source: Where the URL came from, for the error.

        Raises:
            ConfigError: It is not a PostgreSQL URL.
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
            found = conninfo_to_dict(_DRIVER.sub("postgresql://", url))
        except ProgrammingError as error:
            raise _unreadable(url, str(error), source) from None
        except UnicodeDecodeError:
            raise _unreadable(url, "what it writes as % and two digits is not UTF-8", source) from None
        if not all(port.isdigit() for port in str(found.get("port") or 0).split(",") if port):
            raise _unreadable(url, "its port is not a number", source)
        params = _with_service({key: str(value) for key, value in found.items() if value is not None})
        if _is_misread(url, params):
            raise _misread(url, source)
        for key in ("password", "sslpassword"):
            conceal(params.get(key, ""), *(params.get(each) for each in ("user", "dbname", "host")))
        return cls(params)

    def with_database(self, name: str) -> Address:
        """The same server and role, another database."""
        return Address({**self.params, "dbname": name})

    @property
    def database(self) -> str:
        """The database's name; empty where the address leaves it to libpq."""
        return self.params.get("dbname", "")

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
        host = params.get("host", "")
        in_path = not host.startswith(("/", "@")) and "," not in host
        netloc = _userinfo(params) + (_hostport(host, params.get("port", "")) if in_path else "")
        rest = {key: value for key, value in params.items() if key not in _IN_URL}
        if not in_path:
            rest = {**{key: params[key] for key in ("host", "port") if key in params}, **rest}
        query = f"?{urlencode(rest, safe='/', quote_via=quote)}" if rest else ""
        return f"{scheme}://{netloc}/{quote(params.get('dbname', ''), safe='')}{query}"

    @property
    def masked(self) -> str:
        """The URL with ``***`` in the password's place, for people to read."""
        shown = {key: value for key, value in self.params.items() if key != "sslpassword"}
        if "password" in shown:
            shown["password"] = _MASK
        return Address(shown).url.replace(quote(_MASK), _MASK)

    @property
    def without_password(self) -> Address:
        """The same without its passwords, for a client that has a password file or asks."""
        return Address({key: value for key, value in self.params.items() if key not in {"password", "sslpassword"}})

    def environment(self) -> dict[str, str]:
        """``PGHOST`` and its fellows, for a child process. Holds the password."""
        return {name: self.params[key] for key, name in _ENVIRONMENT.items() if key in self.params}

    def __repr__(self) -> str:
        return f"Address({self.masked!r})"


def _with_service(params: dict[str, str]) -> dict[str, str]:
    """What the service file adds to the URL, in the place of the service.

    A child process gets its address in variables, before which libpq takes what its service says: the
    service's database instead of ours. A service that says nothing stays, for libpq to complain about.
    """
    name = params.get("service") or os.environ.get("PGSERVICE")
    said = dict(_service(name)) if name else {}
    return {**said, **{key: value for key, value in params.items() if key != "service"}} if said else params


def _service(name: str) -> Iterator[tuple[str, str]]:
    """What libpq takes from its service file, and from nowhere else.

    It reads the file and connects to nothing, because one parameter is wrong. Two of them are tried, since each
    hides what the service says of it.
    """
    from psycopg import pq
    from psycopg.conninfo import make_conninfo

    for wrong in ("sslmode", "channel_binding"):
        connection = pq.PGconn.connect_start(make_conninfo(service=name, **{wrong: "-"}).encode())
        for option in connection.info:
            key, value = option.keyword.decode(), (option.val or b"").decode()
            defaults = {"", (option.compiled or b"").decode(), os.environ.get((option.envvar or b"").decode(), "")}
            defaults |= {getpass.getuser()} if key in {"user", "dbname"} else {str(Path.home() / ".pgpass")}
            if key not in {wrong, "service"} and value not in defaults:
                yield key, value
        connection.finish()


def _is_misread(url: str, params: Mapping[str, str]) -> bool:
    """Whether libpq takes a part of the password for the host or the database: it holds an unescaped ``@`` or ``/``."""
    return "@" in params.get("host", "")[1:] or _has_password_in_path(url)


def _has_password_in_path(url: str) -> bool:
    netloc, _, path = url.partition("://")[2].partition("?")[0].partition("/")
    return "@" in path and ":" in netloc


def _without_userinfo(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{_MASK}@{rest.rpartition('@')[2]}"


def _hide_passwords(url: str) -> None:
    """Also where a report shows the variables of this place: in one piece, and as libpq has taken it to pieces."""
    up_to_the_last_at = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    for password in {up_to_the_last_at, *passwords_in(url)}:
        conceal([password, *re.split("[@/:?#&=]", password)])


def _misread(url: str, source: str) -> ConfigError:
    _hide_passwords(url)
    return ConfigError(
        "The server's URL cannot be read: it has more than one @, or one after a /",
        saw=_without_userinfo(url),
        source=source,
        remedy=_ESCAPES,
    )


_ESCAPES: Final = "mend the URL; in its user and password write %40 for @, %3A for :, %2F for /, %3F for ?, %25 for %"


def _unreadable(url: str, reason: str, source: str) -> ConfigError:
    _hide_passwords(url)
    for password in passwords_in(url):
        reason = reason.replace(password, _MASK)  # libpq quotes what it does not understand
    of_parameter = "correct or leave out what follows the ?: it takes the parameters of libpq, such as sslmode=require"
    return ConfigError(
        "The server's URL cannot be read",
        saw=f"{_without_userinfo(url) if _has_password_in_path(url) else url}\n{reason}",
        source=source,
        remedy=of_parameter if "query parameter" in reason and not _has_password_in_path(url) else _ESCAPES,
    )


def _userinfo(params: Mapping[str, str]) -> str:
    if "user" not in params and "password" not in params:
        return ""
    password = f":{quote(params['password'], safe='')}" if "password" in params else ""
    return f"{quote(params.get('user', ''), safe='')}{password}@"


def _hostport(host: str, port: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port else shown


# Those of libpq that are dropped where the address says it itself: these go before what it says, or beside it.
_ASTRAY: Final = {"host": ("PGHOSTADDR", "PGSERVICE"), "dbname": ("PGSERVICE",)}


def environment_for(address: Address, env: Iterable[str] = ()) -> dict[str, str]:
    """The environment of a child process that is to use a database and no other one. Holds the password.

    Args:
        address: The database.
        env: Further variables that are to hold its URL, beside ``DATABASE_URL``.

    Variables of libpq that would lead elsewhere, ``PGSERVICE`` and ``PGHOSTADDR``, are left out. The others hold for
    the child as they hold for our own connections: a password may be in ``PGPASSWORD`` or ``PGPASSFILE`` alone.
    """
    astray = {name for key in address.params for name in _ASTRAY.get(key, ())}
    inherited = {name: value for name, value in os.environ.items() if name not in astray}
    urls = dict.fromkeys(("DATABASE_URL", *env), address.url)
    return {**inherited, **dict(_libpq_variables(address)), **urls}


def _known_variables() -> dict[str, str]:
    """The environment variable of each libpq parameter, as the libpq in use tells it."""
    from psycopg import pq

    return {
        option.keyword.decode(): option.envvar.decode()
        for option in pq.Conninfo.get_defaults()
        if option.envvar is not None
    }


def _libpq_variables(address: Address) -> Iterator[tuple[str, str]]:
    known = _known_variables()
    for key, value in address.params.items():
        if key in known:
            yield known[key], value
    yield from address.environment().items()
