"""Processes as the operating system knows them, and cache directories of which nothing may be left running."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_seeddb.servers import guard

STRANGER = 65534  # the account that every Linux has for nobody in particular

# Another account may read everything, so that it can run a Python below a closed home directory;
# to PostgreSQL it is an ordinary user.
AS_STRANGER = (
    "setpriv",
    f"--reuid={STRANGER}",
    f"--regid={STRANGER}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)
CAN_BE_STRANGER = os.geteuid() == 0 and shutil.which("setpriv") is not None


def eventually(what, seconds=15.0):
    """What ``what()`` says as soon as it says anything; it fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, what
        time.sleep(0.005)
    return found


def free_port():
    """A port for a server. Not one that the system gives to connections, or an engine to containers, at any moment."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)  # workers may share the seed of `random`
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


def processes_of(cache, *words):
    """Processes, by their number, whose command names ``cache`` and all of the words."""
    told = subprocess.run(["ps", "-axww", "-o", "pid=,stat=,command="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in told.stdout.splitlines()]
    return {
        int(pid): command
        for pid, stat, command in rows
        if str(cache) in command and stat[0] != "Z" and all(word in command for word in words)
    }


def postmasters(cache):
    return [pid for pid, command in processes_of(cache, "bin/postgres -D").items() if "--boot" not in command]


def guards(cache):
    return list(processes_of(cache, "guard.py"))


def killed(pid, number=signal.SIGKILL):
    os.kill(pid, number)
    return pid


@contextmanager
def private_cache(owner=None, within="/var/tmp"):
    """A cache directory of the test's own; at the end nothing that names it may run any more."""
    made = Path(tempfile.mkdtemp(prefix="sdt-", dir=within)).resolve()
    made.chmod(0o755)
    if owner is not None:
        os.chown(made, owner, owner)
    yield made
    sockets = [guard.record(str(each)).get("socket", "") for each in made.glob("**/pytest-seeddb/servers/*")]
    eventually(lambda: not processes_of(made), 20)
    assert [each for each in sockets if each and Path(each).exists()] == []
    shutil.rmtree(made)
