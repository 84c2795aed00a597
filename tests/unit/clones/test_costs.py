"""Whether rows are put back or a new clone is made: by what each of them has really taken."""

from pytest_seeddb.clones.settle import Costs


def test_rows_are_put_back_until_a_clone_was_timed():
    assert not Costs().prefer_clone(100.0)


def test_the_cheaper_is_preferred_by_what_both_really_took():
    costs = Costs()
    costs.learn_clone(0.010)
    assert costs.prefer_clone(0.020)
    assert not costs.prefer_clone(0.005)
    for _ in range(50):
        costs.learn_rewind(0.020, 0.004)  # it takes a fifth of its estimate
    assert not costs.prefer_clone(0.020)
    for _ in range(50):
        costs.learn_clone(0.001)
    assert costs.prefer_clone(0.020)


def test_the_dearer_is_tried_now_and_then_so_that_a_bad_estimate_does_not_stay():
    costs = Costs()
    costs.learn_clone(0.010)
    assert [costs.prefer_clone(0.020) for _ in range(40)].count(False) == 2
