"""Projects with tangled imports and data files, at random, and random edits of them.

Each project says itself what its seeded rows are: `rows()` of its module `entry`, which is plain Python.
So a new process can tell at any time, without a database, what a build from scratch would insert.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import textwrap

TRUTH = """
import json, os, re, runpy, sys, types
import entry
made, comment = [], None
if os.path.exists("migrations"):
    sys.path.insert(0, "migrations")
    sys.modules["alembic"] = types.SimpleNamespace(op=types.SimpleNamespace(execute=made.append))
    for name in ("one", "left", "right", "both", "aside"):
        runpy.run_path(f"migrations/versions/{name}.py")["upgrade"]()
    import options
    comment = options.COMMENT
else:
    for name in sorted(os.listdir("db")):
        comment = (re.findall(r"COMMENT ON TABLE made IS '(.*)'", open("db/" + name).read()) or [comment])[-1]
migrated = [each.split("VALUES ('")[1].split("')")[0] for each in made if each.startswith("INSERT")]
print(json.dumps([migrated, entry.rows(), comment]))
"""
PACKAGES = ("app", "app.core", "app.core.deep", "lib", "space.inner", "src_only")
NAMESPACES = frozenset({"space", "space.inner"})
SEEDS = """
    from sqlalchemy import text
    from pytest_seeddb import seeder
    from entry import rows

    @seeder
    def everything(session):
        for row in rows():
            session.execute(text("INSERT INTO made (row) VALUES (:row)"), {"row": row})

    @seeder(tier="demo", after=[everything])
    def more(session, more: int = 1):
        for row in rows() * more:
            session.execute(text("INSERT INTO made (row) VALUES (:row)"), {"row": "more " + row})
"""
TABLE = """
    [project]
    name = "tangled-{own}"
    [tool.seeddb]
    server = "{server}"
    migrations = "{migrations}"
    seeds = ["seeds"]
    watch = ["watched/*.txt"]
    [tool.seeddb.profiles.other]
    more = 2
    [tool.pytest.ini_options]
    pythonpath = [".", "src"]
"""
TESTS = """
    import json, os
    import pytest
    {imports}

    def seen(connection, name):
        rows = [row for (row,) in connection.execute("SELECT row FROM made ORDER BY id")]
        made = [row for (row,) in connection.execute("SELECT obj_description('made'::regclass)")]
        with open(os.environ["SEEN"] + name, "w") as out:
            json.dump([rows, made], out)

    def test_default(seeded_connection):
        seen(seeded_connection, "default")

    @pytest.mark.seeded("other")
    def test_other(seeded_connection):
        seen(seeded_connection, "other")
"""
MAKE = "CREATE TABLE made (id serial PRIMARY KEY, row text NOT NULL)"
ENV = """
    from alembic import context
    from sqlalchemy import create_engine, text
    from options import COMMENT

    with create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nowhere").connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
            connection.execute(text("COMMENT ON TABLE made IS '" + COMMENT + "'"))
"""
REVISION = """
    import sys
    revision, down_revision = {revision!r}, {before!r}
    from alembic import op
    {imports}

    def upgrade():
        {body}
