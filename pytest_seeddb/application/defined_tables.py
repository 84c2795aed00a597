"""The modules that define the tables which a build creates from a ``MetaData``.

Such a module puts its tables there when it is imported, by whomever: a conftest or the application. The code that
creates them asks for no module.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_seeddb.application.imports import enter_on_import
from pytest_seeddb.fingerprint.tracing import note_module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from types import ModuleType


def noting_definitions() -> AbstractContextManager[None]:
    """In the block, the modules that define the tables of a ``MetaData`` take part in the step that creates them."""
    return enter_on_import("sqlalchemy", _listening)


@contextmanager
def _listening(sqlalchemy: ModuleType) -> Iterator[None]:
    def note(metadata: Any, *_: object, **__: object) -> None:  # noqa: ANN401 - a MetaData
        for name in {*_defining({*metadata.tables.values()})}:
            note_module(name)

    sqlalchemy.event.listen(sqlalchemy.MetaData, "before_create", note)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.MetaData, "before_create", note)


def _defining(tables: set[object]) -> Iterator[str]:
    """The names of the modules that have one of the tables, or define a class for one."""
    kinds = {type(table) for table in tables}
    for name, module in [*sys.modules.items()]:
        for value in [*getattr(module, "__dict__", {}).values()]:
            kind = type(value)  # not `isinstance`, which asks what stands in for something else
            if issubclass(kind, type):
                table = value.__dict__.get("__table__")
                if type(table) in kinds and table in tables:
                    yield value.__module__
            elif kind in kinds and value in tables:
                yield name
