"""Fingerprints: digests over everything that determines what a build makes.

A fingerprint is a chain, ``f(k) = H(f(k-1), step k)``, so that each prefix of a plan has one of its
own, and each step is a set of named parts, so that a changed fingerprint can say what changed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pytest_seeddb.errors import ConfigError, mask, names_a_secret

FORMAT: Final = 1
"""The version of everything we keep on a server: names, marks, locks, comments."""

MISSING: Final = "missing"
"""The digest of a file that is not there."""

_DIGITS: Final = 16
_DIGEST: Final = re.compile(rf"[0-9a-f]{{{_DIGITS}}}")
_IGNORED_DIRECTORIES: Final = frozenset({"__pycache__", ".git"})
_SHOWN_CHANGES: Final = 3
_SHOWN_VALUE: Final = 60


@dataclass(frozen=True, order=True)
class Part:
    """One thing that determines what a step does.

    Attributes:
        name: As people read it: ``shop/models.py``, ``package faker``, ``parameter stores``.
        digest: 16 hexadecimal digits over its content, or a short literal: a version, a value.
    """

    name: str
    digest: str


def part_pairs(parts: Iterable[Part]) -> list[list[str]]:
    """Parts as JSON has them."""
    return [[part.name, part.digest] for part in parts]


def parts_from(pairs: Any) -> tuple[Part, ...]:  # noqa: ANN401 - JSON, checked by unpacking it
    """The parts that `part_pairs` wrote.

    Raises:
        ValueError: They are not pairs; or a `TypeError`.
    """
    return tuple(Part(str(name), str(digest)) for name, digest in pairs)


Steps = Sequence[tuple[str, tuple[Part, ...]]]
"""The steps of a build: each one's name and parts."""


def digest(data: bytes | str) -> str:
    """Return 16 hexadecimal digits of SHA-256; text counts as its UTF-8 bytes."""
    return hashlib.sha256(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data).hexdigest()[
        :_DIGITS
    ]


def chain(previous: str, name: str, parts: Iterable[Part]) -> str:
    """The fingerprint after one more step: 64 hexadecimal digits.

    The order of the parts and repeated parts make no difference. Two different inputs never run
    together to the same bytes: every word is preceded by its length.

    Args:
        previous: The fingerprint before the step, or "" at the start.
        name: The step's name.
        parts: What determines the step.
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
    """The fingerprint after steps whose order does not count.

    Args:
        before: The fingerprint of all that precedes them.
        steps: Name and parts of each.
    """
    return chain(before, "in any order", [Part(name, chain("", name, parts)) for name, parts in steps])


def file_digest(path: Path | str) -> str:
    """Return the digest of a file's content, read in pieces, so that its size is no matter.

    Raises:
        OSError: It is not there or cannot be read.
    """
    with open(path, "rb") as stream:  # noqa: PTH123 - also called with plain strings, by the hundred
        return hashlib.file_digest(stream, "sha256").hexdigest()[:_DIGITS]


def file_part(path: Path, root: Path, *, source: str = "") -> Part:
    """The part for one file: its name from ``root``, its content.

    Args:
        path: The file. Outside of ``root`` its name starts with ``../``.
        root: The project's root.
        source: Where the path came from, for the error.

    Raises:
        ConfigError: There is no such file, or it cannot be read.
    """
    try:
        return Part(relative_name(path, root), file_digest(path))
    except OSError as error:
        raise ConfigError(
            f"The file {relative_name(path, root)} cannot be read",
            saw=f"{error.strerror or error}: {path}",
            source=source,
            remedy="correct the path, or create the file",
        ) from error


def relative_name(path: Path, root: Path) -> str:
    """The file's name from ``root``, with ``/``, the same on every machine that has the project.

    A root that is reached through a symbolic link is the same root; a linked file inside of it
    keeps the name that it has there.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would lose a link's own name
    for place in (Path(os.path.abspath(root)), root.resolve()):  # noqa: PTH100 - as above
        if absolute.is_relative_to(place):
            return absolute.relative_to(place).as_posix()
    return Path(os.path.relpath(absolute.resolve(), root.resolve())).as_posix()


