"""Print the figures that the package's structure is held to, each with its target.

Run ``python tests/support/structure.py [PACKAGE_DIR]``. With ``--names`` it lists what the figures count.

A private function counts as called once if its name stands exactly once in its own module after its
definition, as a name or an attribute. A name is a participle's if its first or last word is a past participle, or
one before a preposition; predicates (``is_``, ``has_``, ``was_``) and names of the fixtures' family (``seeded_``)
do not count. An import of a name through a package counts as one of the package's ``__init__``; an import of a
submodule counts as one of the submodule alone. Imports in functions and under ``TYPE_CHECKING`` count. What the walks
and their stops are stands in `walks`.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path

from walks import walks

ROOT_ENTRIES, LINES, FLOORS = 16, 22_500, 10
CALLED_ONCE, VAGUE_NAMES, PARTICIPLES = 22, 1, 4
TO_A_CLONE, TO_ITS_END = (14, 8), (8, 3)
"""Stops and modules of each walk."""

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
VAGUE = {"each", "found"}
PREDICATES = {"is", "has", "was", "are"}
PREPOSITIONS = "by of in on at to from for with without under over as between into before after since"
IRREGULAR = """
told said shown known made seen found kept given taken written sent built held left drawn begun chosen done gone lost
meant spoken thrown understood brought thought caught bound worn torn laid led come become hidden broken frozen spent
stood met got forgotten heard woken risen fallen struck stuck hung
"""
NO_PARTICIPLES = {"seed", "need", "feed", "speed", "embed", "exceed", "shed", "proceed", "succeed", "red", "used"}


def modules(package):
    """Each module's path below the package with its tree."""
    return {path.relative_to(package): ast.parse(path.read_text()) for path in sorted(package.rglob("*.py"))}


def functions(trees):
    """Every function and method with its module's path."""
    return [(path, node) for path, tree in trees.items() for node in ast.walk(tree) if isinstance(node, FUNCTION)]


# -- sizes and names -----------------------------------------------------------------------------


def lines(package):
    """The lines of all text files. Python files are taken as they are: the linter sees that they are formatted."""
    files = (path for path in package.rglob("*") if path.is_file() and path.suffix not in {".pyc", ".so"})
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)


def called_once(trees):
    """Private functions whose name stands once in their module."""
    uses = {path: Counter(map(name_of, ast.walk(tree))) for path, tree in trees.items()}
    every = [(path, node) for path, node in functions(trees) if uses[path][node.name] == 1]
    return [(path, node) for path, node in every if node.name.startswith("_") and not node.name.startswith("__")]


def name_of(node):
    """What a name or an attribute is called."""
    return getattr(node, "id", "") or getattr(node, "attr", "")


def assigned(trees):
    """The names of all variables, once for each assignment."""
    return [
        node.id
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]


def is_participle(word):
    return word in IRREGULAR.split() or (word.endswith("ed") and word not in NO_PARTICIPLES)


def is_named_by_participle(name):
    words = name.strip("_").split("_")
    if name.startswith("__") or words[0] in PREDICATES or words[0] == "seeded":
        return False
    before = (word for word, following in pairwise(words) if following in PREPOSITIONS.split())
    return any(map(is_participle, (words[0], words[-1], *before)))


# -- imports -------------------------------------------------------------------------------------


def dotted(path):
    """A module's name below the package; that of the package itself is ``__init__``."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def import_graph(package, trees):
    """Which modules each module imports."""
    names = {dotted(path) for path in trees}

    def below(name):
        if name == package.name:
            return "__init__"
        return name.removeprefix(f"{package.name}.") if name.startswith(f"{package.name}.") else ""

    def imported(tree):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (below(alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    submodule = below(f"{node.module}.{alias.name}")
                    yield submodule if submodule in names else below(node.module)

    return {dotted(path): (set(imported(tree)) & names) - {dotted(path)} for path, tree in trees.items()}


def root_of(name):
    return name.partition(".")[0]


def graph_of_roots(graph):
    """The same graph with one node for each entry at the package's root."""
    roots = {root_of(name): set() for name in graph}
    for name, imported in graph.items():
        roots[root_of(name)] |= {root_of(other) for other in imported} - {root_of(name)}
    return roots


def reachable(graph):
    """All that each node leads to."""
    reached = {}
    for start in graph:
        pending, reached[start] = [start], set()
        while pending:
            new = graph[pending.pop()] - reached[start]
            reached[start] |= new
            pending.extend(new)
    return reached


