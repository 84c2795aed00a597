from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import dotenv
import pytest

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.settings.converters import VerifySpec
from pytest_seeddb.settings.dotenv import read_dotenv
from pytest_seeddb.settings.files import find_table, project_identity
from pytest_seeddb.settings.settings import KEYS, CommandSpec, Found, Settings, load_settings

# For each key: its spelling in the table, that in the environment, the values of the two, the
# default. None where it has no such spelling.
COMMAND = CommandSpec("dbmate up", ("db/**",))
SPELLINGS = {
    "migrations": ('{command = "dbmate up", inputs = ["db/**"]}', COMMAND, "alembic.ini", "alembic.ini", None),
    "dump": ('"bin"', "bin", "bin", "bin", None),
    "seeds": ('["shop.seeds", "*.sql"]', ("shop.seeds", "*.sql"), "a.seeds, b.sql", ("a.seeds", "b.sql"), ()),
    "engines": ('["shop.db:engine"]', ("shop.db:engine",), "all", ("all",), ()),
    "session": ('"shop.db:Session"', ("shop.db:Session",), "a:B, c:D", ("a:B", "c:D"), ()),
    "build": ('"process"', "process", "here", "here", "here"),
    "role": ('"owner"', "owner", "shop_app", "shop_app", "application"),
    "outside": ('"refuse"', "refuse", "say", "say", None),
    "scope": ('"module"', "module", "class", "class", "function"),
    "isolation": ('"rollback"', "rollback", "readonly", "readonly", "clone"),
    "extensions": ('["pg_trgm"]', ("pg_trgm",), "citext,hstore", ("citext", "hstore"), ()),
    "server": ('"embedded"', "embedded", "postgresql://db/x", "postgresql://db/x", "auto"),
    "postgres": ('"18"', 18, "17", 17, None),
    "binaries": ('"bin"', "bin", "bin", "bin", None),
    "storage": ('"disk"', "disk", "memory", "memory", "auto"),
    "image": ('"postgres:17"', "postgres:17", "pgvector/pgvector:pg18", "pgvector/pgvector:pg18", None),
    "tmpfs": ('"4g"', "4g", "512m", "512m", "2g"),
    "reuse": ("true", True, "no", False, False),
    "init_scripts": ('["roles.sql"]', ("roles.sql",), "a.sql,b.sh", ("a.sql", "b.sh"), ()),
    "watch": ('["*.json"]', ("*.json",), "*.csv", ("*.csv",), ()),
    "watch_env": ('["SHOP_*"]', ("SHOP_*",), "A,B_*", ("A", "B_*"), ()),
    "ignore_env": ('["SHOP_LOG"]', ("SHOP_LOG",), "A,B_*", ("A", "B_*"), ()),
    "env": ('"DATABASE_URL"', ("DATABASE_URL",), "A,B", ("A", "B"), ()),
    "profile": ('"demo"', "demo", "minimal", "minimal", None),
    "profiles": ("{demo = {shops = 3}}", {"demo": {"shops": 3}}, None, None, {}),
    "environment": (
        '["WHERE"]',
        ("WHERE",),
        "A,B",
        ("A", "B"),
        ("ENVIRONMENT", "APP_ENV", "DJANGO_ENV", "FLASK_ENV", "ENV"),
    ),
    "dotenv": ("false", False, "yes", True, True),
    "enabled": ('"always"', "always", "option", "option", "option"),
    "random_seed": ("7", 7, "-8", -8, 0),
    "clone_name": ('"test_{clone}"', "test_{clone}", "{clone}_{worker}", "{clone}_{worker}", "{clone}"),
    "verify": ('{ignore = ["*.at"]}', VerifySpec(("*.at",)), None, None, VerifySpec()),
    "name": ('"shop"', "shop", "other", "other", "{root}"),
    "reset": ('"clone"', "clone", "auto", "auto", "auto"),
    "keep": ('"none"', "none", "all", "all", "failed"),
    "report": (None, None, "yes", True, False),
    "reseed": (None, None, "yes", True, False),
}


@pytest.fixture
def project(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "bin").mkdir()

    def write(text="", name="seeddb.toml"):
        (tmp_path / name).write_text(text)
        return tmp_path

    return write


def value_of(settings, key):
    found = getattr(settings, key)
    return found.name if key in {"binaries", "dump"} and found else found


