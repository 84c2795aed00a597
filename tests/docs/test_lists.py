"""Lists that repeat what stands elsewhere agree with it: CONTRIBUTING.md, tox.ini, pyproject.toml and the workflows."""

from __future__ import annotations

import ast
import configparser
import re
import runpy
import tomllib
from itertools import pairwise, product
from pathlib import Path

import pytest

from pytest_seeddb.settings.settings import KEYS

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TOX = configparser.ConfigParser(interpolation=None)
TOX.read(ROOT / "tox.ini", encoding="utf-8")


def spread(text):
    """What a shell or tox makes of braces: ``py3{11,12}`` is ``py311`` and ``py312``."""
    parts = [part.strip("{}").split(",") for part in re.split(r"(\{[^}]*\})", text)]
    return ["".join(choice) for choice in product(*parts)]


ENVIRONMENTS = [name for item in re.split(r",(?![^{]*\})|\n", TOX["tox"]["env_list"]) for name in spread(item.strip())]


def first_column(heading):
    """The names in backticks in the first column of the table that has this head."""
    table = CONTRIBUTING.split(f"| {heading} |", 1)[1].split("\n\n")[0]
    return [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in table.splitlines()[2:]]


def packages(*lists):
    return {
        re.split(r"[>\[]", requirement)[0]: requirement.partition(">=")[2] for names in lists for requirement in names
    }


def test_every_environment_of_tox_is_in_the_table():
    told = {name for row in first_column("environment") for name in row}
    families = [spread(section.removeprefix("testenv:")) for section in TOX if section.startswith("testenv:")]
    assert told <= {"py", *ENVIRONMENTS}
    assert {name for family in families for name in (family[0], family[-1])} <= told


@pytest.mark.parametrize("path", [".ci/run", ".github/workflows/ci.yml"])
def test_what_runs_the_environments_names_those_that_are_there(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    named = re.findall(r"py3\d+-\w+-\w+|(?<=environment: )[\w-]+|(?<=tox run -e )[\w,]+", text)
    named += " ".join(re.findall(r"for environment in (.*); do", text)).split()
    assert {name for names in named for name in names.split(",")} <= {"py", *ENVIRONMENTS}


def test_each_python_meets_each_postgresql_wherever_the_matrix_is_run_whole():
    whole = {name.rpartition("-")[0] for name in ENVIRONMENTS if "-sa" in name}
    for path in (".ci/run", ".github/workflows/ci.yml"):
        assert set(re.findall(r"py3\d+-pg\d+(?=-sa)", (ROOT / path).read_text(encoding="utf-8"))) == whole, path


@pytest.mark.parametrize("path", ["tox.ini", ".ci/run", "pyproject.toml", "CONTRIBUTING.md"])
def test_a_path_that_is_named_is_there(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.-])(?:pytest_seeddb|tests|docs|examples)/[\w./{},-]*\w[\w}]*", text)
    assert {name for names in named for name in spread(names) if not (ROOT / name).exists()} == set()


def test_a_cache_in_an_example_finds_the_newest_template_where_its_key_is_new():
    texts = [path.read_text(encoding="utf-8") for path in ROOT.glob("examples/**/*.yml")]
    caches = [step for text in texts for step in text.split("actions/cache@")[1:]]
    assert caches
    assert all("restore-keys: seeddb-" in step.split("- run:")[0].split("- name:")[0] for step in caches)


def test_every_mark_is_explained():
    marks = {text.partition(":")[0] for text in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    assert {name for row in first_column("mark") for name in row} == marks


def test_every_folder_of_tests_is_in_the_table():
    folders = {"/".join(path.relative_to(ROOT).parts[:2]) for path in ROOT.glob("tests/*/**/test_*.py")}
    assert {name for row in first_column("tests") for name in row} == folders


def test_every_dependency_has_its_reason():
    told = set(re.findall(r"[\w-]+", CONTRIBUTING.split("## Dependencies")[1].split("## Release")[0]))
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    named = packages(
        project["dependencies"], *project["optional-dependencies"].values(), groups["test"], groups["benchmarks"]
    )
    assert named.keys() - told == set()


def test_the_oldest_versions_are_those_that_the_project_admits():
    pinned = dict(line.split("==") for line in TOX["testenv:oldest"]["deps"].split())
    admitted = packages(PROJECT["project"]["dependencies"], PROJECT["dependency-groups"]["test"])
    assert {name.partition("[")[0]: full(version) for name, version in pinned.items()} == {
        name: full(version) for name, version in admitted.items()
    }


def full(version):
    return tuple(int(part) for part in f"{version}.0.0".split(".")[:3])


def test_the_pythons_are_those_of_the_classifiers():
    told = {text.rpartition("3.")[2] for text in PROJECT["project"]["classifiers"] if "Python :: 3." in text}
    assert {name.removeprefix("py3") for name in ENVIRONMENTS if re.fullmatch(r"py3\d+", name)} == told


def test_the_reference_of_the_settings_has_an_example_for_each():
    made = runpy.run_path(str(ROOT / "docs/generate.py"))
    assert made["_EXAMPLES"].keys() == {key.name for key in KEYS.values() if key.in_table}
    assert made["_ALLOWED"].keys() <= KEYS.keys()


def constants(path):
    """Names of a module, with whether a comment stands above and a docstring below."""
    text = path.read_text(encoding="utf-8")
    lines = ["", *text.splitlines()]
    body = ast.parse(text).body
    for node, below in pairwise(body):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            documented = isinstance(below, ast.Expr) and isinstance(getattr(below.value, "value", None), str)
            yield f"{path.relative_to(ROOT)}:{node.lineno}", lines[node.lineno - 1].startswith("#"), documented


def test_the_picture_of_the_architecture_shows_the_floors_as_they_are():
    drawing = runpy.run_path(str(ROOT / "docs/architecture.py"))
    assert drawing["PICTURE"].read_text(encoding="utf-8") == drawing["draw"]()


def test_a_constant_has_a_comment_or_a_docstring_and_not_both():
    both = [place for path in (ROOT / "pytest_seeddb").rglob("*.py") for place, *told in constants(path) if all(told)]
    assert both == [], "one of the two belongs to another constant"
