"""A project's code, read without importing it: what its names stand for."""

from __future__ import annotations

import ast
import re
import tokenize
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.cli.init.files import Files

_LARGEST: Final = 1_000_000
_HOPS: Final = 10
"""Modules through which a name is followed to where it is made."""

# Whoever has none of these words has nothing that is looked for.
_WORDS: Final = re.compile(
    r"create_(?:async_)?engine|environ|getenv|_UR[LI]\b|_DSN\b|Settings\b|MetaData|declarative_base|DeclarativeBase"
    r"|generate_base|SQLModel|SQLAlchemy|__tablename__|\bModel\b|\bTable\(|\bseeder\b|relationship|mapped_column"
)


@dataclass(frozen=True)
class Source:
    """One module as it was read.

    Attributes:
        module: Its dotted name.
        file: Its file, relative to the root.
        tree: Its syntax.
        names: What its imports bind, with what that stands for.
        stars: The modules of which it imports everything.
    """

    module: str
    file: str
    tree: ast.Module = field(repr=False)
    names: dict[str, str]
    stars: tuple[str, ...]

    @cached_property
    def statements(self) -> tuple[ast.stmt, ...]:
        """The statements that run when it is imported, those in ``if`` and ``try`` included."""
        return tuple(_statements(self.tree.body))

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All of its syntax, walked once."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def defined(self) -> frozenset[str]:
        """The names that it makes itself."""
        return frozenset(name for statement in self.statements for name in _made_by(statement))

    def path(self, node: ast.expr) -> str:
        """The dotted path that a name or an attribute stands for; empty for anything else."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, f"{self.module}.{node.id}")
        if isinstance(node, ast.Attribute) and (of := self.path(node.value)):
            return f"{of}.{node.attr}"
        return ""


class Code:
    """All modules of a project, each read when it is first asked for."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._read: dict[str, Source | None] = {}
        self._alembic = {name.rpartition("/")[0] for name in files.called("script.py.mako")}

    def interesting(self) -> Iterator[Source]:
        """The modules that may hold what is looked for, without Alembic's own."""
        for module, file in self._files.modules.items():
            text = self._files.beginning(file, _LARGEST)
            if _WORDS.search(text.decode(errors="replace")) and not self._is_alembics(file):
                source = self.source(module)
                if source:
                    yield source

    def source(self, module: str) -> Source | None:
        """A module; ``None`` where it is not the project's own, or cannot be read."""
        if module not in self._read:
            file = self._files.modules.get(module)
            self._read[module] = self._parsed(module, file) if file else None
        return self._read[module]

    def origin(self, path: str) -> str:
        """Where the thing that a dotted path leads to is made: imports are followed from module to module."""
        for _ in range(_HOPS):
            found = self._imported_from(path)
            if found == path:
                break
            path = found
        return path

    def _imported_from(self, path: str) -> str:
        source, name, rest = self._split(path)
        if source is None or not name or name in source.defined:
            return path
        if name in source.names:
            return ".".join([source.names[name], *rest])
        for star in source.stars:
            other = self.source(star)
            if other and (name in other.defined or name in other.names):
                return ".".join([star, name, *rest])
        return path

    def _split(self, path: str) -> tuple[Source | None, str, list[str]]:
        """The longest part of a dotted path that is a module, then a name in it, then what follows."""
        parts = path.split(".")
        for end in range(len(parts), 0, -1):
            if source := self.source(".".join(parts[:end])):
                name, *rest = [*parts[end:], ""]
                return source, name, rest[:-1]
        return None, "", []

    def _is_alembics(self, file: str) -> bool:
        return any(file.startswith(f"{each}/") for each in self._alembic)

    def _parsed(self, module: str, file: str) -> Source | None:
        try:
            with tokenize.open(self._files.root / file) as stream, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the user's string escapes
                tree = ast.parse(stream.read(_LARGEST))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        package = module if file.endswith("__init__.py") else module.rpartition(".")[0]
        imports = [each for each in _statements(tree.body) if isinstance(each, ast.Import | ast.ImportFrom)]
        names = {name: path for each in imports for name, path in _bound(each, package)}
        stars = tuple(_start(each, package) for each in imports if isinstance(each, ast.ImportFrom) and _is_star(each))
        return Source(module, file, tree, names, stars)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _statements(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _made_by(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    yield from targets(statement)


def targets(statement: ast.stmt) -> list[str]:
    """The plain names that an assignment binds."""
    found: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        found = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        found = [statement.target]
    return [each.id for each in found if isinstance(each, ast.Name)]


def _bound(statement: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, str]]:
    for each in statement.names:
        if isinstance(statement, ast.ImportFrom):
            yield each.asname or each.name, f"{_start(statement, package)}.{each.name}"
        elif each.asname:
            yield each.asname, each.name
        else:
            top = each.name.partition(".")[0]
            yield top, top


def _is_star(statement: ast.ImportFrom) -> bool:
    return any(each.name == "*" for each in statement.names)


def _start(statement: ast.ImportFrom, package: str) -> str:
    """The module that a ``from`` names, absolute."""
    if not statement.level:
        return statement.module or ""
    parents = package.split(".")[: len(package.split(".")) - statement.level + 1]
    return ".".join([*parents, *([statement.module] if statement.module else [])])
