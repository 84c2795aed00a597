"""What each driver must be told so that it connects to an address."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.engine.interfaces import Dialect

    from pytest_seeddb.servers.address import Address

# Every argument of psycopg, psycopg2, asyncpg and pg8000 that says where to connect or as whom.
# libpq's are those of its "Parameter Key Words"; the others are in each driver's ``connect``.
_WHERE: Final = frozenset(
    {
        "async_creator_fn",
        "channel_binding",
        "conninfo",
        "database",
        "db",
        "dbname",
        "direct_tls",
        "dsn",
        "host",
        "hostaddr",
        "krbspn",
        "krbsrvname",
        "load_balance_hosts",
        "passfile",
        "password",
        "port",
        "replication",
        "require_auth",
        "requirepeer",
        "requiressl",
        "service",
        "servicefile",
        "sock",
        "source_address",
        "target_session_attrs",
        "unix_sock",
        "user",
    }
)
_WHERE_PREFIXES: Final = ("ssl", "gss", "scram_", "oauth_", "min_protocol", "max_protocol")

# Those of libpq's parameters that asyncpg reads from a DSN only.
_ASYNCPG_DSN: Final = (
    "sslmode",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslcrl",
    "sslpassword",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "target_session_attrs",
)
_SETTINGS: Final = ("application_name", "options")


def connect_arguments(
    address: Address, dialect: Dialect, cparams: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments for the dialect's ``connect``.

    Args:
        address: Where to connect and as whom.
        dialect: The engine's.
        cparams: The application's own arguments; those that do not say where or as whom are kept. Positional
            ones do not come here: only a DSN is ever among them.
    """
    from sqlalchemy import make_url

    kept = {key: value for key, value in cparams.items() if not says_where(key)}
    adapt = _ADAPTED.get(dialect.driver)
    if adapt is not None:
        return [], adapt(address.params, kept)
    url = make_url(address.url_for(f"postgresql+{dialect.driver}"))
    positional, named = dialect.create_connect_args(url)
    return list(positional), {**named, **kept}


def says_where(key: str) -> bool:
    """Whether an argument of a driver's says where to connect or as whom."""
    return key in _WHERE or key.startswith(_WHERE_PREFIXES)


def _asyncpg(params: Mapping[str, str], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Of asyncpg's ``connect``: the place by name, TLS in a DSN, settings of the session apart."""
    place: dict[str, Any] = {key: params[key] for key in ("user", "password") if key in params}
    place["database"] = params.get("dbname")
    hosts, ports = params.get("host", ""), params.get("port", "")
    if hosts:
        place["host"] = hosts.split(",") if "," in hosts else hosts
    if ports:
        place["port"] = [int(port) for port in ports.split(",")] if "," in ports else int(ports)
    secure = {key: params[key] for key in _ASYNCPG_DSN if key in params}
    if secure:
        place["dsn"] = f"postgresql://?{urlencode(secure)}"
    session = {key: params[key] for key in _SETTINGS if key in params}
    return {
        **kept,
        **place,
        "server_settings": {**session, **(kept.get("server_settings") or {})},
    }


def _pg8000(params: Mapping[str, str], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Of pg8000's ``connect``: a socket is named by its file, and the user must be."""
    host, port = params.get("host", "localhost"), int(params.get("port") or 5432)
    place: dict[str, Any] = {
        "user": params.get("user") or getpass.getuser(),
        "database": params.get("dbname"),
        "password": params.get("password"),
    }
    if host.startswith("/"):
        place["unix_sock"] = f"{host}/.s.PGSQL.{port}"
    else:
        place |= {"host": host, "port": port}
        place |= {"ssl_context": _context(params)} if "sslmode" in params else {}
    if "application_name" in params:
        place["application_name"] = params["application_name"]
    return {**place, **kept}


def _context(params: Mapping[str, str]) -> Any:  # noqa: ANN401 - what pg8000 takes as ``ssl_context``
    """``None`` tries TLS and does without, ``False`` does without, ``True`` wants it unverified."""
    import ssl

    unverified: dict[str, bool | None] = {"disable": False, "allow": None, "prefer": None, "require": True}
    if params["sslmode"] in unverified:
        return unverified[params["sslmode"]]
    context = ssl.create_default_context(cafile=params.get("sslrootcert"))
    context.check_hostname = params["sslmode"] == "verify-full"
    return context


def _libpq(params: Mapping[str, str], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Of psycopg's and psycopg2's ``connect``: libpq's own words.

    An empty ``hostaddr`` keeps ``PGHOSTADDR`` from leading elsewhere.
    """
    return {"hostaddr": "", **params, **kept}


_ADAPTED: Final[Mapping[str, Callable[[Mapping[str, str], Mapping[str, Any]], dict[str, Any]]]] = {
    "asyncpg": _asyncpg,
    "pg8000": _pg8000,
    "psycopg": _libpq,
    "psycopg_async": _libpq,
    "psycopg2": _libpq,
    "psycopg2cffi": _libpq,
}
