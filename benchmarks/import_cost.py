"""What importing the plugin adds to each pytest run of everybody who has it installed.

    python benchmarks/import_cost.py [--rounds 21]

Each round is a fresh interpreter that has imported pytest. Prints the median in milliseconds of
importing `pytest_seeddb.plugin` (its entry point: every run) and then `pytest_seeddb.plugin.fixtures` (every
run that is not `--help`), and that of importing pytest itself, to compare with.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

CODE = """
import json, time
times = []
for module in ("pytest", "pytest_seeddb.plugin", "pytest_seeddb.plugin.fixtures"):
    started = time.perf_counter()
    __import__(module)
    times.append(1000 * (time.perf_counter() - started))
print(json.dumps(times))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = [measured() for _ in range(parser.parse_args().rounds)]
    for name, times in zip(("pytest", "plugin", "fixtures"), zip(*rounds, strict=True), strict=True):
        print(f"{name:<10}{statistics.median(times):7.1f} ms  (least {min(times):.1f}, most {max(times):.1f})")


def measured() -> list[float]:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


if __name__ == "__main__":
    main()
