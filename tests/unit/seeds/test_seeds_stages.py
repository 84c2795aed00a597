"""Which seeds there are, in which order, with which parameters: read from source or imported."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from itertools import count
from pathlib import Path

import pytest

import pytest_seeddb
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.seeds.discovery import Catalogue, import_seeders
from pytest_seeddb.seeds.staging import stages
from pytest_seeddb.settings.settings import CommandSpec, Settings

_numbers = count(1)


class Project:
    """A project on disk; its package has a name that no other test uses."""

    def __init__(self, root):
        self.root = root
        self.package = f"shop{next(_numbers)}u"
        self.write("__init__.py", "")

    def write(self, name, text):
        path = self.root / self.package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).replace("shop.", f"{self.package}."))

    def seeds(self, text):
        self.write("seeds.py", f"from pytest_seeddb import seeder\n{textwrap.dedent(text)}")

    def settings(self, *seeds, **others):
        named = tuple(
            each.replace("shop.", f"{self.package}.") if isinstance(each, str) else each
            for each in seeds or ("shop.seeds",)
        )
        sources = {"seeds": "`seeds` in pyproject.toml", "profiles": "`profiles` in pyproject.toml"}
        return Settings(root=self.root, seeds=named, sources=sources | others.pop("sources", {}), **others)

    def stages(self, *seeds, overrides=None, **others):
        return stages(self.settings(*seeds, **others), overrides or {})

    def names(self, *seeds, **others):
        return {stage.name: self.plain(stage) for stage in self.stages(*seeds, **others)}

    def plain(self, stage):
        return [each.name.removeprefix("seed ").replace(f"{self.package}.", "shop.") for each in stage.steps]

    def error(self, *seeds, **others):
        with pytest.raises(ConfigError) as caught:
            self.stages(*seeds, **others)
        return str(caught.value).replace(self.package, "shop")

    def parts(self, **others):
        (stage,) = self.stages(**others)
        return {part.name: part.digest for part in stage.steps[0].parts}

    @property
    def was_imported(self):
        return f"{self.package}.seeds" in sys.modules


@pytest.fixture
def project(tmp_path):
    path = [*sys.path]
    found = Project(tmp_path)
    yield found
    sys.path[:] = path
    for name in [each for each in sys.modules if each.partition(".")[0] == found.package]:
        del sys.modules[name]


def test_seeders_run_in_the_order_of_declaration_essential_ones_first(project):
    project.seeds("""
        @seeder(tier="demo")
        def stores(session): ...
        @seeder
        def roles(session): ...
        @seeder()
        async def countries(session): ...
    """)
    assert project.names() == {
        "essential seeds": ["shop.seeds:roles", "shop.seeds:countries"],
        "demo seeds": ["shop.seeds:stores"],
    }
    assert not project.was_imported


def test_a_seeder_runs_after_those_that_it_names_in_any_spelling(project):
    project.write("base.py", "from pytest_seeddb import seeder\n@seeder(name='base-roles')\ndef roles(): ...\n")
    project.write("other.py", "import pytest_seeddb as p\n@p.seeder\ndef one(): ...\n@p.seeder\ndef two(): ...\n")
    project.seeds("""
        from . import base
        from .other import one as first
        import shop.other
        @seeder(after=["last", base.roles, first])
        def start(): ...
        @seeder(after=("shop.other:two",))
        def last(): ...
        @seeder(after=start)
        def end(): ...
    """)
    assert project.names()["essential seeds"] == [
        "shop.other:two",
        "shop.seeds:last",
        "shop.base:base-roles",
        "shop.other:one",
        "shop.seeds:start",
        "shop.seeds:end",
    ]
    assert not project.was_imported


def test_seeders_imported_from_another_module_are_not_declared_by_the_importer(project):
    project.write("base.py", "from pytest_seeddb import seeder\n@seeder\ndef roles(): ...\n")
    project.seeds("""
        from shop.base import roles
        @seeder
        def stores(): ...
    """)
    assert project.names() == {"essential seeds": ["shop.seeds:stores"]}


TWICE = """import functools
def twice(function):
    @functools.wraps(function)
    def run(*args, **named): function(*args, **named)
    return run
