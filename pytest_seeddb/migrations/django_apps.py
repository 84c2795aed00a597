"""Which of Django's applications a build could meet: all but plain code of the project that nothing asks for."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.django import app_modules
from pytest_seeddb.application.imports import is_users
from pytest_seeddb.fingerprint.django_settings import OUR_APP
from pytest_seeddb.fingerprint.modules import is_test
from pytest_seeddb.fingerprint.places import is_ignored

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_LOOKED_FOR: Final = frozenset(
    {"migrations", "models", "management", "templatetags", "templates", "jinja2", "static", "locale", "fixtures"}
)
"""What Django looks for in each application."""
_OPTIONS: Final = frozenset({"name", "label", "verbose_name", "default_auto_field", "default"})
_WITHOUT_EFFECT: Final = frozenset(
    {"path", "re_path", "as_view", "_", "gettext_lazy", "getLogger", "compile", "namedtuple", "TypeVar", "Library"}
)
_MOST: Final = 30
"""Files of an application that are read to see whether it is plain."""


def apps_that_count(installed: Iterable[Any], root: Path) -> list[Any]:
    """These entries of INSTALLED_APPS without our own application, and without plain ones.

    A plain application has nothing that Django looks for, and its import does nothing but define names. So it makes
    no difference to code that does not list all applications, which `pytest_seeddb.fingerprint.tracing` sees.
    """
    from django.apps import apps

    entries, configs = [*installed], [*apps.get_app_configs()]
    if len(configs) != len(entries):  # overridden by a test
        return entries
    known = app_modules()
    pairs = zip(entries, configs, strict=True)
    return [entry for entry, config in pairs if config.name != OUR_APP and not _is_plain(config, root, known)]


def _is_plain(config: Any, root: Path, known: Collection[str]) -> bool:  # noqa: ANN401 - Django has no types
    from django.apps import AppConfig
    from django.conf import settings

    kind, place = type(config), Path(config.path)
    has_own_methods = kind is not AppConfig and (
        kind.__bases__ != (AppConfig,) or not {name for name in vars(kind) if name[:2] != "__"} <= _OPTIONS
    )
    if has_own_methods or not is_users(str(place), root) or config.label in settings.MIGRATION_MODULES:
        return False
    if any(path.stem in _LOOKED_FOR for path in place.iterdir()):
        return False
    files = [path for path in place.rglob("*") if path.is_file() and not is_ignored(path.relative_to(place).parts)]
    files = [path for path in files if not is_test(path.name) and "tests" not in path.relative_to(place).parts]
    return len(files) <= _MOST and all(
        _Reader(config.name, len(path.relative_to(place).parts), known).is_plain(path) for path in files
    )


class _Reader:
    """Whether importing a file does nothing but define names: wherever that is not clear, it does not."""

    def __init__(self, package: str, depth: int, known: Collection[str]) -> None:
        self._package, self._depth, self._known = package, depth, known
        self._models: set[str] = set()
        """Names of classes that are no bases here: a class that has one is a model."""

    def is_plain(self, path: Path) -> bool:
        if path.suffix != ".py":
            return path.suffix not in {".so", ".pyd"}
        try:
            return all(map(self._defines, ast.parse(path.read_bytes()).body))
        except (OSError, SyntaxError, ValueError, RecursionError):
            return False

    def _defines(self, statement: ast.stmt) -> bool:
        is_plain = False
        match statement:
            case ast.Pass() | ast.Expr(value=ast.Constant()) | ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=[]):
                is_plain = True
            case ast.Import(names=names):
                is_plain = all(self._is_known(alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                bound = {alias.asname or alias.name for alias in names}
                is_models = level == 0 and module in self._known and str(module).endswith("models")
                self._models |= {a.asname or a.name for a in names if is_models or a.name == "Model"}
                is_known = level <= self._depth if level else self._is_known(module or "")
                is_plain = (is_models or is_known) and "*" not in bound
            case ast.FunctionDef(name=name, decorator_list=[]) | ast.AsyncFunctionDef(name=name, decorator_list=[]):
                is_called = name in {"__init_subclass__", "__set_name__", "__getattr__", *_WITHOUT_EFFECT}
                is_plain = not is_called and self._calls_nothing(statement.args, statement.returns)
            case ast.ClassDef(decorator_list=[], keywords=[], bases=bases, body=body):
                words = {word for base in bases for word in re.findall(r"\w+", ast.unparse(base))}
                is_model = not words.isdisjoint({"Model", *self._models})
                is_plain = not is_model and self._calls_nothing(*bases) and all(map(self._defines, body))
            case ast.Assign(targets=[ast.Name()], value=value):
                is_plain = self._calls_nothing(value)
            case ast.AnnAssign(target=ast.Name(), value=value, annotation=annotation):
                is_plain = self._calls_nothing(value, annotation)
        return is_plain

    def _is_known(self, module: str) -> bool:
        top = module.partition(".")[0]
        return top in {"django", *sys.stdlib_module_names} or f"{module}.".startswith(f"{self._package}.")

    def _calls_nothing(self, *nodes: ast.AST | None) -> bool:
        for inner in (inner for node in nodes if node for inner in ast.walk(node)):
            match inner:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in _WITHOUT_EFFECT:
                    continue
                case ast.Call() | ast.NamedExpr() | ast.Await():
                    return False
        return True
