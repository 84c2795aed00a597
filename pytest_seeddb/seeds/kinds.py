"""The kinds of seeds: a function, a file of SQL, a command, a management command of Django's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_seeddb.errors import mask
from pytest_seeddb.seeds.declaration import Param

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_seeddb.seeds.declaration import Tier
    from pytest_seeddb.settings.settings import CommandSpec, DjangoSpec

__all__ = ["CommandSeed", "Declaration", "DjangoSeed", "Parameter", "Seed", "SqlSeed"]


@dataclass(frozen=True)
class Parameter:
    """A parameter that a profile can set.

    Attributes:
        name: Its name.
        hint: The type that its values are checked against; `hints.ANYTHING` where there is none.
        default: The default as Python writes it; ``None`` where there is none, empty where it is
            not a literal.
    """

    name: str
    hint: object
    default: str | None

    @property
    def required(self) -> bool:
        """Whether a profile or a marker has to give a value."""
        return self.default is None

    @property
    def secret(self) -> bool:
        """Whether its value is shown nowhere."""
        return any(isinstance(each, Param) and each.secret for each in getattr(self.hint, "__metadata__", ()))


@dataclass(frozen=True)
class Declaration:
    """A function that seeds: declared with ``@seeder``, or named by the settings.

    Attributes:
        name: What it is called; the function's name unless the decorator gives another.
        module: The module that declares it.
        function: The function's name.
        tier: Its tier.
        after: The identities (``shop.seeds:roles``) or bare names (``roles``) of those before it.
        parameters: Those that a profile can set.
        file: The source file, as people are shown it.
        line: Its line there.
        is_async: Whether it is an ``async def``.
        is_seeder: Whether it carries the decorator.
        idempotent: Whether it may run again where its rows are.
    """

    name: str
    module: str
    function: str
    tier: Tier
    after: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    file: str
    line: int
    is_async: bool
    is_seeder: bool = True
    idempotent: bool = False

    @property
    def identity(self) -> str:
        """Module and name, ``shop.seeds:roles``."""
        return f"{self.module}:{self.name}"

    @property
    def place(self) -> str:
        """Where it stands, as ``file:line``."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class SqlSeed:
    """A file of SQL statements.

    Attributes:
        path: The file.
        identity: Its path below the root.
    """

    path: Path
    identity: str
    tier: Literal["essential"] = "essential"
    after: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where it stands."""
        return self.identity


@dataclass(frozen=True)
class CommandSeed:
    """A command of the user's.

    Attributes:
        source: Where it is named.
    """

    spec: CommandSpec
    source: str = ""
    tier: Literal["essential"] = "essential"
    after: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """The command; a password in it is masked."""
        return mask(self.spec.command)

    @property
    def place(self) -> str:
        """Where it stands."""
        return self.identity


@dataclass(frozen=True)
class DjangoSeed:
    """A management command of Django's."""

    spec: DjangoSpec
    after: tuple[str, ...] = ()

    @property
    def tier(self) -> Tier:
        """Its tier."""
        return self.spec.tier

    @property
    def identity(self) -> str:
        """The command; a password in it is masked."""
        return f"manage.py {mask(self.spec.command)}"

    @property
    def place(self) -> str:
        """Where it stands."""
        return self.identity


Seed = Declaration | SqlSeed | CommandSeed | DjangoSeed
