"""What a server holds on to: files, descriptors, memory and catalogs, by the operating system's and its own account."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

_CATALOGS = "SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relisshared AND relkind IN ('r', 'i', 't')"
_DEAD = "SELECT sum(pg_stat_get_dead_tuples(oid)) FROM pg_class WHERE relisshared AND relkind = 'r'"
_COUNTS = """
    SELECT (SELECT count(*) FROM pg_database),
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
           (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
"""


def counted(server, state, pids):
    """What may not change at all; `pids` are the processes whose descriptors count, by their names."""
    with psycopg.connect(server.address.conninfo, autocommit=True) as connection:
        databases, backends, locks = connection.execute(_COUNTS).fetchone()
    return {
        "databases": databases,
        "directories of databases": len(list((state / "data/base").iterdir())),
        "backends": backends,
        "advisory locks": locks,
        **{f"descriptors of {name}": descriptors(pid) for name, pid in pids.items()},
    }


def measured(server, state, postmaster):
    """What may move within limits, in bytes, rows and numbers."""
    with psycopg.connect(server.address.conninfo, autocommit=True) as connection:
        catalogs, dead = (int(connection.execute(each).fetchone()[0]) for each in (_CATALOGS, _DEAD))
    files = [each for each in (state / "data").rglob("*") if each.is_file()]
    logs = [each for each in files if each.parent.name == "pg_wal"]
    return {
        "bytes of catalogs": catalogs,
        "dead rows in catalogs": dead,
        "files": len(files) - len(logs),
        "bytes of files": sum(map(size, files)) - sum(map(size, logs)),
        "bytes of write-ahead log": sum(map(size, logs)),
        "bytes of shared memory": sum(map(size, shared_memory(postmaster))),
        "bytes of the server's own memory": memory(postmaster),
        "bytes of log": size(state / "postgres.log"),
    }


def size(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # gone meanwhile


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def memory(pid):
    """Bytes that are the process's alone."""
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def shared_memory(pid):
    """The files of shared memory that a postmaster has; they outlive it when it is killed."""
    return {Path(each) for each in re.findall(r"/dev/shm/PostgreSQL\.\d+", Path(f"/proc/{pid}/maps").read_text())}


def segments(*pids):
    """System V segments, those that these processes made if any are named."""
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return {int(row[1]) for row in rows if not pids or int(row[4]) in pids}


def remains(state):
    """What lies about when the server is not running: every file but the log's, and how many databases."""
    own = {str(each.relative_to(state)) for each in state.rglob("*") if "data" not in each.relative_to(state).parts}
    return sorted(own), len(list((state / "data/base").iterdir()))
