"""Begin: look at a project, and write the settings and a first seeds module for it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pytest_seeddb.cli.init.proposal import Found, propose
from pytest_seeddb.errors import ConfigError, SeedDbError
from pytest_seeddb.settings.files import FILE_NAME, find_table

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_seeddb.cli.init.proposal import Proposal

__all__ = ["Initialised", "Written", "init"]

_NEXT: Final = ("seeddb build", "pytest --seed-db")


@dataclass(frozen=True)
class Written:
    """A file that was written, or would be.

    Attributes:
        file: Relative to the project's directory.
        action: Whether it is a new one.
        text: What was added to it: all of it where it is new.
    """

    file: str
    action: Literal["append", "create"]
    text: str


@dataclass(frozen=True)
class Initialised:
    """What `init` came to.

    Attributes:
        dry_run: Whether nothing was written.
        found: What was recognised.
        notes: What a person should know or look at.
        files: What was written.
        next: The commands to go on with.
    """

    directory: str
    dry_run: bool
    found: tuple[Found, ...]
    notes: tuple[str, ...]
    files: tuple[Written, ...]
    next: tuple[str, ...]


def init(root: Path, *, dry_run: bool = False) -> Initialised:
    """Write the settings for the project in ``root``, and a seeds module where it has no seeds.

    Nothing is overwritten: the table goes to the end of ``pyproject.toml``, of which every byte stays,
    or into a new ``seeddb.toml``; a seeds module goes to a file that is not there. When one of the two
    cannot be written, neither is.

    Raises:
        ConfigError: There is a table already, or ``pyproject.toml`` is not TOML.
        SeedDbError: Nothing there makes a schema that this version can build, or a file cannot be written.
    """
    _refuse_second(root)
    proposal = propose(root)
    files = _files(root, proposal)
    if not dry_run:
        _write(root, files)
    return Initialised(str(root), dry_run, tuple(proposal.found), tuple(proposal.notes), files, _NEXT)


def _refuse_second(root: Path) -> None:
    """A table further up holds here, too, unless this directory is a project of its own."""
    table = find_table(root)
    if table.path and (table.path.parent == root or not (root / "pyproject.toml").exists()):
        raise ConfigError(
            "The settings are there already",
            saw=table.heading,
            source=str(root),
            remedy="edit them; `seeddb explain` shows what they come to",
        )


def _files(root: Path, proposal: Proposal) -> tuple[Written, ...]:
    seeds = proposal.seeds
    made = [Written(seeds.file, "create", seeds.text)] if seeds else []
    return (*made, _table(root, proposal.lines))


def _table(root: Path, lines: list[str]) -> Written:
    """At the end of ``pyproject.toml``, unless that cannot take another table, as with ``tool = {...}``."""
    text = "\n".join(lines)
    project = root / "pyproject.toml"
    if project.exists():
        before = _text(project)
        ending = "\r\n" if "\r\n" in before else "\n"
        gap = "" if not before.strip() else "\n" if before.endswith("\n") else "\n\n"
        added = f"{gap}[tool.seeddb]\n{text}\n".replace("\n", ending)
        if _adds_only_ours(before, added):
            return Written(project.name, "append", added)
    return Written(FILE_NAME, "create", f"{text}\n")


def _text(file: Path) -> str:
    """Its text with the line ends that it has."""
    with file.open(encoding="utf-8", newline="") as stream:
        return stream.read()


def _adds_only_ours(before: str, added: str) -> bool:
    try:
        found = tomllib.loads(before + added)
    except tomllib.TOMLDecodeError:
        return False
    was = tomllib.loads(before)
    found["tool"].pop("seeddb", None)
    return found == {**was, "tool": was.get("tool", {})}


def _write(root: Path, files: tuple[Written, ...]) -> None:
    """The table last: whoever sees it finds the seeds module that it names."""
    made: list[Path] = []
    try:
        for each in files:
            path = root / each.file
            with path.open("x" if each.action == "create" else "a", encoding="utf-8", newline="") as stream:
                if each.action == "create":
                    made.append(path)
                stream.write(each.text)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise SeedDbError(
            f"{each.file} cannot be written",
            saw=str(error),
            source=str(root),
            remedy="let the directory be written to, or write the settings by hand: --dry-run shows them",
        ) from error
