"""The documentation's pages, taken apart, and what runs them as a reader would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/*/*.md")))

_FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (?P<path>[\w./-]+\.\w+)\n")
_PROJECT_FILES = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")

# What differs from machine to machine and from run to run; all else is as shown.
_VARYING = (
    (re.compile(r"PostgreSQL \d[\w.]* \([^)]*\)"), "PostgreSQL (somewhere)"),
    (re.compile(r"\b\d+\.\d+ ?m?s\b|\b\d+ ms\b"), "(time)"),
    # Which way is cheaper is measured while tests run.
    (re.compile(r"\b\d+ clones?\b"), "(clones)"),
    (re.compile(r"after tests: (?:\d+ (?:kept|rewound|discarded), )+"), "after tests: (verdicts), "),
    (re.compile(r"\bseeddb_[a-z]_\w+"), "(database)"),
    (re.compile(r"\b\d+(?:\.\d)? [kMG]?B\b"), "(size)"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "(day)"),
    (re.compile(r"\b[0-9a-f]{12,}\b"), "(digest)"),
    (re.compile(r"={4,}"), "="),
    (re.compile(r"\s+"), " "),
)

_numbers = count(1)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self):
        """The file that the block says it is; empty where it says none."""
        found = _FILE.match(self.text)
        return found["path"] if found else ""

    def write(self, directory):
        """Put the block where it belongs in a project."""
        path = directory / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text.partition("\n")[2], encoding="utf-8")

    def sessions(self):
        """The commands of a console block, each with the lines that are shown for it."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown.splitlines()


def blocks_of(page, *languages):
    text = page.read_text(encoding="utf-8")
    found = [
        Block(page, text.count("\n", 0, each.start()) + 1, each["language"], each["text"])
        for each in _FENCE.finditer(text)
    ]
    return [each for each in found if not languages or each.language in languages]


def pytest_generate_tests(metafunc):
    """One test for each block of a language, and for each page."""
    for language in ("toml", "python"):
        if f"{language}_block" in metafunc.fixturenames:
            blocks = [block for page in PAGES for block in blocks_of(page, language)]
            metafunc.parametrize(f"{language}_block", blocks, ids=[block.place for block in blocks])
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


@dataclass
class Reader:
    """Somebody who types what a page shows, in a directory of a project."""

    directory: Path
    cache: Path

    def follow(self, blocks):
        """Write the files and run the commands, in order, and compare what is printed with what is shown."""
        for block in blocks:
            if block.file:
                block.write(self.directory)
            elif block.language == "console":
                for command, shown in block.sessions():
                    self.compare(command, shown, block.place)

    def compare(self, command, shown, place):
        done = self.run(command)
        left = iter(_settled(done.stdout))
        for line in _settled(shown):
            assert line == "..." or line in left, f"{place}: {line!r} is not in what was printed:\n{done.stdout}"

    def run(self, command):
        """Run a command with the programs of this environment; it must succeed."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.directory,
            env=self._environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        done.stdout = done.stdout.splitlines()
        return done

    def _environment(self):
        # Not what tells a process that it is a worker of an xdist run: this one is not.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        return {
            **kept,
            "COLUMNS": "80",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
            "PYTEST_ADDOPTS": "-p no:randomly -p no:asyncio -p no:cacheprovider",
            "XDG_CACHE_HOME": str(self.cache),
        }


def _settled(lines):
    for line in lines:
        settled = line
        for pattern, word in _VARYING:
            settled = pattern.sub(word, settled)
        if settled.strip():
            yield settled.strip()


@pytest.fixture
def pages():
    return PAGES


@pytest.fixture
def blocks():
    """The blocks of a page: ``blocks("docs/tutorial.md", "toml")``."""
    return lambda name, *languages: blocks_of(ROOT / name, *languages)


@pytest.fixture
def reader(cache_home, tmp_path):
    """A reader in a new directory ``project``, with an empty cache directory."""
    cache = cache_home / f"reader-{os.getpid()}-{next(_numbers)}"
    cache.mkdir(mode=0o755)
    directory = tmp_path / "project"
    directory.mkdir()
    yield Reader(directory, cache)
    deadline = time.monotonic() + 20
    while list(cache.glob("*/servers/*/data/postmaster.pid")) and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture
def example(reader):
    """A reader in a copy of an example: ``example("quickstart")``."""

    def copied(name):
        shutil.copytree(ROOT / "examples" / name, reader.directory, ignore=_PROJECT_FILES, dirs_exist_ok=True)
        return reader

    return copied
