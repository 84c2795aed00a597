from __future__ import annotations

import json
import os
import sys
import textwrap
from multiprocessing import get_context

import pytest

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import digest, explain_change
from pytest_seeddb.fingerprint.sources import Sources

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    root.mkdir()
    return Project(root, tmp_path / "cache" / "imports.json")


class Project:
    def __init__(self, root, cache):
        self.root, self.cache = root, cache

    def put(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
        path.write_bytes(data)
        return path

    def sources(self):
        return Sources(self.root, self.cache)

    def parts(self, module="shop.seeds"):
        return {part.name: part.digest for part in self.sources().of_module(module)}

    def files(self, module="shop.seeds"):
        return sorted(name for name in self.parts(module) if "/" in name or name.endswith(".py"))


def _installed(directory, name, version, record):
    metadata = directory / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "RECORD").write_text(record)
    return metadata


@pytest.fixture
def site(tmp_path, monkeypatch):
    directory = tmp_path / "env" / "site-packages"
    directory.mkdir(parents=True)
    monkeypatch.syspath_prepend(directory)
    return directory


def test_a_module_two_steps_away_counts_and_an_unrelated_one_does_not(project):
    project.put("shop/__init__.py", "")
    project.put("shop/seeds.py", "from shop.factories import make")
    project.put("shop/factories.py", "import shop.models as m")
    project.put("shop/models.py", "x = 1")
    project.put("shop/views.py", "import shop.seeds")
    project.put("tests/test_shop.py", "import shop.seeds")
    before = project.parts()
    project.put("shop/views.py", "# a comment")
    project.put("tests/test_shop.py", "def test(): ...")
    assert project.parts() == before
    project.put("shop/models.py", "x = 2")
    after = project.parts()
    assert [name for name in after if after[name] != before[name]] == ["shop/models.py"]


def test_a_part_is_the_digest_of_the_files_bytes_and_python_counts(project):
    project.put("seeds.py", "x = 1")
    assert project.parts("seeds") == {"python": PYTHON, "seeds.py": digest("x = 1")}


@pytest.mark.parametrize(
    "statement",
    [
        "import shop.deep.target",
        "import shop.deep.target as t",
        "from shop.deep import target",
        "from shop.deep.target import name",
        "from .deep import target",
        "from .deep.target import *",
        "from . import deep; from .deep import target as t",
        "def later():\n    from shop.deep import target",
        "class A:\n    for x in y:\n        with z:\n            import shop.deep.target",
        "try: pass\nfinally:\n    while x:\n        pass\n    else:\n        import shop.deep.target",
        "match x:\n    case 1:\n        import shop.deep.target",
        "try:\n    import shop.deep.target\nexcept ImportError:\n    pass",
        "if not TYPE_CHECKING:\n    import shop.deep.target",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import shop.deep.target",
        "import importlib\nimportlib.import_module('shop.deep.target')",
        "import importlib.util\nimportlib.util.find_spec('shop.deep.target')",
        "from importlib import import_module as load\nload('shop.deep.target')",
        "from importlib import import_module\nimport_module('.deep.target', __package__)",
        "from importlib import import_module\nimport_module('.target', package='shop.deep')",
        "__import__('shop.deep.target')",
        "from django.utils.module_loading import import_string\nimport_string('shop.deep.target.make')",
        "import pkgutil\npkgutil.resolve_name('shop.deep.target:make')",
        "from importlib import import_module\nimport_module(f'shop.deep.{name}')",
        "from importlib import import_module\nimport_module('shop.deep.' + name)",
        "from importlib import import_module\nfor name in ['shop.deep.target']:\n    import_module(name)",
        "import pkgutil, shop.deep\nfor m in pkgutil.iter_modules(shop.deep.__path__): ...",
        "import pkgutil\nfrom shop import deep as d\nfor m in pkgutil.walk_packages(d.__path__): ...",
    ],
)
def test_every_way_to_import_is_followed(project, statement):
    project.put("shop/__init__.py", "")
    project.put("shop/seeds.py", statement)
    project.put("shop/deep/__init__.py", "")
    project.put("shop/deep/target.py", "name = make = 1")
    assert {"shop/__init__.py", "shop/deep/__init__.py", "shop/deep/target.py"} <= project.parts().keys()


