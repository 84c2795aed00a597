"""A failure as pytest shows it: errors of the plugin without its traceback, a test's database, and no secrets."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_seeddb.errors import SeedDbError, hide_secrets
from pytest_seeddb.plugin.markers import FIXTURES, wish_of
from pytest_seeddb.plugin.run import DATABASE, ISOLATION, LAST_STATE, RUN, is_enabled, is_seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.clones.database import SeededDatabase

_ROWS: Final = 1000
"""Rows up to which those that a failed test wrote are looked up."""
_TRANSACTION_STATES: Final = ("25001", "25P01", "3B001")
"""Of statements that are not for a transaction, and of savepoints without one."""
_OWN: Final = str(Path(__file__).parents[1])


def shorten(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Let a traceback end where the test called the plugin; of a fixture, one entry: to format all would take 0.1 s."""
    if call.excinfo is None or not isinstance(call.excinfo.value, SeedDbError) or not _is_shortened(item):
        return
    if call.when != "call":
        call.excinfo.traceback = call.excinfo.traceback[-1:]
        return
    entries, entry = [], call.excinfo.value.__traceback__
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    while len(entries) > 1 and entries[-1].tb_frame.f_code.co_filename.startswith((_OWN, contextlib.__file__)):
        entries.pop()
        entries[-1].tb_next = None


def _is_shortened(item: pytest.Item) -> bool:
    """``--tb=long``, ``--tb=native`` and ``--full-trace`` show everything, as ever."""
    option = item.config.option
    return option.tbstyle in {"auto", "short", "line"} and not option.fulltrace


