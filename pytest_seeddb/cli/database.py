"""The database that a command works on: of ``--url``, of the environment or of Django's settings; and where it is."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.django import DEFAULT, address_of, is_postgres, postgres_aliases, set_up
from pytest_seeddb.cli.output import say
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.migrations.sources import DJANGO
from pytest_seeddb.servers.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_seeddb.settings.dotenv import Variable
    from pytest_seeddb.settings.settings import Settings

# `is_private` also has the addresses of documentation, of carriers and of nobody.
_PRIVATE: Final = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"))
)


def database_of(settings: Settings, url: str, dotenv: Iterable[Variable] | None = None) -> Address:
    """The database of a URL; where that is empty, the one that Django's settings or the environment name.

    Args:
        settings: Of the project.
        url: What the command line gave.
        dotenv: The variables of ``.env``, for a command that writes to the database. They may name it, too, which is
            printed; and a URL must name a database and not a server alone.

    Raises:
        ConfigError: Nothing names one, or the URL is wrong.
    """
    if settings.migrations == DJANGO and not url:
        set_up(settings.root, source=settings.source("migrations"))
        if not is_postgres(DEFAULT):
            raise ConfigError(
                "Django's default database is not a PostgreSQL database",
                saw=f"DATABASES[{DEFAULT!r}] has another backend",
                source="Django's settings",
                remedy="name a database: --url postgresql://user@host/database",
            )
        address = Address(address_of(DEFAULT))
        if dotenv is not None:
            _refuse_without_name(address.resolved, "Django's settings", f"DATABASES[{DEFAULT!r}]['NAME']")
        return address
    names = dict.fromkeys((*settings.env, "DATABASE_URL"))
    urls = [(url, "the option --url"), *((os.environ.get(name), f"the environment variable {name}") for name in names)]
    text, source = next(((text, source) for text, source in urls if text), ("", ""))
    lines = {variable.name: variable for variable in dotenv or () if variable.value and not text}
    line = next((lines[name] for name in names if name in lines), None)
    if line is not None:
        text, source = line.value, f"{line.name} in {line.place}"
    if not text:
        raise ConfigError(
            "No database is named",
            saw=f"no URL after --url, and no {' or '.join(names)} in the environment"
            + (" or in .env" if dotenv is not None and settings.dotenv else ""),
            source="the command line",
            remedy="set DATABASE_URL, or give --url postgresql://user@host/database (the process list shows it)",
        )
    address = Address.parse(text, source=source)
    if dotenv is not None:
        _refuse_without_name(address, source, "")
    if line is not None:
        host = ",".join(address.hosts) or "localhost"
        say(f"URL from .env, line {line.line}: {host}/{address.database}")
    return address


def _refuse_without_name(address: Address, source: str, setting: str) -> None:
    """Refuse an address that names no database, and whose service does not either: libpq takes the role's name."""
    if address.database:
        return
    saw, service = address.masked, address.params.get("service")
    if service:
        saw += f"\nthe service {service!r} is not in libpq's service file, or names no database"
    subject = "Django's default database" if setting else "The URL"
    place = f"into {setting}" if setting else "after the host: postgresql://user@host:port/database"
    raise ConfigError(
        f"{subject} names a server, but no database",
        saw=saw,
        source=source,
        remedy=f"write the database's name {place}",
    )


def further_databases(settings: Settings) -> dict[str, Address]:
    """A Django project's further PostgreSQL databases, by alias, as its settings have them."""
    if settings.migrations != DJANGO:
        return {}
    return {alias: Address(address_of(alias)) for alias in postgres_aliases() if alias != DEFAULT}


def is_on_this_machine(host: str) -> bool:
    """Whether a host of an address is a socket or a loopback address."""
    address = _ip_address(host)
    if address is not None:
        return address.is_loopback or address.is_unspecified
    return host.startswith(("/", "@")) or host.lower() == "localhost" or host.lower().endswith(".localhost")


def is_nearby(host: str) -> bool:
    """Whether a host of an address is on this machine, has a private address, or a name without a dot."""
    address = _ip_address(host)
    if address is not None:
        return any(address in network for network in _PRIVATE) or is_on_this_machine(host)
    return "." not in host or is_on_this_machine(host)


def _ip_address(host: str) -> IPv4Address | IPv6Address | None:
    with suppress(ValueError):
        address = ip_address(host)
        return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
    with suppress(OSError, ValueError):  # the C library takes 134744072 and 0x8080808 for addresses
        return IPv4Address(socket.inet_aton(host))
    return None