@pytest.mark.parametrize(
    "statement",
    [
        "if TYPE_CHECKING:\n    import shop.target",
        "import typing as t\nif t.TYPE_CHECKING:\n    from shop import target",
        "'import shop.target'",
        "from shop import other",
        "name = 'shop.target'",
        "import pkgutil\nfrom shop import other\npkgutil.iter_modules(other.__path__)",
    ],
)
def test_what_is_not_imported_at_run_time_does_not_count(project, statement):
    project.put("shop/__init__.py", "")
    project.put("shop/seeds.py", statement)
    project.put("shop/target.py", "")
    assert project.files() == ["shop/__init__.py", "shop/seeds.py"]


def test_the_packages_around_an_imported_module_count(project):
    project.put("seeds.py", "import a.b.c")
    for name in ("a/__init__.py", "a/b/__init__.py", "a/b/c.py", "a/d.py"):
        project.put(name, "")
    assert project.files("seeds") == ["a/__init__.py", "a/b/__init__.py", "a/b/c.py", "seeds.py"]


def test_a_missing_submodule_still_runs_the_packages_around_it(project):
    project.put("seeds.py", "try:\n    import a.local\nexcept ImportError: pass")
    project.put("a/__init__.py", "import extra")
    project.put("extra.py", "")
    before = project.files("seeds")
    assert before == ["a/__init__.py", "extra.py", "seeds.py"]
    project.put("a/local.py", "")
    assert set(project.files("seeds")) - set(before) == {"a/local.py"}


def test_a_star_import_brings_the_submodules_that_all_names(project):
    project.put("seeds.py", "from a import *")
    project.put("a/__init__.py", "__all__ = ['one']\n__all__ += ['two']")
    for name in ("one", "two", "three"):
        project.put(f"a/{name}.py", "")
    assert project.files("seeds") == ["a/__init__.py", "a/one.py", "a/two.py", "seeds.py"]


def test_relative_imports_count_from_the_files_own_package(project):
    for name in ("a/__init__.py", "a/b/__init__.py", "a/top.py", "a/b/beside.py"):
        project.put(name, "")
    project.put("a/b/seeds.py", "from .. import top\nfrom . import beside\nfrom .... import nothing")
    assert {"a/top.py", "a/b/beside.py"} <= project.parts("a.b.seeds").keys()


def test_cycles_end(project):
    project.put("a.py", "import b")
    project.put("b.py", "import c")
    project.put("c.py", "import a")
    assert project.files("a") == ["a.py", "b.py", "c.py"]


@pytest.mark.slow
def test_a_very_long_chain_of_imports_ends(project):
    for number in range(1500):
        project.put(f"m{number}.py", f"import m{number + 1}")
    project.put("m1500.py", "")
    assert len(project.files("m0")) == 1501


def test_a_src_layout_is_searched(project):
    project.put("src/shop/__init__.py", "")
    project.put("src/shop/seeds.py", "from shop import models")
    project.put("src/shop/models.py", "")
    assert project.files() == ["src/shop/__init__.py", "src/shop/models.py", "src/shop/seeds.py"]


@pytest.mark.parametrize("place", ["", "{root}/"], ids=["from the root, wherever this process is", "absolute"])
def test_directories_that_the_project_puts_on_the_path_are_searched(project, monkeypatch, tmp_path_factory, place):
    project.put("lib/helper_x.py", "")
    project.put("seeds.py", "import helper_x")
    assert project.files("seeds") == ["seeds.py"]
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setattr(sys, "path", [place.format(root=project.root) + "lib", *sys.path])
    assert project.files("seeds") == ["lib/helper_x.py", "seeds.py"]


def test_namespace_packages_are_followed(project):
    project.put("acme/shop/seeds.py", "from acme.shop import models\nfrom . import more")
    project.put("acme/shop/models.py", "")
    project.put("acme/shop/more.py", "")
    assert project.files("acme.shop.seeds") == ["acme/shop/models.py", "acme/shop/more.py", "acme/shop/seeds.py"]


