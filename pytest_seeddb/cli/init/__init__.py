"""``seeddb init``: look at a project, and write the settings and a first seeds module for it."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pytest_seeddb.cli.options import add_command, as_json
from pytest_seeddb.errors import ConfigError, SeedDbError
from pytest_seeddb.settings.files import FILE_NAME, find_table

if TYPE_CHECKING:
    import argparse

    from pytest_seeddb.cli.init.proposal import Proposal
    from pytest_seeddb.cli.options import Commands

_ABOUT: Final = "look at a project, and write the settings and a first seeds module for it; overwrites nothing"
_NEXT: Final = ("seeddb build", "pytest --seed-db")


@dataclass(frozen=True)
class Finding:
    """Something that was recognised, and where."""

    what: str
    where: str


@dataclass(frozen=True)
class Written:
    """A file that was written, or would be: its path from the project's directory, and the text that was added."""

    file: str
    action: Literal["append", "create"]
    text: str


@dataclass(frozen=True)
class Initialised:
    """What `init` recognised, wrote and advises; with ``dry_run`` nothing was written."""

    directory: str
    dry_run: bool
    found: tuple[Finding, ...]
    notes: tuple[str, ...]
    files: tuple[Written, ...]
    next: tuple[str, ...]


def add(commands: Commands) -> None:
    """Declare the command."""
    command = add_command(commands, "init", _run, _ABOUT, plan=False, server=False)
    command.add_argument("--dry-run", action="store_true", help="only show what would be written")


def _run(parsed: argparse.Namespace) -> int:
    result = init((parsed.directory or Path.cwd()).resolve(), dry_run=parsed.dry_run)
    if parsed.json:
        print(as_json(result))
        return 0
    width = max(len(finding.what) for finding in result.found)
    for finding in result.found:
        print(f"found    {finding.what:<{width}}  {finding.where}")
    for note in result.notes:
        print(f"note     {note}")
    for file in result.files:
        verb = (
            f"{'would be ' if result.dry_run else ''}{'created' if file.action == 'create' else 'extended at its end'}"
        )
        has_text = result.dry_run or not file.file.endswith(".py")
        lines = file.text.strip().splitlines() if has_text else []
        print(f"\n{file.file}, {verb}{':' if has_text else ''}", *(f"    {line}".rstrip() for line in lines), sep="\n")
    print("", *(f"next     {command}" for command in result.next), sep="\n")
    return 0


def init(root: Path, *, dry_run: bool = False) -> Initialised:
    """Write the settings for a project, and a seeds module if it has no seeds: both or neither, over no file."""
    from pytest_seeddb.cli.init.proposal import Proposal

    table = find_table(root)
    # A table further up holds here, too, unless this directory is a project of its own.
    if table.path and (table.path.parent == root or not (root / "pyproject.toml").exists()):
        raise ConfigError(
            "The project has settings already",
            saw=table.heading,
            source=str(root),
            remedy="edit them; `seeddb explain` shows what they come to",
        )
    proposal = Proposal(root)
    files = _files(root, proposal)
    if not dry_run:
        _write(root, files)
    return Initialised(str(root), dry_run, tuple(proposal.found), tuple(proposal.notes), files, _NEXT)


def _files(root: Path, proposal: Proposal) -> tuple[Written, ...]:
    """The table goes to ``pyproject.toml``, unless that cannot take another table, as with ``tool = {...}``."""
    text = "\n".join(proposal.lines)
    table = Written(FILE_NAME, "create", f"{text}\n")
    project = root / "pyproject.toml"
    if project.exists():
        before = project.read_bytes().decode()  # with the line ends that it has
        gap = "" if not before.strip() else "\n" if before.endswith("\n") else "\n\n"
        added = f"{gap}[tool.seeddb]\n{text}\n".replace("\n", "\r\n" if "\r\n" in before else "\n")
        with suppress(tomllib.TOMLDecodeError):
            after = tomllib.loads(before + added)
            del after["tool"]["seeddb"]
            if after == {"tool": {}, **tomllib.loads(before)}:
                table = Written(project.name, "append", added)
    return (proposal.seeds, table) if proposal.seeds else (table,)


def _write(root: Path, files: tuple[Written, ...]) -> None:
    """The table last: whoever sees it finds the seeds module that it names."""
    created: list[Path] = []
    for file in files:
        path = root / file.file
        try:
            with path.open("x" if file.action == "create" else "a", encoding="utf-8", newline="") as stream:
                if file.action == "create":
                    created.append(path)
                stream.write(file.text)
        except OSError as error:
            for path in created:
                path.unlink(missing_ok=True)
            raise SeedDbError(
                f"{file.file} cannot be written",
                saw=str(error),
                source=str(root),
                remedy="make the directory writable, or write the settings by hand: --dry-run shows them",
            ) from error
