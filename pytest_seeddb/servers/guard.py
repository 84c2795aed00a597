"""The guard: a tiny process that stops the embedded server when its last user is gone.

Started as a script (``python -I -S guard.py STATE FD``), so that it costs a few milliseconds and
a few megabytes; it imports nothing but the standard library. It sleeps in the kernel, on a lock
that each user of the server shares for as long as it lives; the kernel gives it that lock however
the last user ended, SIGKILL included.

Four lock files lie in a server's state directory, all locked with ``flock`` (never ``lockf``, whose
locks are lost when any descriptor of the file is closed):

- `USERS`: shared by each user; exclusive by the guard while it stops the server.
- `START`: exclusive around "look for the server, or start it".
- `GUARD`: held by the guard. The process that spawns it takes the lock and lets it inherit the
  descriptor, so that there is no moment in which nobody holds it.
- `SERVER`: held by ``initdb`` or the postmaster and, inherited, by each of its backends: whoever
  gets it knows that no process uses the data directory, in any container that shares the
  directory, whatever process numbers say.
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

USERS = "users.lock"
START = "start.lock"
GUARD = "guard.lock"
SERVER = "server.lock"
RECORD = "server.json"
CLEAN = "clean"
DATA = "data"
SOCKET_PREFIX = "seeddb-"
SOCKET = ".s.PGSQL.5432"  # see postmaster.PORT

_POLL_SECONDS = 0.002
_SYNC_WAITS = sys.platform.startswith("linux")  # POSIX lets sync() return before it is done
# Fast shutdown, immediate shutdown, no mercy: each signal with the seconds that it is given.
_SIGNALS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


def main(state: str, guard_lock: int) -> None:
    """Wait for the last user to go, stop the server, make its data survive a power cut, end.

    Opens the lock files first and never again: somebody may remove the directory under us, and the
    server is to be stopped all the same.
    """
    users, server = _opened(state, USERS), _opened(state, SERVER)
    fcntl.flock(users, fcntl.LOCK_EX)
    stopped = stop(state, server)
    token = record(state).get("token", "")
    os.close(server)
    os.close(guard_lock)  # before USERS: the next user must find no guard, and spawn one
    fcntl.flock(users, fcntl.LOCK_UN)
    if stopped and token:
        _synchronize(os.path.join(state, DATA))
        _mark_clean(state, users, token)


def stop(state: str, server: int) -> bool:
    """Stop the server, remove its socket directory; ``True`` when no process of it is left.

    The caller holds `USERS` exclusively, so that nobody uses or starts it.

    Args:
        state: The state directory.
        server: A descriptor of `SERVER`; it holds the lock afterwards.
    """
    socket = noted(server)[1]
    gone = _ended(state, server)
    if gone:
        remove_socket_directory(socket or record(state).get("socket", ""))
    return gone


def note(server: int, pid: int, socket: str) -> None:
    """Write the postmaster and its socket directory into `SERVER`: they can be read as long as it is open."""
    os.ftruncate(server, 0)
    os.pwrite(server, f"{pid}\n{socket}\n".encode(), 0)


def noted(server: int) -> tuple[int, str]:
    """What `note` has written: 0 and an empty text where there is nothing."""
    lines = os.pread(server, 1000, 0).decode(errors="replace").split("\n")
    return (int(lines[0]), lines[1]) if len(lines) > 1 and lines[0].isdigit() else (0, "")


def record(state: str) -> dict[str, str]:
    """What the last start wrote down: ``boot``, ``token``, ``socket``; empty when unreadable."""
    try:
        with open(os.path.join(state, RECORD), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def postmaster(state: str) -> int:
    """The process number that the running postmaster wrote down; 0 when there is none."""
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
            _unlinked(os.path.join(directory, name))
        os.rmdir(directory)
    except OSError:
        return  # gone already, or holds what is not ours


def _ended(state: str, server: int) -> bool:
    """Signal the postmaster, more and more urgently, until nobody holds the server's lock.

    The lock alone does not tell that the written process number is the postmaster's: a backend may hold it
    whose postmaster is gone, or a server in another container that shares the directory.
    """
    for number, seconds in _SIGNALS:
        deadline = time.monotonic() + seconds
        signalled = False
        while not _locked(server):
            pid = noted(server)[0] or postmaster(state)
            if pid and not signalled:
                signalled = _is_servers(pid, state) and _signalled(pid, number)
                end_orphans(state, server)
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        else:
            return True
    return False


def end_orphans(state: str, server: int) -> None:
    """Kill the backends that outlive a killed postmaster; nothing where that lives, or where there is no /proc.

    Most notice its end and go. One that waits for a checkpoint, or computes, does not for a minute or more, and
    until then nobody can use the data directory.
    """
    data = os.path.realpath(os.path.join(state, DATA))
    pid = noted(server)[0]
    if not pid or _works_in(str(pid), data):
        return
    found = os.listdir("/proc") if os.path.isdir("/proc") else ()
    orphans = [int(name) for name in found if name.isdigit() and _works_in(name, data)]
    if _works_in(str(pid), data):
        return  # it was only just starting, and these are its own
    for orphan in orphans:
        _signalled(orphan, signal.SIGKILL)


def _works_in(pid: str, data: str) -> bool:
    """Whether the process is a server's that has its data there; a dead one, or a zombie, is not."""
    try:
        program = os.readlink(os.path.join("/proc", pid, "exe"))
        works_in = os.readlink(os.path.join("/proc", pid, "cwd")).removesuffix(_REMOVED)
        return works_in == data and "postgres" in os.path.basename(program)
    except OSError:
        return False


_REMOVED = " (deleted)"
"""What Linux says after the name of a directory that was removed under the process."""


def _is_servers(pid: int, state: str) -> bool:
    """Whether the process works on this server's data; where the system does not tell, we take it so."""
    return not os.path.isdir("/proc/self") or _works_in(str(pid), os.path.realpath(os.path.join(state, DATA)))


def _signalled(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _synchronize(data: str) -> None:
    """Bring the data directory to the disk: the server itself ran with ``fsync=off``."""
    os.sync()
    if _SYNC_WAITS:
        return
    for directory, _, names in os.walk(data):
        for path in (directory, *(os.path.join(directory, name) for name in names)):
            synchronize(path)


def _mark_clean(state: str, users: int, token: str) -> None:
    """Say that the data directory survives a power cut, unless a server has been started since."""
    unused = _locked(users) and os.fstat(users).st_nlink > 0  # else the directory is being removed
    if unused and record(state).get("token", "") == token:
        path = os.path.join(state, CLEAN)
        _unlinked(path)
        with open(path, "x", encoding="utf-8") as file:  # never through a link
            file.write(token)


def synchronize(path: str) -> None:
    """Bring one file, or the names in one directory, to the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # vanished, or a link: nothing of ours to synchronize
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(state: str, name: str) -> int:
    return os.open(os.path.join(state, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _unlinked(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
