"""A server in a container: started by the first process that needs it, shared by all, removed after the last."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import tarfile
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ConfigError, ServerError
from pytest_seeddb.fingerprint.digests import Part, digest
from pytest_seeddb.servers import guard
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.engine import NEWEST, OTHER_WAYS, Engine, connect
from pytest_seeddb.servers.external import objection, probe
from pytest_seeddb.servers.libpq import variables_set
from pytest_seeddb.servers.places import container_directory
from pytest_seeddb.servers.postmaster import SETTINGS
from pytest_seeddb.servers.processes import ensure_guard, hold_lock, is_locked, try_lock
from pytest_seeddb.servers.programs import offer_programs
from pytest_seeddb.servers.remedies import is_certain
from pytest_seeddb.servers.server import GLOBALS, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_seeddb.settings.settings import Settings

LABEL: Final = "io.github.pytest-seeddb"
"""On each of our containers: the digest of its recipe."""
_USER: Final = "postgres"
_PORT: Final = 5432
_DATA: Final = "/seeddb"
_INIT: Final = ("/", "docker-entrypoint-initdb.d")
_SHARED_MEMORY: Final = "256m"  # of /dev/shm, where parallel queries work; the engine's own 64 MB are soon full
_PATIENCE: Final = 120.0
_POLL: Final = 0.02
_LOG_LINES: Final = 15
_IMAGES_OWN: Final = {"listen_addresses", "port", "unix_socket_permissions"}
"""Settings of the embedded server that the image decides here."""
_CANNOT_RUN: Final = "exec format error"
"""What a container's first process says on a machine with another processor; engines that start it say it too."""
_FOREIGN: Final = ("no matching manifest", "platform", _CANNOT_RUN)
"""What engines say of an image for another processor: when they pull it, create its container, or start that."""


@dataclass(frozen=True)
class Recipe:
    """What a container is made with."""

    image: str
    tmpfs: str  # the size of the data directory, in memory
    scripts: tuple[tuple[str, bytes], ...] = ()
    """Name and content of the files for the image's ``docker-entrypoint-initdb.d``."""
    reuse: bool = False
    data: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Recipe:
        """What the settings ask for. Raises `ConfigError`."""
        scripts = []
        for name in settings.init_scripts:
            path = settings.root / name
            try:
                scripts.append((path.name, path.read_bytes()))
            except OSError as error:
                raise ConfigError(
                    f"The init script {name} cannot be read",
                    saw=str(error),
                    source=settings.source("init_scripts"),
                    remedy="name files, relative to the project's root",
                ) from error
        image = settings.image or f"postgres:{settings.postgres or NEWEST}"
        return cls(image, settings.tmpfs, tuple(scripts), settings.reuse)

    @property
    def digest(self) -> str:
        """Those who want the same share one container."""
        scripts = [(name, hashlib.sha256(content).hexdigest()) for name, content in self.scripts]
        data = [self.data] if self.data else []
        return digest(json.dumps([self.image, self.tmpfs, scripts, self.reuse, self.command, *data]))

    @property
    def command(self) -> list[str]:
        """PostgreSQL's, with settings that give durability up."""
        flags = {name: value for name, value in SETTINGS.items() if name not in _IMAGES_OWN}
        return ["postgres", *(word for name, value in flags.items() for word in ("-c", f"{name}={value}"))]


@contextmanager
def open_container(settings: Settings, data: str = "") -> Iterator[Server]:
    """Start or join the container, which all who want the same one share, for at least the block.

    When its last user is gone, its guard removes it, unless it is for ``reuse``. Raises `ServerError` or `ConfigError`.
    """
    recipe = Recipe.of(settings)
    if data:  # it would have no owner
        recipe = replace(recipe, data=data, reuse=False)
    with closing(connect(settings.source("server"))) as engine:
        from docker.errors import DockerException

        opening = _Opening(recipe, engine, settings)
        with hold_lock(opening.state / guard.USERS, shared=True):
            with hold_lock(opening.state / guard.START):
                if not recipe.reuse:
                    env = {**os.environ, "DOCKER_HOST": engine.where} if "://" in engine.where else None
                    ensure_guard(opening.state, "container", env)
                container = opening.join() or opening.start()
                try:
                    server = opening.wait(container)
                except (DockerException, OSError) as error:
                    raise opening.failure(
                        "The container went away while its server was starting",
                        str(error),
                        "check whether the container was removed or the engine was stopped, and try again",
                    ) from error
            with offer_programs(server.identity, server.version):
                yield server


