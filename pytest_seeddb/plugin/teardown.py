"""What becomes of a test's database once all of the test's tear-down is over, and what a failure shows of it.

A fixture ends before pytest knows whether the tear-down failed. So a database is not settled there
but when the hook around the whole tear-down says so: until then it can still be kept.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from pytest_seeddb.plugin.state import DATABASE, ENDING, SETTINGS, TALLY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    from pytest_seeddb.clones.database import SeededDatabase

_UNSETTLED: Final = pytest.StashKey[list["_Unsettled"]]()
_SHOWN: Final = pytest.StashKey[list[str]]()
_NO_FAILURE: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, pytest.exit.Exception, pytest.skip.Exception)


@dataclass(frozen=True)
class _Unsettled:
    """A database whose fixtures are done with it."""

    node: pytest.Item | pytest.Collector
    database: SeededDatabase
    end: ExitStack


def settle_later(request: pytest.FixtureRequest, database: SeededDatabase, end: ExitStack) -> None:
    """Have ``end`` closed once the tear-down is over in which this is called."""
    later = request.config.stash.setdefault(_UNSETTLED, [])
    later.append(_Unsettled(request.node, database, end))


def settle_now(config: pytest.Config) -> None:
    """Settle what waits for it."""
    unsettled = config.stash.get(_UNSETTLED, [])
    while unsettled:
        each, settings = unsettled.pop(), config.stash[SETTINGS]
        if settings.keep == "all" and each.database.isolation == "clone" and each.database.lasts:
            each.database.keep()
        try:
            each.end.close()
        finally:
            if DATABASE in each.node.stash:  # pytest keeps its items to the end of the session
                del each.node.stash[DATABASE]
        if settings.report:
            _note(config, each)


def _note(config: pytest.Config, each: _Unsettled) -> None:
    from pytest_seeddb.plugin.report import Tally

    if each.database.settlement is not None:
        config.stash.setdefault(TALLY, Tally()).note(each.node.nodeid or "the session", each.database.settlement)


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
        databases = [each.database for each in item.config.stash.get(_UNSETTLED, [])]
        item.stash[_SHOWN] = [text for database in databases for text in _show(item, database)]
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
    if item.config.stash[SETTINGS].keep == "none" or not database.lasts:
        yield changes
    else:
        kept = database.keep()
        yield f"seeddb shell {kept.database}\npsql '{kept.without_password.url}'\n{changes}"
