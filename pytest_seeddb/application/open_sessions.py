"""ORM sessions that an application leaves open, so that what one test left in them does not reach the next."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pytest_seeddb.application.hanging_up import run_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine.interfaces import Dialect
    from sqlalchemy.orm import Session


def close_sessions(covers: Callable[[Dialect], bool]) -> None:
    """Close every session in the process with an engine that is meant; each can be used again.

    Their connections must have been ended before: closing then speaks to no server and needs no
    event loop. Objects that a session was about to insert would otherwise be flushed by whoever uses
    it next, a ``scoped_session`` of the application's above all.

    Args:
        covers: Whether the engine with this dialect is meant.
    """
    module: Any = sys.modules.get("sqlalchemy.orm.session")
    # What SQLAlchemy's own close_all_sessions() goes through; each session's owner alone keeps it alive.
    for session in list(module._sessions.values()) if module else ():  # noqa: SLF001 - SQLAlchemy shows it nowhere
        dialects = [each for each in _dialects(session) if covers(each)]
        if any(each.is_async for each in dialects):
            run_now(session.close)
        elif dialects:
            session.close()


def _dialects(session: Session) -> Iterator[Dialect]:
    """Of the engines that the session is bound to, as a whole or for some of its classes."""
    private: Any = session
    binds = private.binds if hasattr(private, "binds") else private._Session__binds  # noqa: SLF001 - 2.0's name
    for bind in (session.bind, *binds.values()):
        if bind is not None:
            yield bind.dialect
