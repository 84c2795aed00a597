"""The guard of a container: a process that removes it when its last user is gone, however that one went.

Started as a script. It sleeps in the kernel on a lock that each user shares (see `guard`), and imports the
engine's client only when it has got it. Ryuk would end the container together with the process that started
it, while others still use it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from pathlib import Path

USERS = "users.lock"
START = "start.lock"
GUARD = "guard.lock"
CONTAINER = "container"
"""The file that holds the container's id."""


def main(state: Path, guard_lock: int) -> None:
    """Wait for the last user to go, and remove the container."""
    users = os.open(state / USERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    fcntl.flock(users, fcntl.LOCK_EX)
    remove(state)
    os.close(guard_lock)  # before USERS: the next user must find no guard, and spawn one
    os.close(users)


def remove(state: Path) -> None:
    """Remove the container that the state directory names; one that is gone already is no error."""
    note = state / CONTAINER
    try:
        identity = note.read_text(encoding="ascii").strip()
    except OSError:
        return
    from docker.errors import DockerException
    from testcontainers.core.docker_client import DockerClient

    with contextlib.suppress(DockerException, OSError), contextlib.closing(DockerClient().client) as client:
        client.containers.get(identity).remove(force=True, v=True)
        note.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
