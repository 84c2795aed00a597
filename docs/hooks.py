"""What the site has beside these pages: a reference of the public names, and links to files outside of ``docs``.

MkDocs calls these hooks. The pages themselves stay as GitHub shows them.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any, Final

from mkdocs.structure.files import File

import pytest_seeddb

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_OUTSIDE: Final = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>(?:\.\./)+[^)\s]+)\)")
_OTHERS: Final = ("clones.changes.Changes", "clones.changes.TableChange", "clones.diff.Diff")
"""What methods of the public classes return."""
_INTRODUCTION: Final = """# Python

The names that `pytest_seeddb` exports, and what their methods return, from their docstrings. How they are used is on
the pages about [fixtures](fixtures.md) and [seeds](../how-to/profiles-and-parameters.md).
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference of the public names."""
    names = [*(f"pytest_seeddb.{name}" for name in pytest_seeddb.__all__), *(f"pytest_seeddb.{n}" for n in _OTHERS)]
    text = "\n".join([_INTRODUCTION, *(f"::: {name}" for name in names)])
    files.append(File.generated(config, "reference/api.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Let links to files outside of ``docs`` lead to the repository, or be plain text where it is not known."""

    def replace(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), match["target"]))
        if not target.startswith("../"):
            return match[0]
        url = f"{config.repo_url.rstrip('/')}/blob/main/{target.removeprefix('../')}" if config.repo_url else ""
        return f"[{match['text']}]({url})" if url else match["text"]

    return _OUTSIDE.sub(replace, markdown)
