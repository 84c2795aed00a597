"""The first seeds module of a project: where it goes, and its text."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.seeds.reading import SEEDER_PATHS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_seeddb.cli.init.code import Source
    from pytest_seeddb.cli.init.files import Files
    from pytest_seeddb.cli.init.models import Model

_NAMES: Final = ("seeds", "seeders", "seeddb_seeds")
_SHOWN: Final = 6

_TEXT: Final = '''\
"""What the database holds before the first test.

Essential seeds are what the application cannot run without. Demo seeds are for tests and for looking at.
"""

from {session_module} import {session}

from pytest_seeddb import seeder

{models}

@seeder
{define} essential(session: {session}) -> None:
    """Rows that the application cannot run without."""
    # {first}


@seeder(tier="demo", after=[essential])
{define} demo(session: {session}, rows: int = 3) -> None:
    """Rows to look at and to test with; a profile may say how many."""
    # {second}
'''


@dataclass(frozen=True)
class SeedsModule:
    """A module of seeders that does not exist yet.

    Attributes:
        module: As the setting spells it.
        file: Relative to the root.
        text: Its text: two seeders that make no rows until somebody says which.
    """

    module: str
    file: str
    text: str


def seeding_modules(sources: Iterable[Source]) -> list[str]:
    """The modules that have seeders already."""
    return [source.module for source in sources if any(_seeds(source))]


def _seeds(source: Source) -> Iterator[bool]:
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for each in node.decorator_list:
                yield source.path(each.func if isinstance(each, ast.Call) else each) in SEEDER_PATHS


def seeds_module(files: Files, near: Sequence[str], models: Sequence[Model], *, is_async: bool) -> SeedsModule:
    """A module in the application's package; at the root where there is no package.

    Args:
        files: The project's files.
        near: Modules of the application, the one that says most about where it is first.
        models: Its models, for the comments.
        is_async: Whether its sessions are asynchronous.
    """
    package = next(iter([top for module in [*near, *_packages(files)] if (top := _package(files, module))]), "")
    module, file = free_name(files, package)
    return SeedsModule(module, file, _text(models, is_async=is_async))


def free_name(files: Files, package: str) -> tuple[str, str]:
    """The name of a module that is not there yet, and its file; at the root where the package is empty."""
    place = f"{package}." if package else ""
    inner = package.replace(".", "/")
    source = "src/" if package and f"src/{inner}/__init__.py" in files.names else ""
    for name in _NAMES:
        file = f"{source}{inner}/{name}".lstrip("/")
        if not any(each == f"{file}.py" or each.startswith(f"{file}/") for each in files.names):
            break
    return f"{place}{name}", f"{file}.py"


def _package(files: Files, module: str) -> str:
    """The top package of a module; empty where it is in none."""
    top, inside, _ = module.partition(".")
    is_package = files.modules.get(top, "").endswith("__init__.py")
    return top if inside or is_package else ""


def _packages(files: Files) -> list[str]:
    return [module for module, file in files.modules.items() if "." not in module and file.endswith("__init__.py")]


def _text(models: Sequence[Model], *, is_async: bool) -> str:
    classes = [each for each in models if each.is_class]
    names = [each.name for each in classes[:2]] or ["Model"]
    return _TEXT.format(
        session="AsyncSession" if is_async else "Session",
        session_module="sqlalchemy.ext.asyncio" if is_async else "sqlalchemy.orm",
        define="async def" if is_async else "def",
        models=_imports(classes),
        first=f"session.add({names[0]}(...))",
        second=f"session.add_all({names[-1]}(...) for number in range(rows))",
    )


def _imports(classes: Sequence[Model]) -> str:
    """A comment that imports the models: unused imports are what linters complain of."""
    shown = classes[:_SHOWN]
    lines = [
        f"# from {module} import {', '.join(each.name for each in shown if each.module == module)}\n"
        for module in dict.fromkeys(each.module for each in shown)
    ]
    return "".join(lines)
