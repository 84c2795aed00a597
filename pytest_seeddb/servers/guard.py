"""The guard: a tiny process that ends an embedded server or a container when its last user is gone.

It runs as a script, ``python guard.py STATE FD KIND``. For an embedded server it starts with ``-I -S`` and imports the
standard library alone, so it costs a few milliseconds and megabytes. For a container it imports the engine's client at
the end. (Ryuk would end the container with the process that started it, while others still use it.) It sleeps in the
kernel, on a lock that each user shares while it lives; the kernel gives the guard that lock however the last user
ended, even by SIGKILL.

Four lock files are in a state directory, all locked with ``flock`` (never ``lockf``, whose locks are lost when any
descriptor of the file is closed):

- `USERS`: shared by each user; exclusive by the guard while it ends the server.
- `START`: exclusive around "look for the server, or start it".
- `GUARD`: held by the guard. The process that spawns it takes the lock and lets it inherit the descriptor, so the lock
  is never free in between.
- `SERVER`: held by ``initdb`` or the postmaster and, inherited, by each of its backends. A process that gets it knows
  that no process uses the data directory, in any container that shares the directory. (Containers have none.)
"""

# pathlib would add half to the time that the guard takes to start:
# ruff: noqa: PTH106, PTH108, PTH112, PTH114, PTH115, PTH118, PTH119, PTH123, PTH208

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    Kind: TypeAlias = Literal["server", "container"]

USERS = "users.lock"
START = "start.lock"
GUARD = "guard.lock"
SERVER = "server.lock"
RECORD = "server.json"
CLEAN = "clean"
DATA = "data"
CONTAINER = "container"
"""The file that holds a container's id."""
SOCKET_PREFIX = "seeddb-"
SOCKET = ".s.PGSQL.5432"  # see postmaster.PORT
MEMORY = "seeddb-memory"
"""The link to the server's directory in memory, see `pytest_seeddb.servers.memory`."""
MEMORY_PREFIX = "seeddb-clones-"

_POLL_SECONDS = 0.002
_SYNC_WAITS = sys.platform.startswith("linux")  # POSIX lets sync() return before it is done
# Fast shutdown, immediate shutdown, no mercy: each signal with the seconds that it is given.
_SIGNALS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


def main(state: str, guard_lock: int, kind: Kind = "server") -> None:
    """Wait for the last user, end the server, make its data durable; opens its files once: they may be removed."""
    users = _open(state, USERS)
    server = _open(state, SERVER) if kind == "server" else users
    fcntl.flock(users, fcntl.LOCK_EX)
    token = ""
    if kind == "container":
        remove_container(state)
    else:
        token = record(state).get("token", "") if stop(state, server) else ""
        os.close(server)
    os.close(guard_lock)  # before USERS: the next user must find no guard, and spawn one
    fcntl.flock(users, fcntl.LOCK_UN)
    if token:
        _make_durable(state, users, token)


def remove_container(state: str) -> None:
    """Remove the container that the state directory names; one that is gone already is not an error."""
    note = os.path.join(state, CONTAINER)
    try:
        with open(note, encoding="ascii") as file:
            identity = file.read().strip()
    except OSError:
        return
    from docker.errors import DockerException
    from testcontainers.core.docker_client import DockerClient

    try:
        client = DockerClient().client
        try:
            client.containers.get(identity).remove(force=True, v=True)
            _unlink(note)
        finally:
            client.close()
    except (DockerException, OSError):
        return


def stop(state: str, server: int) -> bool:
    """Stop the server and remove its socket directory; whether no process of it is left.

    The caller holds `USERS` exclusively, so that nobody uses or starts it. ``server``, a descriptor of `SERVER`, holds
    that lock afterwards.

    Signals the postmaster, more and more urgently, until nobody holds the server's lock. The lock alone does not tell
    that the written process number is the postmaster's: a backend may hold it whose postmaster is gone, or a server in
    another container that shares the directory.
    """
    _, socket, memory = read_note(server)
    for number, seconds in _SIGNALS:
        deadline = time.monotonic() + seconds
        signalled = False
        while not _try_lock(server):
            pid = read_note(server)[0] or postmaster(state)
            if pid and not signalled:
                signalled = _is_server_process(pid, state) and _send(pid, number)
                end_orphans(state, server)
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        else:
            remove_socket_directory(socket or record(state).get("socket", ""))
            remove_memory_directory(memory)
            return True
    return False


