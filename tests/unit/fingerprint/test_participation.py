"""A template holds as long as the code that took part is as it was, and no longer."""

from __future__ import annotations

import os
import random
import textwrap

import pytest
import random_projects
from attacks import times
from taking_part import IS_EXACT, Build

from pytest_seeddb.fingerprint import participation, sources

pytestmark = pytest.mark.slow

PRICES = '''
    import functools
    from shop import tax

    RATE = 3

    def discount(price):
        """Less."""
        return price - RATE

    def unused():
        import shop.never
        return 0

    class Item:
        def __init__(self, price):
            self.price = price

        def total(self):
            return discount(self.price)

        def other(self):
            return 1

    @functools.lru_cache
    def kept():
        return [1]
'''
ENTRY = """
    from shop.prices import Item

    def rows():
        return [Item(8).total()]
"""


@pytest.fixture
def project(tmp_path):
    def write(**files):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return tmp_path

    write(entry=ENTRY, shop__prices=PRICES, shop__tax="SHARE = 2\n", shop__never="X = 1\n")
    return write


def edit(root, name, old, new):
    path = root / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_only_what_ran_counts_and_is_named(project):
    root = project()
    build = Build(root)
    assert build.rows == [5]
    assert not build.changes()
    edit(root, "shop/never.py", "1", "2")
    assert not build.changes()
    edit(root, "shop/prices.py", "return 1", "return 2")
    edit(root, "shop/prices.py", "return 0", "return unused")
    edit(root, "shop/prices.py", "Less", "Much less")
    assert bool(build.changes()) != IS_EXACT
    edit(root, "shop/prices.py", "price - RATE", "price + RATE")
    assert build.changes() == {"shop/prices.py: discount()" if IS_EXACT else "shop/prices.py"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("shop/tax.py", "2", "3"),
        ("shop/prices.py", "RATE = 3", "RATE = 4"),
        ("entry.py", "Item(8)", "Item(9)"),
        ("shop/prices.py", "    def other(self):", "    def __getattr__(self, name):"),
    ],
)
def test_code_at_module_level_and_heads_in_classes_count(project, name, old, new):
    root = project()
    build = Build(root)
    edit(root, name, old, new)
    assert build.changes()


