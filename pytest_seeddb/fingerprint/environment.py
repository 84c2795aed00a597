"""The environment variables that the project's code asks for by name.

Python announces no look-up of a variable, so ``os.environ`` gets a subclass of its own class that tells of each name
that is asked for. Going through the whole mapping is not asking for a name: nothing is told.
"""

from __future__ import annotations

import os
import re
import sys
from collections import ChainMap
from contextlib import suppress
from fnmatch import fnmatchcase, translate
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.errors import names_a_secret, passwords_in
from pytest_seeddb.fingerprint.digests import SET, Part, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import CodeType, FrameType

    Listener = Callable[[str], None]

NEVER: Final = (
    *("PYTEST_*", "SEEDDB_*", "CI", "GITHUB_*", "GITLAB_*"),
    *("HOME", "PATH", "TMPDIR", "USER", "TERM", "LANG"),
)
"""Patterns of variables that never count."""
NOT_SET: Final = "not set"
_LABEL: Final = "environment variable "
_ANY_CASE: Final = " (any case)"

# The readers of configuration that ask for the names which the project's code wants.
_READERS: Final = frozenset(
    {
        *("decouple", "environ", "environs", "envparse", "starlette", "dj_database_url", "omegaconf", "typed_settings"),
        *("pydantic_settings", "posixpath", "ntpath"),
    }
)
_PYDANTIC: Final = "pydantic_settings"
_PYDANTIC_1: Final = frozenset({"pydantic.v1.env_settings", "pydantic.env_settings"})
# Python's own functions that ask for one name on behalf of their caller.
_BY_NAME: Final = frozenset({"getenv", "setdefault", "pop", "get", "__contains__"})
_PASS_ON: Final = frozenset({"collections", "string"})
"""The modules of ``ChainMap`` and of ``Template``: they ask the mapping that they were given."""
MAPPING_MODULES: Final = frozenset({"os", "collections.abc", "_collections_abc", *_PASS_ON})
"""The modules of ``os.environ`` and of its base class, and of what stands before it."""

ASIDE: Final[dict[str, str]] = {}
"""Variables that are out of ``os.environ`` for a while, and come back: they count as if they were there."""

_listener: Listener | None = None
_asked: set[tuple[int, int, object]] = set()
"""Modules' globals, their instructions, and the names that these have asked for."""
_takes_all: set[tuple[CodeType, int]] = set()
"""Instructions that take the whole mapping: C code such as ``dict()`` asks for the keys, and then for each of them."""
_first: dict[str, Part] = {}
_before: list[dict[str, str]] = []


def variable(pattern: str, *, any_case: bool = False) -> str:
    """The name of a part for a variable, or for all that match a pattern."""
    return f"{_LABEL}{pattern}{_ANY_CASE if any_case else ''}"


def is_variable(name: str) -> bool:
    """Whether a part has such a name."""
    return name.startswith(_LABEL)


def is_ignored(name: str, patterns: Iterable[str]) -> bool:
    """Whether the part's variable matches one of the patterns, or one of `NEVER`."""
    own = name.removeprefix(_LABEL).removesuffix(_ANY_CASE)
    return any(fnmatchcase(own, pattern) for pattern in (*NEVER, *patterns))


def part(name: str, environ: Mapping[str, str] | None = None) -> Part:
    """The part of this name with the variable's value now; a secret if it holds one."""
    pattern = name.removeprefix(_LABEL)
    own = pattern.removesuffix(_ANY_CASE)
    environ = ChainMap(ASIDE, os.environ) if environ is None else environ
    if own == pattern and not any(sign in own for sign in "*?["):
        value = environ.get(own)
        return Part(name, NOT_SET) if value is None else _part(name, value, is_secret=_is_secret(own, value))
    matches = re.compile(translate(own), re.IGNORECASE if own != pattern else 0).match
    values = sorted((key, value) for key, value in environ.items() if matches(key))
    is_secret = any(_is_secret(key, value) for key, value in values)
    return _part(name, repr(values), is_secret=is_secret) if values else Part(name, NOT_SET)


def _is_secret(name: str, value: str) -> bool:
    return bool(value) and (names_a_secret(name) or bool(passwords_in(value)))


def is_secret_of(value: str) -> bool:
    """Whether a variable that is named as a secret has this value."""
    data = getattr(os.environ, "_data", None)  # a copy is slow; a test may have put a plain dictionary there
    if isinstance(data, dict) and os.environ.encodevalue(value) not in data.values():
        return False
    return any(own == value and names_a_secret(name) for name, own in {**os.environ}.items())


def _part(name: str, value: str, *, is_secret: bool) -> Part:
    return Part(name, SET, value) if is_secret else Part(name, digest(value))


def current(name: str) -> Part:
    """What a build of this process would get: the value when it was first asked for, or else now."""
    return _first.get(name) or part(name)


def note(name: str) -> None:
    """Keep the value that a variable has when it is first asked for; in a build, the one at its start.

    What the code sets itself while it is built (``load_dotenv``) is not there when the next run looks.
    """
    if name not in _first:
        _first[name] = part(name, _before[-1] if _before else None)


def begin_build() -> dict[str, str]:
    """Remember the variables as they are; the result is for `end_build`."""
    _before.append({**os.environ, **ASIDE})
    return _before[-1]


def end_build(before: dict[str, str]) -> None:
    """Forget them."""
    _before.remove(before)


