"""How often a project's history would have built its template, and whether that was needed.

    python benchmarks/replay.py REPOSITORY TABLE --before 2026-08-01 [--commits 100] [--python PYTHON] [--files PLACE]

Walks the latest commits before a date that change a `.py` file outside of tests, the oldest first, and then backwards.
Each is checked out beside the repository, with the settings of TABLE as its seeddb.toml, and with more files from a
directory if it needs some. Says of each commit

- `old`: whether the rule of version 0.1.0 builds: any module changed that a step imports, however far away;
- `now`: whether this version builds, and why;
- `db`: whether the database is another than before: built from scratch, apart from the walk. Columns that differ
  between two builds of one commit do not count, nor does the order in which Django noted its migrations;
- STALE, if the template of the walk is not what a build from scratch makes.

PYTHON has pytest-seeddb and the packages that the project needs; they are the same for all commits. Commits that cannot
be built are listed. Nothing is written into the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from time import perf_counter
from typing import Any

BUILD = """
import json, subprocess, sys
from pathlib import Path
import psycopg
from psycopg import sql
from pytest_seeddb.cli.build import build
from pytest_seeddb.fingerprint.recording import begin
from pytest_seeddb.plan.plan import Progress
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.settings.settings import load_settings
from pytest_seeddb.templates.building import Build, fill

COLUMNS = '''
SELECT format('%I.%I', nspname, relname), array_agg(attname::text ORDER BY attnum) FROM pg_class c
JOIN pg_namespace n ON n.oid = relnamespace JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
WHERE relkind IN ('r', 'm') AND nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_toast'
GROUP BY 1 ORDER BY 1
'''
from_scratch = sys.argv[1] == "truth"
settings = load_settings(Path.cwd())
begin(settings.root)
if from_scratch:
    plan = plan_of(settings)
    said = {"key": plan.noted_fingerprints[1]}
