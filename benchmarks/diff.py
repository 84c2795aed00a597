"""What it costs to see the rows that a test changed, beside counting them.

    python benchmarks/diff.py [--template 60|500|all] [--rounds 30]

Each round takes a clone, writes as the name of the line says, and calls `changes()` and `diff()`, one after the other.
The templates are those of `isolation.py`: so many tables of 300 rows, and one of 20,000. Prints medians in ms,
and ``diff`` as a multiple of ``changes``.
"""

from __future__ import annotations

import argparse
import statistics
from time import perf_counter
from typing import TYPE_CHECKING, Final

from comparison.sizes import SIZES
from comparison.ways import open_bench
from isolation import facts, project

if TYPE_CHECKING:
    from comparison.ways import Bench

WRITES: Final = {
    "nothing": "SELECT 1",
    "3 new rows": "INSERT INTO t1 (name) VALUES ('a'), ('b'), ('c')",
    "1 row updated": "UPDATE t2 SET name = 'x' WHERE id = 7",
    "10 tables updated": ";".join(f"UPDATE t{number} SET name = 'x' WHERE id = 7" for number in range(10)),
    "1 row of the big table": "UPDATE big SET name = 'x' WHERE id = 7",
    "a table more": "CREATE TABLE extra AS SELECT 1 AS v",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", choices=["60", "500", "all"], default="60")
    parser.add_argument("--rounds", type=int, default=30)
    parsed = parser.parse_args()
    for name in ("60", "500") if parsed.template == "all" else (parsed.template,):
        with project(SIZES[name]) as place, open_bench(place, "auto", SIZES[name]) as bench:
            facts(bench.server)
            print(f"{SIZES[name].tables} tables{'changes':>25}{'diff':>11}")
            for what, statement in WRITES.items():
                changes, diff = (1000 * statistics.median(times) for times in measured(bench, statement, parsed.rounds))
                print(f"{what:<24}{changes:6.1f} ms{diff:8.1f} ms{diff / changes:7.1f} x")
            bench.worker("auto").admin.drop(bench.template.name)


def measured(bench: Bench, statement: str, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds for each call of the two."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        with bench.worker("auto").database(bench.template) as database:
            with database.connect(autocommit=True) as connection:
                connection.execute(statement)
            for ask, seconds in zip((database.changes, database.diff), times, strict=True):
                started = perf_counter()
                ask()
                seconds.append(perf_counter() - started)
    return times


if __name__ == "__main__":
    main()
