"""What a Django suite takes with this plugin, beside pytest-django alone: whole runs, and single tests.

    pip install django pytest-django
    python benchmarks/django_suite.py [--apps 20] [--migrations 200] [--tests 300] [--rounds 3]
                                      [--server auto|postgresql://...] [--workers 0] [--alone]

Generates a Django project in a temporary directory: so many apps, that many migrations among them, and
tests, half of which are `django_db` (a transaction that is rolled back) and half of which are
`django_db(transaction=True)` (they commit, and the tables are emptied afterwards). Runs it in subprocesses,
the kinds in turn, all on one server:

- create: pytest-django alone, `--create-db`: every migration is run
- reuse: pytest-django alone, `--reuse-db`, with the database of an earlier run
- cold: `--seed-db`, without a template and with an empty cache directory
- warm: `--seed-db`, with the template of the run before

Each with all tests, and with one of them: that is start-up, and little else.

Then what a further test costs: a run of few and a run of all tests of one kind, with a database or a template that
is there. What the second takes longer, divided by how many tests more it has; start-up is in both.

With --workers each whole run has so many xdist workers; single tests are measured in one process.
--alone leaves this plugin out. Prints medians and ratios. Untimed runs at the beginning make the database that
is kept and compile the bytecode.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg
from django_project import TESTS, counted, write_project
from psycopg import sql

from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Found, load_settings

if TYPE_CHECKING:
    from pytest_seeddb import Server

    Figures = dict[str, list[float]]

OPTIONS: Final = {
    "create": ("-p", "no:seeddb", "--create-db"),
    "reuse": ("-p", "no:seeddb", "--reuse-db"),
    "cold": ("--seed-db",),
    "warm": ("--seed-db",),
}
ALONE: Final = ("create", "reuse")
PREPARING: Final = {"reuse": ("-p", "no:seeddb", "--reuse-db", "--create-db"), "warm": ("--seed-db",)}
TARGETS: Final = {
    "all tests: cold / create": "at most 1.1",
    "all tests: warm / reuse": "below 1",
    "one test: cold / create": "at most 1.1",
    "one test: warm / reuse": "below 1",
    "transactional test: reuse / warm": "at least 5",
}


def main() -> None:
    parsed = arguments()
    name = f"suite-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="django-suite-", ignore_cleanup_errors=True) as place:
        settings = load_settings(Path(place), options={"server": Found(parsed.server, "--server")})
        write_project(Path(place) / "project", name, parsed)
        with open_server(settings) as server, Suite(Path(place), name, server, parsed) as suite:
            found = facts(server, parsed)
            kinds = ALONE if parsed.alone else tuple(OPTIONS)
            prepare(suite, kinds)
            times = {"all tests": whole_runs(suite, kinds), "one test": whole_runs(suite, kinds, limit=1)}
            report(found, times, single_tests(suite, kinds))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", type=int, default=20)
    parser.add_argument("--migrations", type=int, default=200, help="of all apps together")
    parser.add_argument("--tests", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", default="auto")
    parser.add_argument("--workers", type=int, default=0, help="xdist's; 0 is without")
    parser.add_argument("--alone", action="store_true", help="pytest-django alone, without this plugin")
    parsed = parser.parse_args()
    if not 1 <= parsed.apps <= parsed.migrations:
        parser.error("each app has at least one migration")
    if parsed.tests < 8 or parsed.rounds < 1:
        parser.error("at least 8 tests and one round")
    return parsed


class Suite:
    """The project and its server. Leaves none of its databases there."""

    def __init__(self, place: Path, name: str, server: Server, parsed: argparse.Namespace) -> None:
        self.project, self.cache = place / "project", place / "cache"
        self.server, self.parsed = server, parsed
        self.database = name.replace("-", "_")
        self.workers = ("-n", str(parsed.workers)) if parsed.workers else ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.drop(rf"^{self.database}_")
        self.drop_templates()

    def run(self, kind: str, *options: str, expected: int, limit: int = 0) -> float:
        """Seconds that a run takes, all of whose tests pass; the program ends where they do not."""
        command = [sys.executable, "-m", "pytest", *options]
        started = perf_counter()
        done = subprocess.run(
            command, cwd=self.project, env=self.environment(kind, limit), check=False, capture_output=True, text=True
        )
        seconds = perf_counter() - started
        passed = re.search(r"\b(\d+) passed", done.stdout)
        if done.returncode or not passed or int(passed[1]) != expected:
            sys.exit(f"{done.stdout}{done.stderr}\nnot {expected} passed in: {' '.join(command)}")
        return seconds

    def environment(self, kind: str, limit: int) -> dict[str, str]:
        # Without bytecode every run would compile Django and the migrations, which is not what is measured.
        unwanted = re.compile(r"PYTHONDONTWRITEBYTECODE|PYTEST_|DJANGO_|SEEDDB_|SUITE_")
        return {
            **{key: value for key, value in os.environ.items() if not unwanted.match(key)},
            "XDG_CACHE_HOME": str(self.cache),
            "SEEDDB_SERVER": self.server.address.url,
            "SUITE_SERVER": self.server.address.url,
            "SUITE_DATABASE": f"{self.database}_{kind if kind in ALONE else 'ours'}",
            "SUITE_LIMIT": str(limit),
        }

    def drop_templates(self) -> int:
        shutil.rmtree(self.cache, ignore_errors=True)
        return self.drop(rf"^seeddb_t_{self.database}_")

    def drop(self, pattern: str) -> int:
        """Drop the databases whose names match; how many there were."""
        with psycopg.connect(self.server.address.conninfo, autocommit=True) as connection:
            found = connection.execute("SELECT datname FROM pg_database WHERE datname ~ %s", [pattern]).fetchall()
            for (name,) in found:
                database = sql.Identifier(name)
                connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(database))
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database))
        return len(found)


def whole_runs(suite: Suite, kinds: tuple[str, ...], limit: int = 0) -> Figures:
    """Seconds that all tests take, or the first few of them, by kind of run."""
    times: Figures = {kind: [] for kind in kinds}
    for _ in range(suite.parsed.rounds):
        for kind in kinds:
            if kind == "cold" and not suite.drop_templates():
                sys.exit("the run before has left no template: what it did was not what is measured here")
            options = (*OPTIONS[kind], *suite.workers)
            times[kind].append(suite.run(kind, *options, expected=limit or suite.parsed.tests, limit=limit))
            say(f"{kind}, tests: {limit or suite.parsed.tests}: {times[kind][-1]:.2f} s")
    return times


def prepare(suite: Suite, kinds: tuple[str, ...]) -> None:
    number = counted("atomic", suite.parsed.tests)
    for kind in [each for each in PREPARING if each in kinds]:
        for more in {(), suite.workers}:
            suite.run(kind, *PREPARING[kind], *more, "-k", "atomic", expected=number)
        say(f"prepared {kind}")


def single_tests(suite: Suite, kinds: tuple[str, ...]) -> dict[str, Figures]:
    """Milliseconds that one test costs, by kind of run and kind of test."""
    found: dict[str, Figures] = {kind: {} for kind in PREPARING if kind in kinds}
    for _ in range(suite.parsed.rounds):
        for tests in TESTS:
            for kind, costs in found.items():
                costs.setdefault(tests, []).append(cost(suite, kind, tests))
                say(f"{kind} {tests} {costs[tests][-1]:.1f} ms")
    return found


def cost(suite: Suite, kind: str, tests: str) -> float:
    everything = counted(tests, suite.parsed.tests)
    few = max(everything // 10, 1)
    seconds = {
        number: suite.run(kind, *OPTIONS[kind], "-k", tests, expected=number, limit=number)
        for number in (few, everything)
    }
    return 1000 * (seconds[everything] - seconds[few]) / (everything - few)


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


# The report.


def facts(server: Server, parsed: argparse.Namespace) -> dict[str, Any]:
    found = {
        "PostgreSQL": server.version,
        "server": server.kind,
        "fsync": "on" if server.fsync else "off",
        "Django": metadata.version("django"),
        "pytest-django": metadata.version("pytest-django"),
        "Python": platform.python_version(),
        "processors": os.cpu_count(),
        **{key: getattr(parsed, key) for key in ("apps", "migrations", "tests", "rounds", "workers")},
    }
    print(", ".join(f"{name} {value}" for name, value in found.items()), flush=True)
    return found


def report(found: dict[str, Any], times: dict[str, Figures], costs: dict[str, Figures]) -> None:
    runs = {what: medians(each) for what, each in times.items()}
    tests = {kind: medians(each) for kind, each in costs.items()}
    for what, kind, values in ((what, kind, values) for what, each in times.items() for kind, values in each.items()):
        spread = f"min {min(values):.2f}, max {max(values):.2f}, n={len(values)}"
        print(f"{what:<9}  {kind:<6} {runs[what][kind]:7.2f} s   ({spread})")
    for name in TESTS:
        print(f"a further {name} test: " + ", ".join(f"{kind} {each[name]:.1f} ms" for kind, each in tests.items()))
    ratios = compared(runs, tests) if "warm" in tests else {}
    print(json.dumps({"machine": found, "seconds": runs, "ms": tests, "ratios": ratios}))


def medians(figures: Figures) -> dict[str, float]:
    return {name: round(statistics.median(values), 3) for name, values in figures.items()}


def compared(runs: dict[str, dict[str, float]], tests: dict[str, dict[str, float]]) -> dict[str, float]:
    ratios = {}
    for what, each in runs.items():
        ratios[f"{what}: cold / create"] = each["cold"] / each["create"]
        ratios[f"{what}: warm / reuse"] = each["warm"] / each["reuse"]
    for name in TESTS:
        ratios[f"{name} test: reuse / warm"] = tests["reuse"][name] / tests["warm"][name]
    for name, value in ratios.items():
        print(f"{name}: {value:.2f}" + (f"   (target: {TARGETS[name]})" if name in TARGETS else ""))
    return {name: round(value, 3) for name, value in ratios.items()}


if __name__ == "__main__":
    main()
