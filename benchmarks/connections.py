"""What a fixture's connection would cost if it were not made anew for each test.

    python benchmarks/connections.py [--rounds 300] [--work 10] [--server URL]

Four ways to get a connection to one and the same database, use it once and be done with it: connect and
close (as the fixtures do); one that stays, cleaned by DISCARD ALL; one that stays, as it is; one that a
thread has opened in advance. In turn, with some work of the test's own in between, and back to back.

Then what DISCARD ALL leaves behind, each tried: it ends no psycopg object's own state, and not all of
the server's.
"""

from __future__ import annotations

import argparse
import queue
import statistics
import threading
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import psycopg

from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Found, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    Way = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--work", type=float, default=10.0, help="milliseconds of a test's own work in between")
    parser.add_argument("--server", default="auto")
    parsed = parser.parse_args()
    settings = load_settings(Path.cwd(), options={"server": Found(parsed.server, "--server")})
    with open_server(settings) as server:
        print(f"PostgreSQL {server.version}, {server.kind}")
        found = ways(server.address.conninfo)
        show("in turn, with work in between", in_turn(found, parsed.rounds, parsed.work / 1000))
        show("back to back", back_to_back(found, parsed.rounds))
        print("\nDISCARD ALL leaves:")
        for what in left(server.address.conninfo):
            print(f"  {what}")


def ways(conninfo: str) -> dict[str, Way]:
    stays = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)
    opened: queue.Queue[psycopg.Connection[Any]] = queue.Queue()
    wanted: queue.Queue[bool] = queue.Queue()

    def open_in_advance() -> None:
        while wanted.get():
            opened.put(psycopg.connect(conninfo, autocommit=True))

    def anew() -> None:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("SELECT 1")

    def cleaned() -> None:
        stays.execute("SELECT 1")
        stays.execute("DISCARD ALL")

    def in_advance() -> None:
        with opened.get() as connection:
            wanted.put(True)
            connection.execute("SELECT 1")

    threading.Thread(target=open_in_advance, daemon=True).start()
    wanted.put(True)
    return {
        "anew": anew,
        "stays, DISCARD ALL": cleaned,
        "stays": lambda: stays.execute("SELECT 1"),
        "opened in advance": in_advance,
    }


def in_turn(found: dict[str, Way], rounds: int, work: float) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, way in found.items():
            end = perf_counter() + work
            while perf_counter() < end:
                sum(range(200))
            started = perf_counter()
            way()
            times[name].append(1000 * (perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def back_to_back(found: dict[str, Way], rounds: int) -> dict[str, float]:
    means = {}
    for name, way in found.items():
        started = perf_counter()
        for _ in range(rounds):
            way()
        means[name] = 1000 * (perf_counter() - started) / rounds
    return means


def show(title: str, times: dict[str, float]) -> None:
    print(f"\n{title}")
    for name, value in times.items():
        print(f"  {name:<20} {value:6.2f} ms  {value / times['anew']:5.2f} x")


def left(conninfo: str) -> list[str]:
    """What one test could leave to the next on the same connection."""
    found = []
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.row_factory = psycopg.rows.dict_row  # type: ignore[assignment]
        for _ in range(7):
            connection.execute("SELECT 1 WHERE %s", [True])  # prepared by then
        connection.execute("DISCARD ALL")
        try:
            connection.execute("SELECT 1 WHERE %s", [True])
        except psycopg.Error as error:
            found.append(f"psycopg's prepared statements: {str(error).splitlines()[0]}")
        if connection.row_factory is not psycopg.rows.tuple_row:
            found.append("row_factory, adapters and notice handlers of the connection's object")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute("DISCARD ALL")
        first = connection.execute("SELECT random()").fetchone()
        with psycopg.connect(conninfo, autocommit=True) as other:
            other.execute("SELECT setseed(0.5)")
            if other.execute("SELECT random()").fetchone() == first:
                found.append("the seed of random()")
        connection.execute("SET app.tenant = 'x'")
        connection.execute("DISCARD ALL")
        if connection.execute("SELECT current_setting('app.tenant', true)").fetchone() != (None,):
            found.append("a custom setting: empty text where there was nothing")
    return found


if __name__ == "__main__":
    main()
