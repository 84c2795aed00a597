"""What the documentation says is so: its links, its code, its settings, its names."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from _pytest.config.argparsing import Parser

from pytest_seeddb import plugin
from pytest_seeddb.plugin import fixtures
from pytest_seeddb.plugin.markers import FIXTURES
from pytest_seeddb.settings.settings import KEYS, load_settings

ROOT = Path(__file__).parents[2]

_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    words = (re.sub(r"[^\w\- ]", "", each["text"].lower()) for each in _HEADING.finditer(text))
    return {each.strip().replace(" ", "-") for each in words}


def test_every_relative_link_resolves(page):
    for link in _LINK.finditer(_CODE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link["target"].partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link["target"]
        assert not anchor or anchor in anchors(target), link["target"]


def test_every_page_is_reached_from_the_map():
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / each["target"].partition("#")[0]).resolve() for each in _LINK.finditer(index.read_text())}

    assert {*ROOT.glob("docs/**/*.md")} - {index} == linked & {*ROOT.glob("docs/**/*.md")} - {index}


def test_a_settings_table_can_be_loaded(toml_block, tmp_path):
    assert "[tool.seeddb" in toml_block.text, "a block of TOML shows settings"
    (tmp_path / "tools/postgresql/bin").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(toml_block.text, encoding="utf-8")

    settings = load_settings(tmp_path, environ={})

    assert settings.origin == tmp_path / "pyproject.toml"
    assert settings.sources


def test_a_block_of_python_compiles(python_block):
    compile(python_block.text, python_block.place, "exec", dont_inherit=True)


def test_every_option_that_a_page_names_is_there(page):
    parser = Parser(_ispytest=True)
    plugin.pytest_addoption(parser)
    known = {name for group in parser._groups for option in group.options for name in option.names()}

    named = set(re.findall(r"--seed-db[\w-]*", page.read_text(encoding="utf-8")))

    assert named <= known


def test_every_variable_that_a_page_names_is_a_setting(page):
    known = {key.variable for key in KEYS.values() if key.in_environment}
    misspelt_on_purpose = {"SEEDDB_PROFIL"}

    named = set(
        re.findall(r"\bSEEDDB_(?!SEED_)[A-Z_]+", page.read_text(encoding="utf-8"))
    )  # SEEDDB_SEED_ is any parameter

    assert named <= known | misspelt_on_purpose


def test_every_fixture_that_a_page_names_is_there(page):
    named = set(
        re.findall(
            r"\bseed(?:ed|db)_(?!\w*\.toml)(?:db|url|connection|engine|session|async|settings|server|plan)\w*",
            page.read_text(),
        )
    )

    assert {each for each in named if not hasattr(fixtures, each)} == set()


def test_the_reference_has_every_fixture():
    text = (ROOT / "docs/reference/fixtures.md").read_text(encoding="utf-8")
    chain = {each for each in vars(fixtures) if each.startswith("seeddb_")}

    assert {each for each in FIXTURES | chain if f"`{each}`" not in text} == set()


@pytest.mark.parametrize("name", ["settings.md", "cli.md"])
def test_the_generated_reference_is_up_to_date(name):
    pages = runpy.run_path(str(ROOT / "docs/generate.py"))["pages"]()
    path = ROOT / "docs/reference" / name

    assert path.read_text(encoding="utf-8") == pages[path], "run: python docs/generate.py"


@pytest.mark.parametrize("marker", ["main", "tests"])
def test_the_readmes_command_is_one_line(marker):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert re.search(rf"^<!-- {marker} -->\n```bash\n[^\n$]+\n```$", readme, re.MULTILINE)
