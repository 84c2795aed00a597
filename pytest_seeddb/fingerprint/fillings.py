"""Objects of one module that another one changes when it is imported: registries that are filled from elsewhere.

Whoever uses the registry does not import the module that fills it. What that is can be read from its text only: a call
of a method that changes its object, a call of a function that the registry's own code may define, or an assignment.
Calls whose result is used, or that are given nothing, put nothing anywhere, as `settings = get_settings()`.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CHANGES: Final = frozenset(
    {
        *("add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop", "popitem"),
        *("popleft", "register", "remove", "reverse", "setdefault", "sort", "update"),
    }
)
CHANGES: Final = _CHANGES | {"", "connect", "listen", "push", "put", "read_dict", "read_string", "set", "subscribe"}
"""The methods that change a container, registry, signal or the like; the empty one is an assignment.

Those that are not in ``_CHANGES`` do where nobody uses their result.
"""

DEFINES: Final = "class"
"""What a class statement does to what it is made of: its bases, its metaclass and what its attributes call."""
REGISTERS: Final = re.compile(rb"\b(__init_subclass__|__set_name__|__subclasses__|metaclass)\b|\(type\)")
"""What code has in it that knows classes of others."""

_FUNCTION: Final = ast.FunctionDef | ast.AsyncFunctionDef
_READY: Final = "ready"
"""What Django calls of each application when all are imported."""


@dataclass(frozen=True)
class Filling:
    """One change of an imported object: its names as in `Imports`, and the method or function that does it."""

    targets: frozenset[str]
    by: str


@dataclass
class Fillings:
    """The functions that a file's import calls; and, of each statement, its changes and the names in it."""

    called: set[str] = field(default_factory=set)
    changes: list[set[Filling]] = field(default_factory=list)
    bound: dict[str, set[str]] = field(default_factory=dict)
    binds: list[set[str]] = field(default_factory=list)
    mentions: list[set[str]] = field(default_factory=list)

    def needs(self, statements: Iterable[int]) -> frozenset[str]:
        """The imports, named as in `Imports`, of what these statements use, directly or by way of others."""
        statements = {*statements}
        bound = set[str]().union(*(self.binds[at] for at in statements))
        callers = {at for at, names in enumerate(self.mentions) if not names.isdisjoint(bound)}
        used, waiting = set[int](), {*statements, *callers}
        while waiting:
            used |= waiting
            names = set[str]().union(*(self.mentions[at] for at in waiting))
            waiting = {at for at, own in enumerate(self.binds) if not own.isdisjoint(names)} - used
        names = set[str]().union(*(self.mentions[at] for at in used))
        return frozenset().union(*(self.bound[name] for name in names if name in self.bound))

    def pack(self) -> list[Any]:
        """As JSON has it: what `unpack` reads."""
        changes = [[[sorted(change.targets), change.by] for change in own] for own in self.changes]
        bound = {name: sorted(texts) for name, texts in self.bound.items()}
        binds, mentions = ([sorted(names) for names in own] for own in (self.binds, self.mentions))
        return [sorted(self.called), changes, bound, binds, mentions] if changes else []

    @classmethod
    def unpack(cls, packed: list[Any]) -> Fillings:
        """Raises `ValueError` or `TypeError` for anything that `pack` never makes."""
        if not packed:
            return cls()
        called, changes, bound, binds, mentions = packed
        return cls(
            {*called},
            [{Filling(frozenset(targets), by) for targets, by in own} for own in changes],
            {name: {*texts} for name, texts in bound.items()},
            [*map(set, binds)],
            [*map(set, mentions)],
        )


def read_fillings(source: bytes) -> Fillings:
    """What a file changes of objects that it imports, while it is imported; nothing for invalid Python."""
    fillings = Fillings()
    try:
        with warnings.catch_warnings(action="ignore"):  # about the user's string escapes
            tree = ast.parse(source)
        functions: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]] = {}
        for node in ast.walk(tree):
            _bind(node, fillings.bound)
            if isinstance(node, _FUNCTION):
                functions.setdefault(node.name, []).append(node)
        changes: dict[ast.AST, set[Filling]] = {}
        for node in _running(tree, functions, fillings.called):
            for target, by in _changed(node):
                if texts := fillings.bound.get(_root(target)):
                    changes.setdefault(node, set()).add(Filling(frozenset(texts), by))
        for statement in tree.body if changes else ():
            nodes = [*ast.walk(statement)]
            names = [node for node in nodes if isinstance(node, ast.Name)]
            own = {statement.name} if isinstance(statement, ast.ClassDef | _FUNCTION) else set()
            fillings.binds.append({name.id for name in names if not isinstance(name.ctx, ast.Load)} | own)
            fillings.mentions.append({name.id for name in names})
            fillings.changes.append(set[Filling]().union(*(changes.get(node, ()) for node in nodes)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what parsing can end in
        return Fillings()
    return fillings if fillings.changes else Fillings()


def _bind(node: ast.AST, bound: dict[str, set[str]]) -> None:
    """Add the names that an import gives values, and what they stand for."""
    match node:
        case ast.Import(names=names):
            for alias in names:
                bound.setdefault(alias.asname or alias.name.partition(".")[0], set()).add(alias.name)
        case ast.ImportFrom(names=names):
            for alias in names:
                text = f"{'.' * node.level}{node.module or ''}:{alias.name}"
                bound.setdefault(alias.asname or alias.name, set()).add(text)


def _running(
    tree: ast.Module, functions: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]], called: set[str]
) -> Iterator[ast.AST]:
    """The nodes that run at the file's import: not those of functions, unless they are ``called`` by their names."""
    left = dict(functions)
    waiting: list[ast.AST] = [tree, *(statement for ready in left.pop(_READY, ()) for statement in ready.body)]
    while waiting:
        node = waiting.pop()
        yield node
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                waiting += node.decorator_list
                continue
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
                waiting += node.orelse
                continue
            case ast.Call():
                called.add(name := _last(node.func))
                waiting += (statement for function in left.pop(name, ()) for statement in function.body)
        waiting += ast.iter_child_nodes(node)


def _changed(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """The objects that a node changes, and the name of the method or function that does it; "" for an assignment."""
    match node:
        case ast.Expr(value=ast.Call(func=function) as call) if call.args or call.keywords:
            yield function, _last(function)
        case ast.Call(func=ast.Attribute(attr=name) as function) if name in _CHANGES:
            yield function, name
        case ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[target, *_]):
            yield target, ""
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from ((decorator, _last(decorator)) for decorator in node.decorator_list)
        case ast.ClassDef(bases=bases, keywords=keywords, body=body):
            yield from ((decorator, _last(decorator)) for decorator in node.decorator_list)
            values = [statement.value for statement in body if isinstance(statement, ast.Assign | ast.AnnAssign)]
            calls = [value for value in values if isinstance(value, ast.Call)]
            yield from ((part, DEFINES) for part in [*bases, *(keyword.value for keyword in keywords), *calls])
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            for target in targets:
                parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
                yield from ((part, "") for part in parts if isinstance(part, ast.Attribute | ast.Subscript))
        case ast.AugAssign(target=target):
            yield target, ""
        case ast.AnnAssign(target=ast.Attribute() | ast.Subscript() as target, value=ast.expr()):
            yield target, ""


def _last(node: ast.expr) -> str:
    """The name by which something is called, as ``append`` of ``registry.ITEMS.append``."""
    match node:
        case ast.Call(func=function):
            return _last(function)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return "?"


def _root(node: ast.expr) -> str:
    """The name with which an expression begins, as ``registry`` of ``registry.ITEMS[0].add(1)``."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
