"""A server of a test's own, on a fresh data directory, beside the one that all tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg

from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.binaries import choose
from pytest_seeddb.servers.places import cache_directory, runnable, server_account
from pytest_seeddb.settings.settings import Settings


@contextmanager
def separate_server():
    """Gives ``start(prepare)``: start it, its data directory changed by ``prepare`` first; and ``start.stop()``."""
    account = server_account()
    named = os.environ.get("SEEDDB_BINARIES")
    wanted = Settings(
        root=Path("/"),
        postgres=int(os.environ.get("SEEDDB_POSTGRES", "0")) or None,
        binaries=Path(named) if named else None,
    )
    program = runnable(choose(wanted), account, cache_directory(account)).program
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **account.spawn_options()}
    where = Path(tempfile.mkdtemp(prefix="sdt-", dir="/tmp"))
    running = []

    def start(prepare=lambda data: None):
        prepare(where / "data")
        flags = ["-D", where / "data", "-k", where, "-c", "listen_addresses=", "-c", "fsync=off"]
        running.append(subprocess.Popen([program("postgres"), *flags], **options))
        address = Address({"host": str(where), "user": "postgres", "dbname": "postgres"})
        wait_for(address)
        return address

    def stop():
        process = running.pop()
        process.send_signal(2)
        process.wait(20)

    start.stop = stop
    try:
        account.take(where)
        initdb = [program("initdb"), "-D", where / "data", "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, check=True, **options)
        yield start
    finally:
        while running:
            stop()
        shutil.rmtree(where)


def wait_for(address):
    """Wait for a server that has just been started."""
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(address.conninfo).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        else:
            return
