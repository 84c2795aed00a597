"""What it costs a run to see that its template still holds, for a project with many modules.

    python benchmarks/lookup.py [--modules 500] [--rounds 15] [--profile]

Generates a project whose one seeder imports all of its modules, each of 60 lines, and notes what takes part in a run
of it. Then, in new processes, measures planning (what the steps declare, and the files that they may run) and the
comparison of what took part, beside reading the files alone. Nothing connects to a server. Times are the process's own,
so that others on the machine do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TABLE = '[tool.seeddb]\nname = "many"\nseeds = ["many.seeds"]\n'
SEEDS = """
from pytest_seeddb import seeder

@seeder
def rows():
    from many import {names}
    return [module.function_1() for module in ({names})]
"""
FUNCTION = """
def function_{number}(first=1, *, second="two"):
    \"\"\"Text.\"\"\"
    total = 0
    for value in range(first):
        total += value
    return total, second
"""
RECORD = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
from pytest_seeddb.fingerprint import recording, tracing
from pytest_seeddb.fingerprint.closure import Closure
from pytest_seeddb.fingerprint.participation import Participation, Root
root = Path.cwd()
recording.begin(root)
trace = tracing.Tracing()
with recording.Recording(root), trace:
    trace.begin("seed many.seeds:rows")
    import many.seeds
    many.seeds.rows()
ran = Closure(root, trace, {"seed many.seeds:rows": [Root("many/seeds.py")]}, recording.loaded(root))
Path("ran.json").write_text(json.dumps(ran.after(Participation()).to_json()))
"""
LOOK = """
import json, os, sys
from pathlib import Path
from time import process_time
sys.path.insert(0, os.getcwd())
from pytest_seeddb.fingerprint.participation import Participation, compare
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.settings.settings import load_settings
import platformdirs
root, times = Path.cwd(), []
ran = Participation.from_json(json.loads(Path("ran.json").read_text()))
settings = load_settings(root)

def measure(function):
    started = process_time()
    value = function()
    times.append(process_time() - started)
    return value

if len(sys.argv) > 1:
    import cProfile
    profile = cProfile.Profile()
    profile.runcall(lambda: (plan_of(settings).keys(()), compare(ran, root)))
    profile.print_stats("cumulative")
    sys.exit()
files = [*ran.contents]
measure(lambda: [open(root / file, "rb", buffering=0).readall() for file in files])
measure(lambda: plan_of(settings).keys(()))
before, now = measure(lambda: compare(ran, root))
assert before == now
print(json.dumps([len(files), *times]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lookup-") as place:
        project = Path(place, "project")
        write(project, parsed.modules)
        environment = {**os.environ, "XDG_CACHE_HOME": place}

        def run(script: str, *arguments: str) -> str:
            command = [sys.executable, "-c", script, *arguments]
            return subprocess.run(
                command, cwd=project, env=environment, check=True, text=True, capture_output=True
            ).stdout

        run(RECORD)
        run(LOOK)
        if parsed.profile:
            print(run(LOOK, "profile"))
            return
        rows = [json.loads(run(LOOK)) for _ in range(parsed.rounds)]
    files, *times = zip(*rows, strict=True)
    print(f"{files[0]} files, Python {sys.version_info.major}.{sys.version_info.minor}, medians of {len(rows)}")
    for name, values in zip(("reading the files", "planning", "comparing what took part"), times, strict=True):
        print(f"{name:<28}{statistics.median(values) * 1000:6.1f} ms   (min {min(values) * 1000:.1f})")


def write(project: Path, count: int) -> None:
    names = [f"module_{number}" for number in range(count)]
    (project / "many").mkdir(parents=True)
    (project / "pyproject.toml").write_text(TABLE)
    (project / "many" / "__init__.py").write_text("")
    (project / "many" / "seeds.py").write_text(SEEDS.format(names=", ".join(names)))
    for number, name in enumerate(names):
        before = f"from many import {names[number - 1]}\n" if number else ""
        functions = (FUNCTION.format(number=n) for n in range(8))
        (project / "many" / f"{name}.py").write_text(f"import json\n{before}\nVALUE = {number}\n{''.join(functions)}")


if __name__ == "__main__":
    main()
