"""The pytest plugin: hooks and options only. Every pytest run on a machine that has it imports it.

So it imports nothing heavy, and leaves the work to the other modules when a test asks for it.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from pytest_seeddb.plugin import fast_imports, markers, run  # noqa: F401 - the first is for its effect
from pytest_seeddb.plugin.report import Tally, masked
from pytest_seeddb.plugin.run import DISABLED, RUN, is_enabled
from pytest_seeddb.plugin.tables import Tables
from pytest_seeddb.servers import libpq

if TYPE_CHECKING:
    from collections.abc import Generator

_OUTPUT = "seeddb"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options. Their defaults are None, so that they never hide the table."""
    from pytest_seeddb.settings.settings import KEYS

    group = parser.getgroup("seeddb", "seeded PostgreSQL databases (pytest-seeddb)")
    group.addoption(
        "--seed-db", action="store_true", default=None, help="Run seeded tests; without it they are skipped."
    )
    for key in KEYS.values():
        if key.option:
            about = key.about.replace("`", "")
            kinds: dict[str, dict[str, Any]] = {
                "": {"action": "store_true"},
                "[=...]": {"nargs": "?", "const": True, "metavar": key.name.upper()},
                "=...": {"metavar": key.name.upper()},
            }
            group.addoption(key.option, default=None, help=about, **kinds[key.takes])


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before other plugins import an application's settings
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Prepare for the import of conftests and tests."""
    from pytest_seeddb.plugin import fixtures

    run.prepare(early_config, fixtures)
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings, and serve Django and pytest-django if they are there."""
    run.begin(config)
    _join_others(config)


def _join_others(config: pytest.Config) -> None:
    if RUN not in config.stash:
        return
    config.pluginmanager.register(Tables(), "seeddb-tables")
    settings = config.stash[RUN].settings
    if settings.report and not run.only_shows(config):
        from pytest_seeddb.plugin.recorder import record

        record(config)
        if settings.report is not True and not hasattr(config, "workerinput"):
            from pytest_seeddb.plugin.page import Page

            config.pluginmanager.register(Page(config, settings.report), "seeddb-page")
    if settings.migrations != "django":
        return
    from pytest_seeddb.plugin.django.models import has_pytest_django, set_up_models

    set_up_models(config, settings)
    if is_enabled(config) and has_pytest_django(config):
        from pytest_seeddb.plugin.django import fixtures

        config.pluginmanager.register(fixtures, "seeddb-django")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which server will be used, without starting it."""
    if RUN not in config.stash or not is_enabled(config) or config.get_verbosity() < 0:
        return None
    from pytest_seeddb.servers.opening import describe

    settings = config.stash[RUN].settings
    role = "" if settings.role == "application" else f", role {settings.role}"
    return f"seeddb: {describe(settings)}, profile {settings.profile or 'default'}{role}"


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the users of our fixtures, and skip seeded tests where they are not enabled."""
    if RUN not in config.stash:
        return
    for item in items:
        if not item.get_closest_marker(markers.NAME):
            if not markers.uses_a_fixture(getattr(item, "fixturenames", ())):
                continue
            from pytest_seeddb.plugin.clashes import clashes, uses_the_plugin

            config.stash[RUN].note_clashes(clashes(item), item)
            if not uses_the_plugin(item):
                continue
            item.add_marker(markers.NAME)
        if run.is_skipped(item):
            item.add_marker(pytest.mark.skip(reason=DISABLED))


@pytest.hookimpl(tryfirst=True)  # before an xdist worker tells which tests there are
def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse wrong markers, and settings that name what is not there, before the first test runs."""
    if RUN in session.config.stash and (is_enabled(session.config) or session.config.stash[RUN].broken):
        run.check(session)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:  # noqa: ANN401 - pytest's own
    """Keep variables of the shell, which are about other servers, from a seeded test and its fixtures."""
    if RUN not in item.config.stash or not is_enabled(item.config) or not run.is_seeded(item):
        return (yield)
    with item.config.stash[RUN].around_test():
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)  # inside of what captures output and logs
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Any:  # noqa: ANN401 - pytest's own
    """Settle a test's database once the whole tear-down is over."""
    if RUN not in item.config.stash or not is_enabled(item.config):
        return (yield)
    from pytest_seeddb.plugin.teardown import settle_after

    is_last = nextitem is None and item.get_closest_marker(markers.NAME) is not None
    return (yield from settle_after(item, is_last=is_last))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:  # noqa: ANN401 - pytest's own
    """Show errors of the plugin without its traceback, a failed test's database, and no secrets."""
    if call.excinfo is not None:
        from pytest_seeddb.plugin import failures

        failures.shorten(item, call)
    report: pytest.TestReport = yield
    if RUN in item.config.stash and (call.excinfo is not None or report.failed):
        from pytest_seeddb.plugin import failures

        failures.explain(report, item, call)
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Which rows differ where ``seeded_db.diff()`` is not equal to what a test expects."""
    diff = sys.modules.get("pytest_seeddb.clones.diff")  # else nobody has one
    explanation: list[str] | None = diff.explain(left, right) if diff and op == "==" else None
    return explanation


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what this process did to xdist's controller, if there is one; show no secret after Ctrl-C."""
    from pytest_seeddb.plugin import failures

    failures.hide_secrets_of_an_interrupt(session.config)
    run.note_outside(session.config)
    if RUN in session.config.stash:
        session.config.stash[RUN].leave()  # where a conftest has a server of its own
    output = getattr(session.config, "workeroutput", None)
    if output is not None and RUN in session.config.stash:
        output[_OUTPUT] = masked(asdict(session.config.stash[RUN].tally))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401 - xdist's WorkerController
    """Tell an xdist worker which of libpq's variables the shell has set, and not a conftest."""
    node.workerinput[run.SHELL] = libpq.names_in_shell()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 - xdist's WorkerController
    """Add what an xdist worker did, or end the run with what it found wrong."""
    output = getattr(node, "workeroutput", {})
    run.raise_usage_error_of(output)
    if data := output.get(_OUTPUT):
        uses = data.pop("uses")
        if uses:
            from pytest_seeddb.plugin.uses import Use

            uses = [Use(**use) for use in uses]
        node.config.stash[RUN].tally.merge(Tally(**data, uses=uses))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was built, reused and cloned."""
    if RUN not in config.stash:
        return
    tally, settings = config.stash[RUN].tally, config.stash[RUN].settings
    lines = tally.lines() if config.get_verbosity() >= 0 else dict.fromkeys(tally.failures)
    if settings.report is True:  # asked for by name, so with -q, too
        from pytest_seeddb.plugin import uses

        lines = [*lines, *uses.lines(tally.uses)]
    for line in [*lines, *tally.warnings()]:
        terminalreporter.write_line(f"seeddb: {line}")
