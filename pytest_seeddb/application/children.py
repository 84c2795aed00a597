"""Child processes that connect to the application's own database during a test.

What redirects engines and Django is in this process. A forked child has it, too; any other makes its engines anew, from
what the settings or the environment say.
"""

from __future__ import annotations

import re
import shlex
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.django import is_set_up
from pytest_seeddb.application.imports import enter_on_import, is_users, module_of
from pytest_seeddb.application.offspring import listeners
from pytest_seeddb.fingerprint.modules import Module
from pytest_seeddb.fingerprint.scanning import scan
from pytest_seeddb.fingerprint.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import ModuleType

    from pytest_seeddb.settings.settings import Settings

    Hear = Callable[[Sequence[str], str], None]

_PYTHON: Final = re.compile(r"(?:python|pypy)[\d.]*(?:\.exe)?")
_PYTHON_SCRIPT: Final = re.compile(rb"#!(?:.*(?:python|pypy)|/bin/sh\n'''exec')")
_MULTIPROCESSING: Final = "multiprocessing"
_SETS_UP: Final = re.compile(rb"\b(?:django\.setup|execute_from_command_line|call_command|get_[aw]sgi_application)\b")
_READS: Final = rb"""["']%b["']|^[ \t]+%b[ \t]*:"""
"""A variable's name as text, or as a field of pydantic's settings."""
_NAMES: Final = frozenset({"-A", "-m", "--app"})
"""Options of servers and runners with a module behind them, besides words such as ``shop.app:app``."""
_SCRIPT_BYTES: Final = 1 << 16
_SHELL: Final = 3
"""The words of a command for a shell: its name, ``-c``, the command."""


@contextmanager
def watch_children(hear: Hear) -> Iterator[None]:
    """Inside the block, ``hear`` of the command and the directory of each child process that is not a fork."""
    with ExitStack() as stack:
        stack.enter_context(enter_on_import("multiprocessing.context", lambda module: _watch(module, hear)))
        listeners.append(hear)
        stack.callback(listeners.remove, hear)
        yield


@contextmanager
def _watch(module: ModuleType, hear: Hear) -> Iterator[None]:
    """Hear of multiprocessing's children, with the module of their function: there is no event."""
    with ExitStack() as stack:
        for name in ("SpawnProcess", "ForkServerProcess"):
            if (process := getattr(module, name, None)) is not None:
                original = vars(process)["_Popen"]
                process._Popen = staticmethod(_hearing(original.__func__, hear))  # noqa: SLF001 - no other way
                stack.callback(setattr, process, "_Popen", original)
        yield


def _hearing(start: Callable[[Any], Any], hear: Hear) -> Callable[[Any], Any]:
    def start_process(process: Any) -> Any:  # noqa: ANN401 - multiprocessing's
        target = getattr(process, "_target", None) or type(process).run
        with suppress(Exception):
            hear((_MULTIPROCESSING, "-m", target.__module__), "")
        return start(process)

    return start_process


def entry_of(command: Sequence[str], directory: str, settings: Settings) -> str:
    """How a child is called if it uses Django or an engine of the settings by the project's own code; else empty."""
    program, rest = _words_of(command)
    sources = Sources(settings.root)
    files: Iterable[str] = ()
    match rest:
        case ["-m", "django", *_]:
            return "python -m django" if is_set_up() else ""
        case ["-m", name, *words]:
            main = sources.modules.find(f"{name}.__main__")
            files, text = _files_of([name if main is None else f"{name}.__main__"], sources), b""
            label = f"multiprocessing: {name}" if program == _MULTIPROCESSING else f"python -m {name}"
        case ["-c", code, *words]:
            text, label = code.encode(), "python -c ..."
        case [script, *words] if (program or script.endswith(".py")) and is_users(
            str(path := Path(directory, script).absolute()), settings.root
        ):
            files, text, label = (part.name for part in sources.of_file(path)), path.read_bytes(), f"python {script}"
        case [script, *words] if text := _text_of_installed(script):
            label = Path(script).name
        case _:
            return ""
    imported = [target for name in scan(text).names for target in sources.resolved(name, Module(""))]
    files = [*files, *_files_of((target.name for target in imported if isinstance(target, Module)), sources)]
    calls = [(label, files), *((f"{label} {name}", _files_of([name], sources)) for name in _named_in(words))]
    return next(
        (call for call, files in calls if (files or text) and _uses_database(files, text, sources, settings)), ""
    )


def _text_of_installed(script: str) -> bytes:
    """That of a Python script such as ``uvicorn``; empty for other programs."""
    path = Path(which(script) or script)
    with path.open("rb") if path.is_file() else BytesIO() as file:
        text = file.read(_SCRIPT_BYTES)
    return text if _PYTHON_SCRIPT.match(text) else b""


def _words_of(command: Sequence[str]) -> tuple[str, list[str]]:
    """Python, or `_MULTIPROCESSING`, and what it runs; for other programs nothing, and all of the words."""
    words = [*command]
    if len(words) == _SHELL and words[1] == "-c" and Path(words[0]).name in {"sh", "bash"}:
        words = shlex.split(words[2])
    if not words or (words[0] != _MULTIPROCESSING and not _PYTHON.fullmatch(Path(words[0]).name)):
        return "", words
    program, *rest = words
    while rest and rest[0].startswith("-") and rest[0] not in {"-m", "-c"}:
        rest = rest[2 if rest[0] in {"-W", "-X"} else 1 :]
    return program, rest


def _files_of(names: Iterable[str], sources: Sources) -> list[str]:
    own = [name for name in names if isinstance(sources.modules.find(name), Module)]
    return [part.name for name in own for part in sources.of_module(name)]


def _named_in(words: Sequence[str]) -> Iterator[str]:
    """The modules that words of a command may name: ``shop.app:app``, ``-A shop``, ``--app=shop``."""
    for before, word in pairwise(["", *words]):
        option, _, value = word.rpartition("=")
        module, attribute, _ = value.partition(":")
        if attribute or "." in module or {before, option} & _NAMES:
            yield module


def _uses_database(files: Sequence[str], text: bytes, sources: Sources, settings: Settings) -> bool:
    """Whether these parts, or the text itself, lead to an engine of the settings, read `env`, or set Django up."""
    engines = {file for path in settings.engines for file in sources.files_of_module(module_of(path))}
    if not engines.isdisjoint(files) or ("all" in settings.engines and "package sqlalchemy" in files):
        return True
    paths = [settings.root / file for file in files]
    texts = [text, *(path.read_bytes() for path in paths if path.is_file())]
    variables = [
        re.compile(_READS % ((re.escape(name).encode(),) * 2), re.IGNORECASE | re.MULTILINE) for name in settings.env
    ]
    wanted = [*variables, *([_SETS_UP] if is_set_up() else [])]
    return any(pattern.search(text) for pattern in wanted for text in texts)