"""
# How one module gets at another's function, {f}, in the module {m}, whose parent is {p} and last name {n}:
# what stands at the top, and the expression that calls it.
IMPORTS = {
    "import": ("import {m}", "{m}.{f}()"),
    "import as": ("import {m} as {f}_module", "{f}_module.{f}()"),
    "from package": ("from {p} import {n}", "{n}.{f}()"),
    "from module": ("from {m} import {f} as {f}_", "{f}_()"),
    "star": ("from {m} import *", "{f}()"),
    "lazy": ("def {f}_lazy():\n    from {m} import {f}\n    return {f}()", "{f}_lazy()"),
    "lazy package": ("def {f}_lazy():\n    from {p} import {n}\n    return {n}.{f}()", "{f}_lazy()"),
    "in a class": ("class {f}_class:\n    from {m} import {f}\n    got = {f}()", "{f}_class.got"),
    "constant": ("from importlib import import_module\n{f}_module = import_module('{m}')", "{f}_module.{f}()"),
    "lazy constant": (
        "import importlib\ndef {f}_lazy():\n    return importlib.import_module('{m}').{f}()",
        "{f}_lazy()",
    ),
    "dunder": ("{f}_module = __import__('{m}', fromlist=['{f}'])", "{f}_module.{f}()"),
    "computed": (
        "from importlib import import_module\n{f}_name = '{n}'\n{f}_module = import_module(f'{p}.{{{f}_name}}')",
        "{f}_module.{f}()",
    ),
    "added up": (
        "from importlib import import_module as load\n{f}_module = load('{p}.' + '{n}')",
        "{f}_module.{f}()",
    ),
    "found by name": ("import pkgutil\n{f}_function = pkgutil.resolve_name('{m}:{f}')", "{f}_function()"),
    "perhaps": (
        "try:\n    from {m} import {f}\nexcept ImportError:\n    def {f}():\n        return ['no {f}']",
        "{f}()",
    ),
    "at hand": ("try:\n    import {m} as {f}_module\nfinally:\n    pass", "{f}_module.{f}()"),
    "relative": ("from {r} import {f}", "{f}()"),
    "relative module": ("from {rp} import {n} as {f}_module", "{f}_module.{f}()"),
    "relative constant": (
        "from importlib import import_module\n{f}_module = import_module('{r}', __package__)",
        "{f}_module.{f}()",
    ),
    "through the package": ("from {p} import {f}", "{f}()"),
    "lazily through the package": ("import {p} as {f}_package", "{f}_package.{f}()"),
    "executed": (
        "from pathlib import Path\n{f}_scope = {{'__name__': 'x'}}\nexec(Path({path}).read_text(), {f}_scope)",
        "{f}_scope['{f}']()",
    ),
    "run": ("import runpy\n{f}_scope = runpy.run_path(str({path}))", "{f}_scope['{f}']()"),
}
NEEDS_A_PACKAGE = frozenset({"through the package", "lazily through the package"})
RELATIVE = frozenset({"relative", "relative module", "relative constant"})
BY_PATH = frozenset({"executed", "run"})
# How a module reads a file or a directory: an expression, {d} the path as an expression.
READS = {
    "open": "[open({d}).read()]",
    "lines": "list(open({d}))",
    "text": "[pathlib.Path({d}).read_text()]",
    "bytes": "[str(pathlib.Path({d}).read_bytes())]",
    "json": "[json.dumps(json.load(open({d})))]",
    "csv": "[' '.join(each) for each in csv.reader(open({d}, newline=''))]",
    "descriptor": "[os.read(os.open({d}, os.O_RDONLY), 999).decode()]",
    "cached lines": "linecache.getlines(str({d}))",
    "codecs": "[codecs.open(str({d}), encoding='utf-8').read()]",
    "fileinput": "list(fileinput.input(str({d})))",
    "configuration": "(lambda read: [str(read.read(str({d})))] + [str(dict(read['a']))] if read.has_section('a') or"
    " read.read(str({d})) else [])(configparser.ConfigParser(strict=False))",
}
LISTINGS = {
    "glob": "[each.name + each.read_text() for each in sorted(pathlib.Path({d}).glob('*.txt'))]",
    "rglob": "[each.name + each.read_text() for each in sorted(pathlib.Path({d}).rglob('*.txt'))]",
    "glob module": "[open(each).read() for each in sorted(glob.glob(str({d}) + '/*.txt'))]",
    "listdir": "sorted(os.listdir({d}))",
    "scandir": "sorted(each.name for each in os.scandir({d}))",
    "iterdir": "[each.read_text() for each in sorted(pathlib.Path({d}).iterdir())]",
    "walk": "[name for _, _, names in os.walk({d}) for name in sorted(names)]",
}
PERHAPS = """
def {f}_perhaps():
    try:
        return [open({d}).read()]
    except FileNotFoundError:
        return ['nothing']
