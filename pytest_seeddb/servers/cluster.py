"""The embedded server's data directory: made by ``initdb``, kept between runs while it can be trusted."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers import guard
from pytest_seeddb.servers.boots import boot_id
from pytest_seeddb.servers.children import environment
from pytest_seeddb.servers.diagnosis import failed
from pytest_seeddb.servers.places import PARTIAL, PARTIALS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.servers.places import Place

SUPERUSER: Final = "postgres"
"""The role that most applications' dumps and scripts expect."""

_UNKNOWN_LOCALE: Final = "invalid locale"
_COMMON: Final = (
    f"--username={SUPERUSER}",
    "--auth=trust",  # nobody else can enter the socket directory, and there is no TCP
    "--encoding=UTF8",
    "--no-sync",
    "--no-instructions",
    "--text-search-config=english",
    "--lc-messages=C",
)
_BUILTIN_PROVIDER_SINCE: Final = 17
_CHECKSUMS_BY_DEFAULT_SINCE: Final = 18


def is_kept(place: Place) -> bool:
    """Whether the data directory can be trusted.

    With ``fsync=off`` a server's files are whole only while the machine stays up, or once the guard
    has brought them to the disk, which the clean mark says.
    """
    try:
        if place.data.lstat().st_uid != place.account.uid:
            return False
    except OSError:
        return False
    record = place.record()
    booted = boot_id()
    return bool(booted and record.get("boot") == booted) or _is_clean(place, record.get("token", ""))


def make(place: Place, server_lock: int) -> None:
    """Put a new, empty data directory in the place of whatever is there.

    It appears complete or not at all: ``initdb`` works under a private name. It inherits
    ``server_lock``, so that one whose parent was killed still keeps others away until it has ended.

    Raises:
        ServerError: ``initdb`` failed; what it had written is removed.
    """
    guard.note(server_lock, 0, "")  # a dead postmaster's number must not be taken for initdb's
    discard(place)
    partial = place.state / (PARTIAL + secrets.token_hex(4))
    try:
        partial.mkdir(mode=0o700)
        place.account.take(partial)
        _initdb(place, partial, server_lock)
        partial.rename(place.data)
    except OSError as error:
        raise failed("The embedded server's data directory cannot be made", place, str(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def discard(place: Place) -> None:
    """Remove the data directory, and what killed processes have left of earlier ones."""
    if place.data.exists():
        # A half-removed directory must not pass for a data directory, should we be killed now.
        place.data.rename(place.state / (PARTIAL + secrets.token_hex(4)))
    for leftover in place.state.glob(PARTIALS):
        shutil.rmtree(leftover, ignore_errors=True)


def write_record(place: Place, socket_directory: Path) -> None:
    """Write down the start that is about to happen, and take back the promise of clean data.

    The promise must be gone from the disk before the server writes its first page: otherwise it
    could come back after a power cut, over data that is no longer clean.
    """
    record = {"boot": boot_id(), "token": secrets.token_hex(8), "socket": str(socket_directory)}
    temporary = place.state / f"{guard.RECORD}.new"
    temporary.unlink(missing_ok=True)
    with temporary.open("x", encoding="utf-8") as file:  # never through a link
        file.write(json.dumps(record))
    temporary.replace(place.state / guard.RECORD)
    clean = place.state / guard.CLEAN
    if clean.exists() or clean.is_symlink():
        clean.unlink()
        guard.synchronize(str(place.state))


def _is_clean(place: Place, token: str) -> bool:
    try:
        return bool(token) and (place.state / guard.CLEAN).read_text(encoding="utf-8") == token
    except OSError:
        return False


def _initdb(place: Place, target: Path, server_lock: int) -> None:
    for locale in _locales(place.binaries.major):
        # A refused locale leaves an empty directory, which the next attempt takes.
        done = _run_initdb(place, target, locale, server_lock)
        if done.returncode == 0:
            return
        told = (done.stderr or done.stdout).decode(errors="replace")
        if _UNKNOWN_LOCALE not in told:
            break
    raise failed("initdb failed to make the embedded server's data directory", place, told)


def _run_initdb(
    place: Place, target: Path, locale: tuple[str, ...], server_lock: int
) -> subprocess.CompletedProcess[bytes]:
    newer = place.binaries.major >= _CHECKSUMS_BY_DEFAULT_SINCE
    checksums = ("--no-data-checksums",) if newer else ()
    command = [str(place.binaries.program("initdb")), f"--pgdata={target}", *_COMMON, *locale, *checksums]
    return subprocess.run(  # noqa: S603  # the program that was chosen for this
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd="/",
        env=environment(),
        pass_fds=(server_lock,),
        start_new_session=True,  # Ctrl-C is ours to handle
        check=False,
        **place.account.spawn_options(),
    )


def _locales(major: int) -> Iterator[tuple[str, ...]]:
    """The same order of text everywhere: C.UTF-8, or the nearest thing that the system has."""
    if major >= _BUILTIN_PROVIDER_SINCE:
        yield "--locale-provider=builtin", "--locale=C.UTF-8"
        yield "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"
    else:
        yield ("--locale=C.UTF-8",)
        yield ("--locale=C",)


def socket_directory(place: Place) -> Iterator[Path]:
    """Names for a socket directory, until one can be made; short ones: a path may have 100 bytes."""
    for parent in ("/tmp", "/var/tmp"):  # noqa: S108  # private directories with secret names in them
        if os.access(parent, os.W_OK | os.X_OK):
            yield Path(parent) / (guard.SOCKET_PREFIX + secrets.token_hex(5))
    raise ServerError(
        "There is no directory for the embedded server's socket",
        saw="neither /tmp nor /var/tmp can be written to",
        source=f"account {place.account.name}",
        remedy="make /tmp writable, or name a running server: --seed-db-server=postgresql://...",
    )