def load(root, environ=None, **options):
    given = {key: Found(value, f"--{key}") for key, value in options.items()}
    return load_settings(root, options=given, environ=environ or {})


def refused(root, environ=None, **options):
    with pytest.raises(ConfigError) as caught:
        load(root, environ, **options)
    return caught.value


def test_every_key_has_a_row_here():
    assert set(SPELLINGS) == set(KEYS)


@pytest.mark.parametrize("key", SPELLINGS)
def test_the_default_says_that_it_is_one(project, key):
    root = project("")
    settings = load(root)
    default = SPELLINGS[key][4]
    assert value_of(settings, key) == (root.name if default == "{root}" else default)
    assert settings.source(key) == "the default"


@pytest.mark.parametrize("key", [key for key, row in SPELLINGS.items() if row[0]])
def test_the_table_goes_before_the_default(project, key):
    text, value = SPELLINGS[key][:2]
    root = project(f"{key} = {text}")
    settings = load(root)
    assert value_of(settings, key) == value
    assert settings.source(key) == f"`{key}` in {root / 'seeddb.toml'}"


@pytest.mark.parametrize("key", [key for key, row in SPELLINGS.items() if row[2]])
def test_the_environment_goes_before_the_table(project, key):
    text, _, variable, value, _ = SPELLINGS[key]
    root = project(f"{key} = {text}" if text else "")
    settings = load(root, {f"SEEDDB_{key.upper()}": variable})
    assert value_of(settings, key) == value
    assert settings.source(key) == f"the environment variable SEEDDB_{key.upper()}"


@pytest.mark.parametrize("key", [each.name for each in KEYS.values() if each.option])
def test_the_command_line_goes_before_the_environment(project, key):
    given, weaker = {
        "reseed": (True, "no"),
        "report": (True, "no"),
        "reset": ("clone", "auto"),
        "keep": ("all", "none"),
    }.get(key, ("embedded", "auto"))
    root = project("")
    settings = load(root, {f"SEEDDB_{key.upper()}": weaker}, **{key: given})
    assert getattr(settings, key) == given
    assert settings.source(key) == f"--{key}"


def test_a_key_that_has_no_spelling_in_a_place_is_unknown_there(project):
    assert "`reseed` is not a setting" in refused(project("reseed = true")).what
    assert "SEEDDB_PROFILES is not a setting" in refused(project(""), {"SEEDDB_PROFILES": "x"}).what


def test_paths_start_at_the_table_and_not_where_the_run_was_started(project):
    root = project('binaries = "bin"')
    inner = root / "a" / "b"
    inner.mkdir(parents=True)
    assert load(inner).binaries == root / "bin"
    assert load(inner).root == root


def test_the_nearest_table_holds_and_the_search_ends_at_the_repository(project):
    root = project('scope = "module"')
    inner = root / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text('[project]\nname = "inner"\n[tool.other]\nx = 1\n')
    assert find_table(inner).path == root / "seeddb.toml"
    (inner / "pyproject.toml").write_text('[project]\nname = "inner"\n[tool.seeddb]\nscope = "class"\n')
    assert (load(inner).scope, load(inner).name) == ("class", "inner")
    (inner / "pyproject.toml").unlink()
    (inner / ".git").mkdir()
    assert load(inner).scope == "function"
    assert load(inner).origin is None


def test_a_file_beside_a_pyproject_without_the_table_takes_the_projects_name(project):
    project('[project]\nname = "the-shop"\n', "pyproject.toml")
    assert load(project('scope = "class"')).name == "the-shop"


ORIGIN = (
    '[core]\n\tbare = false\n[remote "origin"]\n\tfetch = +refs/*\n\turl = {}\n[branch "main"]\n\tremote = origin\n'
)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:word@forge.example/acme/store.git",
        "git@forge.example:store.git",
        "ssh://git@forge.example/store",
        "/srv/git/store.git/",
    ],
)
def test_each_clone_of_a_repository_has_its_name_wherever_it_lies(project, url):
    root = project('scope = "class"')
    (root / ".git/config").write_text(ORIGIN.format(url))
    assert load(root).name == "store"


