"""Write the reference pages that are made from the code: settings and command line.

    python docs/generate.py

`tests/docs` fails when they are stale.
"""  # noqa: INP001 - the documentation is no package

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli import make_parser
from pytest_seeddb.plugin.markers import SIGNATURE
from pytest_seeddb.settings.settings import ISOLATIONS, KEEPS, KEYS, RESETS, SCOPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.settings.settings import Key

REFERENCE: Final = Path(__file__).parent / "reference"

_MADE: Final = "<!-- Made by docs/generate.py from the code: change that, then run it again. -->\n"

_EXAMPLES: Final = {
    "migrations": 'migrations = "alembic.ini"',
    "dump": 'dump = "seed-db.sql"',
    "seeds": 'seeds = ["shop.seeds", "seeds/*.sql"]',
    "engines": 'engines = ["shop.db:engine"]',
    "scope": 'scope = "module"',
    "isolation": 'isolation = "rollback"',
    "extensions": 'extensions = ["pg_trgm"]',
    "server": 'server = "embedded"',
    "postgres": 'postgres = "18"',
    "binaries": 'binaries = "tools/postgresql/bin"',
    "image": 'image = "pgvector/pgvector:pg18"',
    "tmpfs": 'tmpfs = "4g"',
    "reuse": "reuse = true",
    "init_scripts": 'init_scripts = ["docker/roles.sql"]',
    "watch": 'watch = ["shop/fixtures/*.json"]',
    "env": 'env = "DATABASE_URL"',
    "profile": 'profile = "demo"',
    "profiles": "[tool.seeddb.profiles.demo]\nstores = 3",
    "keep": 'keep = "none"',
    "reset": 'reset = "clone"',
    "environment": 'environment = ["DEPLOYED_TO"]',
    "enabled": 'enabled = "always"',
    "random_seed": "random_seed = 7",
    "name": 'name = "shop"',
}

_ALLOWED: Final = {
    "scope": SCOPES,
    "isolation": ISOLATIONS,
    "enabled": ("option", "always"),
    "reset": RESETS,
    "keep": KEEPS,
}

_IN_MARKER: Final = {
    "isolation": '`@pytest.mark.seeded(isolation="rollback")`',
    "profile": '`@pytest.mark.seeded("demo")`',
    "profiles": "single values: `@pytest.mark.seeded(stores=10)`",
}

_SETTINGS_HEAD: Final = """\
# Settings

The table is `[tool.seeddb]` in `pyproject.toml`, or the same keys at the top level of `seeddb.toml`: the nearest one,
from pytest's root directory (`seeddb`: the working directory) upward to the directory that holds `.git`. Paths and
patterns in it start in its directory.

The first of these that gives a value decides: marker, command line, environment, table, default. An error about a value
says which of them it came from. Unknown keys are errors; so are environment variables that are nearly spelled like one
of ours.

In environment variables a list is text with commas between its elements, and a boolean is `1`, `true`, `yes`, `on` or
`0`, `false`, `no`, `off`.

`--seed-db` has no key: it runs seeded tests, for this once, as `enabled = "always"` does for good.
"""

_CLI_HEAD: Final = """\
# Command line

## pytest

| option | what it does |
|---|---|
| `--seed-db` | Run seeded tests; without it they are skipped. |
"""


def pages() -> dict[Path, str]:
    """What each page should hold."""
    return {REFERENCE / "settings.md": settings_page(), REFERENCE / "cli.md": cli_page()}


def settings_page() -> str:
    """A table of all spellings, then a section for each setting."""
    sections = "\n".join(_setting(key) for key in KEYS.values())
    return f"{_SETTINGS_HEAD}\n{_MADE}\n{_spellings()}\n{sections}"


def _spellings() -> str:
    rows = [
        f"| [`{key.name}`](#{key.name}) | {_table(key)} | {_variable(key)} | {_option(key)} | {_marker(key)} |"
        for key in KEYS.values()
    ]
    return "\n".join(["| setting | table | environment | option | marker |", "|---|---|---|---|---|", *rows, ""])


def _table(key: Key) -> str:
    return "yes" if key.in_table else "no"


def _variable(key: Key) -> str:
    return f"`{key.variable}`" if key.in_environment else "no"


def _option(key: Key) -> str:
    return f"`{key.option}`" if key.option else "no"


def _marker(key: Key) -> str:
    return _IN_MARKER.get(key.name, "no")


def _setting(key: Key) -> str:
    lines = [f"## {key.name}", "", key.about, "", f"{_allowed(key)}Default: {_default(key)}.", ""]
    if key.in_table:
        example = _EXAMPLES[key.name]
        head = "" if example.startswith("[") else "[tool.seeddb]\n"
        lines += ["```toml", f"{head}{example}", "```", ""]
    return "\n".join(lines)


def _allowed(key: Key) -> str:
    words = ", ".join(f"`{each}`" for each in _ALLOWED.get(key.name, ()))
    return f"Allowed: {words}. " if words else ""


def _default(key: Key) -> str:
    if key.name == "name":
        return "the project's name in `pyproject.toml`, else that of the directory"
    if key.default in (None, (), {}):
        return "none"
    return f"`{str(key.default).lower()}`"


def cli_page() -> str:
    """The options of pytest, then `seeddb` and each of its commands."""
    options = [f"| `{key.option}{_metavar(key)}` | {key.about} |" for key in KEYS.values() if key.option]
    marker = f"\nThe marker, as `pytest --markers` shows it: `{SIGNATURE}`\n"
    commands = "\n".join(_command(name, parser) for name, parser in _commands().items())
    parser = make_parser()
    return "\n".join(
        [
            _CLI_HEAD.rstrip(),
            *options,
            marker,
            _MADE,
            "## seeddb",
            "",
            str(parser.description),
            "",
            str(parser.epilog),
            "",
            commands,
        ]
    )


def _metavar(key: Key) -> str:
    return "" if isinstance(key.default, bool) else "=..."


def _commands() -> dict[str, argparse.ArgumentParser]:
    actions = make_parser()._actions  # noqa: SLF001 - argparse has no other way to read a parser
    found = [action for action in actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001 - likewise
    return dict(found[0].choices)


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    rows = "\n".join(_rows(parser))
    return f"### seeddb {name}\n\n{parser.description}\n\n| option | what it does |\n|---|---|\n{rows}\n"


def _rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001 - likewise
        value = f" {action.metavar}" if action.metavar else ""
        spellings = ", ".join(f"`{each}{value}`" for each in action.option_strings) or f"`{action.metavar}`"
        yield f"| {spellings} | {action.help} |"


def main() -> None:
    """Write all pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
