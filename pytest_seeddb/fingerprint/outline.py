"""What of a Python file counts: its code at module level, and the bodies of the functions that ran.

A file's outline is made of its compiled text, so comments and layout make no difference. Each statement at module level
is compiled twice: once as it is, for the bodies of its functions, and once without these bodies, for all the rest.
"""

from __future__ import annotations
import __future__ as futures

import ast
import marshal
import re
import warnings
from collections import Counter
from dataclasses import dataclass, field
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.fingerprint.digests import digest
from pytest_seeddb.fingerprint.django_settings import OUR_APP
from pytest_seeddb.fingerprint.scanning import Imports, scan_units

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

MODULE: Final = ""
"""The name of the unit that is all code at module level."""

# What code may ask of other code beside its results; the words are names or strings in it.
DOCS: Final = "docstrings"
TEXT: Final = "text"
NAMES: Final = "names"
_ASKS: Final = {
    DOCS: frozenset({"__doc__", "getdoc", "inspect", "cleandoc"}),
    TEXT: frozenset(
        {
            *("getsource", "getsourcelines", "getsourcefile", "findsource", "getcomments", "getframeinfo", "linecache"),
            *("tokenize", "f_lineno", "tb_lineno", "lineno", "co_firstlineno", "co_code", "co_consts", "__code__"),
        }
    ),
    NAMES: frozenset({"vars", "dir", "globals", "locals", "getmembers", "getmembers_static", "__dict__", "attrgetter"}),
}
_EXECUTES: Final = frozenset({"exec", "eval"})
_BY_NAME: Final = frozenset({"getattr", "hasattr", "methodcaller"})
_TRIGGERS: Final = re.compile(rb"\b(exec|eval|getattr|hasattr|methodcaller)\b|import \*")
_WORD: Final = re.compile(r"[^\W\d]\w*")
_FUNCTION: Final = ast.FunctionDef | ast.AsyncFunctionDef
_RUNS: Final = (
    *(ast.Call, ast.NamedExpr, ast.Await, ast.JoinedStr),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)
_OPTIMIZED: Final = 1
"""The flag of a function's code, which that of a class or module has not."""
_BLOCKS: Final = ("body", "orelse", "finalbody", "handlers", "cases")
_HINT: Final = 6
"""Digits that tell a person which statement changed; the whole module's digest decides."""


@dataclass(frozen=True)
class Unit:
    """A function's body, or all code at module level: its digest, what it asks for, the words and imports in it."""

    digest: str
    asks: frozenset[str] = frozenset()
    executes: bool = False
    words: frozenset[str] = frozenset()
    imports: Imports = field(default_factory=Imports)


@dataclass(frozen=True)
class Outline:
    """A file's statements at module level, each with its name and digest, and its units.

    ``optional`` are the functions that count only where they ran, or are asked for. ``literals`` are names that one
    statement alone gives a value, which it spells out, and that no other statement mentions.
    """

    statements: tuple[tuple[str, str], ...]
    optional: frozenset[str]
    classes: frozenset[str]
    units: Mapping[str, Unit]
    literals: frozenset[str] = frozenset()

    def parts(self, executed: Collection[str], asked: Collection[str], unread: Collection[str] = ()) -> dict[str, str]:
        """The digests of what counts, by name: "" is the module's own, ``f()`` a function's, ``f(...)`` its head's.

        The values of ``unread`` do not count, which were literals, as long as they are.
        """
        bodies = {name for name in executed if name in self.units and name != MODULE}
        names = self.optional & {*executed, *asked}
        others = sorted({*unread} - self.literals)
        out = (self.optional - names).union(self.literals.intersection(unread))
        kept = [(name, value) for name, value in self.statements if name not in out]
        parts = {MODULE: digest(repr((kept, others) if others else kept))}
        parts |= {f"{name}()": self.units[name].digest for name in sorted(bodies)}
        parts |= {f"{name}(...)": value for name, value in kept if name in names}
        hints: dict[str, list[str]] = {}
        for name, value in kept:
            if name and name not in self.optional:
                hints.setdefault(name, []).append(value)
        return parts | {name: digest("".join(values))[:_HINT] for name, values in hints.items()}

    def is_complete(self, executed: Iterable[str]) -> bool:
        """Whether each of these functions is one of the file's, so that its text is what ran."""
        return all(name in self.units or name in self.classes or name.startswith("<") for name in executed)

    def executes(self, executed: Iterable[str]) -> bool:
        """Whether one of these functions executes text."""
        return any(self.units[name].executes for name in executed if name in self.units)