def test_a_directory_named_like_an_installed_package_does_not_hide_it(project, site):
    (site / "fakealembic").mkdir()
    (site / "fakealembic/__init__.py").write_text("")
    _installed(site, "fakealembic", "1.2", "")
    project.put("fakealembic/env.py", "")
    project.put("seeds.py", "from fakealembic import op")
    assert project.parts("seeds")["package fakealembic"] == "1.2"


def test_another_package_version_is_shown_as_old_and_new(project, site):
    (site / "fakefaker").mkdir()
    (site / "fakefaker/__init__.py").write_text("")
    metadata = _installed(site, "FakeFaker", "40.1.0", "")
    project.put("seeds.py", "from fakefaker import Faker")
    old = project.sources().of_module("seeds")
    metadata.rename(site / "FakeFaker-40.2.0.dist-info")
    new = project.sources().of_module("seeds")
    assert explain_change([("seed s", old)], [("seed s", new)]) == "package fakefaker: 40.1.0 -> 40.2.0"


def test_a_package_that_is_named_otherwise_than_its_module_is_found(project, site):
    (site / "fakeyaml").mkdir()
    (site / "fakeyaml/__init__.py").write_text("")
    _installed(site, "Py.Fake_YAML", "6.0", "Py.Fake_YAML-6.0.dist-info/METADATA,,\nfakeyaml/__init__.py,,\n")
    project.put("seeds.py", "import fakeyaml.nodes")
    assert project.parts("seeds")["package py-fake-yaml"] == "6.0"
    (site / "Py.Fake_YAML-6.0.dist-info").rename(site / "Py.Fake_YAML-6.1.dist-info")
    assert project.parts("seeds")["package py-fake-yaml"] == "6.1"


def test_all_distributions_that_share_a_namespace_count(project, site):
    for number in (1, 2):
        (site / f"fakespace/part{number}").mkdir(parents=True)
        _installed(site, f"fakespace_part{number}", number, f"fakespace/part{number}/x.py,,\n")
    project.put("seeds.py", "import fakespace.part1.x")
    parts = project.parts("seeds")
    assert (parts["package fakespace-part1"], parts["package fakespace-part2"]) == ("1", "2")


def test_faker_counts_where_factory_boy_is_imported(project):
    project.put("seeds.py", "import factory")
    assert {"package factory-boy", "package faker"} <= project.parts("seeds").keys()


def test_a_file_that_was_put_among_the_packages_is_told_by_its_content(project, site):
    (site / "fakesingle.py").write_text("x = 1")
    project.put("seeds.py", "import fakesingle")
    assert project.parts("seeds")["package fakesingle"] == digest("x = 1")


def test_a_package_that_is_not_installed_is_seen_when_it_comes(project, site):
    project.put("seeds.py", "try:\n    import fakejson\nexcept ImportError:\n    pass")
    assert project.parts("seeds")["package fakejson"] == "not installed"
    (site / "fakejson.py").write_text("")
    _installed(site, "fakejson", "3.10", "fakejson.py,,\n")
    assert project.parts("seeds")["package fakejson"] == "3.10"


def test_packages_are_not_walked_into_and_the_standard_library_is_ignored(project):
    project.put("seeds.py", "import os.path, json, xml.etree.ElementTree, sqlalchemy.orm")
    assert project.parts("seeds").keys() == {"seeds.py", "python", "package sqlalchemy"}


def test_pytest_seeddb_itself_counts_by_its_version_however_it_is_installed(project):
    project.put("seeds.py", "from pytest_seeddb import seeder")
    assert project.parts("seeds").keys() == {"seeds.py", "python", "package pytest-seeddb"}


def test_what_only_another_package_imports_does_not_count(project, site):
    (site / "fakeouter.py").write_text("import fakeinner")
    (site / "fakeinner.py").write_text("")
    project.put("seeds.py", "import fakeouter")
    assert "package fakeinner" not in project.parts("seeds")


@pytest.mark.parametrize("environment", [".venv", "env", ".tox/py"])
def test_a_virtual_environment_inside_of_the_project_is_not_the_projects_code(project, monkeypatch, environment):
    if environment == "env":
        project.put("env/pyvenv.cfg", "")
    inside = project.put(f"{environment}/lib/fakeinside.py", "").parent
    monkeypatch.syspath_prepend(inside)
    project.put("seeds.py", "import fakeinside")
    assert project.parts("seeds").keys() == {"seeds.py", "python", "package fakeinside"}


