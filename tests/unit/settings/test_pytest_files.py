"""pytest's configuration, as `seeddb` reads it."""

from __future__ import annotations

import sys

import pytest

from pytest_seeddb.application.django import find_settings
from pytest_seeddb.settings import pytest_files
from pytest_seeddb.settings.pytest_files import put_on_path, pytest_file, set_django_settings, set_variables

TOML = """
[tool.pytest.ini_options]
pythonpath = ["lib", "tests/support"]
DJANGO_SETTINGS_MODULE = "shop.settings.test"
env = ["D:A=1", "B=x-{A}", "R:C={A}", "U:GONE="]
env_files = [".env.test"]
"""
INI = """
pythonpath = lib tests/support
DJANGO_SETTINGS_MODULE = shop.settings.test
env =
    D:A=1
    B=x-{A}
    R:C={A}
    U:GONE=
env_files =
    .env.test
"""
FILES = {
    "pyproject.toml": TOML,
    "pytest.toml": TOML.replace("tool.pytest.ini_options", "pytest"),
    "pytest.ini": f"[pytest]{INI}",
    "tox.ini": f"[pytest]{INI}",
    "setup.cfg": f"[tool:pytest]{INI}",
}


SET = {
    "pytest_env": {"A": "2", "B": "x-2", "C": "{A}", "FROM_FILE": "1"},
    "pytest_dotenv": {"A": "set", "GONE": "1", "FROM_FILE": "1"},
}
"""What each plugin sets. They cannot be installed together: both have an option --envfile."""


def install(monkeypatch, plugin):
    monkeypatch.setattr(pytest_files, "find_spec", lambda name: name == plugin)


@pytest.mark.parametrize("plugin", SET)
@pytest.mark.parametrize("name", FILES)
def test_each_of_pytest_s_files_is_read_also_from_a_directory_below(name, plugin, tmp_path, monkeypatch):
    install(monkeypatch, plugin)
    (tmp_path / name).write_text(FILES[name])
    (tmp_path / ".env.test").write_text("FROM_FILE=1\nA=2\n")
    below = tmp_path / "apps" / "api"
    below.mkdir(parents=True)
    before = [*sys.path]
    monkeypatch.setattr(sys, "path", [*before])
    put_on_path(below)
    assert sys.path == [str(tmp_path / "lib"), str(tmp_path / "tests" / "support"), *before]
    environ = {"A": "set", "GONE": "1"}
    set_variables(below, environ)
    assert environ == SET[plugin]
    assert pytest_file(below).text("DJANGO_SETTINGS_MODULE") == "shop.settings.test"


@pytest.mark.parametrize("ini", ["pyproject.toml", "pytest.ini"])
def test_the_table_of_pytest_env_counts_whichever_file_pytest_reads(tmp_path, monkeypatch, ini):
    install(monkeypatch, "pytest_env")
    (tmp_path / "pytest.ini").write_text("[pytest]")
    if ini == "pyproject.toml":
        (tmp_path / "pytest.ini").unlink()
    (tmp_path / ".env.test").write_text("FROM_FILE=1\n")
    (tmp_path / "pyproject.toml").write_text("""
        [tool.pytest.ini_options]
        [tool.pytest_env]
        env_files = [".env.test"]
        A = 1
        B = {value = "{A}/b", transform = true}
        C = {value = "new", skip_if_set = true}
        D = {unset = true}
    """)
    environ = {"C": "old", "D": "1"}
    set_variables(tmp_path, environ)
    assert environ == {"A": "1", "B": "1/b", "C": "old", "FROM_FILE": "1"}


def test_pytest_dotenv_reads_the_nearest_env_file_without_being_told(tmp_path, monkeypatch):
    install(monkeypatch, "pytest_dotenv")
    (tmp_path / ".env").write_text("FROM_FILE=1\n")
    (below := tmp_path / "apps").mkdir()
    environ = {}
    set_variables(below, environ)
    assert environ == {"FROM_FILE": "1"}