def unit_of(qualified_name: str) -> str:
    """The unit that code is in, by its name: what is nested, or a lambda of a class, is part of what is around it."""
    return qualified_name.partition(".<")[0]


def read_outline(source: bytes, *, docs: bool) -> Outline | None:
    """A file's outline, docstrings included or not; ``None`` where its text cannot be compiled."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about the user's string escapes
            return _Reader(source, docs=docs).outline()
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


class _Reader:
    def __init__(self, source: bytes, *, docs: bool) -> None:
        self._tree, self._docs = ast.parse(source), docs
        if OUR_APP.encode() in source:  # INSTALLED_APPS with it is as it was without
            _remove_our_app(self._tree)
        self._is_tricky = bool(_TRIGGERS.search(source))
        self._imports = scan_units(self._tree)
        self._functions: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]] = {}
        self._classes: set[str] = set()
        self._flags = 0
        self._bound = {*_bound(self._tree)} if b"typing" in source or b"TYPE_CHECKING" in source else {"*"}
        self._codes: dict[str, list[Any]] = {}
        self._prepare(self._tree, "", docs=docs)

    def _prepare(self, node: ast.AST, prefix: str, *, docs: bool) -> None:
        """Name all functions and classes, and remove what does not count."""
        _remove_types(node, self._bound)
        for statement in _statements(node):
            inner = prefix
            if isinstance(statement, ast.ClassDef):
                placing: tuple[ast.stmt | ast.expr, ...] = (statement, *statement.decorator_list)
                for placed in placing:  # Python 3.13 keeps a class's line
                    placed.lineno, placed.col_offset = 1, 0
                inner = f"{prefix}{statement.name}."
                if "<locals>" not in prefix:
                    self._classes.add(f"{prefix}{statement.name}")
            elif isinstance(statement, _FUNCTION):
                inner = f"{prefix}{statement.name}.<locals>."
                if "<locals>" not in prefix:
                    self._functions.setdefault(f"{prefix}{statement.name}", []).append(statement)
            elif isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
                for alias in statement.names:
                    self._flags |= getattr(futures, alias.name).compiler_flag
            self._prepare(statement, inner, docs=docs)
        is_documented = isinstance(node, ast.Module | ast.ClassDef | _FUNCTION) and not docs
        if is_documented and ast.get_docstring(node, clean=False) is not None:  # type: ignore[arg-type]
            body: list[ast.stmt] = node.body  # type: ignore[attr-defined]
            body[0] = ast.copy_location(ast.Pass(), body[0])

    def outline(self) -> Outline:
        for statement in self._tree.body:
            self._collect(self._compile(statement))
        units = {name: self._unit(name, nodes, self._codes.get(name, [])) for name, nodes in self._functions.items()}
        for nodes in self._functions.values():
            for function in nodes:
                is_documented = self._docs and ast.get_docstring(function, clean=False) is not None
                function.body = [function.body[0] if is_documented else ast.copy_location(ast.Pass(), function.body[0])]
        statements, codes = [], []
        for statement in self._tree.body:
            key = _key(code := self._compile(statement))
            statements.append((_name(statement), digest(marshal.dumps(key, 2))))
            codes.append((statement, code))
        counts: dict[str, bool] = {}  # a name that something else has, too, is not one function's
        for (name, _), statement in zip(statements, self._tree.body, strict=True):
            if name:
                counts[name] = counts.get(name, True) and self._is_optional(statement)
        optional = frozenset(name for name, is_optional in counts.items() if is_optional)
        kept = [pair for pair, (name, _) in zip(codes, statements, strict=True) if name not in optional]
        units[MODULE] = self._unit(MODULE, [node for node, _ in kept], [_key(code) for _, code in kept])
        literals = {name for name, count in Counter(name for name, _ in statements).items() if count == 1}
        literals &= {_name(node) for node, _ in kept if _is_literal(node)}
        rest = (_key(code) for node, code in kept if _name(node) not in literals)
        literals -= {*_words([*rest])}
        return Outline(tuple(statements), optional, frozenset(self._classes), units, frozenset(literals))

    def _compile(self, statement: ast.stmt) -> CodeType:
        module = ast.Module([statement], [])
        code: CodeType = compile(module, "", "exec", self._flags, dont_inherit=True, optimize=0)
        return code

    def _collect(self, code: CodeType) -> None:
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                if inner.co_qualname in self._functions:
                    self._codes.setdefault(inner.co_qualname, []).append(_key(inner))
                else:
                    self._collect(inner)

    def _is_optional(self, statement: ast.stmt) -> bool:
        """Whether it defines a function and does nothing else that could be noticed."""
        if not isinstance(statement, _FUNCTION) or statement.decorator_list or statement.name.startswith("__"):
            return False
        arguments = statement.args
        all_arguments = (
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            arguments.vararg,
            arguments.kwarg,
        )
        annotations = [argument.annotation for argument in all_arguments if argument] + [statement.returns]
        evaluated = [*arguments.defaults, *arguments.kw_defaults, *annotations]
        return not any(isinstance(node, _RUNS) for part in evaluated if part for node in ast.walk(part))

    def _unit(self, name: str, nodes: Sequence[ast.stmt], keys: list[Any]) -> Unit:
        # Python 3.13 lists the attributes that a class's methods set, in an order that is another in each process.
        has_classes = any(isinstance(inner, ast.ClassDef) for node in nodes for inner in _below(node))
        if name != MODULE and has_classes:
            value = digest("\n".join(map(ast.dump, nodes)))
        else:
            value = digest(marshal.dumps(keys, 2))
        words = frozenset(_words(keys))
        asks = {ask for ask, asking in _ASKS.items() if not asking.isdisjoint(words)}
        executes = False
        if self._is_tricky:
            for inner in (inner for node in nodes for inner in ast.walk(node)):
                match inner:
                    case ast.Name(id=called) if called in _EXECUTES:
                        executes = True
                    case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)) if called in _BY_NAME:
                        if not _is_plain(inner):
                            asks.add(NAMES)
                    case ast.ImportFrom(names=[ast.alias(name="*")]):
                        asks.add(NAMES)
        return Unit(value, frozenset(asks), executes, words, self._imports.get(name, Imports()))


def _is_plain(call: ast.Call) -> bool:
    """Whether a call asks for a name that it spells out, or for one of its own object."""
    match call.args:
        case [ast.Name(id="self" | "cls"), *_] | [_, ast.Constant(), *_]:
            return True
    return False


def _name(statement: ast.stmt) -> str:
    """The one name that a statement binds; "" where that cannot be told, or for an import."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case ast.AugAssign(target=ast.Name(id=name)):
            return name
    return ""


