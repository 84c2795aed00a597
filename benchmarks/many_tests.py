"""Whether anything grows over a long session: memory, files, connections, databases.

    python benchmarks/many_tests.py [--tests 10000]

Runs that many tests in one pytest process, which read, write, use sequences and now and then change the
schema, on examples/quickstart. Prints what the process and the server hold after a tenth of them
and at the end.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart"
TEST = """
import os
from pathlib import Path
import psycopg, pytest

NUMBER = {number}

@pytest.mark.parametrize("number", range(NUMBER))
def test_it(number, seeded_db, seeddb_server):
    with seeded_db.connect(autocommit=True) as connection:
        table, = connection.execute("SELECT min(relname) FROM pg_class WHERE relkind = 'S'").fetchone()
        if number % 3 == 1:
            connection.execute(f"SELECT nextval('{{table}}')")
        if number % 3 == 2:
            connection.execute("UPDATE customers SET name = 'changed'")
        if number % 100 == 99:
            connection.execute("CREATE TABLE extra (v int)")
    if number in (NUMBER // 10, NUMBER - 1):
        look(number, seeddb_server)

def look(number, server):
    status = Path("/proc/self/status").read_text()
    memory = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    with psycopg.connect(server.address.conninfo) as connection:
        connections, = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL").fetchone()
        databases, = connection.execute("SELECT count(*) FROM pg_database").fetchone()
    files = len(os.listdir("/proc/self/fd"))
    told = f"after {{number + 1}} tests: {{int(memory) / 1024:.1f}} MB, {{files}} files, {{connections}} connections"
    Path("growth.txt").open("a").write(f"{{told}}, {{databases}} databases\\n")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=10_000)
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        project = Path(place) / "quickstart"
        shutil.copytree(QUICKSTART, project, ignore=shutil.ignore_patterns("tests", ".*"))
        (project / "test_many.py").write_text(TEST.format(number=parsed.tests))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--seed-db",
            "--no-header",
            "test_many.py",
            "--rootdir",
            str(project),
        ]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        print("\n".join(line for line in done.stdout.splitlines()[-12:] if "%]" not in line), done.stderr, end="")
        print((project / "growth.txt").read_text(), end="")


if __name__ == "__main__":
    main()
