"""The types that a user's checker sees, who has the package from a wheel and no checkout beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

WRONG = """
from pytest_seeddb import SeededDatabase

def number_of(seeded_db: SeededDatabase) -> int:
    return seeded_db.url
"""


def run(*command, **options):
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """Runs mypy in an environment that has the wheel, which is built from the source distribution."""
    place = tmp_path_factory.mktemp("installed")
    python, dist = place / "venv/bin/python", place / "dist"

    def do(*command):
        done = run(*command, cwd=place)
        assert done.returncode == 0, done.stdout + done.stderr

    do(sys.executable, "-m", "venv", place / "venv")
    do(python, "-m", "pip", "install", "-q", "build", "mypy")
    do(python, "-m", "build", "--outdir", dist, REPOSITORY)
    do(python, "-m", "pip", "install", "-q", *dist.glob("*.whl"))
    return lambda file: run(python, "-m", "mypy", "--strict", "--config-file=", file, cwd=place)


@pytest.mark.slow
def test_what_users_write_has_the_types_that_they_expect(mypy):
    done = mypy(REPOSITORY / "tests/typing/api.py")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_checker_finds_a_wrong_use_of_the_installed_package(mypy, tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    told = mypy(wrong).stdout
    assert 'got "str", expected "int"' in told, told
