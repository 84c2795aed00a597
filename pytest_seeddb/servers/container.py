"""A server in a container: started by the first who needs it, shared by all, removed after the last."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import subprocess
import sys
import tarfile
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ConfigError, ServerError
from pytest_seeddb.fingerprint.digests import Part, digest
from pytest_seeddb.servers import container_guard
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.children import release
from pytest_seeddb.servers.engine import NEWEST, OTHER_WAYS, Engine, connect
from pytest_seeddb.servers.external import objection, probe
from pytest_seeddb.servers.locks import held, tried
from pytest_seeddb.servers.places import container_directory
from pytest_seeddb.servers.postmaster import SETTINGS
from pytest_seeddb.servers.programs import offered_by
from pytest_seeddb.servers.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_seeddb.settings.settings import Settings

LABEL: Final = "io.github.pytest-seeddb"
"""On each of our containers: the digest of what it was made with."""
_USER: Final = "postgres"
_PORT: Final = 5432
_DATA: Final = "/seeddb"
_INIT: Final = "/docker-entrypoint-initdb.d"
_SHARED_MEMORY: Final = "256m"
"""Of /dev/shm, where parallel queries work; the engine's own 64 MB are soon full."""
_PATIENCE: Final = 120.0
_POLL: Final = 0.02
_ELSEWHERE: Final = {"listen_addresses", "port", "unix_socket_permissions"}
"""Settings of the embedded server that are the image's own business here."""


@dataclass(frozen=True)
class Wanted:
    """What a container is made with.

    Attributes:
        image: With its tag.
        tmpfs: The size of the data directory, in memory.
        scripts: Name and content of the files for the image's ``docker-entrypoint-initdb.d``.
        reuse: Whether it outlives its users.
    """

    image: str
    tmpfs: str
    scripts: tuple[tuple[str, bytes], ...] = ()
    reuse: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Wanted:
        """What the settings ask for.

        Raises:
            ConfigError: A file of ``init_scripts`` cannot be read.
        """
        image = settings.image or f"postgres:{settings.postgres or NEWEST}"
        return cls(image, settings.tmpfs, tuple(_scripts(settings)), settings.reuse)

    @property
    def digest(self) -> str:
        """Those who want the same share one container."""
        scripts = [(name, hashlib.sha256(content).hexdigest()) for name, content in self.scripts]
        return digest(json.dumps([self.image, self.tmpfs, scripts, self.reuse, self.command]))

    @property
    def command(self) -> list[str]:
        """PostgreSQL's, with settings that give durability up."""
        flags = {name: value for name, value in SETTINGS.items() if name not in _ELSEWHERE}
        return ["postgres", *(word for name, value in flags.items() for word in ("-c", f"{name}={value}"))]


def _scripts(settings: Settings) -> Iterator[tuple[str, bytes]]:
    for each in settings.init_scripts:
        path = settings.root / each
        try:
            yield path.name, path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"The init script {each} cannot be read",
                saw=str(error),
                source=settings.source("init_scripts"),
                remedy="name files, relative to the project's root",
            ) from error


@contextmanager
def running(settings: Settings) -> Iterator[Server]:
    """Start or join the container; it runs for at least as long as the block.

    All who want the same container on this machine share one, xdist's workers and other runs alike. When
    the last of them is gone, its guard removes it; with ``reuse`` it stays, and the next run finds it.

    Raises:
        ServerError: There is no engine or no image, or the server in it does not start.
        ConfigError: A file of ``init_scripts`` cannot be read.
    """
    wanted = Wanted.of(settings)
    with closing(connect(settings.source("server"))) as engine, _used(_state(wanted.digest, engine)) as state:
        with held(state / container_guard.START):
            if not wanted.reuse:
                _ensure_guard(state, engine)
            container = _joined(state, wanted, engine) or _started(state, wanted, engine, settings)
            server = _server(container, wanted, engine, settings)
        with offered_by(server.identity, server.version):
            yield server


