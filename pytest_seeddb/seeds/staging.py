"""From the settings to stages: which seeds there are, in which order, with which parameters."""

from __future__ import annotations

import contextlib
import glob
import itertools
import re
import shlex
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.commands import check_command
from pytest_seeddb.application.django import app_modules, is_set_up, set_up, settings_module
from pytest_seeddb.application.imports import check_source
from pytest_seeddb.application.sessions import parts_of_factories
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import Part, chain, digest, glob_parts, relative_name
from pytest_seeddb.fingerprint.participation import Root
from pytest_seeddb.fingerprint.sources import Sources
from pytest_seeddb.plan.plan import Stage, Step, Work, as_before, names_of
from pytest_seeddb.seeds.declaration import TIERS
from pytest_seeddb.seeds.discovery import Catalogue
from pytest_seeddb.seeds.kinds import CommandSeed, Declaration, DjangoSeed, Seed, SqlSeed
from pytest_seeddb.seeds.parameters import Profile, WeakSecret, check, parameter_parts, profile_of, weak_secrets
from pytest_seeddb.seeds.runner import Runner
from pytest_seeddb.settings.converters import did_you_mean
from pytest_seeddb.settings.settings import CommandSpec, DjangoSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_seeddb.settings.settings import Settings

_SEQUENCES: Final = Part("sequences of factories", "go on")
"""How the seeders of a plan share factory_boy's counters; older templates have rows that were made otherwise."""
_MODULE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_CALLABLE: Final = re.compile(rf"{_MODULE.pattern}:{_MODULE.pattern}")


def stages(settings: Settings, overrides: Mapping[str, object]) -> tuple[Stage, ...]:
    """The stages of the settings' profile; plain declarations need no import of the project. Raises `ConfigError`."""
    tiers = _Staging(settings, profile_of(settings, overrides)).tiers()
    return tuple(Stage(f"{tier} seeds", work.steps, work.run, tier=tier) for tier, work in tiers.items())


def seeds_of(settings: Settings) -> tuple[tuple[Seed, ...], Profile]:
    """All that are declared, of every tier, in order, and the settings' profile; raises `ConfigError`."""
    profile = profile_of(settings, {})
    return _Staging(settings, profile).seeds(), profile


def weak_secrets_of(settings: Settings, overrides: Mapping[str, object]) -> tuple[WeakSecret, ...]:
    """The secret parameters of the profile's seeders that are easy to guess."""
    profile = profile_of(settings, overrides)
    seeds = _Staging(settings, profile).seeds()
    running = (seed for seed in seeds if seed.tier == "essential" or not profile.only_essential)
    return tuple(weak_secrets((seed for seed in running if isinstance(seed, Declaration)), profile))


def secret_names(settings: Settings, overrides: Mapping[str, object]) -> frozenset[str]:
    """The parameters of all seeders whose values must never appear."""
    seeds = _Staging(settings, profile_of(settings, overrides)).seeds()
    parameters = (parameter for seed in seeds if isinstance(seed, Declaration) for parameter in seed.parameters)
    return frozenset(parameter.name for parameter in parameters if parameter.is_secret)