def test_each_work_tree_has_the_name_of_its_repository(project, tmp_path_factory):
    root, place = project('scope = "class"'), tmp_path_factory.mktemp("elsewhere")
    own = place / "shop/.git/worktrees/feature"
    own.mkdir(parents=True)
    (own / "commondir").write_text("../..\n")
    (place / "shop/.git/config").write_text("[core]\n\tbare = false\n")
    (root / ".git").rmdir()
    (root / ".git").write_text(f"gitdir: {own}\n")
    assert load(root).name == "shop"


def identity(path, url, inner="apps/api"):
    (path / inner).mkdir(parents=True)
    (path / ".git").mkdir()
    (path / ".git/config").write_text(ORIGIN.format(url))
    return project_identity(path / inner)


def test_a_project_is_the_same_in_each_clone_of_its_repository_and_none_other(tmp_path):
    urls = [
        "https://forge.example/acme/store.git",
        "https://ci-token:w0rd@forge.example/acme/store",
        "https://Forge.example:8443/acme/store/",
        "git@forge.example:acme/store.git",
        "ssh://git@forge.example:22/acme/store",
    ]
    assert len({identity(tmp_path / str(number), url) for number, url in enumerate(urls)}) == 1
    others = [("https://other.example/acme/store", "apps/api"), ("git@forge.example:acme/shop", "apps/api")]
    others += [(urls[0], "apps/web"), ("/srv/git/acme/store.git", "apps/api"), ("../store", "apps/api")]
    others = [identity(tmp_path / f"other {number}", *other) for number, other in enumerate(others)]
    assert len({*others, project_identity(tmp_path / "0/apps/api")}) == 6
    assert identity(tmp_path / "local", "file:///srv/git/acme/store/") == others[3]
    assert identity(tmp_path / "elsewhere/clone", "../store") != others[4], "another directory's neighbour"
    assert all(re.fullmatch("[0-9a-f]{16}", text) for text in others)


def test_a_project_without_an_origin_is_the_same_in_its_work_trees_and_in_clones_of_it(tmp_path):
    shop, tree, module = (tmp_path / name for name in ("shop", "tree", "module"))
    (own := shop / ".git/worktrees/tree").mkdir(parents=True)
    (own / "commondir").write_text("../..\n")
    (shop / ".git/config").write_text("[core]\n\tbare = false\n")
    (tree / "app").mkdir(parents=True)
    (tree / ".git").write_text(f"gitdir: {own}\n")
    assert project_identity(tree / "app") == project_identity(shop / "app") == identity(tmp_path / "b", shop, "app")
    (shop / ".git/modules/module").mkdir(parents=True)
    (shop / ".git/modules/module/config").write_text(ORIGIN.format("git@forge.example:acme/module"))
    module.mkdir()
    (module / ".git").write_text("gitdir: ../shop/.git/modules/module\n")
    assert project_identity(module) == identity(tmp_path / "c", "https://forge.example/acme/module", ".")


def test_a_project_without_a_repository_is_its_directory(tmp_path):
    places = [tmp_path / name / "backend" for name in ("one", "two", "three")]
    (places[2] / ".git").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert len(set(map(project_identity, places))) == 3
    assert project_identity(tmp_path / "link/backend") == project_identity(places[0])


def test_a_declared_name_goes_before_that_of_the_repository(project):
    root = project('name = "mine"')
    (root / ".git/config").write_text(ORIGIN.format("https://forge.example/acme/store.git"))
    assert load(root).name == "mine"


@pytest.mark.parametrize("content", ["", "gitdir: /no/such/place\n", "\0"])
def test_a_work_tree_that_cannot_be_read_has_the_name_of_its_directory(project, content):
    root = project('scope = "class"')
    (root / ".git").rmdir()
    (root / ".git").write_text(content)
    assert load(root).name == root.name


def test_two_tables_in_one_directory_are_both_named(project):
    project("[tool.seeddb]\n", "pyproject.toml")
    error = refused(root := project(""))
    assert error.saw == f"{root / 'seeddb.toml'}\n[tool.seeddb] in {root / 'pyproject.toml'}"
    assert error.source == str(root)


def test_the_whole_text_of_an_error(project):
    root = project('scop = "module"')
    allowed = ", ".join(sorted(key.name for key in KEYS.values() if key.in_table))
    assert str(refused(root)) == (
        "`scop` is not a setting of pytest-seeddb\n"
        "  saw:  scop = 'module'\n"
        f"  from: {root / 'seeddb.toml'}\n"
        f"  do:   Did you mean 'scope'? Allowed are {allowed}"
    )