def _is_literal(statement: ast.stmt) -> bool:
    """Whether it gives a name a value that it spells out."""
    if not isinstance(statement, ast.Assign) or not _name(statement):
        return False
    try:
        ast.literal_eval(statement.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _remove_our_app(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple):
            node.elts = [item for item in node.elts if not (isinstance(item, ast.Constant) and item.value == OUR_APP)]


def _bound(tree: ast.AST) -> Iterator[str]:
    """The names that a file gives values, however deep, but not those from ``typing``."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=names):
                yield from (alias.asname or alias.name for alias in names)
            case ast.ImportFrom(names=names) if not _is_for_types(node, ()):
                yield from (alias.asname or alias.name for alias in names)


def _remove_types(node: ast.AST, bound: Collection[str]) -> None:
    """Remove the statements that only type checkers need: names from ``typing``, and what follows `TYPE_CHECKING`."""
    for block in _BLOCKS if "*" not in bound else ():
        statements = getattr(node, block, [])
        kept = [statement for statement in statements if not _is_for_types(statement, bound)]
        if len(kept) < len(statements):
            is_needed = block == "body" and not isinstance(node, ast.Module)
            setattr(node, block, kept or ([ast.copy_location(ast.Pass(), statements[0])] if is_needed else []))


def _is_for_types(statement: ast.AST, bound: Collection[str]) -> bool:
    match statement:
        case ast.ImportFrom(module="typing", names=names, level=0):
            return all(alias.asname is None and alias.name not in {"*", *bound} for alias in names)
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), orelse=[]):
            return "TYPE_CHECKING" not in bound
    return False


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for block in _BLOCKS:
        yield from getattr(node, block, ())


def _below(node: ast.AST) -> Iterator[ast.AST]:
    for statement in _statements(node):
        yield statement
        yield from _below(statement)


def _key(value: Any) -> Any:  # noqa: ANN401 - what `marshal` takes
    """What of compiled code counts, without the places of its lines, as `marshal` can write it."""
    if isinstance(value, CodeType):
        return (
            *("code", value.co_name, value.co_code, value.co_names, value.co_varnames, value.co_freevars),
            *(value.co_cellvars, value.co_flags, value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount),
            *(value.co_exceptiontable, tuple(map(_key, value.co_consts))),
        )
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    return tuple(map(_key, value)) if isinstance(value, tuple) else value


def _words(value: object) -> Iterator[str]:
    """All names in compiled code, and the words in its strings."""
    if isinstance(value, str):
        yield from _WORD.findall(value)
    elif isinstance(value, tuple | list | frozenset):
        for inner in value:
            yield from _words(inner)