def circles(graph):
    """The groups of nodes that all lead to each other."""
    reached = reachable(graph)
    groups = {frozenset(other for other in reached[node] if node in reached[other]) for node in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def height(graph):
    """The number of floors that the nodes need; a circle stands on one."""
    reached = reachable(graph)

    @cache
    def floor(node):
        circle = {other for other in reached[node] if node in reached[other]} | {node}
        below = set().union(*(graph[other] for other in circle)) - circle
        return 1 + max(map(floor, below), default=0)

    return max(map(floor, graph))


def listed_floors(layers):
    """The floor of each entry as the test of layers lists them, bottom first; nothing if it does not."""
    for node in ast.parse(layers.read_text()).body if layers.exists() else ():
        if isinstance(node, ast.Assign | ast.AnnAssign) and ast.unparse(node).startswith("FLOORS"):
            with suppress(ValueError):
                return {name: floor for floor, names in enumerate(ast.literal_eval(node.value)) for name in names}
    return {}


def not_down(graph, floors):
    """The imports between folders that go up in the list of floors, or stay on one."""
    return sorted(
        f"{name} -> {other}"
        for name, imported in graph.items()
        for other in imported
        if root_of(name) != root_of(other) and floors.get(root_of(other), -1) >= floors.get(root_of(name), len(floors))
    )


# -- printing ------------------------------------------------------------------------------------


def figure(name, value, target, detail=""):
    print(f"{name:<42} {value:>14}   target {target}{f'   ({detail})' if detail else ''}")


def share(name, part, whole, target, detail=""):
    figure(name, f"{100 * part / whole:.1f} %", f"< {target} %", f"{part} of {whole}{detail}")


def print_static(package, *, names):
    trees = modules(package)
    every, once, variables = functions(trees), called_once(trees), assigned(trees)
    participles = [(path, node) for path, node in every if is_named_by_participle(node.name)]
    entries = sorted(path.name for path in package.iterdir() if path.name != "__pycache__")
    loose = [name for name in entries if name.endswith(".py") and name not in {"__init__.py", "errors.py"}]
    short = sum(node.end_lineno - node.lineno < 5 for _, node in once)
    graph = import_graph(package, trees)
    roots = graph_of_roots(graph)
    floors = listed_floors(package.parent / "tests/unit/test_layers.py")
    lists = {
        "loose modules": loose,
        "circles of modules": [", ".join(circle) for circle in circles(graph)],
        "circles of root entries": [", ".join(circle) for circle in circles(roots)],
        "imports that go up or across": not_down(graph, floors),
    }
    figure("entries at the root", len(entries), f"<= {ROOT_ENTRIES}")
    figure("lines", lines(package), f"<= {LINES}", f"{len(trees)} modules")
    figure("floors", height(roots), f"<= {FLOORS}")
    for name, rows in lists.items():
        figure(name, len(rows) if floors or "imports" not in name else "no list", "0")
    share("private functions called once", len(once), len(every), CALLED_ONCE, f", {short} of five lines or fewer")
    share("variables called each or found", sum(map(VAGUE.__contains__, variables)), len(variables), VAGUE_NAMES)
    share("functions named by a participle", len(participles), len(every), PARTICIPLES)
    if names:
        for name, nodes in (("private functions called once", once), ("functions named by a participle", participles)):
            lists[name] = [f"{path}:{node.lineno} {node.name}" for path, node in nodes]
    for name, rows in lists.items():
        if rows:
            print(f"\n{name}:", *rows, sep="\n  ")


def print_walks(package):
    to_clone, to_end = walks(package)
    for name, walk, (stops, files) in (
        ("settings to a clone", to_clone, TO_A_CLONE),
        ("used clone to settlement", to_end, TO_ITS_END),
    ):
        print()
        value = f"{len(walk.stops)} in {len(walk.modules)}"
        figure(f"{name}: stops in modules", value, f"<= {stops} in {files}", f"{walk.returns} returns")
        print(*(f"  {path}:{line} {stop}" for path, line, stop in walk.stops), sep="\n")


def main():
    parser = argparse.ArgumentParser(description="Print the figures of the package's structure beside their targets.")
    parser.add_argument("package", nargs="?", type=Path, default=Path(__file__).parents[2] / "pytest_seeddb")
    parser.add_argument("--names", action="store_true", help="list the functions that are counted")
    parser.add_argument("--static", action="store_true", help="leave out the walks, which run a test")
    arguments = parser.parse_args()
    package = arguments.package.resolve()
    print_static(package, names=arguments.names)
    if not arguments.static:
        print_walks(package)


if __name__ == "__main__":
    main()