with open_server(settings) as server:
    with psycopg.connect(server.address.conninfo, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS replayed")
    if from_scratch:
        with Admin(server.address) as admin:
            admin.create("replayed")
            fill(Build(admin, "replayed", plan, Progress()), [(stage, 0) for stage in plan.stages])
    else:
        built = build(settings, Progress())
        said = {"template": built.template, "built": built.built, "reason": built.reason}
    if from_scratch or built.built:
        address, contents = server.address.with_database("replayed"), {}
        if not from_scratch:
            with psycopg.connect(server.address.conninfo, autocommit=True) as connection:
                template = sql.Identifier(built.template)
                connection.execute(sql.SQL("CREATE DATABASE replayed TEMPLATE {}").format(template))
        with psycopg.connect(address.conninfo) as connection:
            for table, columns in connection.execute(COLUMNS).fetchall():
                if table == "public.django_migrations":  # which notes in what order and when they were applied
                    names = connection.execute("SELECT app, name FROM django_migrations ORDER BY 1, 2").fetchall()
                    contents["migrations"] = str(names)
                    continue
                value = "md5(coalesce(string_agg(coalesce({}::text, 'NULL'), '|' ORDER BY ctid), ''))"
                values = sql.SQL(", ").join(sql.SQL(value).format(sql.Identifier(column)) for column in columns)
                row = connection.execute(sql.SQL("SELECT {} FROM {}").format(values, sql.SQL(table))).fetchone()
                contents |= {f"{table}.{column}": digest for column, digest in zip(columns, row)}
            sequences = "SELECT schemaname || '.' || sequencename, last_value FROM pg_sequences"
            contents |= {name: str(value) for name, value in connection.execute(sequences)}
            contents.pop("public.django_migrations_id_seq", None)
        program = find_program(settings, "pg_dump", wanted=server.major, least=server.major, why="comparing")
        command = [*program.command, "--schema-only", "--no-owner", "-d", address.conninfo]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        contents["schema"] = "\\n".join(line for line in lines if line[:1] not in ("\\\\", "-"))
        said["contents"] = contents
print("\\nSAID", json.dumps(said))
"""

SERVE = """
import sys
from pathlib import Path
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import load_settings
with open_server(load_settings(Path.cwd())):
    print(flush=True)
    sys.stdin.read()
"""
"""Keeps the server running between the commits."""


@dataclass
class Seen:
    """One commit, as the walk saw it."""

    commit: str
    subject: str
    failed: str = ""
    old: bool = False
    now: bool = False
    db: bool = False
    stale: list[str] = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0

    @property
    def line(self) -> str:
        if self.failed:
            return f"{self.commit[:8]}  NOT BUILT  {self.failed[:100]}"
        marks = [
            name if is_so else " " * len(name)
            for name, is_so in (("old", self.old), ("now", self.now), ("db", self.db))
        ]
        stale = f"  STALE: {', '.join(self.stale[:3])}" if self.stale else ""
        said = f"{self.seconds:6.1f} s  {self.subject[:50]:<50}  {self.reason}"
        return f"{self.commit[:8]}  {' '.join(marks)}{stale}  {said}"


class Walk:
    def __init__(self, parsed: argparse.Namespace, place: Path) -> None:
        self.parsed, self.place, self.checkout = parsed, place, place / "checkout"
        self.git("clone", "--quiet", "--no-checkout", "--shared", str(parsed.repository.resolve()), str(self.checkout))
        self.truths: dict[str, dict[str, str]] = {}
        self.keys: set[str] = set()
        self.templates: dict[str, dict[str, str]] = {}
        self.varying: set[str] = set()
        self.servers: dict[str, subprocess.Popen[str]] = {}

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True)
        return done.stdout

    def commits(self) -> list[tuple[str, str]]:
        """The commits, the oldest first, with the one before them."""
        log = self.git("log", "--no-merges", f"--before={self.parsed.before}", "--format=%x00%H %s", "--name-only",
                       "--", "*.py", cwd=self.checkout)  # fmt: skip
        commits = []
        for entry in log.split("\0")[1:]:
            head, *names = [line for line in entry.splitlines() if line]
            if any(not is_test(PurePosixPath(name)) for name in names):
                commits.append(tuple(head.split(" ", 1)))
            if len(commits) > self.parsed.commits:
                break
        return commits[::-1]

    def check_out(self, commit: str) -> None:
        self.git("checkout", "--quiet", "--force", commit, cwd=self.checkout)
        self.git("clean", "-qfdx", cwd=self.checkout)
        shutil.copy(self.parsed.table, self.checkout / "seeddb.toml")
        if self.parsed.files:
            shutil.copytree(self.parsed.files, self.checkout, dirs_exist_ok=True)

    def start(self, cache: str, script: str, **streams: int) -> subprocess.Popen[str]:
        home = self.place / cache
        home.mkdir(mode=0o755, exist_ok=True)
        # No bytecode of another commit's file that was saved in the same second.
        variables = {**os.environ, "XDG_CACHE_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [self.parsed.python, "-c", script, cache]
        return subprocess.Popen(command, cwd=self.checkout, env=variables, text=True, **streams)

    def build(self, cache: str) -> dict[str, Any]:
        """Build what is checked out, and say what the template holds."""
        if cache not in self.servers:
            server = self.start(cache, SERVE, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.servers[cache] = server
            server.stdout.readline()
        process = self.start(cache, BUILD, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, errors = process.communicate()
        if process.returncode:
            raise CannotBuildError(errors.strip() or output)
        return dict(json.loads(output.rpartition("\nSAID ")[2]))

    def truth(self, commit: str) -> tuple[str, dict[str, str]]:
        """The old rule's key, and what a build from scratch makes of the commit that is checked out."""
        said = self.build("truth")
        self.truths[commit] = said["contents"]
        return said["key"], said["contents"]

    def stop(self) -> None:
        for server in self.servers.values():
            server.communicate()

    def differ(self, one: dict[str, str], other: dict[str, str]) -> list[str]:
        names = (one.keys() | other.keys()) - self.varying
        return sorted(name for name in names if one.get(name) != other.get(name))

    def begin(self, commit: str) -> None:
        """Build the commit before the first one: once in the walk, twice from scratch."""
        self.check_out(commit)
        key, first = self.truth(commit)
        _, second = self.truth(commit)
        self.varying = {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
        self.keys.add(key)
        self.template()
        print(f"begins at {commit[:8]}; differ between two builds: {', '.join(sorted(self.varying)) or 'no columns'}")

    def template(self) -> tuple[dict[str, Any], dict[str, str]]:
        said = self.build("walk")
        if said["built"]:
            self.templates[said["template"]] = said["contents"]
        return said, self.templates[said["template"]]

    def forwards(self, before: str, commit: str, subject: str) -> Seen:
        seen, started = Seen(commit, subject), perf_counter()
        self.check_out(commit)
        try:
            key, truth = self.truth(commit)
            built, contents = self.template()
        except CannotBuildError as error:
            lines = str(error).splitlines()
            own = [line.rpartition("Error: ")[2] for line in lines if line.startswith("pytest_seeddb.errors")]
            seen.failed = own[-1] if own else lines[-1]
            self.truths.setdefault(commit, self.truths.get(before, {}))
            return seen
        seen.old = key not in self.keys
        self.keys.add(key)
        seen.now, seen.reason = bool(built["built"]), str(built["reason"])
        seen.db = bool(self.differ(truth, self.truths[before]))
        seen.stale = self.differ(truth, contents)
        seen.seconds = perf_counter() - started
        return seen

    def backwards(self, commit: str, subject: str) -> Seen:
        seen, started = Seen(commit, subject), perf_counter()
        self.check_out(commit)
        built, contents = self.template()
        seen.now, seen.reason = bool(built["built"]), str(built["reason"])
        seen.stale = self.differ(self.truths[commit], contents)
        seen.seconds = perf_counter() - started
        return seen


class CannotBuildError(Exception):
    pass


def is_test(path: PurePosixPath) -> bool:
    named = path.name.startswith("test_") or path.name.endswith("_test.py") or path.name in {"conftest.py", "tests.py"}
    return named or not {"tests", "test"}.isdisjoint(path.parts)


def summary(forth: list[Seen], back: list[Seen]) -> str:
    built = [seen for seen in forth if not seen.failed]
    same = [seen for seen in built if not seen.db]
    rows = [
        ("commits", len(forth)),
        ("not built", len(forth) - len(built)),
        ("change the database", len(built) - len(same)),
        ("old rule: builds", sum(seen.old for seen in built)),
        ("old rule: needless builds", sum(seen.old for seen in same)),
        ("this version: builds", sum(seen.now for seen in built)),
        ("this version: needless builds", sum(seen.now for seen in same)),
        ("stale", sum(bool(seen.stale) for seen in built)),
        ("backwards: builds", sum(seen.now for seen in back)),
        ("backwards: stale", sum(bool(seen.stale) for seen in back)),
    ]
    return "\n".join(f"{name:<32}{number:>5}" for name, number in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("table", type=Path, help="the settings, as seeddb.toml has them")
    parser.add_argument("--before", required=True, help="a date, written down before the walk")
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--files", type=Path, help="a directory whose files each checkout gets")
    parser.add_argument("--json", type=Path, help="where to write what was seen of each commit")
    parser.add_argument("--place", type=Path, default=Path("/var/tmp"), help="where checkouts and servers are made")
    parsed = parser.parse_args()
    for name in ("table", "files"):
        setattr(parsed, name, path.resolve() if (path := getattr(parsed, name)) else None)
    place = Path(tempfile.mkdtemp(prefix="replay-", dir=parsed.place))
    place.chmod(0o755)  # the server of root runs as another account
    walk = Walk(parsed, place)
    try:
        commits = walk.commits()
        walk.begin(commits[0][0])
        forth, back = [], []
        with suppress(KeyboardInterrupt):  # the rest of the walk is left out
            for (before, _), (commit, subject) in pairwise(commits):
                forth.append(walk.forwards(before, commit, subject))
                print(forth[-1].line, flush=True)
        print("backwards")
        for seen in reversed(forth):
            if not seen.failed:
                back.append(walk.backwards(seen.commit, seen.subject))
                if back[-1].now or back[-1].stale:
                    print(back[-1].line, flush=True)
        print(summary(forth, back))
        if parsed.json:
            parsed.json.write_text(json.dumps({"forth": [*map(asdict, forth)], "back": [*map(asdict, back)]}, indent=1))
    finally:
        walk.stop()
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
