"""Keeping the process's logging as it is while ``env.py`` sets up its own."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping


@dataclass(frozen=True)
class _Logger:
    """What ``logging.config.fileConfig`` changes in a logger."""

    logger: logging.Logger
    level: int
    disabled: bool
    propagate: bool
    handlers: tuple[logging.Handler, ...]
    levels: tuple[int, ...]

    @classmethod
    def of(cls, logger: logging.Logger) -> _Logger:
        handlers = tuple(logger.handlers)
        levels = tuple(each.level for each in handlers)
        return cls(logger, logger.level, logger.disabled, logger.propagate, handlers, levels)

    def restore(self) -> None:
        self.logger.setLevel(self.level)
        self.logger.disabled = self.disabled
        self.logger.propagate = self.propagate
        self.logger.handlers[:] = self.handlers
        for handler, level in zip(self.handlers, self.levels, strict=True):
            handler.setLevel(level)


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """Give every logger back its level, handlers and state afterwards, however logging was configured.

    ``fileConfig`` also closes each handler of the process; those that exist are kept out of its reach.
    """
    before = [_Logger.of(logger) for logger in _loggers()]
    # What fileConfig clears, after closing what is in the list.
    references: list[Any] = vars(logging)["_handlerList"]
    names: MutableMapping[str, logging.Handler] = vars(logging)["_handlers"]
    kept, named = list(references), dict(names)
    references.clear()
    try:
        yield
    finally:
        references[:0] = kept
        names.update(named)
        known = {id(each.logger) for each in before}
        for each in before:
            each.restore()
        for logger in _loggers():
            if id(logger) not in known:
                logger.disabled = False


def _loggers() -> list[logging.Logger]:
    root = logging.getLogger()
    return [root, *(each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
