"""`seeddb` sees the project as its tests do, unless a URL names the database."""

from __future__ import annotations

import sys

import pytest

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