@dataclass(frozen=True)
class _Opening:
    """One container of one engine, about to be found or started."""

    recipe: Recipe
    engine: Engine
    settings: Settings

    @property
    def state(self) -> Path:
        return _state(self.recipe.digest, self.engine)

    def join(self) -> Any:  # noqa: ANN401 - docker-py's
        """The container that runs already; ``None`` where there is none."""
        from docker.errors import DockerException

        with suppress(DockerException, OSError):
            if self.recipe.reuse:
                label = f"{LABEL}={self.recipe.digest}"
                return next(iter(_ours(self.engine, label=label, status="running")), None)
            identity = (self.state / guard.CONTAINER).read_text(encoding="ascii").strip()
            container = self.engine.client.containers.get(identity)
            if container.status == "running":
                return container
        return None

    def start(self) -> Any:  # noqa: ANN401 - docker-py's
        """Create and start it; after a failure none is left."""
        from docker.errors import DockerException, ImageNotFound

        guard.remove_container(str(self.state))  # one that is not running any more
        (self.state / GLOBALS).unlink(missing_ok=True)
        client, recipe = self.engine.client, self.recipe
        try:
            client.images.get(recipe.image)
        except ImageNotFound:
            try:
                client.images.pull(recipe.image)
            except DockerException as error:
                raise self._refusal(f"The image {recipe.image} is not here and cannot be pulled", str(error)) from error
        host = "127.0.0.1" if self.engine.is_here else None
        try:
            container = client.containers.create(
                recipe.image,
                recipe.command,
                environment={
                    "POSTGRES_USER": _USER,
                    "POSTGRES_PASSWORD": secrets.token_urlsafe(24),
                    "POSTGRES_INITDB_ARGS": "--no-sync --encoding=UTF8",
                    "PGDATA": f"{_DATA}/data",
                },
                ports={f"{_PORT}/tcp": (host, None) if host else None},
                tmpfs={_DATA: f"size={recipe.tmpfs},mode=1777"},
                shm_size=_SHARED_MEMORY,
                labels={LABEL: recipe.digest},
            )
            (self.state / guard.CONTAINER).write_text(str(container.id), encoding="ascii")
            if recipe.scripts:
                parent, directory = _INIT
                container.put_archive(parent, _archive(recipe, directory))
            container.start()
        except (DockerException, OSError) as error:
            guard.remove_container(str(self.state))
            words = str(error)
            if any(sign in words for sign in _FOREIGN):
                raise self._refusal("", words) from error
            taken = "port is already allocated" in words or "address already in use" in words
            raise self.failure(
                "The container cannot be started: a port is taken" if taken else "The container cannot be started",
                words,
                "try again; if that does not help, restart the container engine",
            ) from error
        return container

    def wait(self, container: Any) -> Server:  # noqa: ANN401 - docker-py's
        """Wait until it answers a query, and ask what it is, or raise `DockerException` or `ServerError`."""
        import psycopg

        deadline = time.monotonic() + _PATIENCE
        refusal = ""
        while time.monotonic() < deadline:
            container.reload()
            if container.status in {"exited", "dead"}:
                raise self._end(container)
            with suppress(LookupError):
                address = self._address(container)
                try:
                    answer = probe(address)
                except psycopg.OperationalError as error:
                    refusal = str(error)
                    if is_certain(refusal):
                        break
                else:
                    if unfit := objection(answer, self.settings, self.recipe.image):
                        raise unfit
                    return Server(
                        kind="container",
                        address=address,
                        version=answer.version.split()[0],
                        version_num=answer.version_num,
                        origin=f"image {self.recipe.image}",
                        superuser=answer.superuser,
                        fsync=answer.fsync,
                        is_ephemeral=not self.recipe.reuse,
                        inputs=tuple(
                            Part(f"init script {name}", digest(content)) for name, content in self.recipe.scripts
                        ),
                        identity=str(container.id),
                        state=self.state,
                        find_end=partial(self.find_end, container),
                    )
            time.sleep(_POLL)
        raise self.failure(
            "The server in the container accepts no connections",
            "\n".join([refusal, *variables_set(), "the end of its log:", _log_of(container)]),
            "read its log. If the engine's ports have another address than that, name it: "
            "TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1",
        )

    def _address(self, container: Any) -> Address:  # noqa: ANN401 - docker-py's
        host, port = self.engine.address_of(container, _PORT)
        environment = dict(variable.partition("=")[::2] for variable in container.attrs["Config"]["Env"])
        user, password = environment.get("POSTGRES_USER", _USER), environment.get("POSTGRES_PASSWORD", "")
        params = {"host": host, "port": str(port), "user": user, "password": password, "dbname": "postgres"}
        return Address(params, is_ours=True)

    def failure(self, what: str, saw: str, remedy: str) -> ServerError:
        source = f"image {self.recipe.image}, {self.settings.source('server')}"
        return ServerError(what, saw=saw, source=source, remedy=f"{remedy}\n{OTHER_WAYS}")

    def find_end(self, container: Any) -> ServerError | None:  # noqa: ANN401 - docker-py's
        """The error for a container that does not run any more; ``None`` where the engine does not say so."""
        from docker.errors import DockerException, NotFound

        name = str(container.name)
        try:
            container.reload()
            if container.status in {"created", "running", "restarting", "paused"}:
                return None
            code, log = container.attrs.get("State", {}).get("ExitCode"), _log_of(container)
            what, saw = "has ended", f"{container.status}, exit code {code}; the end of its log:\n{log}"
        except NotFound as error:
            what, saw = "was removed", str(error)
        except (DockerException, OSError):
            return None
        return ServerError(
            f"The container {name} ({container.short_id}) {what} in the middle of the run, and its server with it",
            saw=saw,
            source=f"image {self.recipe.image}, {self.settings.source('server')}",
            remedy="find out what ended it (docker events; its memory), and run the tests again: they start another",
        )

    def _end(self, container: Any) -> ServerError:  # noqa: ANN401 - docker-py's
        """It ended instead of serving."""
        log = _log_of(container)
        if _CANNOT_RUN in log:
            return self._refusal("", log)
        code = container.attrs.get("State", {}).get("ExitCode")
        full = "No space left on device" in log
        return ServerError(
            "The container has no room for its data" if full else "The container ended as soon as it had started",
            saw=f"exit code {code}; the end of its log:\n{log}",
            source=f"image {self.recipe.image}, {self._image_source}",
            remedy=f'give it more memory: tmpfs = "4g" (it has {self.recipe.tmpfs})'
            if full
            else f"read its log; the image must behave like the official postgres image\n{OTHER_WAYS}",
        )

    def _refusal(self, what: str, words: str) -> ServerError:
        """The image cannot be used, as its words say for another processor's."""
        image = self.recipe.image
        if any(sign in words for sign in _FOREIGN):
            what = f"The image {image} is not made for this machine's processor"
        return ServerError(
            what,
            saw=words,
            source=self._image_source,
            remedy=f'name another: image = "postgres:{NEWEST}", or pull it by hand: docker pull {image}\n{OTHER_WAYS}',
        )

    @property
    def _image_source(self) -> str:
        return self.settings.source("image" if self.settings.image else "server")


