"""Settling a test's database once all of the test's tear-down is over.

A fixture ends before pytest knows whether the tear-down failed. So a database is not settled there but in the hook
around the whole tear-down: until then it can still be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from pytest_seeddb.plugin.run import DATABASE, ENDING, LAST_STATE, RUN

if TYPE_CHECKING:
    from collections.abc import Generator

_NO_FAILURE: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, pytest.exit.Exception, pytest.skip.Exception)


def settle_now(config: pytest.Config) -> None:
    """Settle the databases whose fixtures are done with them."""
    run = config.stash[RUN]
    while run.unsettled:
        node, settings, database, end = run.unsettled.pop()
        if settings.keep == "all" and database.isolation == "clone" and database.lasts:
            database.keep()
        run.tally.roles = sorted(database.roles.used.union(run.tally.roles))
        try:
            with run.settling(node.nodeid, database):
                end.close()
        finally:
            if DATABASE in node.stash:  # pytest keeps its items to the end of the session
                del node.stash[DATABASE]


def settle_after(item: pytest.Item, *, is_last: bool) -> Generator[None, object, object]:
    """Around pytest's own tear-down of a test: settle its database afterwards, or keep it where that failed.

    After the last test the session's fixtures go at the same moment, and the server with them. So the test's
    own go before the others do, and are settled in between.
    """
    errors: list[BaseException] = []
    result: object = None
    item.stash[ENDING] = True
    parent = item.parent if is_last else None
    try:
        try:
            if parent is None:
                result = yield
            else:
                item.session._setupstate.teardown_exact(parent)  # type: ignore[arg-type]  # noqa: SLF001 - no other way
        except _NO_FAILURE:
            raise
        except BaseException:
            from pytest_seeddb.plugin.failures import show_database

            unsettled = item.config.stash[RUN].unsettled
            item.stash[LAST_STATE] = [text for _, _, database, _ in unsettled for text in show_database(item, database)]
            raise
        finally:
            settle_now(item.config)
    except BaseException as error:  # noqa: BLE001 - raised again below
        errors.append(error)
    if parent is not None:
        try:
            result = yield
        except BaseException as error:  # noqa: BLE001 - as above
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else BaseExceptionGroup("errors during test teardown", errors)
    return result
