"""Successive halving on planted scores."""

import math

from hypothesis import given
from hypothesis import strategies as st

from pympi_train.search.rungs import (
    ETA,
    Asha,
    asha_rungs,
    halving_rungs,
    rung_epochs,
    survivors,
)

COSTS = st.lists(st.integers(0, 99) | st.just(math.inf), min_size=1, max_size=60)


@given(st.integers(1, 10**6), st.integers(1, 30))
def test_rungs_ascend_by_the_factor_to_all_epochs(epochs, n_rungs):
    rungs = rung_epochs(epochs, n_rungs)
    assert rungs[-1] == epochs and 1 <= len(rungs) <= n_rungs and rungs[0] >= 1
    assert all(low == epochs // ETA ** (len(rungs) - 1 - i)
               for i, low in enumerate(rungs))
    assert sorted(set(rungs)) == rungs


def test_number_of_rungs():
    assert halving_rungs(100, 1) == [100]
    assert halving_rungs(100, 2) == [100]
    assert halving_rungs(100, 9) == [11, 33, 100]
    assert halving_rungs(2, 100) == [2]
    assert asha_rungs(1) == [1]


@given(COSTS)
def test_halving_drops_the_right_ones(costs):
    stay = survivors(dict(enumerate(costs)))
    n = max(1, len(costs) // ETA)
    obvious = sorted(range(len(costs)), key=lambda i: (costs[i], i))[:n]
    assert stay == [i for i in obvious if costs[i] < math.inf]


def run_asha(costs, epochs, in_flight):
    """The (trial, rung) that are trained, with results told in the order of asking."""
    asha, asked, flying = Asha(asha_rungs(epochs), len(costs)), [], []
    while True:
        found = asha.ask() if len(flying) < in_flight else None
        if found is not None:
            asked.append(found)
            flying.append(found)
        elif flying:
            trial, rung = flying.pop(0)
            asha.tell(trial, rung, costs[trial])
        else:
            return asked


@given(COSTS, st.integers(1, 30), st.integers(1, 9))
def test_asha_trains_each_trial_once_a_rung_and_upwards(costs, epochs, in_flight):
    asked = run_asha(costs, epochs, in_flight)
    assert len(set(asked)) == len(asked)
    assert {trial for trial, rung in asked if rung == 0} == set(range(len(costs)))
    for i, (trial, rung) in enumerate(asked):
        assert rung == 0 or (trial, rung - 1) in asked[:i]
    n_rungs = len(asha_rungs(epochs))
    for rung in range(n_rungs - 1):
        begun = sum(r == rung for _, r in asked)
        assert sum(r == rung + 1 for _, r in asked) <= 1 + begun * 2 // ETA
    if n_rungs > 1 and len(costs) >= ETA and min(costs) < math.inf:
        best = min(range(len(costs)), key=lambda i: (costs[i], i))
        assert (best, 1) in asked  # scores do not change from rung to rung here


def test_asha_on_planted_scores():
    costs = [5, 4, 3, 2, 1, 0, 9, 9, 9]
    asked = run_asha(costs, epochs=9, in_flight=1)
    assert asked[:4] == [(0, 0), (1, 0), (2, 0), (2, 1)]
    assert {trial for trial, rung in asked if rung == 1} == {2, 3, 4, 5}
    assert {trial for trial, rung in asked if rung == 2} <= {4, 5}