def glob_parts(patterns: Iterable[str], root: Path, *, source: str) -> tuple[Part, ...]:
    """The parts for all files that the patterns name, sorted.

    Args:
        patterns: File names, directories (everything below counts) or patterns with ``*``, ``?``,
            ``[...]`` and ``**``, relative to ``root``. Python's caches and ``.git`` never count, and
            symbolic links to directories are not followed below ``**``.
        root: The project's root.
        source: Where the patterns came from, for the error.

    Raises:
        ConfigError: A pattern matches no file, so that a misspelt one is not silently without effect.
    """
    found: set[Path] = set()
    for pattern in patterns:
        try:
            matched = set(_matches(pattern, root))
        except ValueError as error:
            raise _not_a_pattern(pattern, source, error) from error
        if not matched:
            raise _nothing_matches(pattern, root, source)
        found |= matched
    return tuple(sorted({file_part(path, root, source=source) for path in found}))


def _matches(pattern: str, root: Path) -> Iterator[Path]:
    literal = root / pattern
    if literal.is_file():
        yield literal
        return
    base, wild = (literal, "**/*") if literal.is_dir() else _split(pattern, root)
    for path in base.glob(wild):
        if path.is_file() and _IGNORED_DIRECTORIES.isdisjoint(path.relative_to(base).parts):
            yield path


def _split(pattern: str, root: Path) -> tuple[Path, str]:
    """Where to look and for what: pathlib looks for relative patterns only."""
    anchor = Path(pattern).anchor
    wild = pattern.removeprefix(anchor)
    if wild.endswith("**"):
        wild += "/*"  # before Python 3.13 a final "**" means directories only
    return Path(anchor or root), wild


def _nothing_matches(pattern: str, root: Path, source: str) -> ConfigError:
    return ConfigError(
        f'No file matches "{pattern}"',
        saw=f"nothing of that name under {root}",
        source=source,
        remedy="correct the pattern (it is relative to the project's root), or remove it",
    )


def _not_a_pattern(pattern: str, source: str, error: ValueError) -> ConfigError:
    return ConfigError(
        f'"{pattern}" is not a file pattern',
        saw=str(error),
        source=source,
        remedy='Write "**" as a whole component: "db/**/*.sql".',
    )


def explain_change(old: Steps, new: Steps) -> str:
    """Say in one line what differs between two builds; "" if nothing does.

    Changed parts come first, then steps that are new or gone, then parts that are. A part that
    several steps share is named once. Values are shown (passwords masked), digests are not.
    At most three changes are spelt out; the others are counted.
    """
    changes = [*_changed_parts(old, new), *_changed_steps(old, new), *_come_and_gone_parts(old, new)]
    if not changes and list(old) != list(new):
        changes = _reordered(old, new)
    shown = changes[:_SHOWN_CHANGES]
    if len(changes) > _SHOWN_CHANGES:
        shown.append(f"... and {len(changes) - _SHOWN_CHANGES} more")
    return "; ".join(shown)


@dataclass(frozen=True)
class Difference:
    """One thing in which a build differs from an earlier one.

    Attributes:
        kind: What became of it.
        name: The part, or the step where all of it came or went.
        before: The part's value in the earlier build; empty where that is a digest or a secret.
        after: Its value now; likewise.
        steps: The steps that have the part; empty for a step.
    """

    kind: Literal["changed", "added", "removed"]
    name: str
    before: str = ""
    after: str = ""
    steps: tuple[str, ...] = ()


def differences(old: Steps, new: Steps) -> list[Difference]:
    """All that differs between two builds: parts first, each once, then steps; nothing if nothing does.

    The long form of `explain_change`.
    """
    lasting = _lasting(old, new)
    before, after = _by_part(old, lasting), _by_part(new, lasting)
    found = [
        _difference(name, before.get(name, {}), after.get(name, {}))
        for name in {**after, **before}
        if before.get(name, {}).keys() != after.get(name, {}).keys()
    ]
    was, now = dict.fromkeys(name for name, _ in old), dict.fromkeys(name for name, _ in new)
    found += [Difference("added", name) for name in now if name not in was]
    found += [Difference("removed", name) for name in was if name not in now]
    if not found and list(old) != list(new):
        found = [Difference("changed", told) for told in _reordered(old, new)]
    return found