@contextmanager
def _used(state: Path) -> Iterator[Path]:
    """Count among the users of a container for a block."""
    with held(state / container_guard.USERS, shared=True):
        yield state


def _ensure_guard(state: Path, engine: Engine) -> None:
    """Spawn a guard unless one lives. It inherits its lock, so that there are never two."""
    lock = tried(state / container_guard.GUARD)
    if lock is None:
        return
    try:
        process = subprocess.Popen(  # noqa: S603  # our own script, in our own Python
            [sys.executable, "-P", container_guard.__file__, str(state), str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, "DOCKER_HOST": engine.where} if "://" in engine.where else None,
            pass_fds=(lock,),
            start_new_session=True,
        )
    except OSError as error:
        raise ServerError("The container's guard cannot be started", saw=str(error), source=str(state)) from error
    finally:
        os.close(lock)
    release(process)


def _joined(state: Path, wanted: Wanted, engine: Engine) -> Any:  # noqa: ANN401 - docker-py's
    """The container that runs already; ``None`` where there is none."""
    from docker.errors import DockerException

    with suppress(DockerException, OSError):
        if wanted.reuse:
            return next(iter(_ours(engine, label=f"{LABEL}={wanted.digest}", status="running")), None)
        container = engine.client.containers.get(
            (state / container_guard.CONTAINER).read_text(encoding="ascii").strip()
        )
        if container.status == "running":
            return container
    return None


def _started(state: Path, wanted: Wanted, engine: Engine, settings: Settings) -> Any:  # noqa: ANN401 - docker-py's
    from docker.errors import APIError, DockerException

    container_guard.remove(state)  # one that is not running any more
    _pull(wanted, engine, settings)
    host = "127.0.0.1" if engine.is_here else None
    try:
        container = engine.client.containers.create(
            wanted.image,
            wanted.command,
            environment={
                "POSTGRES_USER": _USER,
                "POSTGRES_PASSWORD": secrets.token_urlsafe(24),
                "POSTGRES_INITDB_ARGS": "--no-sync --encoding=UTF8",
                "PGDATA": f"{_DATA}/data",
            },
            ports={f"{_PORT}/tcp": (host, None) if host else None},
            tmpfs={_DATA: f"size={wanted.tmpfs},mode=1777"},
            shm_size=_SHARED_MEMORY,
            labels={LABEL: wanted.digest},
        )
        (state / container_guard.CONTAINER).write_text(str(container.id), encoding="ascii")
        if wanted.scripts:
            container.put_archive(_INIT.rpartition("/")[0] or "/", _archive(wanted))
        container.start()
    except (APIError, DockerException, OSError) as error:
        container_guard.remove(state)
        raise not_created(wanted, error, settings) from error
    return container