class _Staging:
    def __init__(self, settings: Settings, profile: Profile) -> None:
        self._settings = settings
        self._root = settings.root
        self._source = settings.source("seeds")
        self._profile = profile
        self._sources = Sources(settings.root)
        self._catalogue = Catalogue(settings.root)
        self._known: dict[str, Seed] = {}

    def tiers(self) -> dict[str, Work]:
        """What each tier that has seeds consists of."""
        seeds = self.seeds()
        tiers: dict[str, Work] = {}
        for tier in TIERS[:1] if self._profile.only_essential else TIERS:
            chosen = tuple(seed for seed in seeds if seed.tier == tier)
            if not chosen:
                continue
            steps = tuple(map(self._step, chosen))
            modules = {seed.module for seed in chosen if isinstance(seed, Declaration) and seed.is_seeder}
            outlines = {module: self._catalogue.seeders(module, source="") for module in sorted(modules)}
            runner = Runner(chosen, steps, self._profile, self._settings.random_seed, outlines)
            tiers[tier] = Work(steps, runner.run)
        return tiers

    def seeds(self) -> tuple[Seed, ...]:
        """All that are declared, of every tier, in order."""
        for seed in self._settings_seeds():
            self._know(seed)
        seeds = _sort(list(self._known.values()), lambda seed: [self._find(seed, name) for name in seed.after])
        check([seed for seed in seeds if isinstance(seed, Declaration)], self._profile)
        return seeds

    def _settings_seeds(self) -> Iterator[Seed]:
        for entry in self._settings.seeds:
            if isinstance(entry, CommandSpec):
                yield CommandSeed(entry, self._source)
            elif isinstance(entry, DjangoSpec):
                yield DjangoSeed(entry)
            elif _CALLABLE.fullmatch(entry):
                yield self._catalogue.callable(entry, source=self._source)
            elif _MODULE.fullmatch(entry) and not entry.endswith(".sql"):
                seeders = self._catalogue.seeders(entry, source=self._source)
                if not seeders:
                    raise ConfigError(
                        f"The module {entry} declares no seeders",
                        saw="no function with @seeder in it",
                        source=self._source,
                        remedy=f'put @seeder on its functions, or name one to call: "{entry}:function"',
                    )
                yield from seeders
            else:
                yield from sql_files(entry, self._root, self._source)

    def _know(self, seed: Seed) -> None:
        """Keep a seed, and those that it and they are to run after."""
        if seed.identity in self._known:
            return
        self._known[seed.identity] = seed
        for name in seed.after:
            if ":" in name:  # a bare name may mean what the others bring: it is looked up last
                self._know(self._find(seed, name))

    def _find(self, seed: Seed, name: str) -> Seed:
        if name in self._known:
            return self._known[name]
        module, colon, own = name.rpartition(":")
        assert isinstance(seed, Declaration)  # noqa: S101  # nothing else has an `after`
        source = f"after= at {seed.place}"
        for seeder in self._catalogue.seeders(module if colon else seed.module, source=source):
            if seeder.name == own:
                return seeder
        declared = [known for known in self._known.values() if isinstance(known, Declaration)]
        namesakes = [] if colon else [known for known in declared if known.name == name]
        if len(namesakes) == 1:
            return namesakes[0]
        if namesakes:
            raise ConfigError(
                f"The seeder {seed.identity} names {name!r} in `after`, but there are several seeders of that name",
                saw="\n".join(f"{seeder.identity} ({seeder.place})" for seeder in namesakes),
                source=source,
                remedy=f'name the module too: "{namesakes[0].identity}"',
            )
        seeders = [known for known in declared if known.is_seeder]
        near = did_you_mean(name, {seeder.identity for seeder in seeders} | {seeder.name for seeder in seeders})
        raise ConfigError(
            f"The seeder {seed.identity} names {name!r} in `after`, which is not a seeder",
            saw=f"seeders: {', '.join(f'{seeder.identity} ({seeder.place})' for seeder in seeders)}",
            source=source,
            remedy=f"{near} Name one of these, or declare it with @seeder".strip(),
        )

    def _step(self, seed: Seed) -> Step:
        name = f"seed {seed.identity}"
        if isinstance(seed, SqlSeed):
            from pytest_seeddb.migrations.script import SEED, script_parts  # its patterns take their time
            from pytest_seeddb.migrations.sql import SqlFile

            check_file = partial(SqlFile.read, seed.path, self._root, SEED)
            return Step(name, script_parts(seed.path, self._root, SEED, source=self._source), check=check_file)
        if isinstance(seed, CommandSeed):
            program = partial(check_command, seed.spec, self._root, what="seeds", source=self._source)
            return Step(name, (Part("command", digest(seed.spec.command)), *self._inputs(seed.spec)), check=program)
        random_seed = Part("random seed", str(self._settings.random_seed))
        if isinstance(seed, DjangoSeed):
            module = self._management_module(seed)
            own = (Part("management command", digest(seed.spec.command)), *self._inputs(seed.spec))
            code = self._sources.of_module(module)
            parts = (random_seed, *sorted({*own, *code, *self._django_settings()}))
            # Where its rows are already, its own file counts, and not what that imports.
            file = module.replace(".", "/")
            counted = [*own, *(part for part in code if part.name.removesuffix(".py") == file)]
            version, before = (chain("", seed.identity, chosen) for chosen in (counted, as_before(counted)))
            step = Step(name, parts, version, (), before, "safe" if seed.spec.idempotent else "never")
            return self._with_code(step, code, module)
        values = parameter_parts(seed, self._profile)

        def parts_by(code: tuple[Part, ...]) -> tuple[Part, ...]:
            return (
                Part("seeder", seed.identity),
                random_seed,
                *values,
                *code,
                *([_SEQUENCES] if any(part.name == "package factory-boy" for part in code) else ()),
                *(self._django_settings() if is_set_up() else ()),
            )

        code = self._sources.of_module(seed.module, source=self._source)
        own = parts_by(code)
        parts = (*own, *parts_of_factories(self._settings))
        plain = self._sources.plain
        parts_before = parts_by(plain.of_module(seed.module, source=self._source)) if plain else own
        # Where its rows are already, another version of what it imports is no reason to seed again.
        # Nor is another password; and whoever may read the ledger could try out passwords by its digest.
        secret = {f"parameter {parameter.name}" for parameter in seed.parameters if parameter.is_secret}
        counted_names = {seed.file, "random seed", *(part.name for part in values)} - secret
        counted = [part for part in parts if part.name in counted_names]
        version, before = (chain("", seed.identity, chosen) for chosen in (counted, as_before(counted)))
        check_module = partial(check_source, seed.module, source=self._source, root=self._root)
        step = Step(
            name, parts, version, parts_before, before, "safe" if seed.idempotent else "never", check=check_module
        )
        return self._with_code(step, code, seed.module)

    def _inputs(self, spec: CommandSpec | DjangoSpec) -> tuple[Part, ...]:
        return glob_parts(spec.inputs, self._root, source=self._source) if spec.inputs else ()

    def _management_module(self, seed: DjangoSeed) -> str:
        set_up(self._root, source=self._source)
        from django.core.management import get_commands

        name = shlex.split(seed.spec.command)[0]
        known = get_commands()
        if name not in known:
            raise ConfigError(
                f"Django has no management command {name!r}",
                saw=seed.spec.command,
                source=self._source,
                remedy=f"{did_you_mean(name, known)} Name one of `python manage.py help`".strip(),
            )
        app = known[name] if isinstance(known[name], str) else known[name].__module__
        return f"{app}.management.commands.{name}"

    def _with_code(self, step: Step, code: tuple[Part, ...], module: str) -> Step:
        """The step that runs this module. In a Django project, it may reach all that the apps have registered."""
        modules = [module]
        if is_set_up():
            code, modules = (*code, *self._django_settings()), [*modules, settings_module(), *app_modules()]
        files = (file for name in filter(None, modules) for file in self._sources.files_of_module(name))
        return replace(step, code=names_of(code), roots=tuple(map(Root, dict.fromkeys(files))))

    def _django_settings(self) -> tuple[Part, ...]:
        """A Django project's settings, as source: a seed may read any of them."""
        with contextlib.suppress(ConfigError):  # settings that are in no file
            return self._sources.of_module(settings_module())
        return ()


