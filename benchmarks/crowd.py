"""Whether many runs at once, and thousands after each other, cost each of them more.

    python benchmarks/crowd.py [--runs 10] [--build 8] [--sessions 2000] [--postgres 18] [--place DIRECTORY]

First: how long the slowest of ten pytest runs with the same plan takes that begin at once with an empty
cache, beside a single cold run; both of a few tests of examples/quickstart, with a seeder that takes eight seconds.
Whatever runs at once shares the cores, so ten warm runs at once, which build nothing, say what ten starts
of Python and ten times the tests take here; and the ratio is that of

    slowest of ten cold runs    to    a single cold run + (slowest of ten warm runs - a single warm run)

which is about 1 where the build is done once. The ratio to a single cold run alone is printed, too.

Then: how long a clone and a session take in the first hundred and in the last hundred of 2,000 sessions (each with
a lease of its own: the template, three clones that are changed and dropped) on one server that runs all the
time. Each of these takes turns with a session on a fresh server, which says what else the machine does
meanwhile; the ratio of last to first is that of what each of them was to the fresh server's.
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
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, Final

import psycopg

from pytest_seeddb import plan_of
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Found, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb import Plan, Server
    from pytest_seeddb.settings.settings import Settings

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart"
TESTS = "tests/test_reading.py"
SLOW = """

@seeder
def slow(session):
    session.execute(text("SELECT pg_sleep({seconds})"))
"""
ENDS: Final = 100
"""Sessions at each end that are compared."""
CLONES: Final = 3

Times = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--build", type=float, default=8.0, help="seconds that the slow seeder takes")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is done; medians are shown")
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--postgres", default="", help="major version")
    parser.add_argument("--place", type=Path, help="where the cache directories are made")
    parsed = parser.parse_args()
    if parsed.postgres:
        os.environ["SEEDDB_POSTGRES"] = parsed.postgres
    together = at_once(parsed) if parsed.runs else {}
    long = one_after_another(parsed) if parsed.sessions else {}
    print(json.dumps({**together, **long}))


@contextmanager
def cache(place: Path | None) -> Iterator[str]:
    """An empty cache directory that root's server account can enter, too; nothing runs in it at the end."""
    made = tempfile.mkdtemp(prefix="seeddb-bench-", dir=place)
    os.chmod(made, 0o755)  # noqa: PTH101 - a plain string here
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = made
    try:
        yield made
    finally:
        os.environ.pop("XDG_CACHE_HOME") if before is None else os.environ.update(XDG_CACHE_HOME=before)
        deadline = perf_counter() + 20
        while list(Path(made).glob("*/servers/*/data/postmaster.pid")) and perf_counter() < deadline:
            sleep(0.01)
        shutil.rmtree(made, ignore_errors=True)


# -- ten runs at once ----------------------------------------------------------------------------


def at_once(parsed: argparse.Namespace) -> dict[str, Any]:
    times: dict[str, list[float]] = {"cold": [], "warm": [], "cold, at once": [], "warm, at once": []}
    with tempfile.TemporaryDirectory() as place:
        project = Path(place) / "quickstart"
        shutil.copytree(QUICKSTART, project, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        seeds = next(project.rglob("seeds.py"))
        seeds.write_text(f"from sqlalchemy import text\n{seeds.read_text()}{SLOW.format(seconds=parsed.build)}")
        with cache(parsed.place):
            slowest(project, 1)  # bytecode
        for _ in range(parsed.rounds):
            for label, number in (("", 1), (", at once", parsed.runs)):
                with cache(parsed.place):
                    times[f"cold{label}"].append(slowest(project, number))
                    times[f"warm{label}"].append(slowest(project, number))
    return shown_at_once(times, parsed.runs)


def slowest(project: Path, number: int) -> float:
    """Seconds of the slowest of so many runs that begin at once."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--seed-db", TESTS]
    # Without bytecode every run would compile all of SQLAlchemy, which is not what is measured.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = perf_counter()
    runs = [subprocess.Popen(command, cwd=project, env=environment, **options) for _ in range(number)]
    for run in runs:
        told, _ = run.communicate()
        if run.returncode:
            sys.exit(told)
    return perf_counter() - started


def shown_at_once(times: dict[str, list[float]], runs: int) -> dict[str, Any]:
    found = {kind: statistics.median(values) for kind, values in times.items()}
    for kind, value in found.items():
        print(f"{kind.replace('at once', f'{runs} at once'):<18} {value:6.2f} s   (n={len(times[kind])})")
    fair = found["cold"] + found["warm, at once"] - found["warm"]
    ratios = {
        "slowest": found["cold, at once"] / found["cold"],
        "slowest beside its own tests": found["cold, at once"] / fair,
    }
    print(f"slowest of {runs} cold ones: {ratios['slowest']:.2f} x a single cold run", end="; ")
    print(f"{ratios['slowest beside its own tests']:.2f} x that and what {runs} warm ones cost more than one")
    return {kind: round(value, 3) for kind, value in {**found, **ratios}.items()}


# -- thousands after each other ------------------------------------------------------------------


def one_after_another(parsed: argparse.Namespace) -> dict[str, Any]:
    sys.path.insert(0, str(QUICKSTART))
    settings = load_settings(QUICKSTART, options={"server": Found("embedded", "--server")})
    plan, ends = plan_of(settings), min(ENDS, parsed.sessions // 2)
    with cache(parsed.place), open_server(settings) as old:
        print(f"PostgreSQL {old.version}, {parsed.sessions} sessions")
        first = compared(old, plan, settings, parsed.place, ends)
        for _ in range(parsed.sessions - 2 * ends):
            session(old, plan)
        last = compared(old, plan, settings, parsed.place, ends)
    return shown_ends(first, last, ends)


def compared(old: Server, plan: Plan, settings: Settings, place: Path | None, number: int) -> list[Times]:
    """So many sessions on the old server and as many on a fresh one, in turn: the medians of both."""
    with cache(place), open_server(settings) as fresh:
        session(fresh, plan)  # builds
        session(old, plan)
        found = [(session(old, plan), session(fresh, plan)) for _ in range(number)]
    return [{kind: statistics.median(pair[which][kind] for pair in found) for kind in found[0][0]} for which in (0, 1)]


def session(server: Server, plan: Plan) -> Times:
    """Milliseconds of one session, and of its mean clone."""
    cloning, started = 0.0, perf_counter()
    with Worker(server) as worker:
        template = worker.template(plan)
        for _ in range(CLONES):
            before = perf_counter()
            clone = worker.clones.make(template)
            cloning += perf_counter() - before
            with psycopg.connect(clone.address.conninfo, autocommit=True) as connection:
                connection.execute("CREATE TABLE extra (v int)")
            worker.clones.discard(clone)
    return {"clone": 1000 * cloning / CLONES, "session": 1000 * (perf_counter() - started)}


def shown_ends(first: list[Times], last: list[Times], ends: int) -> dict[str, Any]:
    found = {}
    for kind in first[0]:
        for when, (old, fresh) in (("first", first), ("last", last)):
            print(f"{kind:<8} {when:<5} {ends}: {old[kind]:6.1f} ms   beside a fresh server's {fresh[kind]:6.1f} ms")
        ratio = (last[0][kind] / last[1][kind]) / (first[0][kind] / first[1][kind])
        print(f"{kind:<8} last to first: {ratio:.2f}")
        found[f"{kind}, last to first"] = round(ratio, 3)
    return found


if __name__ == "__main__":
    main()
