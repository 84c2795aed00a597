"""`seeddb` sees the project as its tests do, unless a URL names the database."""

from __future__ import annotations

import sys

import pytest

from pytest_seeddb.application.django import find_settings
from pytest_seeddb.cli.parser import make_parser, settings_of
from pytest_seeddb.settings import pytest_files


@pytest.mark.parametrize(
    ("command", "is_of_tests"),
    [
        (["build"], True),
        (["explain"], True),
        (["dump"], True),
        (["dump", "--url", "postgresql://db/shop"], False),
        (["apply"], False),
        (["apply", "--url", "postgresql://db/shop"], False),
    ],
)
def test_the_variables_of_tests_say_nothing_about_a_database_of_a_url(command, is_of_tests, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("""
        [tool.seeddb]
        migrations = "db"
        [tool.pytest.ini_options]
        pythonpath = ["lib"]
        env = ["SEEDDB_PROFILE=of_tests"]
    """)
    monkeypatch.setattr(pytest_files, "find_spec", lambda _name: True)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("SEEDDB_PROFILE", "of the shell")

    settings = settings_of(make_parser().parse_args([*command, "-C", str(tmp_path)]))

    assert sys.path[0] == str(tmp_path / "lib")
    assert settings.profile == ("of_tests" if is_of_tests else "of the shell")


def test_django_s_settings_are_those_of_pytest_in_the_same_directory(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("""
        [tool.seeddb]
        migrations = "django"
        [tool.pytest.ini_options]
        addopts = "--ds=config.root"
    """)
    backend = tmp_path / "backend"
    backend.mkdir()
    (backend / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = config.test\n")
    (backend / "manage.py").write_text('os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.dev")\n')
    monkeypatch.setitem(sys.modules, "django.conf", None)  # as in a new process
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    for place, expected in ((backend, "config.test"), (tmp_path, "config.root")):
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "")
        settings = settings_of(make_parser().parse_args(["build", "-C", str(place)]))
        assert find_settings(settings.root, "the test") == (expected, backend)
