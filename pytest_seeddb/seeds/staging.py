"""From the settings to stages: which seeds there are, in which order, with which parameters."""

from __future__ import annotations

import glob
import re
from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.django_project import is_set_up
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import Part, chain, digest, file_part, glob_parts, relative_name
from pytest_seeddb.fingerprint.sources import Sources
from pytest_seeddb.plan.plan import Stage, Step
from pytest_seeddb.seeds.declaration import TIERS
from pytest_seeddb.seeds.discovery import Catalogue
from pytest_seeddb.seeds.django import DjangoSeeds
from pytest_seeddb.seeds.kinds import CommandSeed, Declaration, DjangoSeed, Seed, SqlSeed
from pytest_seeddb.seeds.order import ordered
from pytest_seeddb.seeds.parameters import (
    Profile,
    WeakSecret,
    check,
    is_secret,
    parameter_parts,
    profile_of,
    weak_secrets,
)
from pytest_seeddb.seeds.runner import Runner
from pytest_seeddb.settings.converters import did_you_mean
from pytest_seeddb.settings.settings import CommandSpec, DjangoSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pytest_seeddb.settings.settings import Settings

_SEQUENCES: Final = Part("sequences of factories", "go on")
"""How the seeders of a plan share factory_boy's counters."""
_MODULE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_CALLABLE: Final = re.compile(rf"{_MODULE.pattern}:{_MODULE.pattern}")


def stages(settings: Settings, overrides: Mapping[str, object]) -> tuple[Stage, ...]:
    """The stages ``essential seeds`` and ``demo seeds`` of the settings' profile.

    Neither the project's modules nor any framework is imported as long as the seeders are declared
    plainly; see `pytest_seeddb.seeds.discovery`.

    Args:
        settings: Name the seeds, the profile and the random seed.
        overrides: Parameters that a marker gives; they go before the profile's.

    Returns:
        The stages in order; one without steps is left out.

    Raises:
        ConfigError: A seed, a profile, a parameter or a declaration is wrong.
    """
    return _Staging(settings, profile_of(settings, overrides)).stages()


def weak_secrets_of(settings: Settings, overrides: Mapping[str, object]) -> tuple[WeakSecret, ...]:
    """The secret parameters of the profile's seeders that anybody could guess."""
    return _Staging(settings, profile_of(settings, overrides)).weak_secrets()


def secret_names(settings: Settings, overrides: Mapping[str, object]) -> frozenset[str]:
    """The parameters of all seeders whose values are shown nowhere."""
    return _Staging(settings, profile_of(settings, overrides)).secret_names()


