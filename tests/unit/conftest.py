"""Fixtures for tests that need no server."""

from __future__ import annotations

import os

import pytest

from pytest_seeddb.servers import binaries


@pytest.fixture
def only(monkeypatch):
    """Let PATH be the only place where programs of PostgreSQL's can be found."""

    def path(*directories):
        monkeypatch.setenv("PATH", os.pathsep.join(map(str, directories)))
        monkeypatch.setattr(binaries, "_PATTERNS", ())
        monkeypatch.setattr(binaries, "WHEEL", "no-such-wheel")

    return path