def _difference(name: str, before: dict[str, list[str]], after: dict[str, list[str]]) -> Difference:
    gone = [value for value in before if value not in after]
    come = [value for value in after if value not in before]
    users = dict.fromkeys(step for value in come or gone for step in (after if come else before)[value])
    lost = not after or come == [MISSING]
    hidden = _is_unprintable(name, [*gone, *come])
    return Difference(
        "added" if not before else "removed" if lost else "changed",
        name,
        "" if hidden else _shown(gone),
        "" if hidden else _shown(come),
        tuple(users),
    )


def _by_part(steps: Steps, among: set[str]) -> dict[str, dict[str, list[str]]]:
    """For each part's name its digests, and for each digest the steps in ``among`` that have it."""
    found: dict[str, dict[str, list[str]]] = {}
    for step, parts in steps:
        for part in parts if step in among else ():
            users = found.setdefault(part.name, {}).setdefault(part.digest, [])
            if step not in users:
                users.append(step)
    return found


def _lasting(old: Steps, new: Steps) -> set[str]:
    return {name for name, _ in old} & {name for name, _ in new}


def _changed_parts(old: Steps, new: Steps) -> list[str]:
    lasting = _lasting(old, new)
    before, after = _by_part(old, lasting), _by_part(new, lasting)
    return [
        _change(name, before[name], after[name])
        for name in after
        if name in before and before[name].keys() != after[name].keys()
    ]


def _change(name: str, before: dict[str, list[str]], after: dict[str, list[str]]) -> str:
    gone = [value for value in before if value not in after] or list(before)
    come = [value for value in after if value not in before] or list(after)
    if come == [MISSING]:
        return f"{name} is missing"
    if _is_unprintable(name, [*gone, *come]):
        return f"{name} changed{_used_by([step for value in come for step in after[value]])}"
    return f"{name}: {_shown(gone)} -> {_shown(come)}"


def _is_unprintable(name: str, values: Iterable[str]) -> bool:
    """Digests tell a reader nothing, secrets tell too much."""
    return names_a_secret(name) or any(_DIGEST.fullmatch(value) for value in values)


def _shown(values: list[str]) -> str:
    text = " ".join(mask(", ".join(values)).split())
    return text if len(text) <= _SHOWN_VALUE else f"{text[:_SHOWN_VALUE]}..."


def _used_by(steps: list[str]) -> str:
    others = f" and {len(steps) - 1} more" if len(steps) > 1 else ""
    return f" (used by {steps[0]}{others})"


def _changed_steps(old: Steps, new: Steps) -> list[str]:
    before, after = dict.fromkeys(name for name, _ in old), dict.fromkeys(name for name, _ in new)
    come = [f"new {name}" for name in after if name not in before]
    return come + [f"{name} is gone" for name in before if name not in after]


def _come_and_gone_parts(old: Steps, new: Steps) -> list[str]:
    lasting = _lasting(old, new)
    before, after = _by_part(old, lasting), _by_part(new, lasting)
    come = [f"new {_named(name, after[name])}" for name in after if name not in before]
    return come + [f"{_named(name, before[name])} is gone" for name in before if name not in after]


def _named(name: str, values: dict[str, list[str]]) -> str:
    if _is_unprintable(name, values):
        return f"{name}{_used_by([step for steps in values.values() for step in steps])}"
    return f"{name} ({_shown(list(values))})"


def _reordered(old: Steps, new: Steps) -> list[str]:
    """Same steps, same parts as a whole: either the order differs, or which step has which part."""
    before, after = [name for name, _ in old], [name for name, _ in new]
    if sorted(before) != sorted(after):
        return ["a step is repeated another number of times"]
    for was, is_ in zip(before, after, strict=True):
        if was != is_:
            return [f"{is_} now comes before {was}"]
    return [
        f"{name} uses other files" for (name, parts), (_, was) in zip(new, old, strict=True) if set(parts) != set(was)
    ]
