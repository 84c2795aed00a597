"""What the documentation shows is what happens."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize("name", ["fastapi_async", "quickstart"])
def test_an_examples_second_run_reuses_what_the_first_built(example, name):
    reader = example(name)

    first = reader.run("pytest --seed-db -n 2").stdout
    second = reader.run("pytest --seed-db").stdout

    assert any(" built in " in line for line in first)
    assert not any(line.startswith("seeddb: template") and "reused" not in line for line in second)
    assert any(line.endswith(" reused") for line in second)
