"""Profiles, and the values that they give to the parameters of seeders."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Final
from uuid import UUID

from pytest_seeddb.errors import ConfigError, conceal, names_a_secret
from pytest_seeddb.fingerprint.digests import Part, digest
from pytest_seeddb.seeds.declaration import TIERS
from pytest_seeddb.seeds.hints import NotFitting, allowed, fitted
from pytest_seeddb.seeds.texts import hint_for, read_text
from pytest_seeddb.settings.converters import did_you_mean
from pytest_seeddb.settings.settings import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.seeds.kinds import Declaration, Parameter
    from pytest_seeddb.settings.settings import Settings


BUILT_IN: Final[Mapping[str, Mapping[str, object]]] = {"default": {}, "essential": {"tier": "essential"}}
"""The profiles that exist without a table: everything with its defaults, and nothing but the essential
tier. A table of the same name goes before."""

TIER: Final = "tier"
"""The key of a profile that is no parameter."""

_LONGEST_SHOWN: Final = 40
_RESOURCES: Final = ("session", "connection", "engine", "url")


@dataclass(frozen=True)
class Given:
    """A value for a parameter, and where it came from.

    Attributes:
        is_text: Whether it is text that stands for the value, as in the environment.
        is_optional: Whether it may be there for seeders that do not run.
    """

    value: object
    source: str
    is_text: bool = False
    is_optional: bool = False


@dataclass(frozen=True)
class Profile:
    """A named set of parameters.

    Attributes:
        name: Its name.
        only_essential: Whether it leaves out the demo tier.
        given: The values, by parameter.
    """

    name: str
    only_essential: bool = False
    given: Mapping[str, Given] = field(default_factory=dict)


def profile_of(settings: Settings, overrides: Mapping[str, object]) -> Profile:
    """The profile that the settings select, with a marker's overrides on top.

    Raises:
        ConfigError: There is no such profile, or its ``tier`` is not one.
    """
    name = settings.profile or "default"
    tables = {**BUILT_IN, **settings.profiles}
    if name not in tables:
        raise _unknown_profile(name, settings, list(tables))
    source = f"profile {name!r}, {settings.source('profiles')}"
    # Where only a tier was asked for, the profile's values for seeders of the other are no mistake.
    given = {key: Given(value, source, is_optional=TIER in overrides) for key, value in tables[name].items()}
    given |= {
        key: Given(found.value, found.source, is_text=True, is_optional=found.is_ambient)
        for key, found in settings.parameters.items()
    }
    given |= {key: Given(value, f"the marker: seeded({key}=...)") for key, value in overrides.items()}
    only_essential = _tier(given.pop(TIER, None)) == "essential"
    return Profile(name, only_essential, given)


def check(declared: Iterable[Declaration], profile: Profile) -> None:
    """See that each value has a parameter, each parameter a value, and that they fit.

    Args:
        declared: All functions that seed, of every tier.
        profile: What to hold against them.

    Raises:
        ConfigError: Names the seeder, the parameter, the value, its source and what is allowed.
    """
    declared = list(declared)
    _conceal(declared, profile)
    running = [each for each in declared if not (profile.only_essential and each.tier == "demo")]
    for key, given in profile.given.items():
        if not any(key == each.name for seeder in running for each in seeder.parameters):
            if given.is_optional and any(key == each.name for seeder in declared for each in seeder.parameters):
                continue
            raise _no_parameter(key, given, declared, profile)
    for seeder in running:
        arguments(seeder, profile)


def _conceal(declared: Iterable[Declaration], profile: Profile) -> None:
    """Note the values of secrets: what a database or a seeder says when it fails may hold them."""
    for parameter in (each for seeder in declared for each in seeder.parameters if is_secret(each)):
        if parameter.name in profile.given:
            conceal(profile.given[parameter.name].value)


def arguments(seeder: Declaration, profile: Profile) -> dict[str, object]:
    """The values that the profile gives the seeder, made to fit its hints.

    Raises:
        ConfigError: A value does not fit, or one is missing.
    """
    found = {}
    for parameter in seeder.parameters:
        given = profile.given.get(parameter.name)
        if given is not None:
            found[parameter.name] = _value(seeder, parameter, given)
        elif parameter.required:
            raise _no_value(seeder, parameter, profile)
    return found


def parameter_parts(seeder: Declaration, profile: Profile) -> tuple[Part, ...]:
    """What the values of the parameters contribute to the fingerprint.

    Raises:
        ConfigError: A value cannot be told from another in the next run.
    """
    return tuple(
        Part(f"parameter {each.name}", _shown(seeder, each, profile.given.get(each.name))) for each in seeder.parameters
    )


def _shown(seeder: Declaration, parameter: Parameter, given: Given | None) -> str:
    # A default that is no literal is in the seeder's source, which is another part.
    default = parameter.default or "its default"
    if given is None:
        text = default
    else:
        value = _value(seeder, parameter, given) if given.is_text else given.value
        text = _canonical(seeder, parameter, given, value)
    if is_secret(parameter):
        return digest(f"{seeder.identity} {parameter.name} {text}")
    return text if len(text) <= _LONGEST_SHOWN and text.isprintable() else digest(text)


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
    raise _unstable(seeder, parameter, given)


_PLAIN: Final = (bool, int, float, str, bytes, Decimal, date, datetime, time, timedelta, UUID)


def _value(seeder: Declaration, parameter: Parameter, given: Given) -> object:
    try:
        if given.is_text:
            return read_text(str(given.value), hint_for(parameter.hint, parameter.default))
        return fitted(given.value, parameter.hint)
    except NotFitting:
        shown = "***" if is_secret(parameter) else repr(given.value)
        wanted = allowed(hint_for(parameter.hint, parameter.default))
        raise ConfigError(
            f"The seeder {seeder.identity} cannot take this value for its parameter `{parameter.name}`",
            saw=f"{parameter.name} = {shown} ({type(given.value).__name__})",
            source=given.source,
            remedy=f"give {wanted}; the parameter is declared at {seeder.place}",
        ) from None


def _tier(given: Given | None) -> object:
    if given is None or given.value in TIERS:
        return given and given.value
    raise ConfigError(
        "A profile's `tier` is not one",
        saw=f"tier = {given.value!r}",
        source=given.source,
        remedy='write tier = "essential" for a profile without demo seeds; else leave it out',
    )


def _unknown_profile(name: str, settings: Settings, known: list[str]) -> ConfigError:
    return ConfigError(
        f"There is no profile {name!r}",
        saw=f"profiles: {', '.join(sorted(known))}",
        source=settings.source("profile"),
        remedy=f"{did_you_mean(name, known)} Name one of these, or add a table [tool.seeddb.profiles.{name}]".strip(),
    )


def _no_parameter(key: str, given: Given, declared: list[Declaration], profile: Profile) -> ConfigError:
    from difflib import get_close_matches  # costs 2 ms, and nearly nobody has a slip in it

    having = {each.name: seeder for seeder in declared for each in seeder.parameters}
    if key in having:
        remedy = f"it belongs to the demo seeder {having[key].identity}; take another profile, or leave it out"
        what = f"The profile {profile.name!r} has no demo seeds, and `{key}` is a parameter of one"
    else:
        what = f"No seeder has a parameter `{key}`"
        listed = ", ".join(
            f"{name} ({seeder.identity})" for name, seeder in sorted(having.items(), key=lambda each: each[0])
        )
        there_are = f"There are {listed}" if listed else "Leave it out: no seeder has any"
        remedy = f"{did_you_mean(key, having)} {there_are}{_setting_of_that_name(key)}".strip()
    meant = get_close_matches(key, having, n=1)
    secret = names_a_secret(key) or any(is_secret(each) for name in meant for each in having[name].parameters)
    shown = "***" if secret else repr(given.value)
    return ConfigError(what, saw=f"{key} = {shown}", source=given.source, remedy=remedy)


def _setting_of_that_name(key: str) -> str:
    return f". `{key}` is a setting: it stands in [tool.seeddb], for all tests" if key in KEYS else ""


def _no_value(seeder: Declaration, parameter: Parameter, profile: Profile) -> ConfigError:
    near = did_you_mean(parameter.name, _RESOURCES)
    if parameter.name in _RESOURCES:
        near = f"Its type is none that can be given as `{parameter.name}`: leave that out, or correct it."
    return ConfigError(
        f"The seeder {seeder.identity} needs a value for its parameter `{parameter.name}`",
        saw=f"no default, and nothing in the profile {profile.name!r}",
        source=seeder.place,
        remedy=f"{near} {'Give' if near else 'give'} the parameter a default, or write {parameter.name} = ... in "
        f"[tool.seeddb.profiles.{profile.name}]; what stands for the database is called `session`, "
        "`connection`, `engine` or `url`, or carries such a type".strip(),
    )


def _unstable(seeder: Declaration, parameter: Parameter, given: Given) -> ConfigError:
    return ConfigError(
        f"The value of `{parameter.name}` for the seeder {seeder.identity} has no text of its own",
        saw=f"a value of the type {type(given.value).__name__}, which the next run cannot recognise",
        source=given.source,
        remedy="give numbers, text, dates, members of an Enum, or lists and tables of these",
    )


# -- secrets ---------------------------------------------------------------------------------------

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
