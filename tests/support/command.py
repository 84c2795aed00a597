"""The `seeddb` command as people and scripts meet it, and pytest: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

QUICK = [
    *("-p", "no:randomly", "-p", "no:cacheprovider"),
    *("-p", "no:hypothesispytest", "-p", "no:faker", "-p", "no:anyio"),
]
"""Options for pytest without the plugins that no test inside of it needs: loading them takes half of a short run."""
WITHOUT_XDIST = ["-p", "no:xdist", "-p", "no:xdist.looponfail"]


class Command:
    """`seeddb` in a directory, in a process of its own."""

    def __init__(self, path, **environment):
        self.path = path
        self.environment = environment

    def __call__(self, *arguments, code=0, **options):
        done = subprocess.run(
            self._line(arguments), capture_output=True, text=True, check=False, **self._options(), **options
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def start(self, *arguments, **options):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(self._line(arguments), **self._options(), **{**pipes, **options})

    def _options(self):
        return {"cwd": self.path, "env": {**os.environ, **self.environment}}

    def _line(self, arguments):
        return [sys.executable, "-W", "error", "-m", "pytest_seeddb.cli", *arguments]
