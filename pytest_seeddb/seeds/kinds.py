"""The kinds of seeds: a function, an SQL file, a command, a Django management command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_seeddb.errors import mask, names_a_secret
from pytest_seeddb.seeds.declaration import Param

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_seeddb.seeds.declaration import Tier
    from pytest_seeddb.settings.settings import CommandSpec, DjangoSpec


@dataclass(frozen=True)
class Parameter:
    """A parameter that a profile can set."""

    name: str
    hint: object  # `hints.ANYTHING` where there is none
    default: str | None  # as Python writes it, empty where it is not a literal

    @property
    def declares_secret(self) -> bool:
        """Whether its annotation says that it is a secret."""
        return any(isinstance(note, Param) and note.secret for note in getattr(self.hint, "__metadata__", ()))

    @property
    def is_secret(self) -> bool:
        """Whether its value must never appear: its annotation or its name says so."""
        return self.declares_secret or names_a_secret(self.name)


@dataclass(frozen=True)
class Declaration:
    """A function that seeds: declared with ``@seeder``, or named by the settings."""

    name: str
    module: str
    function: str
    parameters: tuple[Parameter, ...]
    file: str  # relative to the root
    line: int
    tier: Tier = "essential"
    after: tuple[str, ...] = ()  # identities (shop.seeds:roles) or names (roles)
    is_seeder: bool = True
    idempotent: bool = False

    @property
    def identity(self) -> str:
        """Module and name, ``shop.seeds:roles``."""
        return f"{self.module}:{self.name}"

    @property
    def place(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class SqlSeed:
    """A file of SQL statements; its identity is its path below the root."""

    path: Path
    identity: str
    tier: Literal["essential"] = "essential"
    after: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The file."""
        return self.identity


@dataclass(frozen=True)
class CommandSeed:
    """A shell command, and the setting that names it."""

    spec: CommandSpec
    source: str = ""
    tier: Literal["essential"] = "essential"
    after: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """The command; a password in it is masked."""
        return mask(self.spec.command)

    place = identity


@dataclass(frozen=True)
class DjangoSeed:
    """A Django management command."""

    spec: DjangoSpec
    after: tuple[str, ...] = ()

    @property
    def tier(self) -> Tier:
        """The tier that the settings give it."""
        return self.spec.tier

    @property
    def identity(self) -> str:
        """The command; a password in it is masked."""
        return f"manage.py {mask(self.spec.command)}"

    place = identity


Seed = Declaration | SqlSeed | CommandSeed | DjangoSeed