def test_a_local_package_beside_the_project_counts_with_its_files(project, tmp_path, monkeypatch):
    library = tmp_path / "libs/src/fakeshared"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("from . import models")
    (library / "models.py").write_text("x = 1")
    (library / "unused.py").write_text("")
    monkeypatch.syspath_prepend(library.parent)
    project.put("seeds.py", "import fakeshared")
    before = project.parts("seeds")
    assert before.keys() == {"seeds.py", "python", "fakeshared/__init__.py", "fakeshared/models.py"}
    (library / "models.py").write_text("x = 2")
    assert project.parts("seeds")["fakeshared/models.py"] != before["fakeshared/models.py"]


def test_a_local_package_that_an_import_hook_finds_counts_with_its_files(project, tmp_path, monkeypatch):
    from importlib.util import spec_from_file_location

    package = tmp_path / "libs/fakehooked"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from . import models")
    (package / "models.py").write_text("")

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "fakehooked":
                return spec_from_file_location(name, package / "__init__.py")
            return None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    project.put("seeds.py", "import fakehooked")
    assert project.files("seeds") == ["fakehooked/__init__.py", "fakehooked/models.py", "seeds.py"]


def test_nothing_of_the_projects_code_is_run(project):
    project.put("shop/__init__.py", "raise SystemExit(3)")
    project.put("shop/seeds.py", "import shop.models, boom")
    project.put("shop/models.py", "raise SystemExit(3)")
    project.put("boom.py", "raise SystemExit(3)")
    assert len(project.files()) == 4
    assert "boom" not in sys.modules


@pytest.mark.parametrize(
    "broken",
    [b"def (:", b"\x00", b"# coding: no-such-encoding\n", b"\xff\xfe", b"(" * 5000, b"x = " + b"-" * 100_000 + b"1"],
)
def test_a_broken_module_counts_by_its_content(project, broken):
    project.put("seeds.py", "import target")
    project.put("target.py", broken)
    assert project.parts("seeds")["target.py"] == digest(broken)


def test_files_in_any_encoding_are_followed(project):
    project.put("seeds.py", "# coding: latin-1\nx = '\xe9'\nimport one".encode("latin-1"))
    project.put("one.py", "\ufeffimport two".encode())
    project.put("two.py", "x = 1")
    assert project.files("seeds") == ["one.py", "seeds.py", "two.py"]


def test_a_warning_about_the_users_code_is_no_error_of_ours(project):
    project.put("seeds.py", "x = '\\d'\nx is 1\nimport one")
    project.put("one.py", "")
    assert project.files("seeds") == ["one.py", "seeds.py"]


def test_a_module_that_disappears_between_listing_and_reading_is_missing(project):
    project.put("seeds.py", "import target")
    (project.root / "target.py").symlink_to(project.root / "nowhere")
    assert project.parts("seeds")["target.py"] == "missing"


def test_computed_imports_bring_the_whole_package_without_its_tests(project):
    project.put("shop/__init__.py", "")
    project.put("shop/seeds/__init__.py", "import importlib, os\nfor n in os.listdir('x'): importlib.import_module(n)")
    for name in ("a", "deep/b", "0001_init", "test_c", "tests/d", "conftest"):
        project.put(f"shop/seeds/{name}.py", "")
    project.put("shop/other.py", "")
    assert project.files() == [
        "shop/__init__.py",
        "shop/seeds/0001_init.py",
        "shop/seeds/__init__.py",
        "shop/seeds/a.py",
        "shop/seeds/deep/b.py",
    ]


def test_computed_imports_of_a_lone_module_bring_the_modules_beside_it(project):
    project.put("seeds.py", "import importlib, sys\nimportlib.import_module(sys.argv[1])")
    for name in ("one.py", "test_two.py", "package/three.py"):
        project.put(name, "")
    assert project.files("seeds") == ["one.py", "seeds.py"]


def test_a_link_back_up_does_not_make_a_package_endless(project):
    project.put("shop/__init__.py", "import pkgutil\npkgutil.walk_packages(__path__)")
    project.put("shop/a.py", "")
    (project.root / "shop/loop").symlink_to(project.root / "shop")
    assert project.files("shop") == ["shop/__init__.py", "shop/a.py"]


