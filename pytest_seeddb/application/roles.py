"""The role that a connection of the application has: that of its own URL, where the plan granted it something."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_seeddb.servers.address import Address

APPLICATION: Final = "application"
OWNER: Final = "owner"


@dataclass(frozen=True)
class Role:
    """A role of the server.

    Attributes:
        may_be_set: Whether our own role may become it without its password.
        settings: What ``ALTER ROLE ... SET`` says of it, each as ``name=value``.
    """

    may_be_set: bool = True
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Roles:
    """The roles of one database's connections.

    Attributes:
        wanted: The setting: ``application``, ``owner`` or a role's name.
        source: Where it came from.
        known: The roles that may be wanted.
        used: The names of those that connections got.
    """

    wanted: str = OWNER
    source: str = ""
    known: Mapping[str, Role] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def address(self, address: Address, user: str = "", password: str = "", *, by_login: bool = False) -> Address:
        """The address for a connection whose own URL has this user and password.

        ``by_login`` is for a driver that takes no options in a URL.

        Raises:
            ConfigError: Our role may not become it, and there is no password for it; or there is no such role.
        """
        name = user if self.wanted == APPLICATION else self.wanted
        role = None if self.wanted == OWNER else self.known.get(name)
        if role is None:
            if self.wanted in {APPLICATION, OWNER}:
                return address
            raise ConfigError(
                f"There is no role {name!r}",
                saw=f"role = {name!r}",
                source=self.source,
                remedy='create it in a migration, or name one that exists; or choose "application" or "owner"',
            )
        self.used.add(name)
        if role.may_be_set and not by_login:
            words = [f"role={name}", *role.settings]
            options = [address.params.get("options", ""), *(f"-c {_escape(word)}" for word in words)]
            return address.having(options=" ".join(filter(None, options)))
        if user == name and (password or role.may_be_set):
            return address.without_password.having(user=name, **({"password": password} if password else {}))
        raise ConfigError(
            f"The application's connections cannot have the role {name!r}",
            saw="the server's role may not become it, and the application's URL has no password for it",
            source=self.source or "the default of the setting `role`",
            remedy=f"GRANT {name} TO the role of the server's URL, or add the password; or set role = {OWNER!r}",
        )

    def address_for_variable(self, name: str, address: Address, scheme: str) -> Address:
        """The address for the URL in an environment variable, which has a URL now."""
        with suppress(ValueError):
            url = urlsplit(_before.get(name, os.environ.get(name, "")))
            by_login = scheme.endswith(("+asyncpg", "+pg8000"))
            return self.address(address, unquote(url.username or ""), unquote(url.password or ""), by_login=by_login)
        return address


_before: Final[dict[str, str]] = {}
"""The application's own URLs, while variables have ours."""


def remember(name: str) -> bool:
    """Keep a variable's own URL; false where that is kept already."""
    if name in _before:
        return False
    _before[name] = os.environ.get(name, "")
    return True


def forget(name: str) -> None:
    """The variable has its own URL again."""
    del _before[name]


def _escape(word: str) -> str:
    """As libpq's ``options`` want it."""
    return word.replace("\\", "\\\\").replace(" ", "\\ ")
