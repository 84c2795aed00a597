"""The picture in the README shows what a run prints."""

from __future__ import annotations

import html
import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def lines(picture):
    """The lines of a picture of a terminal, without what differs from run to run and from machine to machine."""
    rows = {}
    for x, y, text in re.findall(
        r'<text class="seeddb-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', picture.read_text()
    ):
        rows.setdefault(float(y), []).append((float(x), html.unescape(text)))
    texts = (" ".join("".join(text for _, text in sorted(row)).split()) for _, row in sorted(rows.items()))
    settled = (re.sub(r"[\d.]+ m?s\b|[\d.]+s\b|=+", "*", text) for text in texts)
    return [text for text in settled if not re.search(r"PostgreSQL|^demo$|clones in memory", text)]


@pytest.mark.long
def test_the_picture_is_of_a_run_of_today(tmp_path):
    picture = tmp_path / "run.svg"
    runpy.run_path(str(DOCS / "recording.py"))["draw"](picture)
    assert lines(picture) == lines(DOCS / "run.svg")
    assert "seeddb: template quickstart-shop/demo reused" in lines(picture)
    assert "http" not in re.sub(r"http://www\.w3\.org/\S*|<!--.*?-->", "", picture.read_text(), flags=re.DOTALL)
