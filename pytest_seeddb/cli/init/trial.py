"""Imports what a proposal names, in a process of its own: nobody knows before what that does.

Nothing is connected to: engines and Django's connections are pointed at a port that refuses. A module that connects
while it is imported counts as imported, because a build gives it a database.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ConfigError, SeedDbError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_REFUSED: Final = {"host": "127.0.0.1", "port": "1", "dbname": "seeddb", "user": "seeddb"}
_URL: Final = "postgresql://seeddb@/seeddb?host=/nowhere/seeddb&port=5432"  # in the form that the embedded server has
_CONNECTS: Final = {"OperationalError", "InterfaceError", "ConnectionRefusedError", "gaierror", "CannotConnectNowError"}
_POSTGRES: Final = re.compile(r"postgres(?:ql)?(?:\+[a-z0-9_]+)?://", re.IGNORECASE)
_MAKES_APPLICATION: Final = re.compile(r":(?:create|make)_app")
_SECONDS: Final = 120


@dataclass(frozen=True)
class Trial:
    """Tries settings in a project's directory, with ``variables`` set to a PostgreSQL URL unless they are set."""

    root: Path
    variables: Iterable[str] = ()

    def failures(self, settings: Sequence[tuple[str, object]]) -> list[str]:
        """For each setting and value why it cannot be imported; empty where it can."""
        failures: list[str] = []
        # A crash, or an exit that cannot be caught, is about the one that was being tried.
        while len(failures) < len(settings):
            left = settings[len(failures) :]
            answers, ending = self._try(json.dumps(left))
            failures += answers
            if len(answers) < len(left):
                failures.append(ending)
        return failures

    def _try(self, settings: str) -> tuple[list[str], str]:
        line = [sys.executable, "-m", __name__, str(self.root)]
        options: dict[str, Any] = {"input": settings, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options |= {"env": _nowhere(self.variables), "text": True, "errors": "replace"}
        try:
            done = subprocess.run(line, cwd=self.root, timeout=_SECONDS, check=False, **options)  # noqa: S603 - this Python
        except subprocess.TimeoutExpired as late:
            output, ending = (late.stdout or b"").decode(), f"its import takes more than {_SECONDS} seconds"
        else:
            last = done.stderr.strip().rpartition("\n")[2]
            output, ending = done.stdout, f"its import ends the process with {done.returncode}: {last}".rstrip(": ")
        answers = [json.loads(answer) for answer in output.splitlines() if answer.endswith('"')]
        return ["; ".join(filter(None, map(str.strip, answer.splitlines()))) for answer in answers], ending


def _nowhere(variables: Iterable[str]) -> dict[str, str]:
    """The environment in which no variable leads to a database: neither an own one nor one of the shell."""
    from pytest_seeddb.application.surroundings import url_variables
    from pytest_seeddb.servers.address import Address

    nowhere = Address(_REFUSED)
    around = {name: value for name, value in os.environ.items() if name not in {"PGSERVICE", "PGHOSTADDR"}}
    urls = [name for name, value in around.items() if _POSTGRES.match(value)]
    return {**dict.fromkeys(variables, _URL), **around, **nowhere.environment(), **url_variables(urls, nowhere)}


def main() -> None:
    """Answer, on the standard output that the project does not see, for each setting that the input has."""
    from pytest_seeddb.settings.pytest_files import put_on_path

    root = Path(sys.argv[1])
    put_on_path(root)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name, value in json.load(sys.stdin):
        print(json.dumps(_failure(root, name, value)), file=answers, flush=True)


def _failure(root: Path, name: str, value: Any) -> str:  # noqa: ANN401 - as in the table
    from pytest_seeddb.application.django import redirect_django
    from pytest_seeddb.application.redirection import redirect
    from pytest_seeddb.servers.address import Address

    nowhere = Address(_REFUSED)
    try:
        with contextlib.chdir(root), redirect(nowhere), redirect_django({"default": nowhere}):
            {"migrations": _try_migrations, "engines": _try_engine, "seeds": _try_seeds}[name](root, value)
    except SeedDbError as error:
        remedy = f". Advice: {error.remedy}" if name == "migrations" and value == "django" else ""
        return "" if _connects(error) else f"{error.what}: {error.saw}".removesuffix(": ").strip() + remedy
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the project's code raises what it likes
        return "" if _connects(error) else f"{type(error).__name__}: {error}"
    return ""


def _connects(error: BaseException | None) -> bool:
    """Whether it is, or comes from, a connection that was refused."""
    while error is not None:
        if type(error).__name__ in _CONNECTS:
            return True
        error = error.__cause__ or error.__context__
    return False


def _try_migrations(root: Path, value: str | Mapping[str, Any]) -> None:
    from pytest_seeddb.migrations.alembic import import_env
    from pytest_seeddb.migrations.sources import stages
    from pytest_seeddb.settings.settings import Settings

    settings = Settings(root).replace(migrations=value)
    stages(settings)
    if not isinstance(value, str):
        _try_command(str(value["command"]))
    elif value.endswith((".ini", ".toml")):
        import_env(root / value, root, source=value)
    elif ":" in value:
        from pytest_seeddb.application.calling import check_parameters
        from pytest_seeddb.migrations.frameworks import is_migrated

        made: Any = _load(root, value)
        if callable(made) and _MAKES_APPLICATION.search(value):
            made = made()
        if is_migrated(made):
            return
        tables = getattr(getattr(made, "metadata", made), "tables", None)
        if tables is None:
            check_parameters(made)
        elif not tables:
            raise ConfigError(f"{value} holds no tables")


def _try_command(command: str) -> None:
    """Whether the program is there; Flask also says whether it finds the application."""
    from pytest_seeddb.application.commands import search_path

    program, *words = shlex.split(command)
    if shutil.which(program, path=search_path()) is None:
        raise ConfigError(f"there is no program {program!r}")
    if words[-2:] == ["db", "upgrade"]:
        line, environ = [program, *words[:-1], "heads"], {**os.environ, "PATH": search_path()}
        options: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "timeout": _SECONDS}
        done = subprocess.run(line, env=environ, check=False, **options)  # noqa: S603 - the command that is proposed
        if done.returncode and not any(name in done.stderr for name in _CONNECTS):
            lines = [text.strip() for text in done.stderr.splitlines() if "Error: " in text]
            raise ConfigError(f"`{shlex.join(line)}` fails", saw=". ".join(lines))


def _try_engine(root: Path, value: str) -> None:
    from pytest_seeddb.application.redirection import engines_of

    if not all(engine.dialect.name == "postgresql" for engine in engines_of(_load(root, value))):
        raise ConfigError("it is an engine for another database than PostgreSQL")


def _try_seeds(root: Path, value: str) -> None:
    made: Any = _load(root, value)
    if ":" in value:
        from pytest_seeddb.application.calling import check_parameters

        check_parameters(made)


def _load(root: Path, value: str) -> object:
    from pytest_seeddb.application.imports import load

    return load(value, source="", root=root)


if __name__ == "__main__":
    # Under its own name, so that the package's other modules find the same classes.
    import_module("pytest_seeddb.cli.init.trial").main()
