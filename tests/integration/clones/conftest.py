"""What the tests of clones share."""

import pytest

from pytest_seeddb.clones.settle import Costs


@pytest.fixture(autouse=True)
def rewinding_is_always_the_cheaper(monkeypatch):
    """Which is cheaper is measured, so it may be another from run to run."""
    monkeypatch.setattr(Costs, "prefer_clone", lambda self, estimate: False)
