"""End servers that stay after a run: containers with ``reuse``, and those that nobody owns any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_seeddb.servers.container import Running
    from pytest_seeddb.settings.settings import Settings


@dataclass(frozen=True)
class Stopped:
    """What `stop` came to.

    Attributes:
        stopped: The containers that are gone.
        in_use: Those that stay because somebody uses them.
    """

    stopped: tuple[Running, ...]
    in_use: tuple[Running, ...]


def stop(settings: Settings) -> Stopped:
    """Remove the containers of ours that nobody uses, on the engine that the settings would use.

    An embedded server ends by itself, soon after its last user.

    Raises:
        ServerError: No container engine answers.
    """
    from pytest_seeddb.servers import container

    source = settings.source("server")
    gone = container.stop(source)
    return Stopped(gone, container.containers(source))
