"""What each isolation costs a test that reads one row, against a bare connection.

    python benchmarks/per_test.py [--rounds 100] [--server postgresql://...]

The floor is: connect, SELECT 1, close. The others are: get the database, connect, SELECT 1, close,
give the database back; once as the fixtures do, and once as a test that reads the database's URL, so that
its clone gets another name. All kinds in turn, on the template of examples/quickstart; drops go on
beside it, as in a run. Prints medians in milliseconds and ratios to the floor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import psycopg

from pytest_seeddb import plan_of
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Found, load_settings

if TYPE_CHECKING:
    from pytest_seeddb import Template
    from pytest_seeddb.servers.address import Address

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart"
ISOLATIONS = ("clone", "rollback", "readonly")
URL_READ = ", URL read"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--server", default="auto")
    parsed = parser.parse_args()
    sys.path.insert(0, str(QUICKSTART))
    settings = load_settings(QUICKSTART, options={"server": Found(parsed.server, "--server")})
    with open_server(settings) as server, Worker(server) as worker:
        print(f"PostgreSQL {server.version}, {server.kind}, fsync {'on' if server.fsync else 'off'}")
        template = worker.template(plan_of(settings))
        report(measured(worker, template, server.address, parsed.rounds))


def measured(worker: Worker, template: Template, address: Address, rounds: int) -> dict[str, list[float]]:
    kinds = [isolation + suffix for suffix in ("", URL_READ) for isolation in ISOLATIONS]
    times: dict[str, list[float]] = {kind: [] for kind in ("floor", *kinds)}
    for suffix in ("", URL_READ):
        for _ in range(rounds):
            started = perf_counter()
            read(address)
            times["floor"].append(perf_counter() - started)
            for isolation in ISOLATIONS:
                started = perf_counter()
                with worker.database(template, isolation) as database:
                    read(database.address if suffix else database.own_address)
                times[isolation + suffix].append(perf_counter() - started)
    return times


def read(address: Address) -> None:
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        connection.execute("SELECT 1")


def report(times: dict[str, list[float]]) -> None:
    medians = {kind: 1000 * statistics.median(values) for kind, values in times.items()}
    for kind, value in medians.items():
        print(f"{kind:<18} {value:6.1f} ms   {value / medians['floor']:4.1f} x")
    print(json.dumps({kind: round(value, 2) for kind, value in medians.items()}))


if __name__ == "__main__":
    main()
