"""What a worker's builds need beside its server."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from pytest_seeddb.plan.plan import Progress
from pytest_seeddb.seeds.planning import Plans, plan_again
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.templates.building import BuildSupport

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.exports import KeptDumps


def build_support(
    progress: Progress | None = None,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
    plans: Plans | None = None,
) -> BuildSupport:
    """What builds need, with plans that are made again and have siblings as `pytest_seeddb.seeds.planning` says."""
    return BuildSupport(progress or Progress(), around, plan_again, (plans or Plans()).siblings)


def dumps_for(server: Server, settings: Settings) -> KeptDumps | None:
    """Dumps that keep templates alive across ephemeral servers; other servers need none."""
    if not server.is_ephemeral:
        return None
    # Imported here: exports and restoring are a good part of the start-up, and few runs need them.
    from pytest_seeddb.templates.exports import KeptDumps

    return KeptDumps(settings)


def data_opener(server: Server, settings: Settings) -> Callable[[str], AbstractContextManager[Server]] | None:
    """What starts a server on other data; ``None`` for a server that we do not start."""
    return None if server.state is None else partial(open_server, settings)
