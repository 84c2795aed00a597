"""Why an embedded server failed, read from what PostgreSQL says, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers.remedies import start_remedy

if TYPE_CHECKING:
    from pytest_seeddb.servers.places import Place

_TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 20_000


_OTHERWISE: Final = (
    "name other binaries (binaries = '/path/to/bin') or a running server "
    "(--seed-db-server=postgresql://user@host:port/postgres)"
)


def failed(what: str, place: Place, told: str) -> ServerError:
    """An error with PostgreSQL's last words, where its programs came from, and what to do."""
    return ServerError(
        what,
        saw=tail(told),
        source=f"PostgreSQL {place.binaries.version} ({place.binaries.origin}), account {place.account.name}",
        remedy=(start_remedy(told) or _OTHERWISE).format(
            state=place.state,
            account=place.account.name,
            origin=place.binaries.origin,
            programs=place.binaries.directory,
        ),
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