CASES = {
    "kept from before the build": (
        {"entry": "from shop.prices import kept\ndef rows():\n    return kept()\n"},
        "import shop.prices; shop.prices.kept()",
        ("shop/prices.py", "[1]", "[2]"),
    ),
    "kept in a property": (
        {
            "entry": "from shop.one import ONE\ndef rows():\n    return ONE.kept\n",
            "shop__one": "import functools\nclass One:\n    @functools.cached_property\n    def kept(self):\n"
            "        return [1]\nONE = One()\n",
        },
        "import shop.one; shop.one.ONE.kept",
        ("shop/one.py", "[1]", "[2]"),
    ),
    "kept in a module's global": (
        {
            "entry": "from shop.one import get\ndef rows():\n    return get()\n",
            "shop__one": "ROWS = []\ndef fill():\n    ROWS.append(1)\ndef get():\n    if not ROWS:\n        fill()\n"
            "    return ROWS\n",
        },
        "import shop.one; shop.one.get()",
        ("shop/one.py", "append(1)", "append(2)"),
    ),
    "called at import": (
        {
            "entry": "from shop.one import ROWS\ndef rows():\n    return ROWS\n",
            "shop__one": "from shop.two import make\nROWS = make()\n",
            "shop__two": "def make():\n    return [1]\n",
        },
        "",
        ("shop/two.py", "[1]", "[2]"),
    ),
    "called at an import before the build": (
        {
            "entry": "from shop.one import ROWS\ndef rows():\n    return ROWS\n",
            "shop__one": "from shop.two import make\nROWS = make()\n",
            "shop__two": "def make():\n    return [1]\n",
        },
        "import shop.one",
        ("shop/two.py", "[1]", "[2]"),
    ),
    "found by name in a class": (
        {
            "entry": "from shop.one import One\ndef rows():\n    kind = 'x'\n"
            "    return [getattr(One(), 'row_' + kind, lambda: 0)()]\n",
            "shop__one": "class One:\n    pass\n",
        },
        "",
        ("shop/one.py", "pass", "def row_x(self):\n        return 1"),
    ),
    "found by name in a module": (
        {
            "entry": "from shop import one\ndef rows():\n    kind = 'x'\n"
            "    return [getattr(one, 'row_' + kind, lambda: 0)()]\n",
            "shop__one": "A = 1\n",
        },
        "",
        ("shop/one.py", "A = 1\n", "A = 1\ndef row_x():\n    return 1\n"),
    ),
    "asked for by its name": (
        {
            "entry": "from shop import one\ndef rows():\n    return [hasattr(one, 'row_x')]\n",
            "shop__one": "A = 1\n",
        },
        "",
        ("shop/one.py", "A = 1\n", "A = 1\ndef row_x():\n    return 1\n"),
    ),
    "listed": (
        {"entry": "from shop import one\ndef rows():\n    return sorted(vars(one))[-2:]\n", "shop__one": "a = 1\n"},
        "",
        ("shop/one.py", "a = 1\n", "a = 1\ndef b():\n    return 1\n"),
    ),
    "a docstring as SQL": (
        {
            "entry": "from shop.one import query\ndef rows():\n    return [query.__doc__]\n",
            "shop__one": "def query():\n    'SELECT 1'\n",
        },
        "",
        ("shop/one.py", "SELECT 1", "SELECT 2"),
    ),
    "its source": (
        {
            "entry": "import inspect\nfrom shop.one import query\ndef rows():\n    return [inspect.getsource(query)]\n",
            "shop__one": "def query():\n    pass  # 1\n",
        },
        "",
        ("shop/one.py", "# 1", "# 2"),
    ),
    "registered by a module that nobody imports": (
        {
            "entry": "from shop.one import HANDLERS\ndef rows():\n    return [handle() for handle in HANDLERS]\n",
            "shop__one": "HANDLERS = []\n",
            "shop__two": "from shop.one import HANDLERS\nVALUE = 1\ndef handle():\n    return VALUE\n"
            "HANDLERS.append(handle)\n",
        },
        "import shop.two",
        ("shop/two.py", "VALUE = 1", "VALUE = 2"),
    ),
    "data put into a registry by a module that nobody imports": (
        {
            "entry": "from shop.one import ITEMS\ndef rows():\n    return list(ITEMS)\n",
            "shop__one": "ITEMS = []\n",
            "shop__two": "from shop import one\nfor number in range(3):\n    one.ITEMS.append(number)\n",
        },
        "import shop.two",
        ("shop/two.py", "range(3)", "range(4)"),
    ),
    "data registered by a function of the registry's": (
        {
            "entry": "from shop.one import items\ndef rows():\n    return items()\n",
            "shop__one": "KEPT = {}\ndef put(name, value):\n    KEPT[name] = value\n"
            "def items():\n    return dict(KEPT)\n",
            "shop__two": "from shop import one as registry\ndef load():\n    registry.put('a', 1)\nload()\n",
        },
        "import shop.two",
        ("shop/two.py", "'a', 1", "'a', 2"),
    ),
    "data made by a third module, in ready()": (
        {
            "entry": "from shop.one import ITEMS\ndef rows():\n    return dict(ITEMS)\n",
            "shop__one": "ITEMS = {}\n",
            "shop__two": "from shop.three import make\nMADE = make()\nclass Shop:\n    def ready(self):\n"
            "        from .one import ITEMS\n        ITEMS['a'] = MADE\n",
            "shop__three": "def make():\n    return 1\n",
        },
        "import shop.two; shop.two.Shop().ready()",
        ("shop/three.py", "return 1", "return 2"),
    ),
    "classes in a registry, by a decorator": (
        {
            "entry": "from shop.one import register\ndef rows():\n    return [one.__name__ for one in register.all]\n",
            "shop__one": "def register(cls):\n    register.all.append(cls)\n    return cls\nregister.all = []\n",
            "shop__two": "import shop.one\n@shop.one.register\nclass A:\n    pass\n",
        },
        "import shop.two",
        ("shop/two.py", "class A", "class B"),
    ),
    "a class that its base registers": (
        {
            "entry": "from shop.one import Base\ndef rows():\n    return [one.size for one in Base.all]\n",
            "shop__one": "class Base:\n    all = []\n    def __init_subclass__(cls):\n        Base.all.append(cls)\n",
            "shop__two": "from shop import one\nclass Shop(one.Base):\n    size = 1\n",
        },
        "import shop.two",
        ("shop/two.py", "size = 1", "size = 2"),
    ),
    "a class that its metaclass registers": (
        {
            "entry": "from shop.one import ALL\ndef rows():\n    return [one.size for one in ALL]\n",
            "shop__one": "ALL = []\nclass Meta(type):\n    def __init__(cls, *arguments):\n        ALL.append(cls)\n",
            "shop__two": "from shop.one import Meta as Kind\nclass Shop(metaclass=Kind):\n    size = 1\n",
        },
        "import shop.two",
        ("shop/two.py", "size = 1", "size = 2"),
    ),
    "a class that is found among those of its base": (
        {
            "entry": "from shop.one import Base\ndef rows():\n    return [one.size for one in Base.__subclasses__()]\n",
            "shop__one": "class Base:\n    pass\n",
            "shop__two": "from .one import Base\nclass Shop(Base):\n    size = 1\n",
        },
        "import shop.two",
        ("shop/two.py", "size = 1", "size = 2"),
    ),
    "a class that an attribute of it registers": (
        {
            "entry": "from shop.one import ALL\ndef rows():\n    return [one.size for one in ALL]\n",
            "shop__one": "ALL = []\nclass Field:\n    def __set_name__(self, own, name):\n        ALL.append(own)\n",
            "shop__two": "from shop.one import Field\nclass Shop:\n    field = Field()\n    size = 1\n",
        },
        "import shop.two",
        ("shop/two.py", "size = 1", "size = 2"),
    ),
    "a value that is set for a context": (
        {
            "entry": "from shop.one import SIZE\ndef rows():\n    return [SIZE.get()]\n",
            "shop__one": "from contextvars import ContextVar\nSIZE = ContextVar('SIZE', default=0)\n",
            "shop__two": "from shop.one import SIZE\nSIZE.set(1)\n",
        },
        "import shop.two",
        ("shop/two.py", "set(1)", "set(2)"),
    ),
    "a configuration that is read": (
        {
            "entry": "from shop.one import PARSER\ndef rows():\n    return [PARSER['a']['b']]\n",
            "shop__one": "from configparser import ConfigParser\nPARSER = ConfigParser()\n",
            "shop__two": "from shop import one\none.PARSER.read_dict({'a': {'b': '1'}})\n",
        },
        "import shop.two",
        ("shop/two.py", "'1'", "'2'"),
    ),
    "a data file that such a module read": (
        {
            "entry": "from shop.one import ITEMS\ndef rows():\n    return sorted(ITEMS)\n",
            "shop__one": "ITEMS = set()\n",
            "shop__two": "from pathlib import Path\nimport shop.one as kept\n"
            "kept.ITEMS |= {*Path(__file__).with_name('data.py').read_text().split()}\n",
            "shop__data": "a\n",
        },
        "import shop.two",
        ("shop/data.py", "a", "b"),
    ),
    "imported by a computed name": (
        {
            "entry": "from shop.one import load\ndef rows():\n    return [load('two').VALUE]\n",
            "shop__one": "import importlib\ndef load(name):\n    return importlib.import_module('shop.' + name)\n",
            "shop__two": "VALUE = 1\n",
        },
        "import shop.one; shop.one.load('two')",
        ("shop/two.py", "VALUE = 1", "VALUE = 2"),
    ),
    "in a thread": (
        {
            "entry": "import threading\nfrom shop.one import fill\ndef rows():\n    made = []\n"
            "    thread = threading.Thread(target=fill, args=[made])\n    thread.start()\n    thread.join()\n"
            "    return made\n",
            "shop__one": "def fill(made):\n    made.append(1)\n",
        },
        "",
        ("shop/one.py", "append(1)", "append(2)"),
    ),
    "in a child process": (
        {
            "entry": "import multiprocessing\nfrom shop.one import one\ndef rows():\n"
            "    with multiprocessing.get_context('fork').Pool(1) as pool:\n        return pool.map(one, [1])\n",
            "shop__one": "def one(x):\n    from shop.two import two\n    return two(x)\n",
            "shop__two": "def two(x):\n    return x + 1\n",
        },
        "",
        ("shop/two.py", "x + 1", "x + 2"),
    ),
    "executed text": (
        {
            "entry": "def rows():\n    scope = {}\n    exec('from shop.one import ROWS', scope)\n"
            "    return scope['ROWS']\n",
            "shop__one": "from shop.two import make\nROWS = make()\n",
            "shop__two": "def make():\n    return [1]\n",
        },
        "",
        ("shop/two.py", "[1]", "[2]"),
    ),
    "a generator that began before": (
        {
            "entry": "from shop.one import ROWS\ndef rows():\n    return [next(ROWS)]\n",
            "shop__one": "def count():\n    yield 0\n    yield 1\nROWS = count()\n",
        },
        "import shop.one; next(shop.one.ROWS)",
        ("shop/one.py", "yield 1", "yield 2"),
    ),
    "made what the step works with": (
        {
            "entry": "import sys\nfrom pytest_seeddb.fingerprint.tracing import note_module\ndef rows():\n"
            "    note_module('shop.one')\n    return [sys.modules['shop.one'].A]\n",
            "shop__one": "A = 1\n",
        },
        "import shop.one",
        ("shop/one.py", "A = 1", "A = 2"),
    ),
    "a package in a module's place": (
        {"entry": "from shop.one import A\ndef rows():\n    return [A]\n", "shop__one": "A = 1\n"},
        "",
        None,
    ),
    "a package in the place of a module with a computed name": (
        {
            "entry": "import importlib\nNAME = 'one'\nONE = importlib.import_module(f'shop.{NAME}')\n"
            "def rows():\n    return [ONE.A]\n",
            "shop__one": "A = 1\n",
        },
        "",
        None,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_whatever_the_way_code_took_part_it_counts(project, case):
    files, before, change = CASES[case]
    root = project(**files)
    build = Build(root, before)
    assert not build.changes()
    if change is None:
        (root / "shop/one").mkdir()
        (root / "shop/one/__init__.py").write_text("A = 2\n")
    else:
        edit(root, *change)
    assert build.changes()
    assert Build(root, before).rows != build.rows, "the case itself"


def test_a_docstring_that_counts_asks_for_no_function_that_it_mentions(project):
    one = '"""See other."""\ndef used():\n    "SELECT 1"\n\ndef other():\n    return 1\n'
    root = project(entry="from shop.one import used\ndef rows():\n    return [used.__doc__]\n", shop__one=one)
    build = Build(root)
    edit(root, "shop/one.py", "return 1", "return 2")
    assert bool(build.changes()) != IS_EXACT
    edit(root, "shop/one.py", "See other.", "See.")
    assert build.changes(), "its text counts"


def test_a_class_whose_base_nobody_asks_for_others_rebuilds_nothing(project):
    root = project(
        entry="from shop.one import Base\ndef rows():\n    return [Base.size, str(type(1))]\n",
        shop__one="class Base:\n    size = 1\n",
        shop__two="from shop.one import Base\nclass Two(Base):\n    size = 2\n    kind = Base()\n",
    )
    build = Build(root, "import shop.two")
    edit(root, "shop/two.py", "size = 2", "size = 3")
    assert not build.changes()


def test_an_application_that_changes_nothing_of_what_took_part_rebuilds_nothing(project):
    root = project(
        entry="from shop.config import get\nfrom shop.app import app\ndef rows():\n    return [get('a')]\n",
        shop__config="KEPT = {'a': 1}\nLOGS = []\ndef get(name):\n    return KEPT[name]\n"
        "def log(text):\n    LOGS.append(text)\n",
        shop__app="app = {}\n",
        shop__main="from shop.app import app\nfrom shop.config import get, log, LOGS\nfrom shop.views import VALUE\n"
        "A = get('a')\nOWN = []\nOWN.append(A)\nprint(len(LOGS))\ndef start():\n    log('started')\n"
        "    app['x'] = 1\nif __name__ == '__main__':\n    log('x')\n",
        shop__views="VALUE = 1\n",
        shop__fills="from shop.config import LOGS\nfrom shop.views import VALUE\nLOGS.append('x')\n"
        "def used(): \n    return VALUE\n",
    )
    before = "import shop.main, shop.fills; shop.main.start(); shop.fills.used()"
    build = Build(root, before)
    assert Build(root, before).ran == build.ran, "what fills a registry is remembered"
    edit(root, "shop/main.py", "len(LOGS)", "1")
    edit(root, "shop/views.py", "1", "2")
    assert not build.changes(), "neither what uses it, nor what else is imported by what fills it"
    edit(root, "shop/fills.py", "return VALUE", "return VALUE + 1")
    assert bool(build.changes()) != IS_EXACT
    edit(root, "shop/fills.py", "'x'", "'y'")
    assert build.changes()


def test_a_file_that_this_process_read_is_read_again_only_after_a_change(project, monkeypatch):
    root = project(entry=ENTRY, shop__prices=PRICES, shop__tax="")
    monkeypatch.setattr(sources, "_SETTLED", 0)
    build = Build(root)
    sources.Sources(root).of_file(root / "entry.py")
    opened = []
    monkeypatch.setattr(participation, "read_bytes", lambda path: opened.append(path) or sources.read_bytes(path))
    assert not build.changes()
    assert not opened
    status = (root / "shop/prices.py").stat()
    edit(root, "shop/prices.py", "RATE = 3", "RATE = 4")
    os.utime(root / "shop/prices.py", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert build.changes()


def test_a_second_build_in_one_process_depends_on_the_same(project):
    root = project()
    first, second = Build(root), Build(root, builds=2)
    assert first.ran.files == second.ran.files
    edit(root, "shop/prices.py", "price - RATE", "price + RATE")
    assert second.changes()


COVERAGE = """
import coverage
measure = coverage.Coverage(data_file=None, source=["shop"])
measure.start()
"""


@pytest.mark.skipif(not IS_EXACT, reason="of Python 3.12")
@pytest.mark.parametrize(
    "before",
    [COVERAGE, "import sys; sys.settrace(lambda *a: None)", "import bdb; bdb.Bdb().set_trace"],
    ids=["coverage", "a trace function", "a debugger"],
)
def test_other_tools_make_no_difference(project, monkeypatch, before):
    if "coverage" in before:
        pytest.importorskip("coverage")
    monkeypatch.setenv("COVERAGE_CORE", "sysmon")
    root = project()
    build = Build(root, before)
    edit(root, "shop/prices.py", "return 1", "return 2")
    assert not build.changes()
    edit(root, "shop/prices.py", "price - RATE", "price + RATE")
    assert build.changes() == {"shop/prices.py: discount()"}


@pytest.mark.skipif(not IS_EXACT, reason="of Python 3.12")
def test_where_no_tool_is_free_whole_files_count(project):
    root = project()
    build = Build(root, "sys.monitoring.set_events(tracing._tool[0], 0); tracing._tool[:] = [None]")
    edit(root, "shop/prices.py", "return 1", "return 2")
    assert build.changes() == {"shop/prices.py"}


DEEP = """
    from shop.one import down

    def rows():
        try:
            return [down(0)]
        except RecursionError:
            return [0]
"""


def test_code_at_the_limit_of_recursion_behaves_as_without_a_recording(project):
    root = project(
        entry=DEEP, shop__one="def down(n):\n    return down(n + 1) if n < 900 else last()\ndef last():\n    return 1\n"
    )
    build = Build(root)
    edit(root, "shop/one.py", "return 1", "return 2")
    assert build.rows == [1]
    assert build.changes()


# -- at random ----------------------------------------------------------------------------------------


def _edit(project, chance, number):
    """Change a file that took part, or another one, as a person would."""
    names = project.closure()
    others = [str(path.relative_to(project.root)) for path in project.root.rglob("*.py") if "test" not in path.name]
    name = chance.choice(names if chance.random() < 0.8 else others)
    path = project.root / name
    text, function = path.read_text(), f"f{name.rpartition('/m')[2].removesuffix('.py')}"
    change = chance.choice(
        [
            lambda: text + f"# {number}\n",
            lambda: text.replace("\ndef ", "\n\n\ndef "),
            lambda: text + f"\ndef extra{number}():\n    return 1\n",
            lambda: text.replace("():\n", f"():\n    '''About {number}.'''\n", 1),
            lambda: text.replace("return [", f"return ['new{number}', ", 1),
            lambda: text + f"\nCONSTANT{number % 3} = {number}\n",
            lambda: text + f"\ndef {chance.choice([*project.modules.values()])}():\n    return ['other {number}']\n",
            lambda: text + f"\nclass K{number % 3}:\n    def a(self):\n        return {number}\n",
            lambda: (
                text + f"\nold_{function} = {function}\ndef {function}():\n    return old_{function}() + ['{number}']\n"
            ),
            lambda: text.replace("import codecs", "import sys, codecs", 1),
            lambda: text.replace("():", f"(x={number}):", 1),
            lambda: text.replace("def ", f"@(lambda f: lambda: ['{number}', *f()])\ndef ", 1),
            lambda: None,
        ]
    )()
    if change is None and "/m" in name:
        project.write(f"{name.removesuffix('.py')}/__init__.py", f"def {function}():\n    return ['{number}']\n")
    elif change is not None:
        path.write_text(change)
    return name


@pytest.mark.parametrize("number", range(times(3)))
def test_after_any_edit_what_holds_is_what_a_build_would_make(tmp_path, number, monkeypatch):
    seed = int(os.environ.get("TESTS_SEED", random.randrange(2**32)))
    chance = random.Random(seed)
    print(f"seed {seed}")
    if chance.random() < 0.7:  # else all files count whole, since each module may look at others' text
        monkeypatch.setattr(random_projects, "MODULES", random_projects.MODULES.replace("linecache, ", ""))
        monkeypatch.delitem(random_projects.READS, "cached lines")
    project = random_projects.Project(tmp_path, chance, "postgresql://nobody/x", f"{seed:08x}")
    if (truth := project._run()) is None:
        pytest.skip("what was drawn does not fit together")
    before = "\n".join(project._imported_by_tests(list(project.modules))).replace("\n    ", "\n")
    build, files = Build(project.root, before), project.kept()
    assert not build.changes()
    for at in range(12):
        project.restore(files)
        edits = [_edit(project, chance, at)]
        if (now := project._run()) is not None and now[1] != truth[1]:
            assert build.changes(), (seed, edits)
