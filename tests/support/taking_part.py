"""Builds without a database: a process that runs `entry.rows()` as a step, and says which code took part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

from pytest_seeddb.fingerprint.digests import parts_from
from pytest_seeddb.fingerprint.participation import Participation, compare
from pytest_seeddb.fingerprint.recording import current

IS_EXACT = sys.version_info >= (3, 12)
"""Whether functions are told from each other, and not only files."""

BUILD = """
import json, os, sys
from pathlib import Path

root = Path.cwd()
sys.path[:0] = [str(root), str(root / "src")]
from pytest_seeddb.fingerprint import recording, tracing
from pytest_seeddb.fingerprint.closure import Closure
from pytest_seeddb.fingerprint.participation import Participation, Root

recording.begin(root)
exec(sys.argv[1])

def build():
    trace, path = tracing.Tracing(), [*sys.path]
    with recording.Recording(root) as opened, trace:
        trace.begin("seed entry:rows")
        import entry
        rows = entry.rows()
    trace.is_partial |= opened.has_children
    search, sys.path[:] = [*sys.path], path
    ran = Closure(root, trace, {"seed entry:rows": [Root("entry.py")]}, recording.loaded(root), search)
    ran = ran.after(Participation())
    read = recording.all_parts(opened.parts(), root, ran.files, follow=not tracing.is_exact())
    return ran.to_json(), [[part.name, part.digest] for part in read], rows

built = [build() for _ in range(int(sys.argv[2]))][-1]
print("\\nBUILT " + json.dumps(built))
"""


class Build:
    """What a build in a process of its own depends on, and what it made."""

    def __init__(self, root, before="", *, builds=1, python=(sys.executable,)):
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [*python, "-c", BUILD, textwrap.dedent(before), str(builds)]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
        assert "\nBUILT " in done.stdout, done.stderr
        ran, read, self.rows = json.loads(done.stdout.rpartition("\nBUILT ")[2])
        self.root, self.ran, self.read = root, Participation.from_json(ran), parts_from(read)

    def changes(self):
        """The names of the parts that are no longer as they were."""
        path = [*sys.path]
        sys.path[:0] = [str(self.root), str(self.root / "src")]
        try:
            before, after = compare(self.ran, self.root)
            now = current([part.name for part in self.read], self.root)
        finally:
            sys.path[:] = path
        pairs = zip((*before, ("read", self.read)), (*after, ("read", now)), strict=True)
        return {part.name for (_, was), (_, is_now) in pairs for part in set(was) ^ set(is_now)}
