"""What the documentation shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.long  # virtual environments and whole suites; the rest of the documentation's tests is quick


def test_the_readmes_console_shows_what_the_quickstart_prints(example, blocks):
    console = blocks("README.md", "console")

    assert console
    example("quickstart").follow(console)


def test_the_readmes_settings_and_test_work(example, blocks):
    shown = blocks("README.md", "toml", "python")
    reader = example("quickstart")
    for path in (reader.directory / "tests").glob("test_*.py"):
        path.unlink()

    reader.follow(shown)

    assert reader.run("python -m pytest --seed-db").stdout[-1].strip("= ").startswith("3 passed in ")


def test_the_tutorial_works_as_shown(reader, blocks):
    install, *rest = blocks("docs/tutorial.md", "console", "python", "toml", "ini")
    commands = [command for command, _ in install.sessions()]
    assert [command.split()[0] for command in commands] == ["mkdir", "touch", "python3", "pip"]
    reader.run(commands[0])
    reader.directory /= "library"
    reader.run(commands[1])

    reader.follow(rest)


def test_the_fingerprint_page_shows_what_explain_prints(example, blocks):
    console = blocks("docs/reference/fingerprint.md", "console")

    assert console
    example("quickstart").follow(console)


def test_the_command_line_page_shows_what_is_printed(example, blocks):
    console = blocks("docs/how-to/command-line.md", "console")

    assert console
    example("quickstart").follow(console)


def test_the_page_about_dumps_shows_what_is_printed(example, blocks):
    first, *rest = blocks("docs/how-to/dumps.md", "console")
    reader = example("quickstart")

    reader.follow([first])
    table = reader.directory / "pyproject.toml"
    table.write_text(table.read_text().replace("[tool.seeddb]\n", '[tool.seeddb]\ndump = "seed-db.sql"\n'))

    assert rest
    reader.follow(rest)


def test_the_workflow_of_the_committed_dump_works(example):
    workflow = (ROOT / "examples/quickstart/.github/workflows/seed-db.yml").read_text(encoding="utf-8")
    commands = re.findall(r"run: (?!pip )(.+)$", workflow, re.MULTILINE)
    variables = re.search(r"^ +(?P<name>SEEDDB_DUMP): (?P<value>\S+)", workflow, re.MULTILINE)
    reader = example("quickstart")

    assert [each.split()[0] for each in commands] == ["echo", "seeddb", "seeddb", "pytest"]
    for command in commands:
        done = reader.run(f"export GITHUB_OUTPUT=outputs {variables['name']}={variables['value']}; {command}")
        if command.startswith("seeddb build"):
            ran = [line.split(" (")[0] for line in done.stdout if line.startswith("  ")]
            assert ran == ["  1/1 dump seed-db.sql"], "no migrations to apply"

    assert re.fullmatch(r"key=seeddb-[0-9a-f]{64}\n", (reader.directory / "outputs").read_text())
    assert (reader.directory / "template.dump").exists()


@pytest.mark.parametrize("name", ["fastapi_async", "quickstart", "store_platform"])
def test_an_examples_second_run_reuses_what_the_first_built(example, name):
    reader = example(name)

    first = reader.run("pytest --seed-db -n 2").stdout
    second = reader.run("pytest --seed-db").stdout

    assert any(" built in " in line for line in first)
    assert not any(line.startswith("seeddb: template") and "reused" not in line for line in second)
    assert any(line.endswith(" reused") for line in second)


@pytest.mark.parametrize("name", ["sqlmodel", "flask", "advanced-alchemy", "litestar"])
def test_the_project_on_a_framework_s_page_works(name, reader, blocks):
    reader.follow(blocks(f"docs/how-to/{name}.md", "python", "toml", "console"))

    assert " passed" in reader.run("python -m pytest --seed-db").stdout[-1]
    assert " passed" in reader.run("python -m pytest --seed-db").stdout[-1]
    assert "built" not in reader.run("seeddb build").stdout[0]
