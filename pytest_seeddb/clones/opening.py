"""The worker of a command."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_seeddb.clones.support import build_support, data_opener, dumps_for
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.servers.opening import open_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.plan.plan import Progress
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.settings.settings import Settings


def worker_on(
    server: Server, settings: Settings, progress: Progress | None = None, *, token: str = "", restores: bool = True
) -> Worker:
    """The worker for a command. Restores the template from an earlier container's dump unless ``restores`` is false."""
    dumps = dumps_for(server, settings) if restores else None
    support = replace(build_support(progress), open_data=data_opener(server, settings))
    return Worker(server, token=token, support=support, dumps=dumps)


@contextmanager
def open_worker(settings: Settings, progress: Progress | None = None) -> Iterator[Worker]:
    """The worker for a command, on the server that the settings name.

    Raises:
        ServerError: There is no usable server.
        ConfigError: The settings are wrong.
    """
    with open_server(settings) as server, worker_on(server, settings, progress) as worker:
        yield worker