def explain(report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Change the report of a test that did not just pass."""
    error = call.excinfo and call.excinfo.value
    if call.excinfo is not None and isinstance(error, SeedDbError):
        if report.when != "call" and _is_shortened(item):
            report.longrepr = _text_alone(item, call.excinfo)
        if pytest.version_tuple < (8, 3):  # 8.2 lengthens the traceback for each test that meets a fixture's error
            error.__traceback__ = vars(error).setdefault("_first_traceback", error.__traceback__)
    texts = []
    if error is not None and is_enabled(item.config) and is_seeded(item):
        causes = (_refused_write, _one_transaction, _refused_privilege, _full_memory, _longer_life)
        texts.append(next(filter(None, (cause(item, error) for cause in causes)), ""))
    if report.failed and call.when == "teardown":
        last_state: list[str] = item.stash.get(LAST_STATE, [])
        texts += last_state
    elif report.failed:
        database = next((node.stash[DATABASE] for node in reversed(item.listchain()) if DATABASE in node.stash), None)
        texts.extend(show_database(item, database) if database is not None else ())
    report.sections.extend(("seeddb", text) for text in texts if text)
    _hide_secrets(report)


def _text_alone(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # noqa: ANN401 - pytest's own
    """A fixture's error as its text; in full for the first test, in one line for the others."""
    text = f"{type(excinfo.value).__name__}: {excinfo.value}"
    first = item.config.stash[RUN].shown.setdefault(text, item.nodeid)
    if first != item.nodeid:
        text = f"{text.splitlines()[0]}\n  as in {first}, which shows it in full"
    shown = excinfo.getrepr(style="value", chain=False)
    # The style "value" leaves the error's class out.
    entries = [dataclasses.replace(entry, lines=text.splitlines()) for entry in shown.reprtraceback.reprentries[-1:]]
    shown.reprtraceback.reprentries = entries
    return shown


def _refused_write(item: pytest.Item, error: BaseException) -> str:
    """Why PostgreSQL refused a write, where the isolation is the cause; else nothing."""
    isolation = _isolation_of(item)
    if isolation == "clone" or _cause(error, "25006") is None:
        return ""
    writers = "" if isolation == "readonly" else " Only seeded_session, seeded_engine and seeded_connection may write."
    return (
        f'This test has isolation="{isolation}": other tests read the same database, so connections to it are '
        f'read-only.{writers} A test that writes otherwise needs isolation="clone", the default.'
    )


def _one_transaction(item: pytest.Item, error: BaseException) -> str:
    """Why what needs its own transaction, or none, fails where all of a test is in one; else nothing."""
    is_inside = "status INTRANS" in str(error) or any(_cause(error, state) for state in _TRANSACTION_STATES)
    if not is_inside or _isolation_of(item) != "rollback":
        return ""
    return (
        'This test has isolation="rollback": all that it does through the fixtures is one transaction. AUTOCOMMIT, '
        "another isolation level, two-phase commits, COMMIT as a statement, and statements such as VACUUM need "
        'isolation="clone", the default.'
    )


def _isolation_of(item: pytest.Item) -> str:
    used = (node.stash[ISOLATION] for node in reversed(item.listchain()) if ISOLATION in node.stash)
    return next(used, None) or wish_of(item).isolation or item.config.stash[RUN].settings_of(item).isolation


def _refused_privilege(item: pytest.Item, error: BaseException) -> str:
    """Why PostgreSQL denied a permission, where the application's role is the cause; else nothing."""
    database = next((node.stash[DATABASE] for node in reversed(item.listchain()) if DATABASE in node.stash), None)
    if database is None or not database.roles.used or _cause(error, "42501") is None:
        return ""
    roles, settings = database.roles, item.config.stash[RUN].settings_of(item)
    return (
        f"The application's connections have the role {', '.join(sorted(roles.used))}, as in production "
        f"(role = {roles.wanted!r}, {settings.source('role')}), and not that of the database's "
        "owner. If the application needs this permission, grant it in a migration. A test that prepares or checks "
        'rows uses seeded_connection or seeded_session, which are the owner\'s; or set role = "owner".'
    )


def _full_memory(item: pytest.Item, error: BaseException) -> str:
    """Where the test's database found no space, where that is not the disk; else nothing."""
    if "pg_tblspc/" not in str(_cause(error, "53100")):
        return ""
    from pytest_seeddb.servers.storage import PARENT

    settings = item.config.stash[RUN].settings_of(item)
    return (
        f"The test's database is in memory, and {PARENT} is full. Make it larger (docker run --shm-size=1g), or set "
        f'storage = "disk" (it is {settings.storage!r}, {settings.source("storage")}).'
    )


def _cause(error: BaseException | None, state: str) -> BaseException | None:
    """The error itself, or what caused it, that has the SQLSTATE."""
    while error is not None and state not in (_sqlstate(error), _sqlstate(getattr(error, "orig", None))):
        error = error.__cause__ or error.__context__
    return error


def _sqlstate(error: object) -> str | None:
    """As psycopg and asyncpg, psycopg2, or pg8000 have it."""
    args: tuple[object, ...] = getattr(error, "args", None) or ({},)
    of_pg8000 = args[0].get("C") if isinstance(args[0], dict) else None
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or of_pg8000


def _longer_life(item: pytest.Item, error: BaseException) -> str:
    """What a fixture can use that keeps a test's database for longer than the test; else nothing."""
    text = str(error)
    if not text.startswith("ScopeMismatch") or not any(f"fixture {name} " in text for name in FIXTURES):
        return ""
    settings = item.config.stash[RUN].settings_of(item)
    return (
        f"A database lives as long as the setting `scope` says: {settings.scope} ({settings.source('scope')}). A "
        "fixture of a larger scope can make its own database with seeded_db_factory. Or give the fixture that scope, "
        "or change the setting."
    )


def show_database(item: pytest.Item, database: SeededDatabase) -> Iterator[str]:
    """What the database of a failed test holds, and how to reach it. It is kept unless the settings say otherwise."""
    if database.isolation != "clone":
        return
    try:
        changes = _changes_and_rows(database)
    except Exception as error:  # noqa: BLE001 - the test's own failure must be shown, whatever state its database is in
        changes = f"the changes cannot be listed: {error}"
    if item.config.stash[RUN].settings_of(item).keep == "none" or not database.lasts:
        yield changes
    else:
        kept = database.keep()
        yield f"seeddb shell {kept.database}\npsql '{kept.without_password.url}'\n{changes}"


def _changes_and_rows(database: SeededDatabase) -> str:
    """What a test wrote, and the rows, where these are few and quickly found."""
    changes = database.changes()
    number = sum(change.inserted + change.updated + change.deleted for change in changes.tables)
    if not 0 < number <= _ROWS or changes.beyond_rows or changes.not_known:
        return str(changes)
    return f"{changes}\n{database.diff()}"


def _hide_secrets(report: pytest.TestReport) -> None:
    """Put ``***`` in the place of every secret that this process knows: arguments and local variables hold some."""
    report.sections = [(name, hide_secrets(text) if name == "seeddb" else text) for name, text in report.sections]
    text = str(report.longrepr)
    hidden = hide_secrets(text)
    if report.longrepr is None or hidden == text:
        return
    report.longrepr = _without_secrets(report.longrepr)
    if str(report.longrepr) != hidden:  # not a dataclass: only its text can be changed
        report.longrepr = hidden


def hide_secrets_of_an_interrupt(config: pytest.Config) -> None:
    """The same for what ``--full-trace`` shows at the end of the place where Ctrl-C was pressed."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if (memo := getattr(reporter, "_keyboardinterrupt_memo", None)) is not None:
        _without_secrets(memo)  # in place


def _without_secrets(part: Any) -> Any:  # noqa: ANN401 - anything that a report is made of
    if isinstance(part, str):
        return hide_secrets(part)
    if isinstance(part, list | tuple):
        return type(part)([_without_secrets(element) for element in part])
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        for field in dataclasses.fields(part):
            object.__setattr__(part, field.name, _without_secrets(getattr(part, field.name)))
    return part
