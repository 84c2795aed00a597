"""Secret parameters of seeders: which would be left at a value that everybody knows."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import names_a_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_seeddb.seeds.kinds import Declaration, Parameter
    from pytest_seeddb.seeds.parameters import Profile

__all__ = ["WeakSecret", "is_secret", "weak_secrets"]

_KNOWN: Final = frozenset(
    {"admin", "changeme", "change-me", "default", "demo", "example", "password", "postgres", "root", "secret", "test"}
)


@dataclass(frozen=True)
class WeakSecret:
    """A secret that anybody could guess.

    Attributes:
        seeder: Whose it is, ``shop.seeds:admin``.
        parameter: Its name.
        why: What is wrong with it, without the value.
        declared: Whether the seeder says that it is a secret; else its name does.
    """

    seeder: str
    parameter: str
    why: str
    declared: bool

    def __str__(self) -> str:
        return f"{self.seeder}: `{self.parameter}` {self.why}"


def is_secret(parameter: Parameter) -> bool:
    """Whether its value is shown nowhere: it is declared a secret, or called like one."""
    return parameter.secret or names_a_secret(parameter.name)


def weak_secrets(declared: Iterable[Declaration], profile: Profile) -> Iterator[WeakSecret]:
    """The secrets of these seeders that have their default, nothing, or a value that everybody tries first."""
    for seeder in declared:
        for parameter in filter(is_secret, seeder.parameters):
            if why := _weakness(parameter, profile):
                yield WeakSecret(seeder.identity, parameter.name, why, parameter.secret)


def _weakness(parameter: Parameter, profile: Profile) -> str:
    given = profile.given.get(parameter.name)
    value = given.value if given else ast.literal_eval(parameter.default) if parameter.default else None
    if value is None or not str(value).strip():
        return "is empty"
    if given is None or (parameter.default and repr(value) == parameter.default):
        return "has its default value"
    return "has a value that everybody tries first" if str(value).strip().lower() in _KNOWN else ""
