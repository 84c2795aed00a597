"""The account that runs the embedded server: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypedDict

from pytest_seeddb.errors import ServerError

if TYPE_CHECKING:
    from pathlib import Path

# Debian's and most others', macOS's, and the one that every system has.
_CANDIDATES: Final = ("postgres", "_postgres", "nobody")


class SpawnOptions(TypedDict, total=False):
    """Arguments of `subprocess.Popen` that make the child run under another account."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """An existing account of this machine."""

    name: str
    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        """Whether this process runs under it."""
        return self.uid == os.geteuid()

    def spawn_options(self) -> SpawnOptions:
        """What `subprocess.Popen` needs, so that the child runs under this account."""
        if self.is_ours:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def take(self, path: Path) -> None:
        """Give ``path`` to this account.

        Raises:
            ServerError: This root may not do so, as in a container that maps one account only.
        """
        if self.is_ours:
            return
        try:
            os.chown(path, self.uid, self.gid)
        except OSError as error:
            raise ServerError(
                f"PostgreSQL refuses to run as root, and this root cannot become {self.name!r}",
                saw=str(error),
                source="a container or namespace that maps a single account, probably",
                remedy="run pytest as an ordinary user, or name a running server: --seed-db-server=postgresql://...",
            ) from error

    def may(self, path: Path, wanted: int) -> bool:
        """Whether this account has the permission bits ``wanted`` (4 read, 1 enter or run).

        Looks at the modes, not at access control lists. What does not exist grants nothing.
        """
        try:
            found = path.stat()
        except OSError:
            return False
        if found.st_uid == self.uid:
            granted = found.st_mode >> 6
        elif found.st_gid == self.gid:
            granted = found.st_mode >> 3
        else:
            granted = found.st_mode
        return granted & wanted == wanted

    def can_enter(self, directory: Path) -> bool:
        """Whether this account can reach ``directory``; parts that do not exist yet do not count."""
        return all(self.may(part, stat.S_IXOTH) for part in (directory, *directory.parents) if part.exists())


def own_account() -> Account:
    """That of this process."""
    return Account("", os.geteuid(), os.getegid())


def server_account() -> Account:
    """The account for the server: our own, or for root the first of those made for such things.

    Raises:
        ServerError: We are root, and none of them exists.
    """
    uid = os.geteuid()
    if uid != 0:
        return Account(_name(uid), uid, os.getegid())
    for name in _CANDIDATES:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Account(name, found.pw_uid, found.pw_gid)
    raise ServerError(
        "PostgreSQL refuses to run as root, and there is no account to run it as",
        saw=f"none of the accounts {', '.join(_CANDIDATES)} exists",
        source="the embedded server",
        remedy="run pytest as an ordinary user, or make an account: useradd --system postgres",
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)  # containers run under numbers that have no name
