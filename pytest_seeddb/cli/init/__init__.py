"""``seeddb init``: look at a project, and write the settings and a first seeds module for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli.output import show
from pytest_seeddb.errors import ConfigError, SeedDbError
from pytest_seeddb.settings.files import find_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_seeddb.cli.init.proposal import Finding, Written

_NEXT: Final = ("seeddb build", "pytest --seed-db")


@dataclass(frozen=True)
class Initialised:
    """What `init` recognised, wrote and advises; with ``dry_run`` nothing was written."""

    directory: str
    dry_run: bool
    found: tuple[Finding, ...]
    notes: tuple[str, ...]
    files: tuple[Written, ...]
    next: tuple[str, ...]


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    root = (parsed.directory or Path.cwd()).resolve()
    result = init(root, dry_run=parsed.dry_run, imports=not parsed.no_import)
    show(parsed, result, _lines(result, Path(result.directory).relative_to(root)), with_quiet=parsed.dry_run)
    return 0


def _lines(result: Initialised, within: Path) -> Iterator[str]:
    width = max(len(finding.what) for finding in result.found)
    yield from (f"found    {finding.what:<{width}}  {finding.where}" for finding in result.found)
    yield from (f"note     {note}" for note in result.notes)
    for file in result.files:
        would = "would be " if result.dry_run else ""
        verb = "created" if file.action == "create" else "extended at its end"
        lines = file.text.strip().splitlines() if result.dry_run or not file.file.endswith(".py") else []
        yield ""
        yield f"{within / file.file}, {would}{verb}{':' if lines else ''}"
        yield from (f"    {line}".rstrip() for line in lines)
    yield ""
    yield from (f"next     {command}" for command in result.next)


def init(root: Path, *, dry_run: bool = False, imports: bool = True) -> Initialised:
    """Write a project's settings, and a seeds module if it has none. Overwrites no file; writes both or neither.

    What it proposes can be imported, unless ``imports`` is false. The project may be in a directory below ``root``.
    """
    from pytest_seeddb.cli.init.proposal import propose

    _refuse_settings(root)
    proposal = propose(root, imports=imports)
    home = proposal.root
    if home != root:
        _refuse_settings(home)
    enter = [f"cd {home.relative_to(root)}"] if home != root else []
    files = proposal.files()
    if not dry_run:
        _write(home, files)
    return Initialised(str(home), dry_run, tuple(proposal.found), tuple(proposal.notes), files, (*enter, *_NEXT))


def _refuse_settings(root: Path) -> None:
    table = find_table(root)
    # A table further up holds here, too, unless this directory is a project of its own.
    if table.path and (table.path.parent == root or not (root / "pyproject.toml").exists()):
        raise ConfigError(
            "The project already has settings",
            saw=table.heading,
            source=str(root),
            remedy="edit them; `seeddb explain` shows the result",
        )


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
