"""What kind of dump a file or a directory is, told from its first bytes and never from its name."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, Literal, cast

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.settings.converters import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["plain", "custom", "directory", "tar"]

CONTENTS: Final = "toc.dat"
"""The file that makes a directory a dump, and the first one in a tar."""

_ARCHIVE: Final = b"PGDMP"
_TAR: Final = b"ustar"
_TAR_AT: Final = 257
_TAR_BLOCK: Final = 512
# By their first bytes.
_COMPRESSIONS: Final = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
# What lies where a dump was expected, by what its beginning holds: what it is, and what to do about it.
_OTHER_TEXTS: Final = {
    re.compile(rb"\Aversion https://git-lfs\.github\.com/"): (
        "a pointer of Git LFS",
        "fetch what it stands for: git lfs pull (in CI, let the checkout do that)",
    ),
    re.compile(rb"\A\s*<(?:!doctype html|html)\b", re.IGNORECASE): (
        "a page of HTML",
        "download the dump itself: what answered was a page, perhaps one to sign in",
    ),
    re.compile(rb"^<{7} .*\n(?s:.*?)^={7}\r?$", re.MULTILINE): (
        "text with marks of a merge that git could not do",
        "take one of the two versions, or make it anew: seeddb dump",
    ),
}
# Which pg_restore reads an archive of this version: K_VERS_1_15 came with PostgreSQL 16, K_VERS_1_16 with 17.
_READERS: Final = {(1, 15): 16, (1, 16): 17}

_HEAD_BYTES: Final = 1 << 16
_ORIGIN: Final = re.compile(rb"COMMENT ON SCHEMA seeddb IS '(?P<text>\{(?:[^']|'')*\})'")


@dataclass(frozen=True)
class Origin:
    """What a dump of ours says of itself.

    Attributes:
        plan: The plan's name.
        profile: The profile with its overrides, as people read it.
        tier: The highest that it holds: ``essential`` or ``demo``.
    """

    plan: str
    profile: str
    tier: str

    def to_comment(self) -> str:
        """The text of the comment on the ledger's schema, which stands near the head of every format."""
        return json.dumps({"made by": "seeddb dump", **vars(self)})


@dataclass(frozen=True)
class DumpFile:
    """A dump as it lies on the disk.

    Attributes:
        path: The file, or the directory of one.
        kind: What reads it.
        compression: Of a plain one; empty where there is none.
        needs: The oldest major version of ``pg_restore`` that reads it; 0 where any does.
        origin: What it says of itself, if it is one of ours.
    """

    path: Path
    kind: Kind
    compression: str = ""
    needs: int = 0
    origin: Origin | None = None


def recognized(path: Path, *, source: str) -> DumpFile:
    """What kind of dump it is.

    Raises:
        ConfigError: It is not there, is none, is empty, or cannot be read.
    """
    if not path.exists():
        raise _not_there(path, source)
    try:
        return _recognized(path, source)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        remedy = "make it again: seeddb dump, or pg_dump"
        raise ConfigError(
            f"The dump {path.name} cannot be read", saw=str(error), source=source, remedy=remedy
        ) from None


def _recognized(path: Path, source: str) -> DumpFile:
    if path.is_dir():
        if not (path / CONTENTS).is_file():
            raise _no_dump(path, f"a directory without {CONTENTS}", source)
        head = _beginning(path / CONTENTS)
        return DumpFile(path, "directory", needs=_needs(head), origin=_origin(head))
    head = _beginning(path)
    if not head.strip():
        raise _no_dump(path, f"an empty file of {path.stat().st_size} bytes", source)
    compression = next((name for magic, name in _COMPRESSIONS.items() if head.startswith(magic)), "")
    if compression:
        return _compressed(path, compression, source)
    if head.startswith(_ARCHIVE):
        return DumpFile(path, "custom", needs=_needs(head), origin=_origin(head))
    if head[_TAR_AT:].startswith(_TAR):
        return _tar(path, head, source)
    return DumpFile(path, "plain", origin=_plain(path, head, source))


def _compressed(path: Path, compression: str, source: str) -> DumpFile:
    with opened(DumpFile(path, "plain", compression)) as stream:
        head = stream.read(_HEAD_BYTES)
    if head.startswith(_ARCHIVE) or head[_TAR_AT:].startswith(_TAR):
        raise _no_dump(path, f"an archive of pg_dump inside of {compression}", source, "decompress it first")
    return DumpFile(path, "plain", compression, origin=_plain(path, head, source))


