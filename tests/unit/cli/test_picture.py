"""Where the tables stand in the picture of ``seeddb show``."""

from __future__ import annotations

import pytest

from pytest_seeddb.cli.picture import Reference, layers_of


@pytest.mark.parametrize(
    ("keys", "layers"),
    [
        ([], [["a", "b", "c"]]),
        ([("b", "a"), ("c", "b")], [["a"], ["b"], ["c"]]),
        ([("b", "a"), ("c", "a"), ("c", "b")], [["a"], ["b"], ["c"]]),
        ([("a", "a"), ("b", "a")], [["a", "c"], ["b"]]),
        ([("a", "b"), ("b", "a"), ("c", "a")], [["a"], ["b", "c"]]),
        ([("a", "b"), ("b", "c"), ("c", "a")], [["a"], ["c"], ["b"]]),
    ],
)
def test_a_table_stands_to_the_right_of_those_it_refers_to_and_circles_end(keys, layers):
    assert layers_of("abc", [Reference(table, ("id",), target) for table, target in keys]) == layers
