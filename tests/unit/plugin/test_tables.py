"""What a conftest has in place of the plugin's fixtures."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from unittest import mock

import pytest

from pytest_seeddb.plugin import fixtures
from pytest_seeddb.plugin.run import Run
from pytest_seeddb.plugin.tables import overrides_in


def test_a_fixture_goes_by_its_name_and_not_by_its_function_s():
    conftest = ModuleType("conftest")

    @pytest.fixture(name="seeddb_settings")
    def _settings(): ...

    @pytest.fixture
    def seeded_db(): ...

    @pytest.fixture(name="other")
    def seeddb_plan(): ...

    def _older(): ...

    _older._pytestfixturefunction = SimpleNamespace(name="seeddb_server")
    given = {"_settings": _settings, "seeded_db": seeded_db, "_older": _older}
    vars(conftest).update({**given, "seeddb_plan": seeddb_plan, "call": mock.call, "seeds": 1})
    assert overrides_in(conftest, fixtures) == given


def test_only_those_leave_their_server_whose_clones_are_gone():
    run = Run(mock.Mock(), {})
    run.tally = mock.Mock()
    done, busy = mock.Mock(is_finished=True), mock.Mock(is_finished=False)
    run.workers = [busy, done]
    run.leave()
    assert run.workers == [busy]
    assert done.leave.called
    assert not busy.leave.called
