"""Imports go down the floors, in no circle, and the plugin's own import brings nothing heavy."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pytest_seeddb

PACKAGE = Path(pytest_seeddb.__file__).parent

FLOORS = (
    ("errors",),
    ("settings", "fingerprint"),
    ("servers",),
    ("plan",),
    ("application", "dumps"),
    ("migrations", "templates"),
    ("seeds",),
    ("clones",),
    ("plugin", "cli"),
    ("django", "__init__"),
)
"""From the ground up. Folders on one floor never import each other."""

HEAVY = {
    "alembic", "asyncpg", "django", "factory", "faker", "numpy", "pg8000", "psycopg", "psycopg2", "rich", "sqlalchemy",
    "testcontainers",
}  # fmt: skip
LATE = {"platformdirs", *HEAVY}
"""What the modules that every run imports may import inside functions only."""


def top(name):
    """The first part of a module's name below the package: its folder."""
    return name.partition(".")[0] or "__init__"


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


MODULES = dict(modules())


def imported(tree):
    """The absolute names that are imported at any time: inside functions and for type checkers, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            modules = {name for alias in node.names if is_ours(name := f"{node.module}.{alias.name}")}
            submodules = {name for name in modules if relative(name) in MODULES}
            yield from submodules
            if len(submodules) < len(node.names):
                yield node.module


def is_ours(name):
    return name == "pytest_seeddb" or name.startswith("pytest_seeddb.")


def relative(name):
    return name.removeprefix("pytest_seeddb").removeprefix(".")


def ours(tree):
    """The modules of the package among them."""
    return {relative(name) for name in imported(tree) if is_ours(name)}


def test_the_root_holds_the_floors_and_nothing_else():
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    named = {name for floor in FLOORS for name in floor}
    assert {name.removesuffix(".py") for name in entries} == {*named, "py.typed"}


def test_contributing_has_the_same_floors():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    layers = text.split("## Layers", 1)[1].split("\n## ", 1)[0]
    floors = re.findall(r"^\d+\. (.+)$", layers, re.MULTILINE)
    assert tuple(tuple(re.findall(r"`(\w+)`", floor)) for floor in floors) == FLOORS
    described = re.findall(r"^\| `(\w+)/?` \|", layers, re.MULTILINE)
    assert sorted(described) == sorted(name for floor in FLOORS for name in floor)


def test_imports_go_down():
    number = {name: at for at, floor in enumerate(FLOORS) for name in floor}
    upward = {
        f"{name} imports {other}"
        for name, tree in MODULES.items()
        for other in ours(tree)
        if top(name) != top(other) and number[top(other)] >= number[top(name)]
    }
    assert not upward


def test_imports_make_no_circle():
    try:
        TopologicalSorter({name: ours(tree) - {name} for name, tree in MODULES.items()}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_only_the_plugin_imports_pytest():
    users = {top(name) for name, tree in MODULES.items() if {"pytest", "_pytest"} & set(map(top, imported(tree)))}
    assert users == {"plugin"}


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


@pytest.mark.parametrize("module", ["plugin", "plugin.fixtures"])
def test_what_every_pytest_run_imports_is_a_short_list_of_ours_and_the_standard_library(module):
    names = brought_by(f"pytest_seeddb.{module}")
    assert len([name for name in names if is_ours(name)]) <= 24
    foreign = {top(name) for name in names if not is_ours(name)} - sys.stdlib_module_names
    assert foreign == set()
    assert not names & {
        f"pytest_seeddb.plugin.{name}" for name in ("page", "recorder", "uses")
    }  # where a report is asked for
    costly = {"asyncio", "email", "http", "importlib.metadata", "multiprocessing", "ssl", "subprocess", "unittest"}
    assert not names & costly


def test_pytest_does_not_rewrite_the_asserts_of_the_packages_modules(tmp_path):
    header = (
        "import sys\n\ndef pytest_report_header():\n    return 'by ' + type(sys.modules['{}'].__loader__).__name__\n"
    )
    (tmp_path / "conftest.py").write_text(header.format("pytest_seeddb.plugin.fixtures"))
    line = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", str(tmp_path)]
    assert "by SourceFileLoader" in subprocess.run(line, capture_output=True, text=True, check=False).stdout


def test_no_module_needs_a_framework_to_be_imported_on_the_way_to_a_plan():
    names = brought_by("pytest_seeddb.seeds.planning, pytest_seeddb.servers.opening")
    assert not {top(name) for name in names} & LATE


@pytest.mark.slow
def test_parsing_the_command_line_needs_no_framework_and_no_command_imports_rich():
    assert not {top(name) for name in brought_by("pytest_seeddb.cli")} & LATE
    commands = ", ".join(f"pytest_seeddb.{name}" for name in MODULES if top(name) == "cli")
    assert "rich" not in brought_by(commands)


def test_each_module_has_at_most_500_lines():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > 500} == {}