def _tar(path: Path, head: bytes, source: str) -> DumpFile:
    if not head.startswith(CONTENTS.encode()):
        raise _no_dump(path, f"a tar archive that does not begin with {CONTENTS}", source)
    return DumpFile(path, "tar", needs=_needs(head[_TAR_BLOCK:]), origin=_origin(head))


def _plain(path: Path, head: bytes, source: str) -> Origin | None:
    if head.startswith(_UTF16):
        raise _no_dump(path, "text in UTF-16", source, "PowerShell's > converts what passes it: use pg_dump -f FILE")
    if b"\0" in head:
        raise _no_dump(path, f"binary data: {head[:16]!r}...", source)
    if not head.strip():
        raise _no_dump(path, "nothing but blanks", source)
    for known, (saw, remedy) in _OTHER_TEXTS.items():
        if known.search(head):
            raise _no_dump(path, saw, source, remedy)
    return _origin(head)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEAD_BYTES)


def _needs(head: bytes) -> int:
    if not head.startswith(_ARCHIVE):
        return 0
    version = (head[5], head[6]) if len(head) > len(_ARCHIVE) + 1 else (0, 0)
    return _READERS.get(version, max(_READERS.values()) + 1 if version > max(_READERS) else 0)


def _origin(head: bytes) -> Origin | None:
    found = _ORIGIN.search(head)
    try:
        said = json.loads(found["text"].replace(b"''", b"'")) if found else {}
        return Origin(said["plan"], said["profile"], said["tier"])
    except (ValueError, KeyError, TypeError):
        return None


def opened(dump: DumpFile) -> IO[bytes]:
    """The text of a plain dump, decompressed.

    Raises:
        OSError: It cannot be read; later, where the compressed data are damaged.
    """
    if dump.compression == "gzip":
        return cast("IO[bytes]", gzip.open(dump.path, "rb"))
    if dump.compression == "bzip2":
        return cast("IO[bytes]", bz2.open(dump.path, "rb"))
    if dump.compression == "xz":
        return cast("IO[bytes]", lzma.open(dump.path, "rb"))
    if dump.compression == "zstd":
        return cast("IO[bytes]", _zstd(dump.path))
    return dump.path.open("rb")


def _zstd(path: Path) -> Any:  # noqa: ANN401 - of the module that there is
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # since Python 3.14
    except ImportError:
        pass
    else:
        return zstd.open(path, "rb")
    raise OSError("zstd is read by Python 3.14 and newer only; decompress it first, or use gzip: .sql.gz")


def format_by_name(path: Path) -> tuple[Kind, str] | None:
    """Which format and compression people mean by a name; ``None`` where it says nothing."""
    name = path.name.lower()
    if path.is_dir():
        return "directory", ""
    for suffix, meant in _BY_SUFFIX.items():
        if name.endswith(suffix):
            return meant
    return None


_BY_SUFFIX: Final[dict[str, tuple[Kind, str]]] = {
    ".sql.gz": ("plain", "gzip"),
    ".sql": ("plain", ""),
    ".dump": ("custom", ""),
    ".pgdump": ("custom", ""),
    ".custom": ("custom", ""),
    ".backup": ("custom", ""),
    ".tar": ("tar", ""),
    ".dir": ("directory", ""),
}


def is_replaceable(path: Path) -> bool:
    """Whether what lies at the path may be replaced by a dump: nothing, an empty directory, a file or a dump."""
    if not path.is_dir():
        return True
    return (path / CONTENTS).is_file() or not any(path.iterdir())


def _not_there(path: Path, source: str) -> ConfigError:
    names = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    near = did_you_mean(path.name, names)
    return ConfigError(
        f"There is no dump {path.name}",
        saw=f"no such file or directory: {path}" + (f". {near}" if near else ""),
        source=source,
        remedy="correct the path, or make the dump: seeddb dump --from-scratch",
    )


def _no_dump(path: Path, saw: str, source: str, remedy: str = "") -> ConfigError:
    return ConfigError(
        f"{path.name} is no dump of PostgreSQL",
        saw=f"{path}: {saw}",
        source=source,
        remedy=remedy or "name one that pg_dump or `seeddb dump` wrote: plain (also .gz), custom, directory or tar",
    )


__all__ = [
    "CONTENTS",
    "DumpFile",
    "Kind",
    "Origin",
    "format_by_name",
    "is_replaceable",
    "opened",
    "recognized",
]
