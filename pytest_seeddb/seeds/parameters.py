"""Profiles, and the values that they give to the parameters of seeders."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Final
from uuid import UUID

from pytest_seeddb.errors import HIDDEN, ConfigError, conceal, names_a_secret, passwords_in
from pytest_seeddb.fingerprint.digests import SET, Part, digest
from pytest_seeddb.seeds.declaration import TIERS
from pytest_seeddb.seeds.hints import convert, convert_text, describe, hint_for
from pytest_seeddb.settings.converters import NotAllowed, did_you_mean
from pytest_seeddb.settings.settings import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.seeds.kinds import Declaration, Parameter
    from pytest_seeddb.settings.settings import Settings


BUILT_IN: Final[Mapping[str, Mapping[str, object]]] = {"default": {}, "essential": {"tier": "essential"}}
"""The profiles that exist without a table: everything with its defaults, and nothing but the essential
tier. A table of the same name goes before."""

TIER: Final = "tier"
"""The key of a profile that is not a parameter."""

_SECRET_BEFORE: Final = re.compile("passw|secret|token|api_?key|credential", re.IGNORECASE)
"""The names of secrets in ledgers that have digests of them."""
_LONGEST_PART: Final = 40
_RESOURCES: Final = ("session", "connection", "engine", "url")
_PLAIN: Final = (bool, int, float, str, bytes, Decimal, date, datetime, time, timedelta, UUID)
_WELL_KNOWN: Final = frozenset(
    {"admin", "changeme", "change-me", "default", "demo", "example", "password", "postgres", "root", "secret", "test"}
)


@dataclass(frozen=True)
class Given:
    """A value for a parameter: perhaps as text, perhaps allowed to be for seeders that do not run."""

    value: object
    source: str
    is_text: bool = False
    is_optional: bool = False


@dataclass(frozen=True)
class Profile:
    """A named set of parameters."""

    name: str
    only_essential: bool = False
    given: Mapping[str, Given] = field(default_factory=dict)


def profile_of(settings: Settings, overrides: Mapping[str, object]) -> Profile:
    """The profile that the settings select, with a marker's overrides on top.

    Raises:
        ConfigError: There is no such profile, or no such ``tier``.
    """
    name = settings.profile or "default"
    tables = {**BUILT_IN, **settings.profiles}
    if name not in tables:
        near = did_you_mean(name, tables)
        raise ConfigError(
            f"There is no profile {name!r}",
            saw=f"profiles: {', '.join(sorted(tables))}",
            source=settings.source("profile"),
            remedy=f"{near} Name one of these, or add a table [tool.seeddb.profiles.{name}]".strip(),
        )
    source = f"profile {name!r}, {settings.source('profiles')}"
    # Where only a tier was asked for, the profile's values for seeders of the other are allowed.
    given = {key: Given(value, source, is_optional=TIER in overrides) for key, value in tables[name].items()}
    given |= {
        key: Given(parameter.value, parameter.source, is_text=True, is_optional=parameter.is_ambient)
        for key, parameter in settings.parameters.items()
    }
    given |= {key: Given(value, f"the marker: seeded({key}=...)") for key, value in overrides.items()}
    tier = given.pop(TIER, None)
    if tier and tier.value not in TIERS:
        raise ConfigError(
            "A profile has an unknown `tier`",
            saw=f"tier = {tier.value!r}",
            source=tier.source,
            remedy='write tier = "essential" for a profile without demo seeds; else remove it',
        )
    return Profile(name, bool(tier and tier.value == "essential"), given)


def check(declarations: Iterable[Declaration], profile: Profile) -> None:
    """See that each value has a parameter, each parameter a value, and that they fit.

    Args:
        declarations: All functions that seed, of every tier.
        profile: What to hold against them.

    Raises:
        ConfigError: Names the seeder, the parameter, the value, its source and what is allowed.
    """
    declarations = list(declarations)
    for parameter in (parameter for seeder in declarations for parameter in seeder.parameters if parameter.is_secret):
        if parameter.name in profile.given:
            conceal(profile.given[parameter.name].value)  # a database's or a seeder's error may contain it
    running = [seeder for seeder in declarations if not (profile.only_essential and seeder.tier == "demo")]
    names = {parameter.name for seeder in running for parameter in seeder.parameters}
    every = {parameter.name: seeder for seeder in declarations for parameter in seeder.parameters}
    for key, given in profile.given.items():
        if key not in names and not (given.is_optional and key in every):
            raise _no_parameter(key, given, every, profile)
    for seeder in running:
        arguments(seeder, profile)


def arguments(seeder: Declaration, profile: Profile) -> dict[str, object]:
    """The values that the profile gives the seeder, made to fit its hints.

    Raises:
        ConfigError: A value does not fit, or one is missing.
    """
    values = {}
    for parameter in seeder.parameters:
        given = profile.given.get(parameter.name)
        if given is not None:
            values[parameter.name] = _value(seeder, parameter, given)
        elif parameter.default is None:
            near = did_you_mean(parameter.name, _RESOURCES)
            if parameter.name in _RESOURCES:
                near = (
                    f"pytest-seeddb has no value of this type for `{parameter.name}`: correct or remove the annotation."
                )
            raise ConfigError(
                f"The seeder {seeder.identity} needs a value for its parameter `{parameter.name}`",
                saw=f"no default, and nothing in the profile {profile.name!r}",
                source=seeder.place,
                remedy=f"{near} {'Give' if near else 'give'} the parameter a default, or write {parameter.name} = ... "
                f"in [tool.seeddb.profiles.{profile.name}]. A parameter for the database is called `session`, "
                "`connection`, `engine` or `url`, or has such a type".strip(),
            )
    return values


def parameter_parts(seeder: Declaration, profile: Profile) -> tuple[Part, ...]:
    """What the values of the parameters contribute to the fingerprint.

    Raises:
        ConfigError: A value cannot be told from another in the next run.
    """
    parts = []
    for parameter in seeder.parameters:
        given = profile.given.get(parameter.name)
        if given is None:
            text = parameter.default or "its default"  # one that is no literal is part of the seeder's source
        else:
            value = _value(seeder, parameter, given) if given.is_text else given.value
            text = _canonical(seeder, parameter, given, value)
        name, is_secret = f"parameter {parameter.name}", parameter.is_secret or passwords_in(text)
        shown = digest(text) if len(text) > _LONGEST_PART or not text.isprintable() else text
        if is_secret:  # a default is part of the seeder's source
            was_one = parameter.declares_secret or _SECRET_BEFORE.search(parameter.name)
            before = digest(f"{seeder.identity} {parameter.name} {text}") if was_one else shown
            parts.append(Part(name, SET, text if given else "", before))
        else:
            parts.append(Part(name, shown))
    return tuple(parts)


def _canonical(seeder: Declaration, parameter: Parameter, given: Given, value: object) -> str:
    """The value as text: the same in every process, and another for another value."""

    def of(item: object) -> str:
        return _canonical(seeder, parameter, given, item)

    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, Mapping):
        # In their order: a seeder that goes through them sees it.
        return f"{{{', '.join(f'{of(key)}: {of(item)}' for key, item in value.items())}}}"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(of, value)))}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(of, value))}]"
    if isinstance(value, PurePath):
        return repr(value.as_posix())
    if value is None or isinstance(value, _PLAIN):
        return repr(value)
    raise ConfigError(
        f"The value of `{parameter.name}` for the seeder {seeder.identity} cannot be part of the fingerprint",
        saw=f"a value of the type {type(given.value).__name__}, which the next run cannot recognise",
        source=given.source,
        remedy="give numbers, text, dates, members of an Enum, or lists and tables of these",
    )


def _value(seeder: Declaration, parameter: Parameter, given: Given) -> object:
    hint = hint_for(parameter.hint, parameter.default)
    try:
        return convert_text(str(given.value), hint) if given.is_text else convert(given.value, parameter.hint)
    except NotAllowed:
        raise ConfigError(
            f"The seeder {seeder.identity} cannot take this value for its parameter `{parameter.name}`",
            saw=f"{parameter.name} = {HIDDEN if parameter.is_secret else repr(given.value)} "
            f"({type(given.value).__name__})",
            source=given.source,
            remedy=f"give {describe(hint)}; the parameter is declared at {seeder.place}",
        ) from None


def _no_parameter(key: str, given: Given, every: Mapping[str, Declaration], profile: Profile) -> ConfigError:
    from difflib import get_close_matches  # costs 2 ms, and nearly nobody has a slip in it

    if key in every:
        what = f"The profile {profile.name!r} has no demo seeds, and `{key}` is a parameter of one"
        remedy = f"it belongs to the demo seeder {every[key].identity}; use another profile, or remove it"
    else:
        what = f"No seeder has a parameter `{key}`"
        names = ", ".join(f"{name} ({seeder.identity})" for name, seeder in sorted(every.items(), key=lambda it: it[0]))
        known = f"Parameters: {names}" if names else "Remove it: no seeder has parameters"
        setting = f". `{key}` is a setting: it belongs in [tool.seeddb] and holds for all tests" if key in KEYS else ""
        remedy = f"{did_you_mean(key, every)} {known}{setting}".strip()
    near = [parameter for name in get_close_matches(key, every, n=1) for parameter in every[name].parameters]
    is_secret = names_a_secret(key) or any(parameter.is_secret for parameter in near)
    saw = f"{key} = {HIDDEN if is_secret else repr(given.value)}"
    return ConfigError(what, saw=saw, source=given.source, remedy=remedy)


@dataclass(frozen=True)
class WeakSecret:
    """A secret that is easy to guess; ``declared`` where its annotation says that it is one, not just its name."""

    seeder: str
    parameter: str
    why: str
    declared: bool

    def __str__(self) -> str:
        return f"{self.seeder}: `{self.parameter}` {self.why}"


def weak_secrets(declarations: Iterable[Declaration], profile: Profile) -> Iterator[WeakSecret]:
    """The secrets of these seeders that have their default, nothing, or a well-known value."""
    for seeder in declarations:
        for parameter in seeder.parameters:
            if not parameter.is_secret:
                continue
            given = profile.given.get(parameter.name)
            value = given.value if given else ast.literal_eval(parameter.default) if parameter.default else None
            why = ""
            if value is None or not str(value).strip():
                why = "is empty"
            elif given is None or (parameter.default and repr(value) == parameter.default):
                why = "has its default value"
            elif str(value).strip().lower() in _WELL_KNOWN:
                why = "has a well-known value"
            if why:
                yield WeakSecret(seeder.identity, parameter.name, why, parameter.declares_secret)
