"""A project's models: their classes, and the import path of the ``MetaData`` that knows all of them."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli.init.code import targets
from pytest_seeddb.errors import SeedDbError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_seeddb.cli.init.code import Code, Source
    from pytest_seeddb.fingerprint.sources import Sources

_SQLMODEL: Final = "sqlmodel.SQLModel"
_BASE_CLASSES: Final = frozenset({"DeclarativeBase", "DeclarativeBaseNoMeta"})
# What is assigned, by the call that makes it, and where its MetaData is from there.
_MADE: Final = {
    "declarative_base": ".metadata",
    "generate_base": ".metadata",
    "MetaData": "",
    "SQLAlchemy": ".metadata",
}
_FROM: Final = frozenset({"sqlalchemy", "sqlmodel", "flask_sqlalchemy"})
_COLUMN: Final = re.compile(r"\b(?:mapped_c|C)olumn\(|\bMapped\[")
_DEPTH: Final = 10
_TRIED: Final = 200
"""Modules that are tried before a project's models are said to be in no single one."""


@dataclass(frozen=True)
class Model:
    """A class or a table that stands for a table of the database.

    Attributes:
        module: Where it is made.
        name: What it is called there.
        root: The base class or ``MetaData`` that it belongs to, by its dotted path.
        is_class: Whether it is a class; else a ``Table``.
    """

    module: str
    name: str
    root: str
    is_class: bool = True


@dataclass(frozen=True)
class Models:
    """The models of one ``MetaData``.

    Attributes:
        path: Where that is to be had, as the setting spells it: ``shop.models:Base.metadata``.
        models: The models.
        missing: Files with models that importing the path does not import.
    """

    path: str
    models: tuple[Model, ...]
    missing: tuple[str, ...] = ()


def models_of(code: Code, files: dict[str, str], sources: Sequence[Source], reading: Sources) -> Models | None:
    """The models that belong together, the largest such family; ``None`` where there are none.

    Args:
        code: The project's code.
        files: Each module's file.
        sources: The modules to look through.
        reading: What follows imports.
    """
    roots = _roots(sources)
    found = [model for source in sources for model in _models(source, code, roots)]
    if not found:
        return None
    root = Counter(each.root for each in found).most_common(1)[0][0]
    family = tuple(each for each in found if each.root == root)
    path, missing = _place(root, roots.get(root, ".metadata"), family, _Looking(code, files, reading))
    return Models(path, family, missing)


def _roots(sources: Sequence[Source]) -> dict[str, str]:
    """Every base class and ``MetaData``, by dotted path, with the way from there to the ``MetaData``."""
    found = {_SQLMODEL: ".metadata"}
    for source in sources:
        for statement in source.statements:
            if isinstance(statement, ast.ClassDef) and any(_is_base(source, each) for each in statement.bases):
                found[f"{source.module}.{statement.name}"] = ".metadata"
            elif isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Call):
                library, _, made = source.path(statement.value.func).partition(".")
                suffix = _MADE.get(made.rpartition(".")[2])
                if suffix is not None and (library in _FROM or made.endswith("generate_base")):
                    found |= {f"{source.module}.{name}": suffix for name in targets(statement)}
    return found


def _is_base(source: Source, base: ast.expr) -> bool:
    library, _, name = source.path(base).partition(".")
    return library == "sqlalchemy" and name.rpartition(".")[2] in _BASE_CLASSES


def _models(source: Source, code: Code, roots: dict[str, str]) -> Iterator[Model]:
    for statement in source.statements:
        if isinstance(statement, ast.ClassDef):
            root = _root(source, statement, code, roots)
            if root and _has_table(statement, root):
                yield Model(source.module, statement.name, root)
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Call):
            yield from _tables(source, statement, statement.value, code, roots)


