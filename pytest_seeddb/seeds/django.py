"""Management commands of Django's as seeds, ``loaddata`` among them."""

from __future__ import annotations

import contextlib
import io
import shlex
from typing import TYPE_CHECKING

from pytest_seeddb.application.django_project import set_up, settings_module
from pytest_seeddb.application.imports import place_of
from pytest_seeddb.errors import BuildError, ConfigError, SeedDbError
from pytest_seeddb.fingerprint.digests import Part, chain, digest, glob_parts
from pytest_seeddb.servers.database_errors import describe_failure, failure_remedy
from pytest_seeddb.settings.converters import did_you_mean

if TYPE_CHECKING:
    from pytest_seeddb.fingerprint.sources import Sources
    from pytest_seeddb.plan.plan import Target
    from pytest_seeddb.seeds.kinds import DjangoSeed
    from pytest_seeddb.settings.settings import Settings

__all__ = ["DjangoSeeds", "run_management_command"]


class DjangoSeeds:
    """What determines what seeds of a Django project make, beside their own source."""

    def __init__(self, settings: Settings, sources: Sources) -> None:
        self._settings = settings
        self._sources = sources

    def of_settings(self) -> tuple[Part, ...]:
        """The project's settings, as source: a seed may read any of them."""
        with contextlib.suppress(ConfigError):  # settings that are in no file
            return self._sources.of_module(settings_module())
        return ()

    def parts(self, seed: DjangoSeed) -> tuple[Part, ...]:
        """The command, its code and its inputs; files that it opens are noted while it runs.

        Raises:
            ConfigError: Django cannot be set up, or has no such command.
        """
        return tuple(sorted({*self._own(seed), *self._sources.of_module(self._module(seed)), *self.of_settings()}))

    def version(self, seed: DjangoSeed) -> str:
        """What of it counts where its rows are already: the command, its own file, its inputs."""
        file = self._module(seed).replace(".", "/")
        code = [part for part in self._sources.of_module(self._module(seed)) if part.name.removesuffix(".py") == file]
        return chain("", seed.identity, [*self._own(seed), *code])

    def _own(self, seed: DjangoSeed) -> tuple[Part, ...]:
        source = self._settings.source("seeds")
        inputs = glob_parts(seed.spec.inputs, self._settings.root, source=source) if seed.spec.inputs else ()
        return (Part("management command", digest(seed.spec.command)), *inputs)

    def _module(self, seed: DjangoSeed) -> str:
        source = self._settings.source("seeds")
        set_up(self._settings.root, source=source)
        from django.core.management import get_commands

        name = shlex.split(seed.spec.command)[0]
        known = get_commands()
        if name not in known:
            raise ConfigError(
                f"Django has no management command {name!r}",
                saw=seed.spec.command,
                source=source,
                remedy=f"{did_you_mean(name, known)} Name one of `python manage.py help`".strip(),
            )
        app = known[name] if isinstance(known[name], str) else known[name].__module__
        return f"{app}.management.commands.{name}"


def run_management_command(seed: DjangoSeed, target: Target) -> None:
    """Run it in this process, on the target; what it prints is shown only when it fails.

    Raises:
        BuildError: It failed.
    """
    from django.core.management import call_command

    from pytest_seeddb.application.calling import in_own_thread_if_needed

    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            in_own_thread_if_needed(lambda: call_command(*shlex.split(seed.spec.command), stdout=output, stderr=output))
    except SeedDbError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(seed, error, target, output.getvalue()) from error


def _failed(seed: DjangoSeed, error: BaseException, target: Target, printed: str) -> BuildError:
    where = place_of(error, target.root)
    return BuildError(
        f"The seed {seed.identity} failed" + (f" at {where}" if where else ""),
        saw=describe_failure(error, printed),
        source="`seeds` in the settings",
        remedy=failure_remedy(error) or "mend the command; it must run by itself, without questions",
    )
