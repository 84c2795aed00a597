"""The kind of dump that a file or a directory is, by its first bytes and never by its name."""

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

AGAIN: Final = "make it again: seeddb dump, or pg_dump"
_ARCHIVE: Final = b"PGDMP"
_TAR: Final = b"ustar"
_TAR_AT: Final = 257
_TAR_BLOCK: Final = 512
# By their first bytes.
_COMPRESSIONS: Final = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
# Other texts in a dump's place, by their beginning: what they are, and what to do about it.
_OTHER_TEXTS: Final = {
    re.compile(rb"\Aversion https://git-lfs\.github\.com/"): (
        "a Git LFS pointer",
        "fetch the real file: git lfs pull (in CI, let the checkout step do it)",
    ),
    re.compile(rb"\A\s*<(?:!doctype html|html)\b", re.IGNORECASE): (
        "an HTML page",
        "download the dump itself: the server answered with a web page, perhaps a sign-in page",
    ),
    re.compile(rb"^<{7} .*\n(?s:.*?)^={7}\r?$", re.MULTILINE): (
        "text with the conflict markers of a git merge",
        "choose one of the two versions, or make the dump again: seeddb dump",
    ),
}
# The pg_restore that reads an archive of this version: K_VERS_1_15 came with PostgreSQL 16, K_VERS_1_16 with 17.
_READERS: Final = {(1, 15): 16, (1, 16): 17}

_HEAD_BYTES: Final = 1 << 16
_ORIGIN: Final = re.compile(rb"COMMENT ON SCHEMA seeddb IS '(?P<text>\{(?:[^']|'')*\})'")


@dataclass(frozen=True)
class Origin:
    """The plan, profile with overrides and highest tier that a dump by ``seeddb dump`` says it is of."""

    plan: str
    profile: str
    tier: str

    def to_comment(self) -> str:
        """The text of the comment on the ledger's schema, which stands near the head of every format."""
        return json.dumps({"made by": "seeddb dump", **vars(self)})


@dataclass(frozen=True)
class DumpFile:
    """A dump as it lies on the disk."""

    path: Path
    kind: Kind
    compression: str = ""  # of a plain one
    needs: int = 0  # the oldest major version of pg_restore that reads it; 0 where any does
    origin: Origin | None = None  # if `seeddb dump` wrote it


def recognize(path: Path, *, source: str) -> DumpFile:
    """The dump at the path; raises `ConfigError` where that does not exist, is not a dump, or cannot be read."""
    if not path.exists():
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, names)
        raise ConfigError(
            f"There is no dump {path.name}",
            saw=f"no such file or directory: {path}" + (f". {near}" if near else ""),
            source=source,
            remedy="correct the path, or make the dump: seeddb dump --from-scratch",
        )
    try:
        return _read(path)
    except _NotADumpError as error:
        known = "name a file that pg_dump or `seeddb dump` wrote: plain (also .gz), custom, directory or tar"
        raise ConfigError(
            f"{path.name} is not a PostgreSQL dump", saw=f"{path}: {error}", source=source, remedy=error.remedy or known
        ) from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        what = f"The dump {path.name} cannot be read"
        raise ConfigError(what, saw=str(error), source=source, remedy=AGAIN) from None


class _NotADumpError(Exception):
    def __init__(self, saw: str, remedy: str = "") -> None:
        self.remedy = remedy
        super().__init__(saw)


def _read(path: Path) -> DumpFile:
    if path.is_dir() and not (path / CONTENTS).is_file():
        raise _NotADumpError(f"a directory without {CONTENTS}")
    with (path / CONTENTS if path.is_dir() else path).open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if path.is_dir():
        return DumpFile(path, "directory", needs=_needs(head), origin=_origin(head))
    if not head.strip():
        raise _NotADumpError(f"an empty file of {path.stat().st_size} bytes")
    compression = next((name for magic, name in _COMPRESSIONS.items() if head.startswith(magic)), "")
    if compression:
        with open_dump(DumpFile(path, "plain", compression)) as stream:
            head = stream.read(_HEAD_BYTES)
    is_tar = head[_TAR_AT:].startswith(_TAR)
    if compression and (is_tar or head.startswith(_ARCHIVE)):
        raise _NotADumpError(f"an archive of pg_dump inside of {compression}", "decompress it first")
    if head.startswith(_ARCHIVE):
        return DumpFile(path, "custom", needs=_needs(head), origin=_origin(head))
    if is_tar:
        if not head.startswith(CONTENTS.encode()):
            raise _NotADumpError(f"a tar archive that does not begin with {CONTENTS}")
        return DumpFile(path, "tar", needs=_needs(head[_TAR_BLOCK:]), origin=_origin(head))
    _check_text(head)
    return DumpFile(path, "plain", compression, origin=_origin(head))


def _check_text(head: bytes) -> None:
    if head.startswith(_UTF16):
        raise _NotADumpError("text in UTF-16", "PowerShell's > changed the encoding: use pg_dump -f FILE")
    if b"\0" in head:
        raise _NotADumpError(f"binary data: {head[:16]!r}...")
    if not head.strip():
        raise _NotADumpError("nothing but blanks")
    for pattern, (saw, remedy) in _OTHER_TEXTS.items():
        if pattern.search(head):
            raise _NotADumpError(saw, remedy)


def _needs(head: bytes) -> int:
    version = (head[5], head[6]) if head.startswith(_ARCHIVE) and len(head) > len(_ARCHIVE) + 1 else (0, 0)
    return _READERS.get(version, max(_READERS.values()) + 1 if version > max(_READERS) else 0)


def _origin(head: bytes) -> Origin | None:
    comment = _ORIGIN.search(head)
    try:
        origin = json.loads(comment["text"].replace(b"''", b"'")) if comment else {}
        return Origin(origin["plan"], origin["profile"], origin["tier"])
    except (ValueError, KeyError, TypeError):
        return None


def open_dump(dump: DumpFile) -> IO[bytes]:
    """The text of a plain dump, decompressed; raises `OSError` here, or later where the data are damaged."""
    module: Any = {"gzip": gzip, "bzip2": bz2, "xz": lzma}.get(dump.compression)
    if dump.compression == "zstd":
        try:
            from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # since Python 3.14
        except ImportError:
            needed = "zstd is read by Python 3.14 and newer only; decompress it first, or use gzip: .sql.gz"
            raise OSError(needed) from None
        module = zstd
    return cast("IO[bytes]", module.open(dump.path, "rb") if module else dump.path.open("rb"))


_BY_SUFFIX: Final[dict[str, tuple[Kind, str]]] = {
    ".sql.gz": ("plain", "gzip"),
    ".sql": ("plain", ""),
    **dict.fromkeys((".dump", ".pgdump", ".custom", ".backup"), ("custom", "")),
    ".tar": ("tar", ""),
    ".dir": ("directory", ""),
}


def format_by_name(path: Path) -> tuple[Kind, str] | None:
    """The format and compression that people mean by a name; ``None`` where it says nothing."""
    if path.is_dir():
        return "directory", ""
    return next((meaning for suffix, meaning in _BY_SUFFIX.items() if path.name.lower().endswith(suffix)), None)