def note(server: int, pid: int, socket: str, memory: str = "") -> None:
    """Write the postmaster's number and its directories into `SERVER`: readable as long as it is open."""
    os.ftruncate(server, 0)
    os.pwrite(server, f"{pid}\n{socket}\n{memory}\n".encode(), 0)


def read_note(server: int) -> tuple[int, str, str]:
    """Read what `note` wrote: 0 and empty texts where there is nothing."""
    lines = [*os.pread(server, 1000, 0).decode(errors="replace").split("\n"), "", ""]
    return (int(lines[0]), lines[1], lines[2]) if lines[0].isdigit() else (0, "", "")


def record(state: str) -> dict[str, str]:
    """What the last start wrote down: ``boot``, ``token``, ``socket``; empty when unreadable."""
    try:
        with open(os.path.join(state, RECORD), encoding="utf-8") as file:
            return {str(key): str(value) for key, value in json.load(file).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def postmaster(state: str) -> int:
    """The process number in ``postmaster.pid``; 0 when there is none."""
    try:
        with open(os.path.join(state, DATA, "postmaster.pid"), encoding="utf-8", errors="replace") as file:
            return abs(int(file.readline()))
    except (OSError, ValueError):
        return 0


def remove_socket_directory(directory: str) -> None:
    """Remove a server's socket directory; anything that does not look like one stays."""
    if not os.path.basename(directory).startswith(SOCKET_PREFIX) or os.path.islink(directory):
        return
    try:
        for name in (SOCKET, SOCKET + ".lock"):
            _unlink(os.path.join(directory, name))
        os.rmdir(directory)
    except OSError:
        return  # gone already, or holds what is not ours


def remove_memory_directory(directory: str) -> None:
    """Remove a stopped server's directory in memory, with the clones that a killed run or a crash has left in it."""
    if os.path.basename(directory).startswith(MEMORY_PREFIX) and os.path.isdir(directory):
        import shutil

        shutil.rmtree(directory, ignore_errors=True)  # never through a link


def end_orphans(state: str, server: int) -> None:
    """Kill the backends that outlive a killed postmaster: some take a minute to notice it. Nothing without /proc."""
    pid = read_note(server)[0]
    if not pid or not os.path.isdir("/proc/self") or _is_server_process(pid, state):
        return
    orphans = [int(name) for name in os.listdir("/proc") if name.isdigit() and _is_server_process(int(name), state)]
    if _is_server_process(pid, state):
        return  # it was only just starting, and these are its own
    for orphan in orphans:
        _send(orphan, signal.SIGKILL)


def _is_server_process(pid: int, state: str) -> bool:
    """Whether the process is a living one of this server; ``True`` where the system has no /proc."""
    if not os.path.isdir("/proc/self"):
        return True
    try:
        program = os.readlink(f"/proc/{pid}/exe")
        directory = os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)")  # where it was removed meanwhile
    except OSError:
        return False
    return "postgres" in os.path.basename(program) and directory == os.path.realpath(os.path.join(state, DATA))


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _make_durable(state: str, users: int, token: str) -> None:
    """Write the data to the disk (the server ran with ``fsync=off``), and mark it so unless a server started since."""
    os.sync()
    if not _SYNC_WAITS:
        for directory, _, names in os.walk(os.path.join(state, DATA)):
            for path in (directory, *(os.path.join(directory, name) for name in names)):
                synchronize(path)
    unused = _try_lock(users) and os.fstat(users).st_nlink > 0  # else the directory is being removed
    if unused and record(state).get("token", "") == token:
        path = os.path.join(state, CLEAN)
        _unlink(path)
        with open(path, "x", encoding="utf-8") as file:  # never through a link
            file.write(token)


def synchronize(path: str) -> None:
    """Write one file, or the names in one directory, to the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # vanished, or a link that is not ours
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(state: str, name: str) -> int:
    return os.open(os.path.join(state, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])  # type: ignore[arg-type]  # a Kind