def _archive(wanted: Wanted) -> bytes:
    """The init scripts as the image finds them: copied, because an engine elsewhere sees no file of ours."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in wanted.scripts:
            entry = tarfile.TarInfo(f"{_INIT.rpartition('/')[2]}/{name}")
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def _pull(wanted: Wanted, engine: Engine, settings: Settings) -> None:
    from docker.errors import APIError, DockerException, ImageNotFound

    try:
        engine.client.images.get(wanted.image)
    except ImageNotFound:
        try:
            engine.client.images.pull(wanted.image)
        except (APIError, DockerException) as error:
            raise no_image(wanted, error, settings) from error


def _server(container: Any, wanted: Wanted, engine: Engine, settings: Settings) -> Server:  # noqa: ANN401 - docker-py's
    """Wait until it answers a query, and ask what it is."""
    from docker.errors import DockerException

    try:
        return _answering(container, wanted, engine, settings)
    except (DockerException, OSError) as error:
        raise lost(wanted, error, settings) from error


def _answering(container: Any, wanted: Wanted, engine: Engine, settings: Settings) -> Server:  # noqa: ANN401 - likewise
    import psycopg

    deadline = time.monotonic() + _PATIENCE
    told = ""
    while time.monotonic() < deadline:
        container.reload()
        if container.status in {"exited", "dead"}:
            raise died(container, wanted, settings)
        with suppress(LookupError):
            address = _address(container, engine)
            try:
                found = probe(address)
            except psycopg.OperationalError as error:
                told = str(error)
            else:
                if finding := objection(found, settings):
                    raise ServerError(finding.what, saw=finding.saw, source=wanted.image, remedy=finding.remedy)
                version = found.version.split()[0]
                origin = f"image {wanted.image}"
                inputs = tuple(Part(f"init script {name}", digest(content)) for name, content in wanted.scripts)
                return Server(
                    "container", address, version, found.version_num, origin, found.superuser, found.fsync,
                    is_ephemeral=not wanted.reuse, inputs=inputs, identity=str(container.id),
                )  # fmt: skip
        time.sleep(_POLL)
    raise not_ready(container, wanted, told, settings)


def _address(container: Any, engine: Engine) -> Address:  # noqa: ANN401 - docker-py's
    host, port = engine.address_of(container, _PORT)
    environment = dict(each.partition("=")[::2] for each in container.attrs["Config"]["Env"])
    return Address(
        {
            "host": host,
            "port": str(port),
            "user": environment.get("POSTGRES_USER", _USER),
            "password": environment.get("POSTGRES_PASSWORD", ""),
            "dbname": "postgres",
        }
    )


# -- what runs now ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    """One of our containers.

    Attributes:
        identity: The container's id, shortened as engines show it.
        image: What it was made from.
        in_use: Whether a process uses it.
    """

    identity: str
    image: str
    in_use: bool


def is_running(settings: Settings) -> bool:
    """Whether the container that the settings want runs already.

    Raises:
        ServerError: No engine answers.
    """
    wanted = Wanted.of(settings)
    with closing(connect(settings.source("server"))) as engine:
        return _joined(_state(wanted.digest, engine), wanted, engine) is not None


def containers(source: str) -> tuple[Running, ...]:
    """All of ours on the engine, also those that an ended guard has left.

    Raises:
        ServerError: No engine answers.
    """
    with closing(connect(source)) as engine:
        return tuple(_shown(each, engine) for each in _ours(engine))


def stop(source: str) -> tuple[Running, ...]:
    """Remove those that nobody uses, with all that they hold; what was removed.

    Raises:
        ServerError: No engine answers.
    """
    with closing(connect(source)) as engine:
        return tuple(_shown(each, engine) for each in _ours(engine) if _removed(each, engine))


def _removed(container: Any, engine: Engine) -> bool:  # noqa: ANN401 - docker-py's
    """Whether nobody used it, and this removed it."""
    from docker.errors import NotFound

    lock = tried(_state(container.labels[LABEL], engine) / container_guard.USERS)
    if lock is None:
        return False
    try:
        container.remove(force=True, v=True)
    except NotFound:  # its guard was quicker
        return False
    finally:
        os.close(lock)
    return True


def _ours(engine: Engine, label: str = LABEL, **filters: str) -> list[Any]:
    """Those that are still there when the engine is asked about each of them."""
    return list(engine.client.containers.list(all=True, filters={"label": label, **filters}, ignore_removed=True))


def _state(name: str, engine: Engine) -> Path:
    return container_directory(f"{name}-{digest(engine.where)[:6]}")


def _shown(container: Any, engine: Engine) -> Running:  # noqa: ANN401 - docker-py's
    lock = tried(_state(container.labels[LABEL], engine) / container_guard.USERS)
    if lock is not None:
        os.close(lock)
    return Running(str(container.short_id), str(container.attrs["Config"]["Image"]), lock is None)


# -- failures --------------------------------------------------------------------------------------

_LOG_LINES: Final = 15
_CANNOT_RUN: Final = "exec format error"
"""What a container's first process says where it is made for another processor; engines that start it say it too."""
_FOREIGN: Final = ("no matching manifest", "platform", _CANNOT_RUN)
"""What engines say of an image for another processor: when they pull it, create its container, or start that."""


