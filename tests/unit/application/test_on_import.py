from __future__ import annotations

import importlib
import sys

import pytest

from pytest_seeddb.application.imports import on_import


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that nobody has imported, and another of the same package."""
    package = tmp_path / "awaited_package"
    package.mkdir()
    for name in ("__init__", "one", "other"):
        (package / f"{name}.py").write_text(f"value = {name!r}\n")
    (package / "broken.py").write_text("raise LookupError\n")
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    yield "awaited_package.one"
    for name in [name for name in sys.modules if name.startswith("awaited_package")]:
        del sys.modules[name]
    assert sys.meta_path == finders


def test_a_module_that_is_there_is_acted_on_at_once():
    seen = []
    with on_import("json", seen.append):
        assert seen == [sys.modules["json"]]
    assert len(seen) == 1


def test_a_module_that_comes_is_acted_on_when_its_code_has_run_and_is_as_it_was(module):
    seen = []
    with on_import(module, lambda found: seen.append(found.value)):
        importlib.import_module("awaited_package.other")
        assert seen == []
        found = importlib.import_module(module)
        assert seen == ["one"]
        assert "exec_module" not in vars(found.__loader__)
        importlib.reload(found)
    assert found.__loader__.get_source(module) == "value = 'one'\n"


def test_a_module_that_comes_too_late_is_not_acted_on(module):
    seen = []
    with on_import(module, seen.append):
        pass
    importlib.import_module(module)
    assert seen == []


def test_several_may_wait_for_a_module_and_blocks_may_be_nested(module):
    seen = []
    with on_import(module, lambda _: seen.append("outer")):
        with on_import(module, lambda _: seen.append("inner")):
            importlib.import_module(module)
        assert seen == ["outer", "inner"]


def test_looking_for_a_module_is_not_importing_it(module):
    seen = []
    with on_import(module, seen.append):
        assert importlib.util.find_spec(module) is not None
        assert importlib.util.find_spec("awaited_package.missing") is None
        assert seen == []


def test_a_module_that_fails_is_not_acted_on_and_its_error_passes(module):
    seen = []
    with on_import("awaited_package.broken", seen.append), pytest.raises(LookupError):
        importlib.import_module("awaited_package.broken")
    assert seen == []