class _Staging:
    def __init__(self, settings: Settings, profile: Profile) -> None:
        self._settings = settings
        self._profile = profile
        self._sources = Sources(settings.root)
        self._catalogue = Catalogue(settings.root)
        self._known: dict[str, Seed] = {}
        self._modules: dict[str, tuple[Declaration, ...]] = {}
        self._django = DjangoSeeds(settings, self._sources)

    def stages(self) -> tuple[Stage, ...]:
        seeds = self._seeds()
        return tuple(stage for tier in self._tiers if (stage := self._stage(tier, seeds)).steps)

    def weak_secrets(self) -> tuple[WeakSecret, ...]:
        running = (each for each in self._seeds() if isinstance(each, Declaration) and each.tier in self._tiers)
        return tuple(weak_secrets(running, self._profile))

    def secret_names(self) -> frozenset[str]:
        declared = (each for each in self._seeds() if isinstance(each, Declaration))
        return frozenset(each.name for seed in declared for each in seed.parameters if is_secret(each))

    @property
    def _tiers(self) -> tuple[str, ...]:
        return TIERS[:1] if self._profile.only_essential else TIERS

    def _seeds(self) -> tuple[Seed, ...]:
        """All that are declared, of every tier, in order."""
        for seed in self._declared():
            self._know(seed)
        seeds = ordered(list(self._known.values()), self._before)
        check([each for each in seeds if isinstance(each, Declaration)], self._profile)
        return seeds

    def _declared(self) -> Iterator[Seed]:
        """The seeds that the settings name, in order."""
        source = self._settings.source("seeds")
        for each in self._settings.seeds:
            if isinstance(each, CommandSpec):
                yield CommandSeed(each, source)
            elif isinstance(each, DjangoSpec):
                yield DjangoSeed(each)
            elif _CALLABLE.fullmatch(each):
                yield self._catalogue.callable(each, source=source)
            elif _MODULE.fullmatch(each) and not each.endswith(".sql"):
                yield from self._module(each, source)
            else:
                yield from _sql_files(each, self._settings.root, source)

    def _module(self, name: str, source: str) -> tuple[Declaration, ...]:
        found = self._catalogue.seeders(name, source=source)
        if not found:
            raise ConfigError(
                f"The module {name} declares no seeders",
                saw="no function with @seeder in it",
                source=source,
                remedy=f'put @seeder on its functions, or name one to call: "{name}:function"',
            )
        return found

    def _know(self, seed: Seed) -> None:
        """Keep a seed, and those that it and they are to run after."""
        if seed.identity in self._known:
            return
        self._known[seed.identity] = seed
        for name in seed.after:
            if ":" in name:
                self._know(self._named(seed, name))
        # Bare names last: they may mean what the others have brought.

    def _before(self, seed: Seed) -> list[Seed]:
        return [self._named(seed, name) for name in seed.after]

    def _named(self, seed: Seed, name: str) -> Seed:
        """The seeder that an element of ``after`` names."""
        if name in self._known:
            return self._known[name]
        module, colon, own = name.rpartition(":")
        assert isinstance(seed, Declaration)  # noqa: S101  # nothing else has an `after`
        for each in self._catalogue.seeders(module if colon else seed.module, source=f"after= at {seed.place}"):
            if each.name == own:
                return each
        if colon:
            raise self._unknown(seed, name)
        return self._anywhere(seed, name)

    def _anywhere(self, seed: Declaration, name: str) -> Seed:
        found = [each for each in self._known.values() if isinstance(each, Declaration) and each.name == name]
        if len(found) > 1:
            raise ConfigError(
                f"The seeder {seed.identity} is to run after {name!r}, and there are several of that name",
                saw="\n".join(f"{each.identity} ({each.place})" for each in found),
                source=f"after= at {seed.place}",
                remedy=f'name the module too: "{found[0].identity}"',
            )
        if not found:
            raise self._unknown(seed, name)
        return found[0]

    def _unknown(self, seed: Declaration, name: str) -> ConfigError:
        declared = [each for each in self._known.values() if isinstance(each, Declaration) and each.is_seeder]
        names = {each.identity for each in declared} | {each.name for each in declared}
        places = ", ".join(f"{each.identity} ({each.place})" for each in declared)
        return ConfigError(
            f"The seeder {seed.identity} is to run after {name!r}, which is no seeder",
            saw=f"seeders: {places}",
            source=f"after= at {seed.place}",
            remedy=f"{did_you_mean(name, names)} Name one of these, or declare it with @seeder".strip(),
        )

    def _stage(self, tier: str, seeds: tuple[Seed, ...]) -> Stage:
        chosen = tuple(each for each in seeds if each.tier == tier)
        steps = tuple(self._step(each) for each in chosen)
        runner = Runner(chosen, steps, self._profile, self._settings.random_seed, self._said(chosen))
        return Stage(f"{tier} seeds", steps, runner.run, tier=tier)

    def _step(self, seed: Seed) -> Step:
        parts = self._parts(seed)
        name = f"seed {seed.identity}"
        if isinstance(seed, DjangoSeed):
            return Step(name, parts, self._django.version(seed), "safe" if seed.spec.idempotent else "never")
        if not isinstance(seed, Declaration):
            return Step(name, parts)
        # Where its rows are already, another version of what it imports is no reason to seed again.
        # Nor is another password; and whoever may read the ledger could try out passwords by its digest.
        secret = {f"parameter {each.name}" for each in seed.parameters if is_secret(each)}
        counted = (seed.file, "random seed", *(f"parameter {each.name}" for each in seed.parameters))
        own = [each for each in parts if each.name in counted and each.name not in secret]
        return Step(name, parts, chain("", seed.identity, own), "safe" if seed.idempotent else "never")

    def _said(self, seeds: tuple[Seed, ...]) -> dict[str, tuple[Declaration, ...]]:
        modules = {each.module for each in seeds if isinstance(each, Declaration) and each.is_seeder}
        return {each: self._catalogue.seeders(each, source="") for each in sorted(modules)}

    def _parts(self, seed: Seed) -> tuple[Part, ...]:
        source = self._settings.source("seeds")
        if isinstance(seed, SqlSeed):
            return (file_part(seed.path, self._settings.root, source=source),)
        if isinstance(seed, CommandSeed):
            inputs = glob_parts(seed.spec.inputs, self._settings.root, source=source)
            return (Part("command", digest(seed.spec.command)), *inputs)
        if isinstance(seed, DjangoSeed):
            return (Part("random seed", str(self._settings.random_seed)), *self._django.parts(seed))
        sources = self._sources.of_module(seed.module, source=source)
        # Templates of before have rows that were made otherwise.
        sequences = [_SEQUENCES] if any(part.name == "package factory-boy" for part in sources) else []
        return (
            Part("seeder", seed.identity),
            Part("random seed", str(self._settings.random_seed)),
            *parameter_parts(seed, self._profile),
            *sources,
            *sequences,
            *(self._django.of_settings() if is_set_up() else ()),
        )


def _sql_files(pattern: str, root: Path, source: str) -> Iterator[SqlSeed]:
    found = [root / each for each in glob.glob(pattern, root_dir=root, recursive=True)]  # noqa: PTH207  # absolute too
    files = sorted((each for each in found if each.is_file()), key=lambda path: _natural(path.as_posix()))
    wrong = [each for each in files if each.suffix.lower() != ".sql"]
    if wrong or not files:
        raise ConfigError(
            f"The seeds {pattern!r} are no files of SQL",
            saw=str(wrong[0]) if wrong else f"no file under {root} has such a name",
            source=source,
            remedy='name a module ("shop.seeds"), a function ("shop.db:init_db") or files ("seeds/*.sql")',
        )
    for path in files:
        yield SqlSeed(path, relative_name(path, root))


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that puts ``2_b.sql`` before ``10_a.sql``."""
    return [(int(number or 0), text) for text, number in re.findall(r"(\D*)(\d*)", name)]
