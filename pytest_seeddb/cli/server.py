"""``seeddb server stop``: remove the containers that stayed after a run and are not in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_seeddb.cli.output import show
from pytest_seeddb.cli.parser import settings_of

if TYPE_CHECKING:
    import argparse


def run(parsed: argparse.Namespace) -> int:
    """Run the command, on the engine that the settings would use. An embedded server ends by itself."""
    from pytest_seeddb.servers import container  # not on Windows

    source = settings_of(parsed).source("server")
    stopped = container.stop(source)
    in_use = container.containers(source)
    lines = [
        f"{word} {running.identity}  {running.image}"
        for word, containers in (("stopped ", stopped), ("in use  ", in_use))
        for running in containers
    ]
    none = "there are no containers of pytest-seeddb"
    show(parsed, {"stopped": stopped, "in_use": in_use}, lines or [none])
    return 0
