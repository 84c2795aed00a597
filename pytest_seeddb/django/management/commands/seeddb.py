"""``python manage.py seeddb ...``: the ``seeddb`` command, for those who start everything that way."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from pytest_seeddb.cli import main


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Forwards its arguments; the exit code is that of ``seeddb``."""

    help = "Seeded PostgreSQL databases: seeddb apply, build, dump, verify, ... See `seeddb --help`."
    requires_system_checks: tuple[str, ...] = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """From the command line: every option is for ``seeddb``, ``--help`` too."""
        sys.exit(main(argv[2:]))

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """For ``call_command("seeddb", "apply", "--tier", "demo")``."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_args: object, arguments: list[str], **_options: Any) -> None:
        """Called by other code: a failure is an error there.

        Raises:
            CommandError: ``seeddb`` failed; it has said why.
        """
        if code := main(arguments):
            raise CommandError(f"seeddb {' '.join(arguments)} failed", returncode=code)
