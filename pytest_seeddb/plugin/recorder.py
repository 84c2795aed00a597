"""Notes what tests do in their databases, where a report is asked for."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import asdict
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

from pytest_seeddb.plugin.run import DATABASE, LENT, RUN, is_seeded
from pytest_seeddb.plugin.uses import Use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.clones.database import SeededDatabase


class Recorder:
    """A plugin that notes what is done in each database, one of a test's own or one that tests share.

    Args:
        uses: Gets what was noted, once a database is settled.
        looks: Whether to look also at what only a look at the database tells, after a few milliseconds: what was
            written by tests that are rolled back, and by those whose database stays.
    """

    def __init__(self, uses: list[Use], *, looks: bool) -> None:
        self._uses = uses
        self._looks = looks
        self._open: dict[SeededDatabase, Use] = {}
        self._current: dict[str, Use] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # around what decides that a failed test's database stays
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:  # noqa: ANN401 - pytest's own
        """Note a test's outcome."""
        report: pytest.TestReport = yield
        if report.when != "teardown":
            for node in reversed(item.listchain()):
                database = node.stash.get(LENT, None) or node.stash.get(DATABASE, None)
                if database is not None:
                    if node is item or LENT in node.stash or is_seeded(item):
                        self.begin(item.nodeid, node.nodeid, database)
                    if report.when == "call" and database.isolation == "rollback":
                        self.look(database)
                    break
        use = self._current.pop(item.nodeid, None) if report.when == "teardown" else self._current.get(item.nodeid)
        if use is not None:
            use.add(report)
        return report

    def begin(self, test: str, node: str, database: SeededDatabase) -> None:
        """A test has a database, which it may share below the node."""
        use = self._current[test] = self._open.setdefault(database, self._new(node, database))
        if test not in use.tests:
            use.tests.append(test)

    def _new(self, node: str, database: SeededDatabase) -> Use:
        record = database.template.record
        return Use(node, database.isolation, f"{record.plan}/{record.profile}", database.seconds)

    def look(self, database: SeededDatabase) -> None:
        """Note what is not told when the database is settled."""
        if self._looks and database in self._open:
            with suppress(Exception):  # whatever state the test has left its database in
                self._open[database].wrote = [asdict(change) for change in database.changes().tables]

    @contextmanager
    def settling(self, node: str, database: SeededDatabase) -> Iterator[None]:
        """Note what becomes of a database in the block, and how long that takes."""
        if database.kept_as:
            self.look(database)
        started = perf_counter()
        yield
        use, settlement = self._open.pop(database, None) or self._new(node, database), database.settlement
        use.settled, use.kept, use.given_away = perf_counter() - started, database.kept_as, database.given_away
        if settlement is not None:
            use.afterwards, use.reason = settlement.verdict, settlement.reason
            use.wrote = [asdict(change) for change in settlement.wrote]
            use.left = [asdict(other) for other in settlement.left]
        else:
            shared = "rollback" if database.isolation == "clone" else database.isolation  # by Django
            use.afterwards = "stay" if database.kept_as else shared
        self._uses.append(use)


def record(config: pytest.Config) -> None:
    """Begin to record."""
    run = config.stash[RUN]
    recorder = Recorder(run.tally.uses, looks=run.settings.report is not True)
    run.settling = recorder.settling
    config.pluginmanager.register(recorder, "seeddb-recorder")