@pytest.mark.parametrize("text", ['[tool]\nseeddb = "x"', "[tool]\nseeddb = []"])
def test_a_table_that_is_none_is_an_error(project, text):
    assert refused(project(text, "pyproject.toml")).what == "[tool.seeddb] is not a table"


@pytest.mark.parametrize("content", [b"= broken", b"name = '\xff'"])
def test_a_file_that_cannot_be_read_is_named(project, content):
    root = project("")
    (root / "seeddb.toml").write_bytes(content)
    error = refused(root)
    assert error.what == "seeddb.toml cannot be read"
    assert error.source == str(root / "seeddb.toml")


def test_a_misspelt_variable_is_an_error_and_a_foreign_one_is_not(project):
    error = refused(project(""), {"SEEDDB_SERVR": "postgresql://a:s3cret@db/x"})
    assert error.remedy == "Did you mean 'SEEDDB_SERVER'? Or unset it"
    assert "s3cret" not in str(error)
    load(project(""), {"SEEDDB_WHATEVER_ELSE": "1", "SEEDDBX": "1"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("postgres", True),
        ("postgres", 14),
        ("random_seed", True),
        ("random_seed", 1.5),
        ("seeds", ["", "a"]),
        ("seeds", 3),
        ("env", {"a": 1}),
        ("migrations", {"command": "x"}),
        ("migrations", {"command": "x", "inputs": []}),
        ("migrations", {"command": "x", "inputs": ["a"], "shell": "y"}),
        ("migrations", {"command": 3, "inputs": ["a"]}),
        ("profiles", {"demo": 1}),
        ("clone_name", "test"),
        ("clone_name", "test{clone}"),
        ("clone_name", "{clone}_Test"),
        ("clone_name", "{clone}_much_too_long_for_a_name_of_a_database"),
        ("verify", ["*.at"]),
        ("verify", {"ignor": ["*.at"]}),
        ("verify", {"ignore": ["password"]}),
        ("verify", {"ignore": ["type:"]}),
        ("name", "  "),
        ("binaries", "no/such"),
    ],
)
def test_a_value_that_is_not_allowed_names_the_key_and_where_it_stands(project, key, value):
    with pytest.raises(ConfigError) as caught:
        load_settings(project(""), options={key: Found(value, "here")}, environ={})
    assert caught.value.what == f"The setting `{key}` has a value that is not allowed"
    assert (caught.value.saw, caught.value.source) == (repr(value), "here")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("Yes", True), (" on ", True), ("0", False), ("FALSE", False)]
)
def test_a_word_for_yes_or_no_is_read_from_the_environment(project, text, value):
    assert load(project(""), {"SEEDDB_RESEED": text}).reseed is value


def test_replace_reads_and_checks_like_the_table(tmp_path):
    settings = Settings(root=tmp_path, sources={"scope": "before"})
    changed = settings.replace(seeds="a, b", postgres="17")
    assert (changed.seeds, changed.postgres) == (("a", "b"), 17)
    assert changed.source("seeds") == "Settings.replace()"
    assert changed.source("scope") == "before"
    assert settings.seeds == ()
    with pytest.raises(ConfigError, match=r"`seed` is not a setting.*\n.*\n.*replace\(\)\n.*Did you mean 'seeds'"):
        settings.replace(seed="a")
    with pytest.raises(ConfigError, match="`scope` has a value that is not allowed"):
        settings.replace(scope="modul")


def test_the_password_in_the_server_is_not_shown_by_repr(tmp_path):
    assert "s3cret" not in repr(Settings(root=tmp_path, server="postgresql://app:s3cret@db/x"))


# -- .env ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [key for key, row in SPELLINGS.items() if row[2] and key != "dotenv"])
def test_dotenv_goes_before_the_table_and_the_environment_before_dotenv(project, key):
    text, _, variable, value, _ = SPELLINGS[key]
    root, name = project(f"{key} = {text}" if text else ""), f"SEEDDB_{key.upper()}"
    project(f"# ours\n\nexport {name}='{variable}'\n", ".env")
    settings = load(root)
    assert value_of(settings, key) == value
    assert settings.source(key) == f"{name} in {root / '.env'}, line 3"
    project(f"{name}=wrong-{variable}", ".env")
    assert value_of(load(root, {name: variable}), key) == value
    assert name not in os.environ