def _tables(source: Source, statement: ast.stmt, call: ast.Call, code: Code, roots: dict[str, str]) -> Iterator[Model]:
    if not source.path(call.func).endswith(".Table") or len(call.args) < 2:  # noqa: PLR2004 - name and MetaData
        return
    of = code.origin(source.path(call.args[1]))
    root = of if of in roots else of.removesuffix(".metadata")
    if root in roots:
        yield from (Model(source.module, name, root, is_class=False) for name in targets(statement))


def _root(source: Source, node: ast.ClassDef, code: Code, roots: dict[str, str], depth: int = 0) -> str:
    """The base that a class has in the end; empty where that is none of the roots."""
    for base in node.bases:
        path = code.origin(source.path(base))
        for candidate in (path, path.removesuffix(".Model")):  # Flask-SQLAlchemy's models derive from db.Model
            if candidate in roots:
                return candidate
        module, _, name = path.rpartition(".")
        parent = code.source(module)
        found = next((each for each in _classes(parent) if each.name == name), None)
        if parent and found and found is not node and depth < _DEPTH:
            root = _root(parent, found, code, roots, depth + 1)
            if root:
                return root
    return ""


def _classes(source: Source | None) -> list[ast.ClassDef]:
    return [each for each in source.statements if isinstance(each, ast.ClassDef)] if source else []


def _has_table(node: ast.ClassDef, root: str) -> bool:
    """Whether a class stands for a table, and is no mixin or base of others."""
    if root == _SQLMODEL:
        return any(each.arg == "table" and ast.unparse(each.value) == "True" for each in node.keywords)
    assigned = {name for statement in node.body for name in targets(statement)}
    named = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
    if "__abstract__" in assigned:
        return False
    columns = any(_COLUMN.search(ast.unparse(each)) for each in node.body)
    return "__tablename__" in assigned | named or "__table__" in assigned or columns


@dataclass(frozen=True)
class _Looking:
    """What is needed to find out what importing a module imports."""

    code: Code
    files: dict[str, str]
    reading: Sources

    def imported_by(self, module: str) -> set[str]:
        """The files that importing a module runs."""
        try:
            return {part.name for part in self.reading.of_module(module)}
        except SeedDbError:
            return set()

    def names(self, module: str) -> list[str]:
        """What a module binds, imported or made."""
        source = self.code.source(module)
        if source is None:
            return []
        others = [name for star in source.stars for name in self.names(star)]
        return [*source.names, *sorted(source.defined), *others]


def _place(root: str, suffix: str, family: tuple[Model, ...], looking: _Looking) -> tuple[str, tuple[str, ...]]:
    """The module from which all models are known, with a name in it that leads to their ``MetaData``."""
    wanted = {looking.files[each.module] for each in family}
    best, fewest = "", len(wanted) + 1
    for module in _candidates(root, family, looking):
        name = _leading_name(module, root, suffix, family, looking.code, looking.names(module))
        missing = wanted - looking.imported_by(module) if name else wanted
        if name and len(missing) < fewest:
            best, fewest, lacking = f"{module}:{name}", len(missing), missing
        if not fewest:
            break
    return best, tuple(sorted(lacking)) if fewest else ()


def _candidates(root: str, family: tuple[Model, ...], looking: _Looking) -> list[str]:
    """Modules to try, the likely ones first: where the models are or around them, where the base is, all others."""
    homes = list(dict.fromkeys(each.module for each in family))
    around = [module.rpartition(".")[0] for module in homes]
    base = root.rpartition(".")[0]
    first = [*(homes if len(homes) == 1 else around), base, base.rpartition(".")[0], *homes]
    return [each for each in dict.fromkeys([*first, *looking.files]) if each in looking.files][:_TRIED]


def _leading_name(
    module: str, root: str, suffix: str, family: tuple[Model, ...], code: Code, names: Sequence[str]
) -> str:
    ways = {f"{each.module}.{each.name}": ".metadata" for each in family}
    found = [(code.origin(f"{module}.{name}"), name) for name in names]
    for origin, name in found:
        if origin == root:
            return f"{name}{suffix}"
    return next((f"{name}{ways[origin]}" for origin, name in found if origin in ways), "")
