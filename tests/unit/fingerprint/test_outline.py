"""What of a file counts: code at module level, and the functions that ran."""

from __future__ import annotations

import textwrap

import pytest

from pytest_seeddb.fingerprint.outline import DOCS, NAMES, TEXT, read_outline, unit_of

FILE = '''
    """About shops."""
    from __future__ import annotations
    import os
    from shop.tax import rate

    PRICES = {"tea": 3}


    def discount(price, share=0.1):
        """Less."""
        from shop.late import bonus
        return price - price * share - bonus


    def unused(x):
        return 1


    class Item(object):
        """A thing."""
        colour = "red"

        def save(self, force=False):
            self.saved = force
            return [line for line in ()]

        @property
        def name(self):
            return "a"
'''


def parts(text, executed=("discount", "Item.save"), asked=(), *, docs=False):
    outline = read_outline(textwrap.dedent(text).encode(), docs=docs)
    return outline.parts(executed, asked)


def edited(old, new):
    assert old in FILE
    return FILE.replace(old, new)


def test_a_lambda_of_a_class_and_a_nested_function_are_part_of_what_is_around_them():
    names = ["Item.<lambda>", "Item.save.<locals>.<listcomp>", "discount.<locals>.inner", "<lambda>", "<module>"]
    assert read_outline(textwrap.dedent(FILE).encode(), docs=False).is_complete(map(unit_of, names))


def outlined(text):
    return read_outline(text.encode(), docs=False)


LITERALS = """
A = 3
B = ["b", {"c": -1}]
C = [A]
D = len(B)
E = 1
E = 2
F: int = 1
if D:
    G = 2
"""


def test_a_value_that_is_spelled_out_and_that_nothing_else_names_may_be_left_out():
    outline = outlined(LITERALS + "H = 1\n")
    assert outline.literals == {"H"}
    assert outline.parts((), (), {"H"}) == outlined(LITERALS + "H = 2\n").parts((), (), {"H"})
    assert outline.parts((), ()) != outlined(LITERALS + "H = 2\n").parts((), ())
    for other in ("", "H = f()\n", "H = 2\nf(H)\n", "H = 2\nH = 3\n", "H = 1\nK = 1\n"):
        assert outline.parts((), (), {"H"}) != outlined(LITERALS + other).parts((), (), {"H"}), other


def test_our_application_in_a_list_is_as_none():
    with_ours = outlined("APPS = ['a', 'pytest_seeddb.django']\n")
    assert with_ours.parts((), ()) == outlined("APPS = ['a']\n").parts((), ())


TYPES = """
from typing import TYPE_CHECKING, Any
if TYPE_CHECKING:
    from shop.tax import Rate
def f(x: "Rate") -> "Any":
    from typing import cast
    return cast("Any", x)
"""
WITHOUT_TYPES = """
def f(x: "Rate") -> "Any":
    return cast("Any", x)
"""
MORE_BINDINGS = ("from shop import Any", "class Any: pass", "TYPE_CHECKING = True", "from shop import *", "Any = int")


def test_names_of_typing_and_what_only_type_checkers_import_do_not_count():
    executed = ("f",)
    assert parts(TYPES, executed) == parts(WITHOUT_TYPES, executed)
    for more in MORE_BINDINGS:
        assert parts(f"{more}{TYPES}", executed) != parts(f"{more}{WITHOUT_TYPES}", executed), more
    for kept in (
        "if TYPE_CHECKING:\n    A = 1\nelse:\n    A = 2\n",
        "from typing import Any as B\n",
        "import typing\n",
    ):
        assert parts(TYPES + kept, executed) != parts(TYPES, executed), kept


def test_an_empty_file_has_an_outline():
    before = read_outline(b"", docs=False).parts([], [])
    assert before != read_outline(b"VERSION = 1", docs=False).parts([], [])


