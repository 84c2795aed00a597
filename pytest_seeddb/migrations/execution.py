"""Run a migration tool in this process, its output kept; logging and warnings are as before afterwards."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final, TextIO

from pytest_seeddb.application.surroundings import surroundings
from pytest_seeddb.errors import BuildError
from pytest_seeddb.servers.database_errors import describe_failure, failure_remedy

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from pathlib import Path

    from pytest_seeddb.plan.plan import Step, Target

WHICH_DATABASE: Final = "SELECT current_database(), extract(epoch FROM pg_postmaster_start_time())::text"
"""Its row tells whether two connections lead to one database."""
SESSION: Final = """
SELECT coalesce(string_agg(name || '=' || setting, ',' ORDER BY name), ''), current_user, pg_my_temp_schema()::text
FROM pg_settings WHERE source = 'session' AND left(name, 12) <> 'transaction_'
"""
"""What one migration can leave in the session for the next: a layer between them must not lose it."""


class Execution:
    """One run of a tool against the target; ``output`` is what it prints, which is also seen if it ``prints``."""

    def __init__(self, target: Target, directory: Path | None = None, *, prints: bool = False) -> None:
        self._target = target
        self._directory = directory
        self._outside = (sys.stdout, sys.stderr)
        self.output = io.StringIO()
        self._streams = [_Copy(self.output, stream) if prints else self.output for stream in self._outside]

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Surround the tool's call."""
        with (
            surroundings(self._target, self._directory),
            keep_logging(),
            warnings.catch_warnings(action="ignore"),  # of the project's files: the tool's own command shows them
            contextlib.redirect_stdout(self._streams[0]),
            contextlib.redirect_stderr(self._streams[1]),
        ):
            yield

    def announce(self, step: Step) -> None:
        """Tell the audience that a step begins; what that prints is seen."""
        out, err = self._outside
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self._target.started(step)


class _Copy(io.StringIO):
    """Writes to two streams."""

    def __init__(self, *streams: TextIO) -> None:
        super().__init__()
        self._streams = streams

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()


def failure(what: str, error: BaseException, place: str, source: str, output: str = "") -> BuildError:
    """The error of the project's own code, with the last lines of its output."""
    return BuildError(
        f"{what} failed" + (f" at {place}" if place else ""),
        saw=describe_failure(error, output),
        source=source,
        remedy=failure_remedy(error) or "correct it",
    )


@contextlib.contextmanager
def keep_logging() -> Iterator[None]:
    """Give every logger back its level, handlers and state, also after ``fileConfig``, which closes all handlers."""
    before = {
        logger: (logger.level, logger.disabled, logger.propagate, [(one, one.level) for one in logger.handlers])
        for logger in _loggers()
    }
    # fileConfig clears these, after closing what is in the list.
    references: list[Any] = vars(logging)["_handlerList"]
    names: MutableMapping[str, logging.Handler] = vars(logging)["_handlers"]
    references_before, names_before = list(references), dict(names)
    references.clear()
    try:
        yield
    finally:
        references[:0] = references_before
        names.update(names_before)
        for logger, (level, disabled, propagate, handlers) in before.items():
            logger.setLevel(level)
            logger.disabled, logger.propagate = disabled, propagate
            logger.handlers[:] = [handler for handler, _ in handlers]
            for handler, handler_level in handlers:
                handler.setLevel(handler_level)
        for logger in _loggers():
            if logger not in before:
                logger.disabled = False


def _loggers() -> list[logging.Logger]:
    root = logging.getLogger()
    return [root, *(logger for logger in root.manager.loggerDict.values() if isinstance(logger, logging.Logger))]
