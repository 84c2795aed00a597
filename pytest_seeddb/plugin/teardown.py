"""What becomes of a test's database once all of the test's tear-down is over, and what a failure shows of it.

A fixture ends before pytest knows whether the tear-down failed. So a database is not settled there
but when the hook around the whole tear-down says so: until then it can still be kept.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from pytest_seeddb.plugin.run import DATABASE, ENDING, RUN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.clones.database import SeededDatabase

_SHOWN: Final = pytest.StashKey[list[str]]()
_NO_FAILURE: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, pytest.exit.Exception, pytest.skip.Exception)


def settle_now(config: pytest.Config) -> None:
    """Settle the databases whose fixtures are done with them."""
    run = config.stash[RUN]
    while run.unsettled:
        node, database, end = run.unsettled.pop()
        if run.settings.keep == "all" and database.isolation == "clone" and database.lasts:
            database.keep()
        try:
            end.close()
        finally:
            if DATABASE in node.stash:  # pytest keeps its items to the end of the session
                del node.stash[DATABASE]
        if run.settings.report and database.settlement is not None:
            run.tally.note(node.nodeid or "the session", database.settlement)


@contextmanager
def torn_down(item: pytest.Item, *, is_last: bool) -> Iterator[None]:
    """Around pytest's own tear-down of a test: settle its database afterwards, or keep it where that failed.

    After the last test the session's fixtures go in the same breath, and the server with them. So its
    own go before the others do, and are settled in between.
    """
    errors: list[BaseException] = []
    item.stash[ENDING] = True
    with _collected(errors), _settled(item):
        if is_last and item.parent is not None:
            item.session._setupstate.teardown_exact(item.parent)  # type: ignore[arg-type]  # noqa: SLF001 - no other way
        else:
            yield
    if is_last and item.parent is not None:
        with _collected(errors):
            yield
    if errors:
        raise errors[0] if len(errors) == 1 else BaseExceptionGroup("errors during test teardown", errors)


@contextmanager
def _collected(errors: list[BaseException]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - raised again by `torn_down`
        errors.append(error)


@contextmanager
def _settled(item: pytest.Item) -> Iterator[None]:
    try:
        yield
    except _NO_FAILURE:
        raise
    except BaseException:
        unsettled = item.config.stash[RUN].unsettled
        item.stash[_SHOWN] = [text for _, database, _ in unsettled for text in _show(item, database)]
        raise
    finally:
        settle_now(item.config)


# -- a failure's report --------------------------------------------------------------------------


def show_database(item: pytest.Item, when: str) -> Iterator[str]:
    """What a failed test's database holds and where to look at it; it stays unless the settings say otherwise."""
    if when == "teardown":
        yield from item.stash.get(_SHOWN, [])
        return
    database = next((node.stash[DATABASE] for node in reversed(item.listchain()) if DATABASE in node.stash), None)
    if database is not None:
        yield from _show(item, database)


def _show(item: pytest.Item, database: SeededDatabase) -> Iterator[str]:
    if database.isolation != "clone":
        return
    try:
        changes = str(database.changes())
    except Exception as error:  # noqa: BLE001 - the test's own failure must be shown, whatever state its database is in
        changes = f"what was written cannot be told: {error}"
    if item.config.stash[RUN].settings.keep == "none" or not database.lasts:
        yield changes
    else:
        kept = database.keep()
        yield f"seeddb shell {kept.database}\npsql '{kept.without_password.url}'\n{changes}"
