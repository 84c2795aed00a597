"""Imports go down the five floors only, and the plugin's own import brings nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_seeddb

PACKAGE = Path(pytest_seeddb.__file__).parent

PYTEST_HALF = {
    "plugin", "fixtures", "aftermath", "markers", "collection", "package_scope", "overrides", "plain_errors", "report",
    "concealed_reports", "terminal", "factories", "integrations",
}  # fmt: skip
COMMAND_HALF = {"commands", "cli", "django"}
FLOORS = {
    1: {
        "concealment", "config", "config_files", "errors", "fingerprint", "inputs", "naming", "production", "readers",
        "unfinished",
    },
    2: {"address", "admin", "refusals", "server_errors", "servers"},
    3: {"numbering", "plan", "planning", "dumps", "ledger", "extensions", "application", "migrations", "seeds"},
    4: {
        "applying", "building", "carried", "changes", "clones", "contents", "database", "disposal", "emptying",
        "engines", "exports", "history", "inventory", "keeper", "kept_dumps", "pool", "pruning", "record", "registry",
        "rehearsal", "rewinding", "rollback", "scratch", "sequences", "settle", "shape", "shared", "soundness",
        "templates", "wear", "worker",
    },
    5: {"", *PYTEST_HALF, *COMMAND_HALF},
}  # fmt: skip
"""Where each module stands. A package's modules stand where it stands; ``""`` is what users import from."""

HEAVY = {
    "alembic", "asyncpg", "django", "factory", "faker", "numpy", "pg8000", "psycopg", "psycopg2", "rich", "sqlalchemy",
    "testcontainers",
}  # fmt: skip
LATE = {"platformdirs", *HEAVY}
"""What the modules that every run imports may import inside functions only."""


def top(name):
    """The part of a module's name that the table knows it by."""
    return name.partition(".")[0]


def floor(name):
    found = [number for number, modules in FLOORS.items() if top(name) in modules]
    assert len(found) == 1, f"the module {name!r} must stand on one floor of the table, and stands on {found}"
    return found[0]


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


MODULES = dict(modules())


def at_run_time(node):
    """The nodes below this one, without those that only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from at_run_time(child)


def imported(tree):
    """The absolute names that are imported at any time, from inside functions, too."""
    for node in at_run_time(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(tree):
    """The modules of ours among them."""
    names = {each.removeprefix("pytest_seeddb").removeprefix(".") for each in imported(tree) if is_ours(each)}
    return {name for name in names if name in MODULES} - {""}


def is_ours(name):
    return name == "pytest_seeddb" or name.startswith("pytest_seeddb.")


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_from_its_own_floor_and_those_below(name):
    upward = {each: floor(each) for each in ours(MODULES[name]) if floor(each) > floor(name)}
    assert not upward, f"{name} stands on floor {floor(name)}"


def test_the_table_names_nothing_that_is_not_there():
    assert set().union(*FLOORS.values()) == {top(name) for name in MODULES}


def test_the_two_halves_of_the_top_floor_never_import_each_other():
    for half, other in ((PYTEST_HALF, COMMAND_HALF), (COMMAND_HALF, PYTEST_HALF)):
        for name in (each for each in MODULES if top(each) in half):
            assert not {top(each) for each in ours(MODULES[name])} & other, name


def test_what_the_commands_do_knows_nothing_of_how_it_is_shown():
    for name in (each for each in MODULES if top(each) == "commands"):
        assert "cli" not in {top(each) for each in ours(MODULES[name])}, name


def test_only_the_pytest_half_imports_pytest():
    users = {top(name) for name, tree in MODULES.items() if {"pytest", "_pytest"} & set(map(top, imported(tree)))}
    assert users <= PYTEST_HALF


def test_only_the_command_line_prints_or_exits():
    def speaks(tree):
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        return {"print", "exit", "quit", "sys.exit"} & set(calls)

    apart = {"cli", "django"}  # the command, and the command by Django's way
    scripts = {"servers.guard", "servers.inside"}  # processes of their own
    assert {name for name, tree in MODULES.items() if speaks(tree) and top(name) not in apart} <= scripts


CODE = """
import json, sys
import pytest
before = set(sys.modules)
import {module}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def brought_by(module):
    """What its import brings, after pytest's own, in a fresh interpreter."""
    line = [sys.executable, "-c", CODE.format(module=module)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


PLUGIN = {
    "pytest_seeddb", "concealment", "errors", "seeds", "seeds.declaration", "config", "markers", "plugin", "readers",
}  # fmt: skip
EVERY_RUN = PLUGIN | {
    "aftermath", "collection", "fingerprint", "fixtures", "naming", "numbering", "overrides", "package_scope", "plan",
}  # fmt: skip


@pytest.mark.parametrize(("module", "allowed"), [("plugin", PLUGIN), ("fixtures", EVERY_RUN)])
def test_what_every_pytest_run_imports_is_a_short_list_of_ours_and_the_standard_library(module, allowed):
    found = brought_by(f"pytest_seeddb.{module}")
    assert {name.removeprefix("pytest_seeddb.") for name in found if is_ours(name)} <= allowed
    foreign = {top(name) for name in found if not is_ours(name)} - sys.stdlib_module_names
    assert foreign == set()
    costly = {"asyncio", "email", "http", "importlib.metadata", "multiprocessing", "ssl", "subprocess", "unittest"}
    assert not found & costly


def test_no_module_needs_a_framework_to_be_imported_on_the_way_to_a_plan():
    found = brought_by("pytest_seeddb.planning, pytest_seeddb.servers")
    assert not {top(name) for name in found} & LATE
