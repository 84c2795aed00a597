"""What a test pays for a seeded state, by what it changes, beside the other ways to get one.

    pip install --group benchmarks
    python benchmarks/isolation.py [--template 60|500|1gb|all] [--json FILE] [--chart FILE.svg]
                                   [--workers 1,2,4] [--rounds N] [--seconds S] [--server URL] [--storage disk|memory]
                                   [--from FILE]

Every way does the same tests: get a database in the seeded state, connect, do the work, close, give the
database back. The floor connects to a database that nobody cleans up.

Measured are, on each template: what a test waits for, medians, all ways and all kinds of test in turn,
where drops and spares had the time that they need; what a suite of one kind of test costs, each way by
itself, test after test, in blocks, means, drops and spares included; and the same done by 1, 2 and 4 processes at
once, as with -n 0, -n 2 and -n 4. A way that takes long is measured less often, at least once.

Ratios: multiples of the floor's time for the same test; and how many times this project's overhead
over the floor the others' is: (peer - floor) / (auto - floor).

The ways beside this project's own: one clone and one drop by the cheapest means; the statements that
pgtestdb issues; pytest-postgresql's janitor in its template mode (left out where it is not installed);
TRUNCATE of all tables and the seeds anew, by COPY from memory, sequences left where they are; the flush
of Django's TransactionTestCase: its TRUNCATE alone, after which the seeds are gone (its tests work on
empty tables) and the schema stays changed, so it does not do that test.

The templates: 60 tables of 300 rows and one of 20,000, 17 MB; 500 and one; 60 and one of 1 GB. A
template is left out where there is no room for the copies that are needed at once, and the output says so.
All templates take a quarter of an hour on two cores that are busy otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import psycopg
from comparison.crowd import Part, crowd, part_of
from comparison.sizes import SIZES, Size, data_directory, in_memory, lacks_room, write_project
from comparison.tables import ratios, show
from comparison.timing import back_to_back, in_turn
from comparison.ways import chosen, open_bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from comparison.timing import Figures
    from comparison.ways import Bench

    from pytest_seeddb import Server

STARTED: Final = perf_counter()


def main() -> None:
    parsed = arguments()
    os.environ["SEEDDB_STORAGE"] = parsed.storage  # for the other processes, too
    draw = drawing() if parsed.chart else None
    found = shown(json.loads(parsed.source.read_text())) if parsed.source else measured(parsed)
    if parsed.json:
        parsed.json.write_text(json.dumps(found, indent=1) + "\n")
    if draw:
        draw(found["templates"], parsed.chart)


def drawing() -> Callable[[dict[str, Any], Path], None]:
    """Asked for before anything is measured: it needs a package that nothing else does."""
    from comparison.chart import draw

    return draw


def shown(found: dict[str, Any]) -> dict[str, Any]:
    for figures in found["templates"].values():
        show(figures)
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", choices=[*SIZES, "all"], default="60")
    parser.add_argument("--rounds", type=int, help="how often each way does each kind of test, at most")
    parser.add_argument("--seconds", type=float, help="how long it may take with one kind")
    parser.add_argument("--workers", type=numbers, default=[1, 2, 4], help="'' leaves that part out")
    parser.add_argument("--server", default="auto")
    parser.add_argument("--storage", choices=["auto", "disk", "memory"], default="auto", help="where clones are made")
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--chart", type=Path, help="draw the documentation's chart there, as SVG")
    parser.add_argument("--from", type=Path, dest="source", help="show and draw what an earlier --json wrote")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",") if each]


def measured(parsed: argparse.Namespace) -> dict[str, Any]:
    """Everything, as it goes into the JSON."""
    found: dict[str, Any] = {"machine": {}, "templates": {}, "left out": {}}
    for name in SIZES if parsed.template == "all" else [parsed.template]:
        size = SIZES[name].with_limits(parsed.rounds, parsed.seconds)
        with project(size) as place, open_bench(place, parsed.server, size) as bench:
            found["machine"] = found["machine"] or facts(bench.server)
            if reason := lacks_room(bench.server, size):
                found["left out"][name] = reason
                print(f"\n## {name}: left out: {reason}")
            else:
                found["templates"][name] = on_template(bench, place, parsed)
                show(found["templates"][name])
    return found


@contextmanager
def project(size: Size) -> Iterator[Path]:
    """The directory of a project whose template has that size."""
    with tempfile.TemporaryDirectory() as place:
        write_project(Path(place), size)
        yield Path(place)


def on_template(bench: Bench, place: Path, parsed: argparse.Namespace) -> dict[str, Any]:
    """One template's figures. The template is dropped: nobody else has a use for it."""
    say(f"building the template of {bench.size.tables} tables and a big one")
    template, load = bench.template, os.getloadavg()[0]
    try:
        medians, counts, means = one_process(place, parsed.server, bench.size)
        part = part_of(place, parsed.server, bench.size, means)
        return {
            "tables": bench.size.tables,
            "mb": round(template.record.size / 2**20, 1),
            "strategy": template.record.strategy,
            "load before": round(load, 1),
            "in turn": medians,
            "counts": counts,
            "back to back": means,
            "ratios": {"in turn": ratios(medians), "back to back": ratios(means)},
            "workers": {str(number): crowd_of(part, number) for number in parsed.workers},
        }
    finally:
        bench.worker("auto").admin.drop(template.name)


def one_process(place: Path, url: str, size: Size) -> tuple[Figures, Figures, Figures]:
    """Medians in turn, of how many, and means back to back."""
    with open_bench(place, url, size) as bench:
        ways = {name: make(bench) for name, make in chosen().items()}
        say("all ways in turn")
        medians, counts = in_turn(ways, size)
        say("each way back to back")
        return medians, counts, back_to_back(ways, size)


def crowd_of(part: Part, workers: int) -> Figures:
    say(f"processes at once: {workers}")
    return crowd(part, workers)


def say(what: str) -> None:
    print(f"{perf_counter() - STARTED:5.0f} s  {what}", file=sys.stderr, flush=True)


def facts(server: Server) -> dict[str, Any]:
    """What the figures depend on."""
    directory = Path(data_directory(server))
    found = {
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "psycopg": f"{psycopg.__version__} ({psycopg.pq.__impl__})",
        "pytest-postgresql": version("pytest-postgresql"),
        "PostgreSQL": server.version,
        "server": server.kind,
        "fsync": server.fsync,
        "clones in memory": server.memory is not None,
        "files in memory": in_memory(directory) if directory.exists() else None,
    }
    print(", ".join(f"{name} {value}" for name, value in found.items()))
    return found


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
