"""The two walks through the package: from settings to a test's clone, and from the used clone to its settlement.

They come from a profiled run of one seeded test whose template is there already, in all of its threads. A
stop is a function of the package with at least three statements, wherever they are nested; docstrings and imports do
not count, and neither do properties, lambdas and dunder methods. The first walk begins where settings are loaded and
ends where the test's `SeededDatabase` is made; its stops are the functions that were running whenever one of
`LANDMARKS` was made, so what only helps them is left out. The second walk is the whole call that takes the clone back
(`GIVES_BACK`). Each function counts once, where it is called first. A return is a stop that the stop before it did
not call.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LOADS_SETTINGS = {"load_settings"}
LANDMARKS = {"Settings", "Plan", "Stage", "Server", "Template", "Clone", "SeededDatabase"}
"""The classes of what stands on the way to a clone. Who renames one edits this line."""
GIVES_BACK = {"Pool.give_back"}
"""The first of these that is called begins the second walk, and ends it when it returns."""
LEAST_STATEMENTS = 3
PROJECT = {
    "pyproject.toml": '[project]\nname = "shop"\n[tool.seeddb]\nmigrations = "db"\nseeds = ["shop_seeds"]\n',
    "db/1.sql": "CREATE TABLE item (id serial PRIMARY KEY, name text);\n",
    "shop_seeds.py": """
from pytest_seeddb import seeder
from sqlalchemy import text

@seeder
def items(session):
    session.execute(text("INSERT INTO item (name) VALUES ('pen'), ('cup')"))
""",
    "test_shop.py": """
def test_it(seeded_connection):
    seeded_connection.execute("INSERT INTO item (name) VALUES ('jar')")
    seeded_connection.commit()
""",
}


class Walk:
    """The stops among some events, in the order of their first calls."""

    def __init__(self, events, counts, spine=None):
        self.stops, self.returns = [], 0
        for kind, what, running in events:
            stop = tuple(what)
            if kind != "call" or stop in self.stops or (spine is not None and stop not in spine):
                continue
            if counts.get(stop[:2], 0) < LEAST_STATEMENTS or stop[2].rpartition(".")[2].startswith("__"):
                continue
            caller = next((caller for caller in map(tuple, running) if caller in self.stops), None)
            self.returns += bool(self.stops) and caller != self.stops[-1]
            self.stops.append(stop)
        self.modules = {stop[0] for stop in self.stops}


def walks(package):
    """Both walks, in the package of a checkout."""
    events, counts = recorded(package), statements(package)
    is_main = [event.pop() for event in events]
    begin = first(events, "call", LOADS_SETTINGS)
    to_clone = events[begin : first(events, "made", {"SeededDatabase"}) + 1]
    spine = {tuple(function) for kind, _, running in to_clone if kind == "made" for function in running}
    if missing := LANDMARKS - {what for kind, what, _ in to_clone if kind == "made"}:
        print(f"LANDMARKS that nothing made on the way to a clone: {', '.join(sorted(missing))}")
    begin = first(events, "call", GIVES_BACK)
    end = next(at for at in range(begin, len(events)) if events[at][:2] == ["return", events[begin][1]])
    back = [events[at] for at in range(begin, end) if is_main[at]]  # while others settle and clone on threads
    return Walk(to_clone, counts, spine), Walk(back, counts)


def first(events, wanted, names):
    for at, (kind, what, _) in enumerate(events):
        if kind == wanted and (what if kind == "made" else what[2]) in names:
            return at
    sys.exit(f"the run came by none of {', '.join(names)}: edit the table in {Path(__file__).name}")


def statements(package):
    """How many statements each function has, by module and first line; none for a property."""
    counts = {}
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            inside = [node for node in ast.walk(function) if isinstance(node, ast.stmt) and node is not function]
            docstrings = (
                node for node in inside if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            )
            apart = {*docstrings, *(node for node in inside if isinstance(node, ast.Import | ast.ImportFrom))}
            line = min(node.lineno for node in (function, *function.decorator_list))
            is_property = any("property" in ast.unparse(decorator) for decorator in function.decorator_list)
            counts[str(path.relative_to(package)), line] = 0 if is_property else len(inside) - len(apart)
    return counts


def recorded(package):
    """The events of a run in a project of its own, after a first one has built the template."""
    with tempfile.TemporaryDirectory() as directory:
        project, output = Path(directory) / "shop", Path(directory) / "events.json"
        for name, text in PROJECT.items():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(text)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("SEEDDB_", "PYTEST_"))}
        environ["PYTHONPATH"] = str(package.parent)
        for _ in range(2):
            command = [sys.executable, __file__, str(package), str(output)]
            done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"the profiled run failed:\n{done.stdout}{done.stderr}")
        return json.loads(output.read_text())


def record(package, output):
    """Run the tests of the working directory, and write down which functions of the package ran.

    An event is what happened, the function, and the package's functions then running, innermost first; for a
    landmark that is made, its class stands in the function's place.
    """
    import threading

    import pytest

    events, below = [], f"{package}{os.sep}"

    def identity(code):
        return [code.co_filename.removeprefix(below), code.co_firstlineno, code.co_qualname]

    def running(frame):
        while frame is not None:
            if frame.f_code.co_filename.startswith(below):
                yield identity(frame.f_code)
            frame = frame.f_back

    def note(*event):
        events.append((*event, threading.current_thread() is threading.main_thread()))

    def profile(frame, event, _argument):
        code = frame.f_code
        if event == "call" and code.co_name == "__init__":
            kind = type(frame.f_locals.get("self"))
            if kind.__name__ in LANDMARKS and kind.__module__.startswith(package.name):
                note("made", kind.__name__, list(running(frame.f_back)))
        if event in {"call", "return"} and code.co_filename.startswith(below):
            note(event, identity(code), list(running(frame.f_back)) if event == "call" else [])

    threading.setprofile(profile)
    sys.setprofile(profile)
    code = pytest.main(["--seed-db", "-q", "-p", "no:xdist", "-p", "no:randomly", "-p", "no:cacheprovider"])
    sys.setprofile(None)
    output.write_text(json.dumps(events))
    sys.exit(code)


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path(sys.argv[2]))
