"""The threads and child processes that a test starts."""

import subprocess
import sys

END = """
import os, sys
from pytest_seeddb.application import offspring
offspring.Offspring()
class AtTheEnd:
    def __del__(self, remove=os.remove, path=sys.argv[1]):
        remove(path)
sys.kept = AtTheEnd()
"""


def test_what_runs_when_the_interpreter_ends_is_not_disturbed(tmp_path):
    path = tmp_path / "left.txt"
    path.touch()
    result = subprocess.run([sys.executable, "-c", END, path], capture_output=True, text=True, check=True)
    assert (result.stderr, path.exists()) == ("", False)
