"""Fingerprints: digests over everything that determines what a build makes.

A fingerprint is a chain, ``f(k) = H(f(k-1), step k)``, so that each prefix of a plan has its own. Each step is a set of
named parts, so that a changed fingerprint can say what changed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pytest_seeddb.errors import ConfigError, mask, names_a_secret

FORMAT: Final = 1
"""The version of everything that is kept on a server: names, marks, locks, comments."""

MISSING: Final = "missing"
"""The digest of a file that does not exist."""

CHANGED_MEANWHILE: Final = "changed during the build"
"""The digest of a file that changed between being read and the end of the build."""

SET: Final = "set"
"""Stands for a secret's value where people may read it."""

_DIGITS: Final = 16
_DIGEST: Final = re.compile(rf"(?:code:)?[0-9a-f]{{6,{_DIGITS}}}")
CODE: Final = "code:"
"""Begins the digest of a file of which only what ran counts."""
_SEALED: Final = re.compile("scrypt:[0-9a-f]{32}")
_SECRET_FILE: Final = re.compile(
    r"""(?:.*/)?(?:
        (?:\.env(?:rc)?|\.?secrets?)(?:[./_-].*)? | env/.* | .*\.(?:env|key|pem|p12|pfx|jks|keystore|kdbx)
        | \.?(?:pgpass|netrc|htpasswd|my\.cnf|pg_service\.conf|npmrc|pypirc) | _netrc | id_(?:rsa|dsa|ecdsa|ed25519)
        | (?:[^/]*[._-])?(?:passw(?:or)?ds?|passphrases?|credentials?|creds?|secrets?|pins?|otps?)(?:[._-][^/]*)?
            (?<!\.sql)
    )(?<!\.py)""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)
_COST: Final = {"n": 2**14, "r": 8, "p": 1}
"""A guess takes 16 MB and 56 ms of a core, so the million six-digit numbers take 7 hours on two."""
_IGNORED_DIRECTORIES: Final = frozenset({"__pycache__", ".git"})
_SHOWN_CHANGES: Final = 3
_SHOWN_VALUE: Final = 60


@dataclass(frozen=True, order=True)
class Part:
    """One thing that determines what a step does: ``shop/models.py``, ``package faker``, ``parameter stores``.

    The digest has 16 hexadecimal digits over its content, or is a short literal: a version, a value. That of a secret
    is `SET`. What the secret is, only this process knows; `seal` makes of it what may be stored. ``before`` is the
    digest that ledgers have from before there were such parts, if it is another.
    """

    name: str
    digest: str
    secret: str = field(default="", repr=False)
    before: str = field(default="", repr=False, compare=False)

    @property
    def text(self) -> str:
        """The digest as people may read it."""
        return SET if _SEALED.fullmatch(self.digest) else self.digest


def merge(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Each name once: what was read twice with different contents has changed meanwhile."""
    merged: dict[str, Part] = {}
    for part in parts:
        if merged.setdefault(part.name, part) != part:
            merged[part.name] = Part(part.name, CHANGED_MEANWHILE)
    return tuple(sorted(merged.values()))


def part_pairs(parts: Iterable[Part]) -> list[list[str]]:
    """The parts as JSON stores them."""
    return [[part.name, part.digest] for part in parts]


def parts_from(pairs: Any) -> tuple[Part, ...]:  # noqa: ANN401 - JSON, checked by unpacking it
    """The parts that `part_pairs` wrote; raises `ValueError` or `TypeError` for anything else."""
    return tuple(Part(str(name), str(digest)) for name, digest in pairs)


def seal(parts: Iterable[Part], salt: str) -> tuple[Part, ...]:
    """The parts as they are stored: a salted scrypt stands for each secret, which costs whoever guesses it time."""
    return tuple(Part(part.name, _sealed(part.name, part.secret, salt)) if part.secret else part for part in parts)


@cache
def _sealed(name: str, secret: str, salt: str) -> str:
    data = f"{name}\0{secret}".encode("utf-8", "surrogatepass")
    return f"scrypt:{hashlib.scrypt(data, salt=salt.encode(), **_COST, maxmem=2**26, dklen=16).hex()}"


Steps = Sequence[tuple[str, tuple[Part, ...]]]
"""The steps of a build: each one's name and parts."""


def digest(data: bytes | str) -> str:
    """16 hexadecimal digits of SHA-256; text counts as its UTF-8 bytes."""
    data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def chain(previous: str, name: str, parts: Iterable[Part]) -> str:
    """The fingerprint after one more step, 64 hexadecimal digits; ``previous`` is "" at the start.

    The order of the parts and repeated parts make no difference. Every word is preceded by its length, so that
    different inputs never run together to the same bytes.
    """
    words = [str(FORMAT), previous, name]
    for part in sorted(set(parts)):
        words += (part.name, part.digest)
    hashed = hashlib.sha256()
    for word in words:
        data = word.encode("utf-8", "surrogatepass")
        hashed.update(b"%d:%b" % (len(data), data))
    return hashed.hexdigest()


def chain_of_set(before: str, steps: Iterable[tuple[str, Iterable[Part]]]) -> str:
    """The fingerprint after steps whose order does not count."""
    return chain(before, "in any order", [Part(name, chain("", name, parts)) for name, parts in steps])


def file_digest(path: Path | str) -> str:
    """The digest of a file's content, read in pieces: files may be large."""
    with open(path, "rb") as stream:  # noqa: PTH123 - also called with plain strings, by the hundred
        return hashlib.file_digest(stream, "sha256").hexdigest()[:_DIGITS]


def content_part(name: str, content: str) -> Part:
    """The part for a file whose content has this digest; that of a file of secrets, as ``.env``, is one itself."""
    return (
        Part(name, SET, content, content)
        if _SECRET_FILE.fullmatch(name) and _DIGEST.fullmatch(content)
        else Part(name, content)
    )


def file_part(path: Path, root: Path, *, source: str = "") -> Part:
    """The part for one file: its name from ``root`` (``../`` leads outside) and its content.

    Raises:
        ConfigError: The file does not exist or cannot be read; names ``source``, where the path came from.
    """
    try:
        return content_part(relative_name(path, root), file_digest(path))
    except OSError as error:
        raise ConfigError(
            f"The file {relative_name(path, root)} cannot be read",
            saw=f"{error.strerror or error}: {path}",
            source=source,
            remedy="correct the path, or create the file",
        ) from error


def relative_name(path: Path, root: Path) -> str:
    """The file's name from ``root``, with ``/``: the same on every machine that has the project.

    A root that is reached through a symbolic link is the same root. A linked file in it keeps the link's name.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would lose a link's own name
    for place in (Path(os.path.abspath(root)), root.resolve()):  # noqa: PTH100 - as above
        if absolute.is_relative_to(place):
            return absolute.relative_to(place).as_posix()
    return Path(os.path.relpath(absolute.resolve(), root.resolve())).as_posix()


def glob_parts(patterns: Iterable[str], root: Path, *, source: str) -> tuple[Part, ...]:
    """The parts for all files that the patterns match, sorted.

    A pattern is a file, a directory (everything below counts) or a pattern with ``*``, ``?``, ``[...]`` and ``**``,
    relative to ``root``. Python's caches and ``.git`` never count. Below ``**``, symbolic links to directories are not
    followed. ``source`` says where the patterns came from, for the error.

    Raises:
        ConfigError: A pattern matches no file: otherwise a misspelt one would silently have no effect.
    """
    paths: set[Path] = set()
    for pattern in patterns:
        try:
            matching = set(_matching(pattern, root))
        except ValueError as error:
            raise ConfigError(
                f'"{pattern}" is not a file pattern',
                saw=str(error),
                source=source,
                remedy='Write "**" as a whole component: "db/**/*.sql".',
            ) from error
        if not matching:
            raise ConfigError(
                f'No file matches "{pattern}"',
                saw=f"nothing of that name under {root}",
                source=source,
                remedy="correct the pattern (it is relative to the project's root), or remove it",
            )
        paths |= matching
    return tuple(sorted({file_part(path, root, source=source) for path in paths}))


def _matching(pattern: str, root: Path) -> Iterator[Path]:
    literal = root / pattern
    if literal.is_file():
        yield literal
        return
    base, wild = literal, "**/*"
    if not literal.is_dir():  # pathlib takes relative patterns only
        anchor = Path(pattern).anchor
        base, wild = Path(anchor or root), pattern.removeprefix(anchor)
        if wild.endswith("**"):
            wild += "/*"  # before Python 3.13 a final "**" means directories only
    for path in base.glob(wild):
        if path.is_file() and _IGNORED_DIRECTORIES.isdisjoint(path.relative_to(base).parts):
            yield path


@dataclass(frozen=True)
class Difference:
    """A part, with the steps that have it, or a whole step that differs between an earlier build and this one.

    The values before and after are empty for digests and secrets, which are not shown.
    """

    kind: Literal["changed", "added", "removed"]
    name: str
    before: str = ""
    after: str = ""
    steps: tuple[str, ...] = ()


def differences(old: Steps, new: Steps) -> list[Difference]:
    """Every difference between two builds: parts first, each once, then steps."""
    return [difference for _, _, difference in _changes(old, new)]


def explain_change(old: Steps, new: Steps) -> str:
    """The differences between two builds in one line; "" if there are none.

    Changed parts come first, then steps that are new or gone, then parts that are. Values are shown (passwords
    masked), digests are not. At most three changes are spelled out; the others are counted.
    """
    texts = [text for _, text, _ in sorted(_changes(old, new), key=lambda change: change[0])]
    more = len(texts) - _SHOWN_CHANGES
    return "; ".join([*texts[:_SHOWN_CHANGES], *([f"... and {more} more"] if more > 0 else [])])


_Change = tuple[int, str, Difference]
"""A difference, with its rank and its words in a line."""
_Values = dict[str, list[str]]
"""A part's digests, and the steps that have each."""


def _changes(old: Steps, new: Steps) -> list[_Change]:
    was, now = dict(old), dict(new)
    before, after = _values(old, now), _values(new, was)
    changes = [
        _part_change(name, before.get(name, {}), after.get(name, {}))
        for name in {**after, **before}
        if before.get(name, {}).keys() != after.get(name, {}).keys()
    ]
    changes += [(1, f"new {name}", Difference("added", name)) for name in now if name not in was]
    changes += [(1, f"{name} is gone", Difference("removed", name)) for name in was if name not in now]
    changes = _most_specific(changes, after)
    if not changes and list(old) != list(new):
        changes = [(0, text, Difference("changed", text)) for text in _order_change(old, new)]
    return changes


def _most_specific(changes: list[_Change], after: Mapping[str, _Values]) -> list[_Change]:
    """Leave out a file of which a function or constant changed, or these where the file is gone or counts whole."""
    names = {difference.name for *_, difference in changes}
    files = {name.partition(": ")[0] for name in names if ": " in name} & names
    whole = {name for name in files if not any(value.startswith(CODE) for value in after.get(name, {}))}
    return [
        change
        for change in changes
        if (name := change[2].name) not in files - whole and (name in whole or name.partition(": ")[0] not in whole)
    ]


def _values(steps: Steps, others: Container[str]) -> dict[str, _Values]:
    """The values of each part, in the steps that the other build has, too."""
    values: dict[str, _Values] = {}
    for step, parts in steps:
        for part in parts if step in others else ():
            users = values.setdefault(part.name, {}).setdefault(part.digest, [])
            if step not in users:
                users.append(step)
    return values


def _part_change(name: str, before: _Values, after: _Values) -> _Change:
    gone = [value for value in before if value not in after] or list(before)
    come = [value for value in after if value not in before] or list(after)
    steps = tuple(dict.fromkeys(step for value in come or gone for step in (after or before)[value]))
    # Digests tell a reader nothing, secrets tell too much.
    if names_a_secret(name) or any(_DIGEST.fullmatch(value) or _SEALED.fullmatch(value) for value in (*gone, *come)):
        was = now = ""
        detail = f" (used by {steps[0]}{f' and {len(steps) - 1} more' if len(steps) > 1 else ''})"
        change = f" changed{detail}"
    else:
        was, now = _text(gone), _text(come)
        detail, change = f" ({was or now})", f": {was} -> {now}"
    if not before:
        return 2, f"new {name}{detail}", Difference("added", name, was, now, steps)
    if not after:
        return 3, f"{name}{detail} is gone", Difference("removed", name, was, now, steps)
    if come == [MISSING]:
        return 0, f"{name} is missing", Difference("removed", name, was, now, steps)
    return 0, f"{name}{change}", Difference("changed", name, was, now, steps)


def _text(values: list[str]) -> str:
    text = " ".join(mask(", ".join(values)).split())
    return text if len(text) <= _SHOWN_VALUE else f"{text[:_SHOWN_VALUE]}..."


def _order_change(old: Steps, new: Steps) -> list[str]:
    """The same steps with the same parts altogether: the order differs, or which step has which part."""
    before, after = [name for name, _ in old], [name for name, _ in new]
    if sorted(before) != sorted(after):
        return ["a step runs a different number of times"]
    for was, now in zip(before, after, strict=True):
        if was != now:
            return [f"{now} now comes before {was}"]
    return [
        f"{name} uses other files" for (name, parts), (_, was) in zip(new, old, strict=True) if set(parts) != set(was)
    ]
