"""Run a client program inside a container as if it were here: ``python inside.py CONTAINER PROGRAM ARGUMENTS``.

For machines without PostgreSQL's programs. Standard input, output, errors and the exit code are the program's; the file
that ``--file=`` names is written here, and one that ``pg_restore`` reads is sent there. The program finds the server by
itself, in the same container. Users, databases and passwords come from ``PG*``.
"""

from __future__ import annotations

import contextlib
import os
import socket as sockets
import sys
import threading
from pathlib import Path
from typing import IO, Any, Final

_PASSED: Final = ("PGUSER", "PGPASSWORD", "PGDATABASE", "PGCLIENTENCODING", "PGAPPNAME", "PGOPTIONS")
_PIECE: Final = 1 << 16
_STDOUT: Final = 1


def main(identity: str, program: str, arguments: list[str]) -> int:
    """Run it and return its exit code."""
    from testcontainers.core.docker_client import DockerClient

    api = DockerClient().client.api
    written = [argument for argument in arguments if argument.startswith("--file=")]
    read = arguments[-1:] if program == "pg_restore" and Path(arguments[-1]).is_file() else []
    command = [program, *(argument for argument in arguments if argument not in written and argument not in read)]
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(Path(read[0]).open("rb")) if read else sys.stdin.buffer
        sink = stack.enter_context(Path(written[0][7:]).open("wb")) if written else sys.stdout.buffer
        environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
        execution = api.exec_create(identity, command, stdin=True, environment=environment)["Id"]
        _pump(api.exec_start(execution, socket=True), source, sink)
    return int(api.exec_inspect(execution)["ExitCode"] or 0)


def _pump(stream: Any, source: IO[bytes], sink: IO[bytes]) -> None:  # noqa: ANN401 - docker-py's socket
    from docker.utils.socket import frames_iter

    writer = threading.Thread(target=_send, args=(getattr(stream, "_sock", stream), source), daemon=True)
    writer.start()
    for kind, data in frames_iter(stream, tty=False):
        (sink if kind == _STDOUT else sys.stderr.buffer).write(data)
    sink.flush()


def _send(stream: Any, source: IO[bytes]) -> None:  # noqa: ANN401 - docker-py's
    with contextlib.suppress(OSError):
        while piece := source.read(_PIECE):
            stream.sendall(piece)
        stream.shutdown(sockets.SHUT_WR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