def _sort(seeds: Sequence[Seed], before: Callable[[Seed], Sequence[Seed]]) -> tuple[Seed, ...]:
    """Essential seeds first, each directly after those that it names which have not run yet, else as declared."""
    done: dict[str, Seed] = {}
    path: dict[str, Seed] = {}

    def visit(seed: Seed) -> None:
        if seed.identity in done:
            return
        if seed.identity in path:
            raise _cycle([*path.values()][list(path).index(seed.identity) :])
        path[seed.identity] = seed
        for earlier in before(seed):
            if seed.tier == "essential" and earlier.tier == "demo":
                raise ConfigError(
                    f"The essential seeder {seed.identity} cannot run after the demo seeder {earlier.identity}",
                    saw=f"{seed.identity} ({seed.place}) is essential\n{earlier.identity} ({earlier.place}) is demo",
                    source=f"after= at {seed.place}",
                    remedy="give both the same tier, or remove it from `after`: essential seeds run where demo seeds "
                    "may not",
                )
            visit(earlier)
        del path[seed.identity]
        done[seed.identity] = seed

    for tier in TIERS:
        for seed in seeds:
            if seed.tier == tier:
                visit(seed)
    return tuple(done.values())


def _cycle(seeds: list[Seed]) -> ConfigError:
    first, last = seeds[0], seeds[-1]
    lines = [
        f"{seed.identity} ({seed.place}) runs after {earlier.identity} ({earlier.place})"
        for seed, earlier in itertools.pairwise([*seeds, first])
    ]
    return ConfigError(
        f"The seeders {first.identity} and {last.identity} wait for each other"
        if len(seeds) > 1
        else f"The seeder {first.identity} waits for itself",
        saw="\n".join(lines),
        source=f"after= at {last.place}",
        remedy="remove one of these from its seeder's `after`",
    )


def sql_files(pattern: str, root: Path, source: str) -> Iterator[SqlSeed]:
    """The files that the pattern matches, in natural order; raises `ConfigError` for others than SQL."""

    def natural(path: Path) -> list[tuple[int, str]]:
        """A key that puts ``2_b.sql`` before ``10_a.sql``."""
        return [(int(number or 0), text) for text, number in re.findall(r"(\D*)(\d*)", path.as_posix())]

    paths = [root / name for name in glob.glob(pattern, root_dir=root, recursive=True)]  # noqa: PTH207  # absolute too
    files = sorted((path for path in paths if path.is_file()), key=natural)
    wrong = [path for path in files if path.suffix.lower() != ".sql"]
    if wrong or not files:
        raise ConfigError(
            f"The seeds {pattern!r} are not SQL files",
            saw=str(wrong[0]) if wrong else f"no file under {root} matches this pattern",
            source=source,
            remedy='name a module ("shop.seeds"), a function ("shop.db:init_db") or files ("seeds/*.sql")',
        )
    for path in files:
        yield SqlSeed(path, relative_name(path, root))
