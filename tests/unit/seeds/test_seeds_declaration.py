"""The decorator: what it keeps, what it leaves alone, what it costs."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import subprocess
import sys

import pytest

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.seeds.declaration import seeder, seeder_of, seeders_in


def test_the_function_itself_is_given_back():
    def roles(session, count: int = 3):
        return session, count

    assert seeder(roles) is roles
    assert seeder(tier="demo")(roles) is roles
    assert roles("s", count=4) == ("s", 4)


def test_a_coroutine_function_stays_one():
    @seeder(name="async-roles")
    async def roles(session):
        return session

    assert inspect.iscoroutinefunction(roles)
    assert asyncio.run(roles(1)) == 1
    assert seeder_of(roles).name == "async-roles"


def test_one_name_or_function_after_needs_no_list():
    @seeder
    def first(): ...

    assert seeder_of(seeder(after=first)(lambda: None)).after == (first,)
    assert seeder_of(seeder(after="first")(lambda: None)).after == ("first",)
    assert seeder_of(seeder(after=(each for each in ["a", "b"]))(lambda: None)).after == ("a", "b")


def test_a_generator_given_as_after_serves_each_function_that_is_decorated():
    declare = seeder(after=(each for each in ["a"]))
    assert [seeder_of(declare(function)).after for function in (lambda: 1, lambda: 2)] == [("a",), ("a",)]


def test_a_wrong_tier_says_which_there_are():
    def roles(): ...

    with pytest.raises(ConfigError) as caught:
        seeder(tier="dmeo")(roles)
    line = roles.__code__.co_firstlineno
    assert str(caught.value) == (
        f"The seeder {__name__}:roles has an unknown tier\n"
        "  saw:  tier='dmeo'\n"
        f"  from: {__file__}:{line}\n"
        '  do:   write tier="essential" or tier="demo"'
    )


def test_what_takes_no_marks_is_refused():
    with pytest.raises(ConfigError, match="@seeder cannot mark <built-in function print>"):
        seeder(print)


def test_a_decorator_on_top_is_run_with_the_seeder():
    scope = {"__name__": "shop.seeds", "functools": functools, "seeder": seeder}
    code = """
def twice(function):
    @functools.wraps(function)
    def run(): return function() * 2
    return run
@twice
@seeder
def roles(): return 1
"""
    exec(code, scope)
    (noted,) = seeders_in(scope)
    assert (noted.identity, noted.function()) == ("shop.seeds:roles", 2)


def test_objects_that_answer_to_everything_are_no_seeders():
    class Proxy:
        def __getattribute__(self, name):
            raise RuntimeError(name)

    assert seeders_in({"__name__": "shop", "request": Proxy()}) == ()


def test_a_module_that_is_reloaded_has_each_seeder_once(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "reloaded_seeds.py"
    file.write_text(
        "from pytest_seeddb.seeds.declaration import seeder\n@seeder\ndef a(): ...\n@seeder\ndef b(): ...\n"
    )
    module = importlib.import_module("reloaded_seeds")
    file.write_text(file.read_text().replace("def b", "def longer"))
    importlib.reload(module)
    assert [each.name for each in seeders_in(vars(module))] == ["a", "longer"]


def test_an_application_that_declares_seeders_imports_no_framework():
    code = (
        "import sys; before = set(sys.modules); import pytest_seeddb.seeds.declaration\n"
        "print(*{each.partition('.')[0] for each in set(sys.modules) - before} - set(sys.stdlib_module_names))\n"
        "print('dataclasses' in sys.modules, 'inspect' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["pytest_seeddb", "False", "False"]
