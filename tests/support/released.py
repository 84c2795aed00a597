"""An environment with the wheel of the last released version, made from the repository's history."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RELEASED = "136b9b2795053da63ec4cd471f05efcf0a0592e6"
"""The last commit whose ledgers, templates and servers are in use."""


class Environment:
    """A virtual environment that has the released version first, and this one after `upgrade`.

    All other packages are those of the tests' own environment.
    """

    def __init__(self, place):
        self.place = place
        self.python = place / "bin" / "python"
        source = place / "source"
        source.mkdir(parents=True)
        self._archive(source)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        site = subprocess.run(
            [self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        # Only as places to import from: no .pth file in them counts, so this version is not among them.
        dependencies = {sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("-packages"))}
        Path(site, "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(dependencies)))
        self._install(source)

    def upgrade(self):
        """Install this version over the released one, whose processes may be running."""
        self._install(ROOT)

    def run(self, *arguments, cwd, code=0, **variables):
        """`python -m` in a process of its own; what it printed."""
        done = subprocess.run(
            [self.python, "-m", *arguments],
            cwd=cwd, env=self.variables(**variables), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def variables(self, **more):
        return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more

    def seeddb(self, *arguments, **options):
        return self.run("pytest_seeddb.cli", *arguments, **options)

    def _archive(self, source):
        git = ["git", "-C", ROOT]
        if subprocess.run([*git, "cat-file", "-e", RELEASED], capture_output=True, check=False).returncode:
            pytest.fail(
                f"The released version is made from the commit {RELEASED[:7]}, which is not in {ROOT}: "
                "clone the whole history (git fetch --unshallow; actions/checkout with fetch-depth: 0)"
            )
        archive = subprocess.run([*git, "archive", RELEASED], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)

    def _install(self, source):
        wheels = self.place / "wheels" / source.name
        pip = [self.python, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", wheels, source], check=True)
        (wheel,) = wheels.glob("*.whl")
        subprocess.run([*pip, "install", "-q", "--no-deps", "--force-reinstall", wheel], check=True)
