"""Why an embedded server failed, read from what PostgreSQL says, and what to do about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_seeddb.errors import ServerError

if TYPE_CHECKING:
    from pytest_seeddb.servers.places import Place

_TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 20_000


class Cause(NamedTuple):
    """A cause that PostgreSQL's own words give away."""

    pattern: re.Pattern[str]
    remedy: str


def _cause(pattern: str, remedy: str) -> Cause:
    return Cause(re.compile(pattern, re.IGNORECASE), remedy)


_CAUSES: Final = (
    _cause(
        r"no space left on device.*shared memory|shared memory.*no space left on device",
        "make /dev/shm larger (docker run --shm-size=256m)",
    ),
    _cause(
        r"no space left on device|quota exceeded|file too large",
        "free some space on the disk of {state}, or set XDG_CACHE_HOME to a directory on another one",
    ),
    _cause(
        r"could not (create|map|resize|open) [^\n]*shared memory|cannot allocate memory",
        "give it memory: it needs about 200 MB (in a container also docker run --shm-size=256m)",
    ),
    _cause(r"could not create semaphores", "raise the kernel's limit of semaphores (kernel.sem)"),
    _cause(
        r"error while loading shared libraries|library not loaded|symbol not found",
        "reinstall PostgreSQL ({origin}): a library that it needs is missing",
    ),
    _cause(
        r"permission denied|operation not permitted",
        "let the account {account} enter {state} and run the programs in {programs}",
    ),
    _cause(r"read-only file system", "set XDG_CACHE_HOME to a directory that can be written to"),
)
_OTHERWISE: Final = (
    "name other binaries (binaries = '/path/to/bin') or a running server "
    "(--seed-db-server=postgresql://user@host:port/postgres)"
)


def is_known(told: str) -> bool:
    """Whether these words name a cause outside the data directory: a new one would fail likewise."""
    return any(cause.pattern.search(told) for cause in _CAUSES)


def failed(what: str, place: Place, told: str) -> ServerError:
    """An error with PostgreSQL's last words, where its programs came from, and what to do."""
    return ServerError(
        what,
        saw=tail(told),
        source=f"PostgreSQL {place.binaries.version} ({place.binaries.origin}), account {place.account.name}",
        remedy=_remedy(place, told),
    )


def log_since(place: Place, position: int) -> str:
    """What the server has written to its log since ``position``, at most the last 20 kB."""
    try:
        with place.log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(position, end - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def tail(text: str) -> str:
    """The last lines, those that matter."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-_TAIL_LINES:])


def _remedy(place: Place, told: str) -> str:
    for cause in _CAUSES:
        if cause.pattern.search(told):
            return cause.remedy.format(
                state=place.state,
                account=place.account.name,
                origin=place.binaries.origin,
                programs=place.binaries.directory,
            )
    return _OTHERWISE
