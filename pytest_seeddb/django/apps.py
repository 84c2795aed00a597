"""The application's configuration."""

from __future__ import annotations

from django.apps import AppConfig


class SeedDbConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """It has a management command, and neither models nor migrations."""

    name = "pytest_seeddb.django"
    label = "seeddb"
