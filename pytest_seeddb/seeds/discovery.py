"""Find the seeders of modules: from their source where it says it all, else by importing them.

Most runs need nothing but the fingerprint, and that must not cost an import of the application. The
two ways give the same `Declaration`; which one was taken is not seen from outside.
"""

from __future__ import annotations

import tokenize
from dataclasses import dataclass
from pathlib import Path

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import relative_name
from pytest_seeddb.fingerprint.modules import Module, Modules
from pytest_seeddb.seeds.kinds import Declaration, Parameter
from pytest_seeddb.seeds.loading import imported_callable, imported_seeders
from pytest_seeddb.seeds.reading import Doubt, Outline, ReadFunction, ReadSeeder, outline

__all__ = ["Catalogue"]


@dataclass(frozen=True)
class _Located:
    """A module's file, and the package that its relative imports start from."""

    file: Path
    package: str


class Catalogue:
    """The seeders of a project, each module looked at once.

    Args:
        root: The project's root; modules are found there and on ``sys.path``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules = Modules(root)
        self._outlines: dict[str, Outline | None] = {}
        self._seeders: dict[str, tuple[Declaration, ...]] = {}

    def seeders(self, module: str, *, source: str) -> tuple[Declaration, ...]:
        """The seeders that the module declares, in order of declaration; perhaps none.

        Raises:
            ConfigError: There is no such module, it cannot be imported, or a declaration is wrong.
        """
        if module not in self._seeders:
            found = self._from_source(module)
            if not found:  # none at all is a doubt as well: somebody has named this module
                found = imported_seeders(module, root=self._root, source=source)
            self._seeders[module] = _distinct(found)
        return self._seeders[module]

    def callable(self, path: str, *, source: str) -> Declaration:
        """The function that ``module:attribute`` names, seeder or not.

        Raises:
            ConfigError: There is none.
        """
        module, _, attribute = path.partition(":")
        found = self._callable_from_source(module, attribute)
        return found or imported_callable(path, root=self._root, source=source)

    def _callable_from_source(self, module: str, attribute: str) -> Declaration | None:
        """The function, where the source tells; through the imports of other modules if need be."""
        seen = set()
        while (module, attribute) not in seen:
            seen.add((module, attribute))
            read = self._outline(module)
            seeders = self._from_source(module)
            if read is None or seeders is None:
                return None
            for seeder in seeders:
                if seeder.function == attribute:
                    return seeder
            if attribute in read.functions:
                return self._plain(module, read.functions[attribute])
            module, _, attribute = read.imports.get(attribute, "").rpartition(".")
        return None

    def _from_source(self, module: str) -> tuple[Declaration, ...] | None:
        read = self._outline(module)
        if read is None:
            return None
        try:
            return tuple(self._declaration(module, seeder, read) for seeder in read.seeders)
        except Doubt:
            return None

    def _outline(self, module: str) -> Outline | None:
        if module not in self._outlines:
            self._outlines[module] = self._read(module)
        return self._outlines[module]

    def _read(self, module: str) -> Outline | None:
        located = self._locate(module)
        if located is None:
            return None
        try:
            with tokenize.open(located.file) as file:
                return outline(file.read(), located.package, is_ours=self._is_ours)
        except (Doubt, OSError, SyntaxError, UnicodeDecodeError):
            return None  # the import says what is wrong

    def _declaration(self, module: str, seeder: ReadSeeder, read: Outline) -> Declaration:
        plain = self._plain(module, seeder.function)
        after = tuple(
            each if isinstance(each, str) else self._identity(module, each.path, read) for each in seeder.after
        )
        return Declaration(
            seeder.name,
            module,
            plain.function,
            seeder.tier,
            after,
            plain.parameters,
            plain.file,
            plain.line,
            plain.is_async,
            idempotent=seeder.idempotent,
        )

    def _plain(self, module: str, function: ReadFunction) -> Declaration:
        located = self._locate(module)
        parameters = tuple(
            Parameter(each.name, each.hint, each.default) for each in function.parameters if not each.is_database
        )
        file = relative_name(located.file, self._root) if located else module
        return Declaration(
            function.name,
            module,
            function.name,
            "essential",
            (),
            parameters,
            file,
            function.line,
            function.is_async,
            is_seeder=False,
        )

    def _identity(self, module: str, path: str, read: Outline) -> str:
        """The identity of the seeder that an element of ``after`` stands for."""
        of, _, attribute = path.rpartition(".")
        if not of:
            names = [each.name for each in read.seeders if each.function.name == attribute]
            if len(names) == 1:
                return f"{module}:{names[0]}"
            raise Doubt
        found = self._callable_from_source(of, attribute)
        if found is None or not found.is_seeder:
            raise Doubt
        return found.identity

    def _locate(self, module: str) -> _Located | None:
        found = self._modules.find(module)
        if not isinstance(found, Module) or not found.path.endswith(".py"):
            return None
        return _Located(Path(found.path), module if found.places else module.rpartition(".")[0])

    def _is_ours(self, package: str) -> bool:
        return isinstance(self._modules.find(package), Module)


def _distinct(found: tuple[Declaration, ...]) -> tuple[Declaration, ...]:
    first: dict[str, Declaration] = {}
    for each in found:
        if each.identity in first:
            raise ConfigError(
                f"Two seeders are called {each.identity}",
                saw=f"{first[each.identity].place}\n{each.place}",
                source=each.place,
                remedy='rename one, or give it another name: @seeder(name="...")',
            )
        first[each.identity] = each
    return found
