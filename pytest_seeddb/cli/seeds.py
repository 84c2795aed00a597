"""``seeddb seeds``: the seeders in order, their tiers and parameters, and the profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_seeddb.cli.output import show, table
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.errors import HIDDEN, mask, names_a_secret
from pytest_seeddb.seeds.hints import describe, hint_for
from pytest_seeddb.seeds.kinds import Declaration, DjangoSeed
from pytest_seeddb.seeds.parameters import BUILT_IN
from pytest_seeddb.seeds.staging import seeds_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_seeddb.seeds.kinds import Parameter, Seed
    from pytest_seeddb.seeds.parameters import Profile


def run(parsed: argparse.Namespace) -> int:
    """Run the command. Needs no server, and runs nothing of the project's."""
    settings = settings_of(parsed)
    seeds, profile = seeds_of(settings)
    seeders = [_seeder(seed, profile) for seed in seeds]
    secrets = {parameter["name"] for seeder in seeders for parameter in seeder["parameters"] if parameter["is_secret"]}
    profiles = {
        name: {key: HIDDEN if key in secrets else _shown(value, key) for key, value in values.items()}
        for name, values in {**BUILT_IN, **settings.profiles}.items()
    }
    result = {
        "profile": profile.name,
        "from": settings.source("profile"),
        "profiles": profiles,
        "seeders": seeders,
    }
    show(parsed, result, _lines(result), with_quiet=True)
    return 0


def _seeder(seed: Seed, profile: Profile) -> dict[str, Any]:
    parameters = seed.parameters if isinstance(seed, Declaration) else ()
    return {
        "name": seed.identity,
        "tier": seed.tier,
        "runs": seed.tier == "essential" or not profile.only_essential,
        "after": seed.after,
        "idempotent": (seed.spec if isinstance(seed, DjangoSeed) else seed).idempotent
        if isinstance(seed, DjangoSeed | Declaration)
        else False,
        "place": seed.place,
        "parameters": [_parameter(parameter, profile) for parameter in parameters],
    }


def _shown(value: object, key: str = "") -> object:
    """A value without the secrets that names or URLs in it show."""
    if names_a_secret(key):
        return HIDDEN
    if isinstance(value, dict):
        return {name: _shown(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return mask(value) if isinstance(value, str) else value


def _parameter(parameter: Parameter, profile: Profile) -> dict[str, Any]:
    given = profile.given.get(parameter.name)
    value = parameter.default or "?"
    if given:
        value = str(given.value) if given.is_text else repr(_shown(given.value))
    return {
        "name": parameter.name,
        "takes": describe(hint_for(parameter.hint, parameter.default)),
        "value": HIDDEN if parameter.is_secret else mask(value),
        "from": given.source if given else "its default",
        "is_secret": parameter.is_secret,
    }


def _lines(result: dict[str, Any]) -> Iterator[str]:
    yield f"profile    {result['profile']} ({result['from']})"
    profiles = [
        (name, ", ".join(f"{key} = {value if value == HIDDEN else repr(value)}" for key, value in values.items()))
        for name, values in result["profiles"].items()
    ]
    yield f"profiles   {len(profiles)}"
    yield from table(("NAME", "PARAMETERS"), profiles)
    yield f"seeders    {len(result['seeders'])}"
    if result["seeders"]:
        yield from table(("NAME", "TIER", "AGAIN", "DECLARED AT"), [_cells(seeder) for seeder in result["seeders"]])
    parameters = {parameter["name"]: parameter for seeder in result["seeders"] for parameter in seeder["parameters"]}
    if parameters:
        yield f"parameters {len(parameters)}"
        rows = [
            (parameter["name"], parameter["value"], parameter["takes"], _place(parameter), _users(result, name))
            for name, parameter in parameters.items()
        ]
        yield from table(("NAME", "VALUE", "TAKES", "FROM", "SEEDERS"), rows)


def _cells(seeder: dict[str, Any]) -> tuple[str, ...]:
    tier = seeder["tier"] if seeder["runs"] else f"{seeder['tier']}, not in this profile"
    return seeder["name"], tier, "idempotent" if seeder["idempotent"] else "", seeder["place"]


def _place(parameter: dict[str, Any]) -> str:
    return str(parameter["from"]).partition(", `profiles` in ")[0]


def _users(result: dict[str, Any], name: str) -> str:
    users = (seeder for seeder in result["seeders"] if any(one["name"] == name for one in seeder["parameters"]))
    return ", ".join(seeder["name"] for seeder in users)
