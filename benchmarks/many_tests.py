"""Whether anything grows over a long session: memory, files, connections, databases.

    python benchmarks/many_tests.py [--tests 10000]

Runs that many tests in one pytest process, which read, write, use sequences and now and then change the
schema, on examples/quickstart. Prints what the process and the server hold after a tenth of them
and at the end. Then as many plain tests, which connect to a database of the same server and do
nothing else, with the plugin turned off: so much grows with pytest's own reports. The difference is
the plugin's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import load_settings

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart"
LOOKING = """
import json, os
from pathlib import Path
import psycopg, pytest

NUMBER = {number}
SERVER = os.environ["BENCHMARK_SERVER"]

def look(number):
    if number not in (NUMBER // 10, NUMBER - 1):
        return
    status = Path("/proc/self/status").read_text()
    memory = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    with psycopg.connect(SERVER) as connection:
        connections, = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL").fetchone()
        databases, = connection.execute("SELECT count(*) FROM pg_database").fetchone()
    files = len(os.listdir("/proc/self/fd"))
    found = dict(tests=number + 1, mb=int(memory) / 1024, files=files, connections=connections, databases=databases)
    with Path(__file__).with_suffix(".jsonl").open("a") as told:
        told.write(json.dumps(found) + "\\n")
"""
SEEDED = """
@pytest.mark.parametrize("number", range(NUMBER))
def test_it(number, seeded_db):
    with seeded_db.connect(autocommit=True) as connection:
        table, = connection.execute("SELECT min(relname) FROM pg_class WHERE relkind = 'S'").fetchone()
        if number % 3 == 1:
            connection.execute(f"SELECT nextval('{table}')")
        if number % 3 == 2:
            connection.execute("UPDATE customers SET name = 'changed'")
        if number % 100 == 99:
            connection.execute("CREATE TABLE extra (v int)")
    look(number)
"""
PLAIN = """
@pytest.fixture
def database():
    return SERVER

@pytest.mark.parametrize("number", range(NUMBER))
def test_it(number, database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT min(relname) FROM pg_class WHERE relkind = 'S'").fetchone()
    look(number)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=10_000)
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        project = Path(place) / "quickstart"
        shutil.copytree(QUICKSTART, project, ignore=shutil.ignore_patterns("tests", ".*"))
        # Held for both runs, so that they have the same server.
        with open_server(load_settings(project)) as server:
            os.environ["BENCHMARK_SERVER"] = server.address.conninfo
            seeded = run(project, "seeded", LOOKING.format(number=parsed.tests) + SEEDED, "--seed-db")
            plain = run(project, "plain", LOOKING.format(number=parsed.tests) + PLAIN, "-p", "no:seeddb")
    report(seeded, plain)


def run(project: Path, name: str, code: str, *options: str) -> list[dict[str, Any]]:
    """What was held after a tenth of the tests and at the end."""
    file = project / f"test_{name}.py"
    file.write_text(code)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--no-header",
        "--rootdir",
        str(project),
        *options,
        file.name,
    ]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr)
    print(f"{name}: {done.stdout.splitlines()[-1]}")
    return [json.loads(line) for line in file.with_suffix(".jsonl").read_text().splitlines()]


def report(seeded: list[dict[str, Any]], plain: list[dict[str, Any]]) -> None:
    for name, looks in (("seeded", seeded), ("plain", plain)):
        for look in looks:
            held = ", ".join(f"{look[what]} {what}" for what in ("files", "connections", "databases"))
            print(f"{name}, after {look['tests']} tests: {look['mb']:.1f} MB, {held}")
    grown = [last["mb"] - first["mb"] for first, last in (seeded, plain)]
    own = grown[0] - grown[1]
    print(f"memory grew by {grown[0]:.1f} MB, without the plugin by {grown[1]:.1f} MB: ", end="")
    print(f"the plugin's growth is {own:.1f} MB, {100 * own / seeded[0]['mb']:.1f} %")


if __name__ == "__main__":
    main()