def test_without_the_plugins_their_settings_are_nobody_s(tmp_path, monkeypatch):
    monkeypatch.setattr(pytest_files, "find_spec", lambda _name: None)
    (tmp_path / "pyproject.toml").write_text(TOML)
    environ = {}
    set_variables(tmp_path, environ)
    assert environ == {}


@pytest.mark.parametrize(
    "line",
    [
        'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings.test")',
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings.test'",
        'environ.setdefault(\n    "DJANGO_SETTINGS_MODULE",\n    "shop.settings.test",\n)',
        '# os.environ["DJANGO_SETTINGS_MODULE"] = "dev"\nos.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings.test"',
        '"""a["DJANGO_SETTINGS_MODULE"] = "x"."""\nos.environ.update(DJANGO_SETTINGS_MODULE="shop.settings.test")',
        'os.environ.update({"A": "b", "DJANGO_SETTINGS_MODULE": "shop.settings.test"})',
        'NAME = "shop.settings.test"\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", NAME)',
    ],
)
@pytest.mark.parametrize(
    ("place", "testpaths"), [(".", "qa"), ("tests", ""), ("qa", "qa"), ("qa", "q*"), ("backend", "backend/t?sts")]
)
def test_a_conftest_that_names_django_s_settings_counts_where_nothing_else_does(
    line, place, testpaths, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "django.conf", None)  # as in a new process
    (tmp_path / "pytest.ini").write_text(f"[pytest]\ntestpaths = {testpaths}\n")
    (tmp_path / place / "tests").mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "conftest.py").write_text(f"import os\n{line}\n")
    environ = {}
    set_django_settings(tmp_path, environ)
    assert environ == {"DJANGO_SETTINGS_MODULE": "shop.settings.test"}
    set_django_settings(tmp_path, environ := {"DJANGO_SETTINGS_MODULE": "other"})
    assert environ == {"DJANGO_SETTINGS_MODULE": "other"}


def test_options_of_the_environment_count_after_addopts(tmp_path, monkeypatch):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --ds=dev\n")
    (tmp_path / "manage.py").write_text('# "DJANGO_SETTINGS_MODULE", "x"\nset("DJANGO_SETTINGS_MODULE", "managed")')
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setitem(sys.modules, "django.conf", None)
    assert find_settings(tmp_path, "", "")[0] == "dev"
    monkeypatch.setenv("PYTEST_ADDOPTS", "-q --ds=test")
    assert find_settings(tmp_path, "", "")[0] == "test"
    (tmp_path / "pytest.ini").unlink()
    (tmp_path / "conftest.py").write_text('import os\nos.environ["DJANGO_SETTINGS_MODULE"] = "other"')
    set_django_settings(tmp_path, environ := {"DJANGO_SETTINGS_MODULE": "the shell's"})
    assert environ == {"DJANGO_SETTINGS_MODULE": "test"}
    monkeypatch.delenv("PYTEST_ADDOPTS")
    assert find_settings(tmp_path, "", "")[0] == "managed"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ["tests", "", "lib", "before"]),
        ("--import-mode append", ["lib", "before", "", "tests"]),
        ("--import-mode=importlib", ["lib", "before"]),
    ],
)
def test_the_directories_of_conftests_are_on_the_path_as_in_pytest(options, expected, tmp_path, monkeypatch):
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = lib\naddopts = {options}\n")
    for place in (".", "tests", "test_package/inner", "others"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "conftest.py").touch()
    (tmp_path / "test_package" / "__init__.py").touch()
    (tmp_path / "test_package" / "conftest.py").touch()  # belongs to a package that is in the root
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setattr(sys, "path", ["before"])
    put_on_path(tmp_path)
    assert sys.path == [place if place == "before" else str(tmp_path / place) for place in expected]


def test_a_file_that_pytest_refuses_is_left_to_pytest(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.pytest")
    (tmp_path / "tox.ini").write_text("[tox]\nenvlist = py\n")
    assert pytest_file(tmp_path).python_path == []