def test_a_seed_parameter_of_dotenv_is_one_of_the_environment(project):
    root = project("SEEDDB_SEED_STORES=3\nSEEDDB_SEED_ITEMS=4", ".env")
    parameters = load(root, {"SEEDDB_SEED_ITEMS": "5"}).parameters
    assert parameters["stores"] == Found("3", f"SEEDDB_SEED_STORES in {root / '.env'}, line 1", is_ambient=True)
    assert parameters["items"].value == "5"


def test_an_error_in_dotenv_names_the_line(project):
    root = project("\nSEEDDB_SCOPE=modul", ".env")
    assert refused(root).source == f"SEEDDB_SCOPE in {root / '.env'}, line 2"
    project("SEEDDB_SERVR=postgresql://a:s3cret@db/x", ".env")
    assert refused(root).source == f"SEEDDB_SERVR in {root / '.env'}, line 1"
    assert "s3cret" not in str(refused(root))


def test_dotenv_can_be_turned_off_and_not_by_itself(project):
    root = project("SEEDDB_SCOPE=module", ".env")
    assert load(root).scope == "module"
    assert load(root, {"SEEDDB_DOTENV": "no"}).scope == "function"
    assert load(project("dotenv = false")).scope == "function"
    assert load(root, {"SEEDDB_DOTENV": "yes"}).scope == "module"
    project("")
    project("SEEDDB_DOTENV=false", ".env")
    assert refused(root).what == "SEEDDB_DOTENV has no effect in .env"


def test_dotenv_is_that_of_the_root_alone(project, tmp_path):
    project("SEEDDB_SCOPE=module", ".env")
    inner = tmp_path / "inner"
    (inner / "below").mkdir(parents=True)
    (inner / "seeddb.toml").write_text("")
    (inner / "below" / ".env").write_text("SEEDDB_SCOPE=class")
    assert load(inner / "below").scope == "function"
    assert load(inner).root == inner


STRANGE = """
# SEEDDB_A=1
export B = "two words"   # a comment
C='single # not a comment'
D="several
lines"
E=a#b #c
F=${B}-${NOWHERE:-default}-$B
G
=broken
H "broken"
'I'="\\n\\"quoted\\""
B=again
J=${B}
K=
"""


def test_dotenv_is_read_by_the_rules_of_python_dotenv(project):
    for text in (STRANGE, STRANGE.replace("\n", "\r\n"), "\ufeffB=1", "", "\n\n", "A=1\rB=2"):
        root = project("")
        (root / ".env").write_text(text, newline="")
        variables = read_dotenv(root, os.environ)
        expected = dotenv.dotenv_values(stream=io.StringIO(text.removeprefix("\ufeff")))
        assert {each.name: each.value.replace("\r", "") for each in variables} == {
            name: value.replace("\r", "") for name, value in expected.items() if value is not None
        }


def test_each_variable_of_dotenv_has_the_line_where_it_begins(project):
    lines = {variable.name: variable.line for variable in read_dotenv(project(STRANGE, ".env"), {})}
    assert lines == {"B": 13, "C": 4, "D": 5, "E": 7, "F": 8, "I": 12, "J": 14, "K": 15}


def test_a_directory_in_dotenvs_place_is_none_and_a_file_that_is_not_utf_8_breaks_only_who_needs_it(project):
    root = project("")
    (root / ".env").mkdir()
    assert read_dotenv(root, {}) == ()
    assert load(root).scope == "function"
    (root / ".env").rmdir()
    (root / ".env").write_bytes("NAME=Grün".encode("latin-1"))
    assert load(root).scope == "function"
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        read_dotenv(root, {})
    assert "save it as UTF-8" in caught.value.remedy


ASKS = """
import sys
from pathlib import Path
from pytest_seeddb.settings.settings import load_settings
load_settings(Path.cwd())
print("dotenv" in sys.modules)
"""


@pytest.mark.parametrize(("text", "expected"), [(None, "False"), ("A=1", "False"), ("SEEDDB_SCOPE=class", "True")])
def test_python_dotenv_is_imported_only_where_the_file_has_settings(project, text, expected):
    root = project("")
    if text:
        project(text, ".env")
    done = subprocess.run([sys.executable, "-c", ASKS], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