"""


@pytest.mark.parametrize(
    "text",
    [
        'TIER = "demo"\n@seeder(tier=TIER)\ndef stores(session, stores: int = 3): ...',
        's = seeder(tier="demo")\n@s\ndef stores(session, stores: int = 3): ...',
        'for _ in [1]:\n    @seeder(tier="demo")\n    def stores(session, stores: int = 3): ...',
        'if True:\n    @seeder(tier="demo")\n    def stores(session, stores: int = 3): ...',
        'def plain(session, stores: int = 3): ...\nseeder(tier="demo", name="stores")(plain)',
        'from shop.tools import *\n@seeder(tier="demo")\ndef stores(session, stores: int = 3): ...',
        "from shop.tools import demo\n@demo\ndef stores(session, stores: int = 3): ...",
        'from shop.tools import Count\n@seeder(tier="demo")\ndef stores(session, stores: Count = 3): ...',
        TWICE + '@twice\n@seeder(tier="demo")\ndef stores(session, stores: int = 3): ...',
    ],
)
def test_what_the_source_does_not_say_plainly_is_found_by_importing(project, text):
    project.write("tools.py", 'from pytest_seeddb import seeder\ndemo = seeder(tier="demo")\nCount = int\n')
    project.seeds(text)
    found = project.stages(profile="big", profiles={"big": {"stores": 7}})
    assert {stage.name: project.plain(stage) for stage in found} == {"demo seeds": ["shop.seeds:stores"]}
    parts = {part.name: part.digest for part in found[0].steps[0].parts}
    assert parts["parameter stores"] == "7"
    assert project.was_imported


def test_the_source_and_the_import_say_the_same(project):
    project.write("base.py", "from pytest_seeddb import seeder\n@seeder(name='r')\ndef roles(): ...\n")
    project.seeds("""
        import datetime as dt
        import typing as t
        from decimal import Decimal
        from pathlib import Path
        from sqlalchemy import orm
        from sqlalchemy.ext.asyncio import AsyncSession as S
        import psycopg
        from . import base

        @seeder
        def one(session, a: int = 1, *, b: "str" = "x", c=None, d: t.Literal["a", 1] = "a", **more): ...

        @seeder(
            tier="demo",
            after=[one, base.roles, "last"],
            name="second",
        )
        async def two(s: S, p: list[Decimal] = [], q: t.Optional[dt.date] = None, r: dict[str, float] = {}): ...

        @seeder()
        def last(s: orm.Session, c: psycopg.Connection[t.Any], url: str, e: tuple[int, ...] = (1,)): ...

        @seeder
        def none(f: Path | None = None, g: t.Union[int, str] = 1): ...
    """)
    module = f"{project.package}.seeds"
    read = Catalogue(project.root).seeders(module, source="")
    assert not project.was_imported
    assert read == import_seeders(module, root=project.root, source="")
    assert project.was_imported
    assert [[each.name for each in seeder.parameters] for seeder in read] == [
        ["a", "b", "c", "d"],
        ["p", "q", "r"],
        ["e"],
        ["f", "g"],
    ]


def test_a_fingerprint_imports_neither_the_project_nor_a_framework(project):
    project.write("base.py", "import sqlalchemy\nfrom pytest_seeddb import seeder\n@seeder\ndef roles(): ...\n")
    project.seeds("from .base import roles\n@seeder(after=[roles])\ndef stores(session, stores: int = 3): ...")
    code = (
        "import sys; from pathlib import Path\n"
        "from pytest_seeddb.settings.settings import Settings; from pytest_seeddb.seeds.staging import stages\n"
        f"assert stages(Settings(root=Path({str(project.root)!r}), seeds=('{project.package}.seeds',)), {{}})\n"
        f"print(*{{'{project.package}', 'sqlalchemy', 'psycopg', 'factory', 'faker', 'asyncio'}} & set(sys.modules))"
    )
    root = Path(pytest_seeddb.__file__).parents[1]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert ran.stdout.split() == []


@pytest.mark.parametrize(
    "text",
    [
        "from pytest_seeddb import seeder\n@seeder\ndef stores(): ...",
        "try:\n    from pytest_seeddb import seeder\nexcept ImportError:\n    pass\n@seeder\ndef stores(): ...",
        "def make():\n    @seeder\n    def stores(): ...\nmake()",
        "globals().update(s=globals()['see' 'der'])\n@s\ndef stores(): ...",
    ],
)
def test_no_way_of_declaring_is_overlooked(project, text):
    project.seeds(text)
    assert project.names() == {"essential seeds": ["shop.seeds:stores"]}


def test_a_source_that_warns_is_read_without_a_warning(project):
    project.seeds("PATTERN = '\\d'\n@seeder\ndef stores(): ...")
    assert project.names() == {"essential seeds": ["shop.seeds:stores"]}
    assert not project.was_imported


def test_a_profile_and_a_marker_give_parameters_by_name(project):
    project.seeds("""
        @seeder
        def stores(session, stores: int = 3, *, customers: int = 15, label="x" * 3): ...
    """)
    profiles = {"big": {"stores": 9}}
    assert project.parts()["parameter stores"] == "3"
    assert project.parts(profile="big", profiles=profiles)["parameter stores"] == "9"
    both = project.parts(profile="big", profiles=profiles, overrides={"stores": 10})
    assert (both["parameter stores"], both["parameter customers"]) == ("10", "15")
    assert both["parameter label"] == "its default"
    assert not project.was_imported


def test_the_fingerprint_has_the_source_the_random_seed_and_the_name(project):
    project.seeds("@seeder\ndef roles(session): ...")
    parts = project.parts(random_seed=7)
    assert parts["random seed"] == "7"
    assert parts["seeder"] == f"{project.package}.seeds:roles"
    assert f"{project.package}/seeds.py" in parts


def test_another_session_factory_is_another_template_and_seeds_no_database_again(project):
    project.seeds("@seeder\ndef roles(session): ...")
    settings = [{}, {"session": ("a:B",)}, {"session": ("a:C",)}, {"engines": ("a:C",)}, {"engines": ("all",)}]
    steps = [stage.steps[0] for named in settings for stage in project.stages(**named)]
    assert len({step.declared for step in steps}) == 4
    assert steps[0].declared == steps[4].declared
    assert len({(step.versions, step.parts_before) for step in steps}) == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a" * 100, 16),
        ([1, 2], "[1, 2]"),
        ({"a": {"b": None}}, "{'a': {'b': None}}"),
    ],
)
def test_any_value_of_a_table_has_a_part(project, value, shown):
    project.seeds("@seeder\ndef stores(stores=None): ...")
    found = project.parts(overrides={"stores": value})["parameter stores"]
    assert found == shown or len(found) == shown


def test_the_essential_profile_leaves_out_the_demo_tier(project):
    project.seeds("""
        @seeder
        def roles(): ...
        @seeder(tier="demo")
        def stores(stores: int): ...
    """)
    assert project.names(profile="essential") == {"essential seeds": ["shop.seeds:roles"]}
    assert project.names(profile="ci", profiles={"ci": {"tier": "essential"}}) == {
        "essential seeds": ["shop.seeds:roles"]
    }
    assert list(project.names(profile="all", profiles={"all": {"tier": "demo", "stores": 1}})) == [
        "essential seeds",
        "demo seeds",
    ]


def test_callables_files_and_commands_stand_in_the_order_of_the_settings(project):
    project.write("db.py", "from .first import start\ndef init_db(session): ...\n")
    project.write(
        "first.py", "from pytest_seeddb import seeder\n@seeder\ndef start(): ...\n@seeder\ndef other(): ...\n"
    )
    for name in ("10_last.sql", "2_first.sql"):
        project.write(f"sql/{name}", "SELECT 1")
    command = CommandSpec("make seeds PASSWORD=secret", (f"{project.package}/sql/*.sql",))
    found = project.names("shop.db:init_db", f"{project.package}/sql/*.sql", command, "shop.db:start")
    assert found == {
        "essential seeds": [
            "shop.db:init_db",
            f"{project.package}/sql/2_first.sql",
            f"{project.package}/sql/10_last.sql",
            "make seeds PASSWORD=***",
            "shop.first:start",
        ]
    }


def test_a_callable_that_is_no_plain_function_is_imported(project):
    project.write("db.py", "import functools\ndef f(session, n=1): ...\ninit_db = functools.partial(f, n=2)\n")
    assert project.names("shop.db:init_db") == {"essential seeds": ["shop.db:init_db"]}


def test_a_module_without_seeders_says_what_to_write(project):
    project.write("seeds.py", "def roles(): ...")
    assert project.error() == (
        "The module shop.seeds declares no seeders\n"
        "  saw:  no function with @seeder in it\n"
        "  from: `seeds` in pyproject.toml\n"
        '  do:   put @seeder on its functions, or name one to call: "shop.seeds:function"'
    )


def test_a_pattern_without_files_says_where_it_was_looked_for(project):
    assert project.error("sql/*.sql") == (
        "The seeds 'sql/*.sql' are not SQL files\n"
        f"  saw:  no file under {project.root} matches this pattern\n"
        "  from: `seeds` in pyproject.toml\n"
        '  do:   name a module ("shop.seeds"), a function ("shop.db:init_db") or files ("seeds/*.sql")'
    )


def test_a_missing_module_or_attribute_is_an_error_that_names_its_setting(project):
    project.seeds("@seeder\ndef roles(): ...")
    missing = project.error("shop.seedz")
    assert "There is no module 'shop.seedz'" in missing
    assert "Did you mean 'seeds'?" in missing
    assert "from: `seeds` in pyproject.toml" in missing
    assert "There is no 'rolez' in the module 'shop.seeds'" in project.error("shop.seeds:rolez")
    assert "cannot be called" in project.error("shop.seeds:__name__")


def test_a_cycle_names_each_end_with_its_line(project):
    project.seeds("""
        @seeder(after=["stores"])
        def roles(): ...
        @seeder(after=[roles])
        def stores(): ...
    """)
    assert project.error() == (
        "The seeders shop.seeds:roles and shop.seeds:stores wait for each other\n"
        "  saw:  shop.seeds:roles (shop/seeds.py:3) runs after shop.seeds:stores (shop/seeds.py:5)\n"
        "        shop.seeds:stores (shop/seeds.py:5) runs after shop.seeds:roles (shop/seeds.py:3)\n"
        "  from: after= at shop/seeds.py:5\n"
        "  do:   remove one of these from its seeder's `after`"
    )


def test_a_seeder_that_waits_for_itself_is_a_cycle(project):
    project.seeds("@seeder(after='roles')\ndef roles(): ...")
    assert "The seeder shop.seeds:roles waits for itself" in project.error()


def test_an_unknown_after_names_the_seeder_its_line_and_what_was_meant(project):
    project.seeds("""
        @seeder
        def roles(): ...
        @seeder(after=["rolse"])
        def stores(): ...
    """)
    assert project.error() == (
        "The seeder shop.seeds:stores names 'rolse' in `after`, which is not a seeder\n"
        "  saw:  seeders: shop.seeds:roles (shop/seeds.py:3), shop.seeds:stores (shop/seeds.py:5)\n"
        "  from: after= at shop/seeds.py:5\n"
        "  do:   Did you mean 'roles'? Name one of these, or declare it with @seeder"
    )


def test_an_unknown_module_in_after_is_reported_where_it_stands(project):
    project.seeds("@seeder(after=['shop.nowhere:roles'])\ndef stores(): ...".replace("shop.", f"{project.package}."))
    assert "There is no module 'shop.nowhere'" in project.error()
    assert "from: after= at shop/seeds.py:2" in project.error()


def test_after_something_that_is_no_seeder_says_so(project):
    project.seeds("def plain(): ...\n@seeder(after=[plain])\ndef stores(): ...")
    assert "The seeder shop.seeds:stores names something in `after` that is not a seeder" in project.error()


def test_a_bare_name_that_two_modules_have_is_refused(project):
    project.write("one.py", "from pytest_seeddb import seeder\n@seeder\ndef roles(): ...\n")
    project.write("two.py", "from pytest_seeddb import seeder\n@seeder\ndef roles(): ...\n")
    project.seeds("@seeder(after=['roles'])\ndef stores(): ...")
    error = project.error("shop.one", "shop.two", "shop.seeds")
    assert "there are several seeders of that name" in error
    assert "shop.one:roles (shop/one.py:2)" in error
    assert 'name the module too: "shop.one:roles"' in error


@pytest.mark.parametrize("how", ["", "for _ in [1]: pass\ns = seeder\n"])
def test_two_seeders_of_one_name_are_refused_with_both_places(project, how):
    project.seeds(how + "@seeder\ndef roles(): ...\n@seeder(name='roles')\ndef more(): ...")
    lines = 1 + how.count("\n")
    assert project.error() == (
        "Two seeders are called shop.seeds:roles\n"
        f"  saw:  shop/seeds.py:{lines + 1}\n"
        f"        shop/seeds.py:{lines + 3}\n"
        f"  from: shop/seeds.py:{lines + 3}\n"
        '  do:   rename one, or give it another name: @seeder(name="...")'
    )


def test_an_essential_seeder_cannot_wait_for_a_demo_one(project):
    project.seeds("""
        @seeder(tier="demo")
        def stores(): ...
        @seeder(after=[stores])
        def roles(): ...
    """)
    error = project.error()
    assert "The essential seeder shop.seeds:roles cannot run after the demo seeder shop.seeds:stores" in error
    assert "shop.seeds:roles (shop/seeds.py:5) is essential" in error


def test_a_wrong_tier_is_told_in_the_decorators_own_words(project):
    project.seeds("@seeder(tier='dmeo')\ndef roles(): ...")
    assert "The seeder shop.seeds:roles has an unknown tier" in project.error()


def test_an_unknown_profile_lists_those_that_there_are(project):
    project.seeds("@seeder\ndef roles(): ...")
    error = project.error(profile="minimla", profiles={"minimal": {}}, sources={"profile": "--seed-db-profile"})
    assert error == (
        "There is no profile 'minimla'\n"
        "  saw:  profiles: default, essential, minimal\n"
        "  from: --seed-db-profile\n"
        "  do:   Did you mean 'minimal'? Name one of these, or add a table [tool.seeddb.profiles.minimla]"
    )


def test_a_parameter_that_no_seeder_has_is_refused(project):
    project.seeds("@seeder\ndef make(session, stores: int = 3): ...")
    assert project.error(profile="big", profiles={"big": {"storse": 4}}) == (
        "No seeder has a parameter `storse`\n"
        "  saw:  storse = 4\n"
        "  from: profile 'big', `profiles` in pyproject.toml\n"
        "  do:   Did you mean 'stores'? Parameters: stores (shop.seeds:make)"
    )
    assert "from: the marker: seeded(storse=...)" in project.error(overrides={"storse": 4})


def test_a_demo_parameter_in_a_profile_without_demo_seeds_is_refused(project):
    project.seeds("@seeder\ndef roles(): ...\n@seeder(tier='demo')\ndef make(stores: int = 3): ...")
    error = project.error(profile="essential", overrides={"stores": 3})
    assert "The profile 'essential' has no demo seeds, and `stores` is a parameter of one" in error


def test_a_value_that_does_not_fit_names_seeder_parameter_value_source_and_what_is_allowed(project):
    project.seeds("@seeder\ndef make(session, stores: int = 3): ...")
    assert project.error(overrides={"stores": True}) == (
        "The seeder shop.seeds:make cannot take this value for its parameter `stores`\n"
        "  saw:  stores = True (bool)\n"
        "  from: the marker: seeded(stores=...)\n"
        "  do:   give a whole number; the parameter is declared at shop/seeds.py:2"
    )
    assert not project.was_imported


def test_a_parameter_without_a_value_says_where_to_give_one(project):
    project.seeds("@seeder\ndef make(session, stores: int): ...")
    error = project.error(profile="big", profiles={"big": {}})
    assert "The seeder shop.seeds:make needs a value for its parameter `stores`" in error
    assert "write stores = ... in [tool.seeddb.profiles.big]" in error
    assert project.parts(overrides={"stores": 2})["parameter stores"] == "2"


def test_a_value_without_a_text_of_its_own_is_refused(project):
    project.seeds("@seeder\ndef make(stores=None): ...")
    assert "cannot be part of the fingerprint" in project.error(overrides={"stores": object()})


def test_a_profiles_tier_must_be_one(project):
    project.seeds("@seeder\ndef roles(): ...")
    assert "A profile has an unknown `tier`" in project.error(profile="x", profiles={"x": {"tier": "esential"}})


def test_a_file_that_a_seed_in_sql_includes_counts(project):
    def parts():
        ((step,),) = (stage.steps for stage in project.stages(f"{project.package}/sql/1.sql"))
        return {part.name: part.digest for part in step.parts}

    project.write("sql/1.sql", "\\ir more/rows.txt\nSELECT 1;\n")
    project.write("sql/more/rows.txt", "SELECT 2;")
    before = parts()
    assert set(before) == {f"{project.package}/sql/1.sql", f"{project.package}/sql/more/rows.txt"}
    project.write("sql/more/rows.txt", "SELECT 3;")
    assert parts() != before
