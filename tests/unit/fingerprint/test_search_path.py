"""Directories that files put on sys.path."""

from __future__ import annotations

import ast
import textwrap

import pytest

from pytest_seeddb.fingerprint.search_path import Search, path_changes
from pytest_seeddb.fingerprint.sources import Sources

SPELLINGS = {
    "the usual two lines": (
        "here = os.path.dirname(__file__)\nif here not in sys.path: sys.path.insert(0, here)",
        "app",
    ),
    "nested calls": ("sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))", ""),
    "join and pardir": ("sys.path.append(os.path.join(os.path.dirname(__file__), os.pardir, 'lib'))", "lib"),
    "pathlib": ("BASE = Path(__file__).resolve().parent.parent\nsys.path.append(str(BASE / 'lib'))", "lib"),
    "parents": ("sys.path.insert(0, str(pathlib.Path(__file__).parents[1].joinpath('lib', 'a')))", "lib/a"),
    "a word with a space": ("sys.path.insert(0, os.path.dirname(__file__) + '/my lib')", "app/my lib"),
    "an f-string": ("sys.path.insert(0, f'{os.path.dirname(__file__)}/lib')", "app/lib"),
    "relative": ("sys.path.insert(0, 'lib')", "lib"),
    "the working directory": ("sys.path.insert(0, os.path.join(os.getcwd(), 'lib'))", "lib"),
    "a slice": ("sys.path[:0] = [os.path.dirname(__file__)]", "app"),
    "a new list": ("sys.path = ['lib', *sys.path]", "lib"),
    "a sum": ("sys.path = [str(Path.cwd() / 'lib')] + sys.path", "lib"),
    "in place": ("sys.path += ['lib']", "lib"),
    "extended": ("sys.path.extend(os.path.join(os.path.dirname(__file__), name) for name in ('lib',))", "app/lib"),
    "mapped": ("sys.path.extend(map(str, [Path(__file__).parent / 'lib']))", "app/lib"),
    "a loop": ("for name in ['lib']:\n    sys.path.insert(0, os.path.join('x', '..', name))", "lib"),
    "a list by name": ("more = ['lib']\nsys.path.extend(more)", "lib"),
    "site": ("import site\nsite.addsitedir(os.path.join(os.path.dirname(__file__), 'lib'))", "app/lib"),
    "other names": ("import sys as s\nfrom site import addsitedir\ns.path.insert(0, 'lib')", "lib"),
    "the list's own name": ("from sys import path as p\np.insert(0, 'lib')", "lib"),
    "in a function": (
        "def f():\n    if (d := os.path.dirname(__file__)) not in sys.path: sys.path.insert(0, d)",
        "app",
    ),
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_usual_way_to_put_a_directory_on_the_path_is_understood(text):
    source, expected = SPELLINGS[text]
    search = Search.of(path_changes(ast.parse(source)), "/p/app/env.py", "/p/")
    assert search.front + search.end == (f"/p/{expected}".rstrip("/"),)


@pytest.mark.parametrize(
    "source",
    [
        "sys.path.insert(0, somewhere())",
        "path.insert(0, 'lib')",
        "a = a + 'x'\nsys.path.insert(0, a)",
        "sys.argv += ['x']",
    ],
)
def test_what_cannot_be_told_adds_nothing(source):
    assert path_changes(ast.parse(source)) == ()


@pytest.fixture
def write(tmp_path):
    def write(**files):
        for name, text in files.items():
            path = tmp_path / (name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return Sources(tmp_path, tmp_path / "cache.json")

    return write


INSERT = "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib'))\n"


def names(parts):
    return {part.name for part in parts if part.name != "python"}


def test_imports_from_there_are_followed_in_every_module_of_the_closure(write):
    sources = write(
        seeds="import paths, other", paths=INSERT, other="import helpers", lib__helpers="import deep", lib__deep=""
    )
    assert names(sources.of_module("seeds")) == {"seeds.py", "paths.py", "other.py", "lib/helpers.py", "lib/deep.py"}
    assert names(sources.of_module("other")) == {"other.py", "package helpers"}, "where it was not put on the path"


def test_a_directory_that_a_directory_on_the_path_adds_is_followed_too(write):
    nested = INSERT.replace("'lib'", "'more'") + "import last"
    sources = write(seeds=INSERT + "import helpers", lib__helpers=nested, lib__more__last="")
    assert names(sources.of_module("seeds")) == {"seeds.py", "lib/helpers.py", "lib/more/last.py"}


def test_what_runs_after_a_file_has_its_directories(write, tmp_path):
    sources = write(env=INSERT, migration="import helpers", lib__helpers="", helpers="")
    assert names(sources.of_module("migration")) == {"migration.py", "helpers.py"}
    later = sources.after(tmp_path / "env.py", within=tmp_path)
    assert names(later.of_module("migration")) == {"migration.py", "lib/helpers.py"}


def test_what_this_process_has_imported_makes_no_difference(write, tmp_path, monkeypatch):
    sources = write(seeds="import helpers_of_this_test", lib__helpers_of_this_test="")
    before = sources.of_module("seeds")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    __import__("helpers_of_this_test")
    monkeypatch.undo()
    assert Sources(tmp_path, tmp_path / "cache.json").of_module("seeds") == before
