"""What determines a template, as far as the project's files and settings tell: a key for caches.

Nothing of the project is imported and no server is asked. So whole files count, and more of them than a build may use.
What only a build can tell (the data files and variables that it reads) is in a template's record.
"""

from __future__ import annotations

import ast
import shlex
from typing import TYPE_CHECKING, Final

from pytest_seeddb.application.django import find_settings
from pytest_seeddb.application.sessions import ALL
from pytest_seeddb.errors import SeedDbError, mask, passwords_in
from pytest_seeddb.fingerprint.digests import FORMAT, Part, chain, glob_parts
from pytest_seeddb.fingerprint.modules import Module, Modules
from pytest_seeddb.fingerprint.sources import Sources
from pytest_seeddb.migrations.script import Reading, script_parts
from pytest_seeddb.migrations.sources import DJANGO, static_parts
from pytest_seeddb.seeds.discovery import Catalogue
from pytest_seeddb.seeds.parameters import profile_of
from pytest_seeddb.seeds.planning import nothing_declared
from pytest_seeddb.seeds.staging import sql_files
from pytest_seeddb.settings.settings import CommandSpec, DjangoSpec
from pytest_seeddb.templates.record import FORM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_seeddb.settings.settings import Settings

_SETTINGS: Final = (
    "name",
    "migrations",
    "seeds",
    "session",
    "engines",
    "extensions",
    "watch_env",
    "profile",
    "random_seed",
    "image",
    "postgres",
)
_IN_APPS: Final = ("apps", "models", "migrations")


def static_digest(settings: Settings) -> str:
    """64 hexadecimal digits; the same in each checkout, whoever the secrets are for. Raises `ConfigError`."""
    if settings.plans_nothing:
        raise nothing_declared(settings)
    return chain("", "inputs", {Part("form", f"{FORMAT}.{FORM}"), *_settings(settings), *_files(settings)})


def _settings(settings: Settings) -> Iterator[Part]:
    yield from (Part(f"setting {name}", mask(str(getattr(settings, name)))) for name in _SETTINGS)
    yield Part("server", _server(settings))
    catalogue, modules = Catalogue(settings.root), map(str, settings.seeds)
    parameters = [
        parameter
        for module in modules
        for seeder in catalogue.static(module.partition(":")[0])
        for parameter in seeder.parameters
    ]
    # A value of which nothing tells that it is no secret does not count.
    plain = {parameter.name for parameter in parameters} - {each.name for each in parameters if each.is_secret}
    profile = profile_of(settings, {})
    for name, given in profile.given.items():
        if name in plain and not passwords_in(str(given.value)):
            yield Part(f"parameter {name}", str(given.value))


def _server(settings: Settings) -> str:
    """Which kind it is, and the major version of the binaries where these are here."""
    from pytest_seeddb.servers.binaries import choose

    if settings.server not in {"auto", "embedded"}:
        return settings.server if settings.server == "container" else "postgresql"
    try:
        return f"{settings.server} {choose(settings).version.partition('.')[0]}"
    except SeedDbError:
        return settings.server


def _files(settings: Settings) -> Iterator[Part]:
    root, source = settings.root, settings.source("seeds")
    patterns = {"watch": settings.watch, "init_scripts": settings.init_scripts, "dump": filter(None, [settings.dump])}
    for name, values in patterns.items():
        yield from glob_parts(map(str, values), root, source=settings.source(name))
    sources, apps = Sources(root), _Apps(settings) if settings.migrations == DJANGO else None
    yield from apps.parts() if apps else static_parts(settings)
    for key, paths in (("session", settings.session), ("engines", settings.engines)):
        for path in paths if paths != ALL else ():
            yield from sources.of_module(path.partition(":")[0], source=settings.source(key))
    for seed in settings.seeds:
        if isinstance(seed, CommandSpec | DjangoSpec):
            yield from glob_parts(seed.inputs, root, source=source)
            if isinstance(seed, DjangoSpec):
                yield from (apps or _Apps(settings)).parts_of_command(shlex.split(seed.command)[0])
        elif seed.endswith(".sql") or "/" in seed:
            for file in sql_files(seed, root, source):
                yield from script_parts(file.path, root, Reading(), source=source)
        else:
            yield from sources.of_module(seed.partition(":")[0], source=source)


class _Apps:
    """A Django project's own apps, as the strings in its settings name them."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.root
        self._settings, directory = find_settings(settings.root, settings.source("migrations"))
        self._modules = Modules(settings.root, [directory, settings.root])
        self._sources = Sources(settings.root, search=[directory, settings.root])
        own = self._sources.of_module(self._settings, source=settings.source("migrations"))
        texts = {text for part in own if part.name.endswith(".py") for text in _strings(self._root / part.name)}
        self._packages = {package.name: package for text in texts if (package := self._package(text))}

    def parts(self) -> Iterator[Part]:
        """The files of the settings, of the apps and of all that these import."""
        names = {self._settings}
        for name, package in self._packages.items():
            own = {f"{name}.{leaf}" for leaf in _IN_APPS}
            modules = [module.name for module in self._modules.below(package)]
            names |= {name, *(module for module in modules if module in own or "migrations" in module.split("."))}
        for name in names:
            yield from self._sources.of_module(name)

    def parts_of_command(self, command: str) -> Iterator[Part]:
        """The files of the management command; none if the apps of the project do not have it."""
        for name in self._packages:
            module = f"{name}.management.commands.{command}"
            if isinstance(self._modules.find(module), Module):
                yield from self._sources.of_module(module)

    def _package(self, text: str) -> Module | None:
        """The app of ``shop`` or ``shop.apps.Shop``; or the package that holds migrations."""
        names = text.split(".")
        for end in range(len(names), 0, -1):
            module = self._modules.find(".".join(names[:end]))
            if isinstance(module, Module) and module.places and (module.path or self._has_parts(module)):
                return module
        return None

    def _has_parts(self, package: Module) -> bool:
        return any(isinstance(self._modules.find(f"{package.name}.{leaf}"), Module) for leaf in _IN_APPS)


def _strings(file: Path) -> Iterator[str]:
    """The strings in a Python file that may name modules."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    yield from (text for text in constants if isinstance(text, str) and all(map(str.isidentifier, text.split("."))))
