"""What a seeded run costs beside its tests: a cold first run, a warm second run, plain pytest.

    python benchmarks/startup.py [--rounds 7] [--container IMAGE]

Runs one read-only test of examples/quickstart in subprocesses, the kinds in turn, each cold run with
an empty cache directory. Prints medians and what the warm run adds to a plain one. With --container the
same in a new container for each run: cold builds, warm restores the dump of the run before, and reused
finds the container of the run before.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart"
TEST = "tests/test_reading.py::test_the_seeders_have_run"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cold-rounds", type=int, default=3)
    parser.add_argument("--container", metavar="IMAGE", default="", help="also measure containers of this image")
    parser.add_argument("--place", type=Path, help="where the cache directories are made")
    parsed = parser.parse_args()
    times: dict[str, list[float]] = {"plain": [], "cold": [], "warm": []}
    for _ in range(parsed.cold_rounds):
        with cache(parsed.place) as directory:
            times["cold"].append(run(directory, "--seed-db"))
    with cache(parsed.place) as directory:
        run(directory, "--seed-db")
        for _ in range(parsed.rounds):
            times["plain"].append(run(directory))
            times["warm"].append(run(directory, "--seed-db"))
    if parsed.container:
        times |= in_containers(parsed)
    report(times)


def in_containers(parsed: argparse.Namespace) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"container, cold": [], "container, warm": [], "container, reused": []}
    os.environ.update(SEEDDB_SERVER="container", SEEDDB_IMAGE=parsed.container)
    for _ in range(parsed.cold_rounds):
        with cache(parsed.place) as directory:
            found["container, cold"].append(run(directory, "--seed-db"))
            found["container, warm"].append(run(directory, "--seed-db"))
            os.environ["SEEDDB_REUSE"] = "true"
            run(directory, "--seed-db")
            found["container, reused"].append(run(directory, "--seed-db"))
            del os.environ["SEEDDB_REUSE"]
            stop = [sys.executable, "-m", "pytest_seeddb.cli", "server", "stop"]
            environment = {**os.environ, "XDG_CACHE_HOME": directory}
            subprocess.run(stop, check=True, env=environment, cwd=QUICKSTART, capture_output=True)
    return found


class cache(tempfile.TemporaryDirectory):  # noqa: N801 - used as a context manager
    """A cache directory that root's server account can enter, too."""

    def __init__(self, place: Path | None) -> None:
        super().__init__(prefix="seeddb-bench-", dir=place, ignore_cleanup_errors=True)

    def __enter__(self) -> str:
        os.chmod(self.name, 0o755)  # noqa: PTH101 - a plain string here
        return self.name

    def __exit__(self, *error: object) -> None:
        deadline = perf_counter() + 10
        while list(Path(self.name).glob("*/servers/*/data/postmaster.pid")) and perf_counter() < deadline:
            pass
        shutil.rmtree(self.name, ignore_errors=True)
        super().__exit__(*error)


def run(directory: str, *options: str) -> float:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, TEST]
    # Without bytecode every run would compile all of SQLAlchemy, which is not what is measured.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    started = perf_counter()
    done = subprocess.run(
        command,
        cwd=QUICKSTART,
        env={**environment, "XDG_CACHE_HOME": directory},
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = perf_counter() - started
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return seconds


def report(times: dict[str, list[float]]) -> None:
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    for kind, values in times.items():
        print(f"{kind:<18} {medians[kind]:6.2f} s   (min {min(values):.2f}, max {max(values):.2f}, n={len(values)})")
    added = statistics.median(warm - plain for warm, plain in zip(times["warm"], times["plain"], strict=True))
    print(f"warm - plain, pair by pair: {added:.2f} s")
    print(json.dumps({**{kind: round(value, 3) for kind, value in medians.items()}, "added": round(added, 3)}))


if __name__ == "__main__":
    main()