"""
MODULES = "import codecs, configparser, csv, fileinput, glob, json, linecache, os, pathlib\n"


class Project:
    """One project, made at random in ``root``."""

    def __init__(self, root, chance, server, own):
        self.root, self.chance, self.own = root, chance, own
        self.inputs, self.data, self.listed, self.optional, self.modules = [], [], [], [], {}
        self.leaves = set()
        self.is_alembic = chance.random() < 0.4
        for package in PACKAGES:
            self._package(package)
        names = [self._module(number) for number in range(chance.randrange(4, 9))]
        self._entry(names)
        self._migrations(names)
        self.write("seeds.py", SEEDS)
        place = "alembic.ini" if self.is_alembic else "db"
        self.write("pyproject.toml", TABLE.format(own=own, server=server, migrations=place))
        self.write("watched/cities.txt", "Bern")
        self.inputs += ["seeds.py", "watched/cities.txt"]
        self._elsewhere(names)
        self.write("test_it.py", TESTS.format(imports="\n    ".join(self._imported_by_tests(names))))

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    # -- making it -----------------------------------------------------------------------------------

    def _package(self, package):
        if package not in NAMESPACES:
            name = f"{self._base(package)}{package.replace('.', '/')}/__init__.py"
            self.write(name, f"MARK = {package!r}\n")

    def _base(self, package):
        return "src/" if package == "src_only" else ""

    def _path(self, module):
        return f"{self._base(module.partition('.')[0])}{module.replace('.', '/')}.py"

    def _module(self, number):
        package = self.chance.choice(PACKAGES)
        module, function = f"{package}.m{number}", f"f{number}"
        chosen = [each for each in self.modules if self.chance.random() < 0.45]
        self.modules[module] = function
        self.leaves |= set() if chosen else {module}
        tops, calls = self._all_imports(module, chosen)
        read_tops, reads = self._reads(module, function)
        body = ", ".join(f"*{each}" for each in (f"['{function} {self.own}']", *calls, *reads))
        text = "\n".join([MODULES, *tops, *read_tops, f"def {function}():", f"    return [{body}]", ""])
        self.write(self._path(module), text)
        return module

    def _all_imports(self, module, targets):
        pairs = [self._import(module, target) for target in targets]
        return [top for top, _ in pairs], [call for _, call in pairs]

    def _import(self, module, target):
        """How ``module`` imports the other one; the other one is an input then."""
        parent, _, name = target.rpartition(".")
        here = module.rpartition(".")[0]
        form = self.chance.choice(list(IMPORTS))
        if (form in RELATIVE and (not here or here.partition(".")[0] != parent.partition(".")[0])) or (
            form in NEEDS_A_PACKAGE and parent in NAMESPACES
        ):
            form = "from module"
        if form == "through the package" and target not in self.leaves:
            form = "lazily through the package"  # or they import each other in a circle
        if form in NEEDS_A_PACKAGE:
            self._export(parent, name, self.modules[target], lazily=form.startswith("lazily"))
        path = f"pathlib.Path({str(self.root)!r}) / {self._path(target)!r}"
        words = {"m": target, "p": parent, "n": name, "f": self.modules[target], "path": path}
        if form in RELATIVE:
            words |= _relative(here, parent, name)
        top, call = IMPORTS[form]
        return top.format(**words), call.format(**words)

    def _export(self, package, name, function, *, lazily):
        path = self.root / f"{self._base(package)}{package.replace('.', '/')}/__init__.py"
        text = path.read_text()
        if lazily and "__getattr__" not in text:
            text += (
                f"\ndef __getattr__(wanted):\n    if wanted == {function!r}:\n        from .{name} import {function}\n"
            )
            text += f"        return {function}\n    raise AttributeError(wanted)\n"
        elif f"import {function}\n" not in text:
            text = f"from .{name} import {function}\n" + text
        path.write_text(text)

    def _reads(self, module, function):
        """Data that the module reads, when it is imported or when it is called."""
        tops, calls = [], []
        for number in range(self.chance.randrange(3)):
            expression = self._read(module, f"{function}_{number}", tops)
            if self.chance.random() < 0.5:
                tops.append(f"{function}_data_{number} = {expression}")
                expression = f"{function}_data_{number}"
            calls.append(expression)
        return tops, calls

    def _read(self, module, name, tops):
        place = f"{self._path(module).rpartition('/')[0]}/data_{name}"
        path = f"pathlib.Path({str(self.root)!r}) / {place!r}"
        kind = self.chance.random()
        if kind < 0.3:
            self.listed.append(place)
            for each in ("a.txt", "b.txt"):
                self.write(f"{place}/{each}", f"{name} {each}")
            return self.chance.choice(list(LISTINGS.values())).format(d=f"({path})")
        if kind < 0.45:
            self.optional.append(place)
            tops.append(PERHAPS.format(f=name, d=path))
            return f"{name}_perhaps()"
        self.data.append(place)
        form = self.chance.choice(list(READS))
        texts = {"json": f'["{name}", 1]', "configuration": f"[a]\nb = {name}\n"}
        self.write(place, texts.get(form, f"{name}\nanother, line\n"))
        return READS[form].format(d=f"({path})")

    def _entry(self, names):
        chosen = [each for each in names if self.chance.random() < 0.6] or names[-1:]
        tops, calls = self._all_imports("entry", chosen)
        body = ", ".join(f"*{each}" for each in calls)
        self.write("entry.py", MODULES + "\n".join(tops) + f"\n\ndef rows():\n    return [{body}]\n")

    def _migrations(self, names):
        if not self.is_alembic:
            self.write("db/001_made.sql", f"-- {self.own}\n{MAKE};\n")
            self.write("db/002_comment.sql", "COMMENT ON TABLE made IS 'a comment';\n")
            self.inputs += ["db/001_made.sql", "db/002_comment.sql"]
            return
        self.write("alembic.ini", "[alembic]\nscript_location = migrations\nprepend_sys_path = .:migrations\n")
        self.write("migrations/env.py", ENV)
        self.write("migrations/options.py", "COMMENT = 'a comment'\n")
        used = self.chance.choice(names)
        top, call = self._import("", used)
        inserted = f'op.execute("INSERT INTO made (row) VALUES (\'" + {call}[0] + "\')")'
        self._revision("one", None, f'op.execute("{MAKE}")  # {self.own}')
        self._revision("left", "one", "pass")
        self._revision("right", "one", inserted, "import pathlib\n" + top)
        self._revision("both", ("left", "right"), "pass")
        self._revision("aside", None, "pass")
        self.inputs += ["alembic.ini", "migrations/env.py", "migrations/options.py"]

    def _revision(self, revision, before, body, imports=""):
        name = f"migrations/versions/{revision}.py"
        text = textwrap.dedent(REVISION).format(revision=revision, before=before, imports=imports, body=body)
        self.write(name, text)
        self.inputs.append(name)

    def _elsewhere(self, names):
        self.write("decoy/__init__.py", "")
        self.write("decoy/using.py", f"import {self.chance.choice(names)}\n")
        self.write("decoy/data.json", "[]")
        self.write("tests/test_more.py", "def test_nothing():\n    pass\n")
        self.write("conftest.py", "VALUE = 1\n")
        self.write("README.md", "A tangle.\n")
        self.elsewhere = ["decoy/using.py", "decoy/data.json", "tests/test_more.py", "conftest.py", "README.md"]

    def _imported_by_tests(self, names):
        """So that a part of the project is loaded long before its database is built."""
        return [f"import {each}" for each in names if self.chance.random() < 0.4] + (
            ["import entry\n    entry.rows()"] if self.chance.random() < 0.3 else []
        )

    # -- what is true of it ---------------------------------------------------------------------------

    def seeded(self):
        """What tests would see after a build from scratch: for each profile its rows, and the table's comment."""
        found = self._run()
        if found is None:
            return None
        migrated, rows, comment = found
        more = [f"more {each}" for each in rows]
        return {
            "default": [[*migrated, *rows, *more], [comment]],
            "other": [[*migrated, *rows, *more, *more], [comment]],
        }

    def _run(self):
        """What a new process makes of it; ``None`` where the project cannot be imported."""
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": f"{self.root}:{self.root}/src"}
        done = subprocess.run(
            [sys.executable, "-c", TRUTH], cwd=self.root, env=env, capture_output=True, text=True, check=False
        )
        return json.loads(done.stdout) if done.returncode == 0 else None

    def truth(self):
        """All that determines the database: what its Python gives, and the text of the rest."""
        seeded = self.seeded()
        return None if seeded is None else json.dumps([seeded, self._texts()])

    def _texts(self):
        places = ("migrations/**/*.py", "alembic.ini", "db/*.sql", "watched/*.txt")
        return sorted(
            [str(path.relative_to(self.root)), _said(path)] for each in places for path in self.root.glob(each)
        )

    def closure(self):
        """Every module of the project that a process which seeds it loads."""
        script = (
            "import sys, entry; entry.rows(); print('\\n'.join(getattr(each, '__file__', None) or ''"
            " for each in sys.modules.values()))"
        )
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": f"{self.root}:{self.root}/src"}
        told = subprocess.run(
            [sys.executable, "-c", script], cwd=self.root, env=env, capture_output=True, text=True, check=True
        ).stdout
        found = [each.removeprefix(f"{self.root}/") for each in told.splitlines() if each.startswith(f"{self.root}/")]
        return sorted(set(found))

    def kept(self):
        """A copy of all files, to be put back by `restore`."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
        }

    def restore(self, files):
        """As a version control system does: what differs is written anew, the rest is left."""
        now = self.kept()
        for name in now.keys() - files.keys():
            (self.root / name).unlink()
        for name, data in files.items():
            if now.get(name) != data or (self.root / name).is_symlink():
                (self.root / name).unlink(missing_ok=True)
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                (self.root / name).write_bytes(data)
        for cache in list(self.root.rglob("__pycache__")):
            shutil.rmtree(cache)


def _said(path):
    """A file's text; that of Python without its comments."""
    text = path.read_text()
    return ast.dump(ast.parse(text)) if path.suffix == ".py" else text


def _relative(here, parent, name):
    """The other module's package as seen from the package ``here``."""
    ours, theirs = here.split("."), parent.split(".")
    common = next(
        (at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )
    dots = "." * (len(ours) - common + 1)
    rest = ".".join(theirs[common:])
    base = f"{dots}{rest}"
    return {"rp": base, "r": f"{base}.{name}" if rest else f"{base}{name}"}