def test_a_linked_module_is_followed_under_its_name_in_the_project(project, tmp_path):
    (tmp_path / "real.py").write_text("import target")
    (project.root / "linked.py").symlink_to(tmp_path / "real.py")
    project.put("target.py", "")
    project.put("seeds.py", "import linked")
    assert project.files("seeds") == ["linked.py", "seeds.py", "target.py"]


def test_a_root_behind_a_link_gives_the_same_parts(project, tmp_path):
    project.put("shop/seeds.py", "from shop import models")
    project.put("shop/models.py", "")
    (tmp_path / "link").symlink_to(project.root)
    linked = Sources(tmp_path / "link", project.cache)
    assert linked.of_module("shop.seeds") == project.sources().of_module("shop.seeds")
    assert linked.of_file(project.root / "shop/seeds.py") == project.sources().of_module("shop.seeds")


def test_a_file_has_the_parts_of_the_module_that_it_is(project):
    project.put("src/shop/__init__.py", "")
    project.put("src/shop/seeds.py", "from . import models")
    project.put("src/shop/models.py", "")
    sources = project.sources()
    assert sources.of_file(project.root / "src/shop/seeds.py") == sources.of_module("shop.seeds")


def test_a_file_with_a_name_that_no_import_could_spell_is_followed(project):
    path = project.put("migrations/versions/0001-init.py", "import shop.types_x, sqlalchemy")
    project.put("shop/types_x.py", "")
    names = {part.name for part in project.sources().of_file(path)}
    assert names == {"migrations/versions/0001-init.py", "shop/types_x.py", "package sqlalchemy", "python"}


def test_within_follows_imports_into_that_directory_only(project):
    path = project.put(
        "migrations/env.py",
        "import importlib, sqlalchemy, shop.models, migrations.common\nimportlib.import_module(shop.name)",
    )
    project.put("migrations/common.py", "import shop.settings, migrations.more")
    project.put("migrations/more.py", "")
    project.put("migrations/versions/0001.py", "")
    project.put("shop/__init__.py", "")
    project.put("shop/models.py", "import faker")
    project.put("shop/settings.py", "")
    names = {part.name for part in project.sources().of_file(path, within=project.root / "migrations")}
    assert names == {
        *("migrations/env.py", "migrations/common.py", "migrations/more.py"),
        *("package sqlalchemy", "python"),
    }


def test_a_missing_file_is_an_error_that_names_it(project):
    with pytest.raises(ConfigError, match=r"The file gone\.py cannot be read"):
        project.sources().of_file(project.root / "gone.py")


def test_an_unknown_module_is_an_error_that_suggests_a_known_one(project):
    project.put("shop/__init__.py", "")
    project.put("shop/seeds.py", "")
    with pytest.raises(ConfigError) as caught:
        project.sources().of_module("shop.seedz", source="seeds in seeddb.toml")
    assert caught.value.what == 'There is no module "shop.seedz"'
    assert caught.value.source == "seeds in seeddb.toml"
    assert 'Did you mean "shop.seeds"?' in caught.value.remedy


def test_a_module_of_an_installed_package_counts_by_its_version(project, site):
    (site / "fakeseeds.py").write_text("")
    _installed(site, "fakeseeds", "7.1", "fakeseeds.py,,\n")
    assert project.parts("fakeseeds") == {"package fakeseeds": "7.1", "python": PYTHON}


def test_one_object_sees_one_state(project):
    project.put("seeds.py", "x = 1")
    sources = project.sources()
    before = sources.of_module("seeds")
    project.put("seeds.py", "x = 2")
    assert sources.of_module("seeds") == before != project.sources().of_module("seeds")


