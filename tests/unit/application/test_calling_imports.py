"""Import paths: what is found, and what is said about what is not."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import pytest

from pytest_seeddb.application.imports import check, innermost_frame, is_import_path, load
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.servers.address import Address

WHERE = "seeds in /x/pyproject.toml"


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"shop_{uuid.uuid4().hex}"
    (tmp_path / "src" / name).mkdir(parents=True)
    (tmp_path / "src" / name / "__init__.py").write_text("")

    def write(module, text):
        (tmp_path / "src" / name / f"{module}.py").write_text(text)
        return f"{name}.{module}"

    return write


def test_modules_and_attributes_are_found_under_the_root_and_its_src(package, tmp_path):
    module = package("db", "class Base:\n    metadata = 7\n")
    plain = f"plain_{uuid.uuid4().hex}"
    (tmp_path / f"{plain}.py").write_text("x = 1")
    assert load(f"{module}:Base.metadata", source=WHERE, root=tmp_path) == 7
    assert load(module, source=WHERE, root=tmp_path) is sys.modules[module]
    assert load(f"{plain}:x", source=WHERE, root=tmp_path) == 1
    assert load("os.path:join", source=WHERE, root=tmp_path)


@pytest.mark.parametrize("path", ["", "a b", "a:", ":b", "a/b", "a.b:c:d", "1a", "a..b"])
def test_what_is_no_import_path_is_refused(path, tmp_path):
    assert not is_import_path(path)
    with pytest.raises(ConfigError, match="is not an import path"):
        check(path, source=WHERE, root=tmp_path)


def test_a_missing_module_is_told_without_importing_its_package(package, tmp_path):
    module = package("models", "raise RuntimeError")
    with pytest.raises(ConfigError) as caught:
        load(module.replace("models", "model"), source=WHERE, root=tmp_path)
    assert "Did you mean 'models'?" in str(caught.value)
    assert WHERE in str(caught.value)


def test_a_missing_attribute_is_told(package, tmp_path):
    module = package("db", "engine = 1")
    with pytest.raises(ConfigError, match=r"no 'engin' in the module .*\n.*Did you mean 'engine'"):
        load(f"{module}:engin", source=WHERE, root=tmp_path)
    with pytest.raises(ConfigError, match="no 'nope' in the object 'int'"):
        load(f"{module}:engine.nope", source=WHERE, root=tmp_path)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("x = 1\n\nimport no_such_module_at_all\n", "no_such_module_at_all"),
        ("x = 1\n\nimport json; json.loads('{')\n", "JSONDecodeError"),
        ("x = 1\n\nraise SystemExit(3)\n", "SystemExit: 3"),
        ("x = 1\n\nx = = 2\n", "SyntaxError"),
    ],
)
def test_a_module_that_fails_is_told_with_the_line_of_the_users(text, seen, package, tmp_path):
    module = package("broken", text)
    with pytest.raises(ConfigError, match="fails while it is imported") as caught:
        load(module, source=WHERE, root=tmp_path)
    assert seen in str(caught.value)
    assert "broken.py:3" in str(caught.value)


def test_a_line_of_this_package_is_never_the_users_line():
    with pytest.raises(ConfigError) as caught:
        Address.parse("nothing", source=WHERE)
    frame = innermost_frame(caught.value, Path(__file__).parents[2])
    assert frame is not None
    assert frame.filename == __file__