def listen(listener: Listener) -> None:
    """Have each part's name told that code of the project may ask for, once for each line that asks.

    The listener looks at the stack to decide whether it does.
    """
    global _listener  # noqa: PLW0603 - one for the process, as os.environ is
    _listener = listener
    for environ in (os.environ, getattr(os, "environb", None)):
        if type(environ) is _base:
            environ.__class__ = _Environment


def forget_instructions() -> None:
    """Tell of instructions again that were told: something else listens now, or a build begins."""
    _asked.clear()


_base: Final[Any] = type(os.environ)
_OS: Final = vars(os)


class _Environment(_base):  # type: ignore[misc]  # as above
    """``os.environ`` that tells of names."""

    # This is what the base class and its mixins do, in fewer calls. The frame's code is not looked at: that is an event
    # for audit hooks, and costs as much as all the rest.

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - as the base class
        frame = sys._getframe(1)  # noqa: SLF001 - documented
        if (id(frame.f_globals), frame.f_lasti, key) not in _asked:
            _ask(frame, key)
        try:
            value = self._data[self.encodekey(key)]
        except KeyError:
            raise KeyError(key) from None
        return self.decodevalue(value)

    def get(self, key: Any, default: Any = None) -> Any:  # noqa: ANN401 - as above
        frame = sys._getframe(1)  # noqa: SLF001 - as above
        if frame.f_globals is _OS:  # getenv() asks for its caller
            frame = frame.f_back or frame
        if (id(frame.f_globals), frame.f_lasti, key) not in _asked:
            _ask(frame, key)
        try:
            value = self._data[self.encodekey(key)]
        except KeyError:
            return default
        return self.decodevalue(value)

    def __contains__(self, key: Any) -> bool:  # noqa: ANN401 - as above
        frame = sys._getframe(1)  # noqa: SLF001 - as above
        if (id(frame.f_globals), frame.f_lasti, key) not in _asked:
            _ask(frame, key)
        return self.encodekey(key) in self._data

    def __iter__(self) -> Iterator[str]:
        caller = sys._getframe(1)  # noqa: SLF001 - as above
        if _module(caller) in MAPPING_MODULES:  # a ChainMap has its own keys()
            asks: FrameType | None = caller
            while asks is not None and _module(asks) in MAPPING_MODULES:
                asks = asks.f_back
            if asks is not None:
                _takes_all.add(_instruction(asks))
        try:
            for key in _base.__iter__(self):
                _walk.last = key
                yield key
        finally:
            _walk.last = ""

    def keys(self) -> Any:  # noqa: ANN401 - as above
        _takes_all.add(_instruction(sys._getframe(1)))  # noqa: SLF001 - as above
        return _base.keys(self)

    def items(self) -> Any:  # noqa: ANN401 - as above
        if _listener:
            _tell_fields(sys._getframe(1), _listener)  # noqa: SLF001 - as above
        return _base.items(self)


class _Walk:
    """An iteration over the whole mapping."""

    last: object = ""
    """The name that it gave last."""


_walk: Final = _Walk()


def _instruction(frame: FrameType) -> tuple[CodeType, int]:
    return frame.f_code, frame.f_lasti


def _ask(frame: FrameType, key: object) -> None:
    if _listener is None or not isinstance(key, str | bytes) or key == _walk.last:
        return
    asks: FrameType | None = frame
    while asks is not None and (module := _module(asks)) in MAPPING_MODULES:
        if asks.f_code.co_name not in _BY_NAME and module not in _PASS_ON:
            return
        asks = asks.f_back
    if asks is None or _instruction(asks) in _takes_all:
        return
    if not reads_by_name(module):  # these ask on behalf of ever other code
        if (asked := (id(asks.f_globals), asks.f_lasti, key)) in _asked:
            return
        _asked.add(asked)
    with suppress(Exception):  # an error here would be raised by the user's own look-up
        _listener(variable(os.fsdecode(key)))


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def reads_by_name(module: str) -> bool:
    """Whether a module reads configuration for its caller."""
    return module.partition(".")[0] in _READERS or module in _PYDANTIC_1


def _tell_fields(frame: FrameType | None, listener: Listener) -> None:
    """Tell of the fields of the settings that pydantic is reading: it looks at every variable."""
    for _ in range(6):
        if frame is None:
            return
        module, source = _module(frame), frame.f_locals.get("self")
        if module in _PYDANTIC_1 or (module.startswith(_PYDANTIC) and hasattr(source, "settings_cls")):
            with suppress(Exception):  # as above
                for name in (
                    _fields_of_1(source, frame.f_locals["settings"]) if module in _PYDANTIC_1 else _fields(source)
                ):
                    listener(name)
            return
        frame = frame.f_back


def _fields(source: Any) -> Iterator[str]:  # noqa: ANN401 - of a package that need not be there
    delimiter = getattr(source, "env_nested_delimiter", None)
    for field_name, field in source.settings_cls.model_fields.items():
        for _, name, _ in source._extract_field_info(field, field_name):  # noqa: SLF001 - knows prefixes and aliases
            own = name if source.case_sensitive else name.upper()
            yield variable(own, any_case=not source.case_sensitive)
            if delimiter:
                yield variable(f"{own}{delimiter}*", any_case=not source.case_sensitive)


def _fields_of_1(source: Any, settings: Any) -> Iterator[str]:  # noqa: ANN401 - as above
    delimiter = source.env_nested_delimiter
    for field in settings.__fields__.values():
        for name in field.field_info.extra["env_names"]:
            yield variable(name.upper(), any_case=True)
            if delimiter:
                yield variable(f"{name.upper()}{delimiter}*", any_case=True)