def test_a_warm_look_parses_nothing_and_says_the_same(project, monkeypatch):
    project.put("seeds.py", "import one, sqlalchemy, importlib\nimportlib.import_module(f'a.{one}')")
    project.put("one.py", "from a import *")
    project.put("a/__init__.py", "__all__ = ['b']")
    project.put("a/b.py", "")
    cold = project.parts("seeds")
    monkeypatch.setattr("pytest_seeddb.fingerprint.sources.scan", None)
    assert project.parts("seeds") == cold


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": "0"}', "\udcff", "[" * 100_000])
def test_a_damaged_cache_is_ignored_and_written_anew(project, content):
    project.put("seeds.py", "import one")
    project.put("one.py", "")
    cold = project.parts("seeds")
    whole = json.loads(project.cache.read_text())
    project.cache.write_bytes(content.encode("utf-8", "surrogatepass"))
    assert project.parts("seeds") == cold
    assert json.loads(project.cache.read_text()) == whole


def test_damaged_entries_of_the_cache_are_ignored_and_written_anew(project):
    project.put("seeds.py", "import one")
    project.put("one.py", "")
    cold = project.parts("seeds")
    whole = json.loads(project.cache.read_text())
    for damage in ({"imports": dict.fromkeys(whole["imports"], 5)}, {"sites": {"x": 3}}, {"imports": 3}):
        project.cache.write_text(json.dumps(whole | damage))
        assert project.parts("seeds") == cold
        assert json.loads(project.cache.read_text())["imports"] == whole["imports"] or "sites" in damage


def test_a_cache_that_cannot_be_written_is_no_failure(project):
    project.put("seeds.py", "")
    project.cache.parent.write_text("a file where the directory should be")
    assert project.files("seeds") == ["seeds.py"]


@pytest.mark.slow
def test_the_cache_is_bounded(project, monkeypatch):
    monkeypatch.setattr("pytest_seeddb.fingerprint.sources._KEPT_FILES", 10)
    for number in range(30):
        project.put("seeds.py", f"x = {number}")
        project.files("seeds")
    assert len(json.loads(project.cache.read_text())["imports"]) == 10


def test_a_warm_look_writes_nothing(project):
    project.put("seeds.py", "import yaml_x, faker")
    project.files("seeds")
    before = project.cache.stat().st_ino
    project.files("seeds")
    assert project.cache.stat().st_ino == before


def _look(root, cache, results):
    results.put(Sources(root, cache).of_module("seeds"))


@pytest.mark.slow
def test_several_processes_at_once_leave_a_whole_cache(project):
    project.put("seeds.py", "\n".join(f"import m{number}" for number in range(100)))
    for number in range(100):
        project.put(f"m{number}.py", f"x = {number}")
    context = get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_look, args=(project.root, project.cache, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert found == [project.sources().of_module("seeds")] * 4
    assert len(json.loads(project.cache.read_text())["imports"]) == 101
    assert list(project.cache.parent.iterdir()) == [project.cache]


def test_the_cache_is_in_the_users_cache_directory_by_default(project, tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    project.put("seeds.py", "")
    Sources(project.root).of_module("seeds")
    assert (tmp_path / "pytest-seeddb" / f"imports-{PYTHON}.json").is_file()


def test_within_counts_a_link_that_stands_in_the_directory_and_points_out_of_it(project):
    path = project.put("migrations/env.py", "import migrations.options")
    project.put("shared/options.py", "VALUE = 1")
    (project.root / "migrations/options.py").symlink_to(project.root / "shared/options.py")
    names = {part.name for part in project.sources().of_file(path, within=project.root / "migrations")}
    assert "migrations/options.py" in names


def test_directories_that_will_be_on_the_path_are_searched_first(project):
    path = project.put("backend/migrations/one.py", "import models_of_backend")
    project.put("backend/models_of_backend.py", "VALUE = 1")
    project.put("models_of_backend.py", "VALUE = 2")
    sources = Sources(project.root, project.cache, search=[project.root / "backend"])
    names = {part.name for part in sources.of_file(path)}
    assert "backend/models_of_backend.py" in names
    assert "models_of_backend.py" not in names


def test_root_writes_no_cache_into_a_users_directory(project, tmp_path, monkeypatch):
    """Under `sudo -E`: the user could make no use of the directory afterwards."""
    (tmp_path / "theirs").mkdir()
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "theirs" / name))
    if os.geteuid() == 0:  # nobody else can write there anyway
        os.chown(tmp_path / "theirs", 54321, 54321)
    project.put("seeds.py", "")
    Sources(project.root).of_module("seeds")
    assert bool(list((tmp_path / "theirs").iterdir())) == (os.geteuid() != 0)
