"""What goes wrong with a container, told as what a person can do about it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers.engine import NEWEST, OTHER_WAYS

if TYPE_CHECKING:
    from pytest_seeddb.config import Settings
    from pytest_seeddb.servers.container import Wanted

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