SAME = {
    "a comment": edited("    PRICES =", "    # what things cost\n    PRICES ="),
    "an empty line": edited("    class Item", "\n\n\n    class Item"),
    "a longer line": edited('{"tea": 3}', '{\n        "tea": 3,\n    }'),
    "docstrings": edited("Less.", "Much less.").replace("About shops.", "All about shops.").replace("A thing", "One"),
    "a docstring more": edited("        return 1\n", '        """One."""\n        return 1\n'),
    "the body of what did not run": edited("return 1", "return 2"),
    "a method that did not run": edited('return "a"', 'return "b"'),
    "a function more": FILE + "\n\n    def another():\n        return 7\n",
    "a function less": edited("    def unused(x):\n        return 1\n", ""),
    "the defaults of what did not run": edited("unused(x)", "unused(x, y=2)"),
    "an import in what did not run": edited("return 1", "import shop.other; return 1"),
}
OTHER = {
    "a constant": (edited("3}", "4}"), "PRICES"),
    "the body of what ran": (edited("price - price", "price + price"), "discount()"),
    "a method that ran": (edited("self.saved = force", "self.saved = 1"), "Item.save()"),
    "the defaults of what ran": (edited("share=0.1", "share=0.2"), "discount(...)"),
    "a method's defaults": (edited("force=False", "force=True"), "Item"),
    "a class's bases": (edited("Item(object)", "Item(dict)"), "Item"),
    "a class's attribute": (edited('"red"', '"blue"'), "Item"),
    "a method's decorator": (edited("@property", "@staticmethod"), "Item"),
    "a method more": (edited("        @property", "        def __len__(self): return 1\n\n        @property"), "Item"),
    "an import": (edited("import rate", "import rate as rate2"), ""),
    "a decorator": (edited("    def unused", "    @os.register\n    def unused"), ""),
    "the order": (edited("import os\n    from shop.tax import rate", "from shop.tax import rate\n    import os"), ""),
    "a default that is computed": (edited("unused(x)", "unused(x=os.getcwd())"), ""),
    "another type of number": (edited("3}", "3.0}"), "PRICES"),
    "a function becomes a name": (FILE + "\n    discount = None\n", "discount"),
    "a module's own look-up": (FILE + "\n    def __getattr__(name):\n        return 1\n", "__getattr__"),
}


@pytest.mark.parametrize("case", SAME)
def test_what_cannot_change_a_result_makes_no_difference(case):
    assert parts(SAME[case]) == parts(FILE)


@pytest.mark.parametrize("case", OTHER)
def test_what_can_change_a_result_does_and_is_named(case):
    text, name = OTHER[case]
    before, after = parts(FILE), parts(text)
    assert before != after
    assert before[""] != after[""] or name.endswith("()")
    assert {key for key in {**before, **after} if before.get(key) != after.get(key)} >= ({name} if name else set())


def test_a_function_that_is_asked_for_counts_by_its_head_alone():
    assert parts(FILE, asked=["unused"]) != parts(FILE)
    assert parts(SAME["the body of what did not run"], asked=["unused"]) == parts(FILE, asked=["unused"])
    assert parts(SAME["a function less"], asked=["unused"]) != parts(FILE, asked=["unused"])
    assert parts(SAME["the defaults of what did not run"], asked=["unused"]) != parts(FILE, asked=["unused"])


def test_docstrings_count_where_they_are_asked_for():
    assert parts(SAME["docstrings"], docs=True) != parts(FILE, docs=True)
    assert parts(SAME["a docstring more"], (), ["unused"], docs=True) != parts(FILE, (), ["unused"], docs=True)
    assert parts(SAME["a comment"], docs=True) == parts(FILE, docs=True)


@pytest.mark.parametrize(
    ("code", "asks"),
    [
        ("print(f.__doc__)", DOCS),
        ("import inspect", DOCS),
        ("from inspect import getsource as g", TEXT),
        ("line = sys._getframe().f_lineno", TEXT),
        ("names = vars(module)", NAMES),
        ("names = dir(module)", NAMES),
        ("names = module.__dict__", NAMES),
        ("from shop.prices import *", NAMES),
        ("price = getattr(prices, 'price_' + kind)", NAMES),
        ("price = getattr(prices, 'tea', None)", ""),
        ("price = getattr(self, kind)", ""),
        ("pattern = re.compile('a')", ""),
    ],
)
def test_it_is_told_what_code_asks_of_other_code(code, asks):
    outline = read_outline(f"{code}\ndef f():\n    {code.replace('*', 'x')}\n".encode(), docs=False)
    assert outline.units[""].asks >= ({asks} if asks else set())
    assert bool(outline.units[""].asks) == bool(asks)


def test_code_that_executes_text_is_told_from_methods_of_that_name():
    outline = read_outline(b"def f():\n    exec('x = 1')\ndef g(session):\n    session.exec(1)\n", docs=False)
    assert outline.executes({"f"})
    assert not outline.executes({"g", ""})


def test_the_imports_of_each_function_are_its_own():
    outline = read_outline(textwrap.dedent(FILE).encode(), docs=False)
    assert set(outline.units[""].imports.names) == {"__future__:annotations", "os", "shop.tax:rate"}
    assert outline.units["discount"].imports.names == ("shop.late:bonus",)
    assert outline.units["Item.save"].imports.names == ()


def test_what_is_not_python_has_no_outline():
    assert read_outline(b"def (", docs=False) is None
    assert read_outline(b"\0", docs=False) is None
