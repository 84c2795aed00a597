"""Plugins that all tests need: pytest takes them from the uppermost conftest only."""

from __future__ import annotations

pytest_plugins = ["pytester"]