def log_of(container: Any) -> str:  # noqa: ANN401 - docker-py's
    """The last lines of its log; nothing where the engine does not give them."""
    from docker.errors import DockerException

    with suppress(DockerException):
        return str(container.logs(tail=_LOG_LINES).decode(errors="replace")).strip()
    return ""


def died(container: Any, wanted: Wanted, settings: Settings) -> ServerError:  # noqa: ANN401 - docker-py's
    """It ended instead of serving."""
    log = log_of(container)
    code = container.attrs.get("State", {}).get("ExitCode")
    if _CANNOT_RUN in log:
        return _of_another_processor(wanted, log, settings)
    full = "No space left on device" in log
    return ServerError(
        "The container has no room for its data" if full else "The container ended as soon as it had started",
        saw=f"exit code {code}; the end of its log:\n{log}",
        source=f"image {wanted.image}, {_source(settings)}",
        remedy=f'give it more memory: tmpfs = "4g" (it has {wanted.tmpfs})'
        if full
        else f"see its log; the image must behave like the official postgres image\n{OTHER_WAYS}",
    )


def not_ready(container: Any, wanted: Wanted, told: str, settings: Settings) -> ServerError:  # noqa: ANN401 - likewise
    """It runs, and cannot be reached."""
    return ServerError(
        "The server in the container accepts no connections",
        saw=f"{told}\nthe end of its log:\n{log_of(container)}",
        source=f"image {wanted.image}, {settings.source('server')}",
        remedy="see its log; where the engine's ports are reached at another address than that, name it: "
        f"TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1\n{OTHER_WAYS}",
    )


def lost(wanted: Wanted, error: Exception, settings: Settings) -> ServerError:
    """It was there, and the engine does not show it any more."""
    return ServerError(
        "The container went away while its server was starting",
        saw=str(error),
        source=f"image {wanted.image}, {settings.source('server')}",
        remedy=f"see whether somebody removed it or stopped the container engine, and try again\n{OTHER_WAYS}",
    )


def no_image(wanted: Wanted, error: Exception, settings: Settings) -> ServerError:
    """It could not be pulled."""
    told = str(error)
    if _is_foreign(told):
        return _of_another_processor(wanted, told, settings)
    return ServerError(
        f"The image {wanted.image} is not here and cannot be pulled",
        saw=told,
        source=_source(settings),
        remedy=_another_image(wanted),
    )


def not_created(wanted: Wanted, error: Exception, settings: Settings) -> ServerError:
    """The engine would not start it."""
    told = str(error)
    if _is_foreign(told):
        return _of_another_processor(wanted, told, settings)
    taken = "port is already allocated" in told or "address already in use" in told
    return ServerError(
        "The container cannot be started: a port is taken" if taken else "The container cannot be started",
        saw=told,
        source=f"image {wanted.image}, {settings.source('server')}",
        remedy=f"try again; if that does not help, restart the container engine\n{OTHER_WAYS}",
    )


def _is_foreign(told: str) -> bool:
    return any(words in told for words in _FOREIGN)


def _of_another_processor(wanted: Wanted, told: str, settings: Settings) -> ServerError:
    return ServerError(
        f"The image {wanted.image} is not made for this machine's processor",
        saw=told,
        source=_source(settings),
        remedy=_another_image(wanted),
    )


def _another_image(wanted: Wanted) -> str:
    official = f"postgres:{NEWEST}"
    return f'name another: image = "{official}", or pull it by hand: docker pull {wanted.image}\n{OTHER_WAYS}'


def _source(settings: Settings) -> str:
    return settings.source("image" if settings.image else "server")