def _archive(recipe: Recipe, directory: str) -> bytes:
    """The init scripts as the image finds them: copied, because an engine elsewhere does not see our files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in recipe.scripts:
            entry = tarfile.TarInfo(f"{directory}/{name}")
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def _log_of(container: Any) -> str:  # noqa: ANN401 - docker-py's
    """The last lines of its log; nothing where the engine does not give them."""
    from docker.errors import DockerException

    with suppress(DockerException):
        return str(container.logs(tail=_LOG_LINES).decode(errors="replace")).strip()
    return ""


# -- what runs now ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    """One of our containers."""

    identity: str  # the container's id, shortened as engines show it
    image: str
    in_use: bool  # whether a process uses it


def is_running(settings: Settings) -> bool:
    """Whether the container that the settings want runs already. Raises `ServerError`."""
    recipe = Recipe.of(settings)
    with closing(connect(settings.source("server"))) as engine:
        return _Opening(recipe, engine, settings).join() is not None


def containers(source: str) -> tuple[Running, ...]:
    """All our containers on the engine, also those that an ended guard has left. Raises `ServerError`."""
    with closing(connect(source)) as engine:
        return tuple(_running(container, engine) for container in _ours(engine))


def stop(source: str) -> tuple[Running, ...]:
    """Remove those that nobody uses, with all that they hold; return what was removed. Raises `ServerError`."""
    gone = []
    with closing(connect(source)) as engine:
        from docker.errors import NotFound

        for container in _ours(engine):
            lock = try_lock(_state(container.labels[LABEL], engine) / guard.USERS)
            if lock is None:
                continue
            try:
                with suppress(NotFound):  # its guard was quicker
                    container.remove(force=True, v=True)
                    gone.append(container)
            finally:
                os.close(lock)
        return tuple(_running(container, engine) for container in gone)


def _ours(engine: Engine, label: str = LABEL, **filters: str) -> list[Any]:
    """Those that are still there when the engine is asked about each of them."""
    return list(engine.client.containers.list(all=True, filters={"label": label, **filters}, ignore_removed=True))


def _running(container: Any, engine: Engine) -> Running:  # noqa: ANN401 - docker-py's
    in_use = is_locked(_state(container.labels[LABEL], engine) / guard.USERS)
    return Running(str(container.short_id), str(container.attrs["Config"]["Image"]), in_use)


def _state(name: str, engine: Engine) -> Path:
    return container_directory(f"{name}-{digest(engine.where)[:6]}")
