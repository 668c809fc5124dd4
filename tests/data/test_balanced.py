"""Shares by which fast and slow ranks take equally long."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.data.balanced import GAIN, LEAST, MOST, balanced_cuts
from pympi_train.data.partition import bounds

SPEED = st.floats(0.01, 100)
SPEEDS = st.lists(SPEED, min_size=1, max_size=12)


def longest(cuts, speeds):
    return (np.diff(cuts) / speeds).max()


def best(n, speeds):
    """The shortest possible time within the bounds of shares, by trying many."""
    even = n / len(speeds)
    low, high = LEAST * even, MOST * even
    times = np.geomspace(low / max(speeds), high / min(speeds), 20_000)
    shares = np.clip(times[:, None] * speeds, low, high)
    time = times[np.argmax(shares.sum(axis=1) >= n)]
    return max(time, low / min(speeds))


@given(SPEEDS, st.integers(0, 10**12))
def test_each_row_is_on_one_rank_and_shares_are_bounded(speeds, n):
    size = len(speeds)
    old = bounds(n, size)
    new = balanced_cuts(old, speeds)
    assert (new[0], new[-1], len(new)) == (0, n, size + 1)
    shares = np.diff(new)
    if new == old:
        return
    assert (shares >= min(n // size, max(1, LEAST * n / size - 1))).all()
    assert (shares <= MOST * n / size + 1).all()
    assert longest(new, speeds) <= (1 - GAIN) * longest(old, speeds)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=9), st.data())
def test_ranks_that_were_not_measured_keep_their_rows(counts, data):
    speeds = [data.draw(st.sampled_from([0.0, np.nan, 1.0, 3.0])) for _ in counts]
    old = np.cumsum([0, *counts]).tolist()
    new = balanced_cuts(old, speeds)
    assert new[-1] == old[-1]
    for before, after, speed in zip(counts, np.diff(new).tolist(), speeds):
        if before == 0 or not speed > 0:
            assert after == before
        assert after > 0 or before == 0


@given(st.lists(SPEED, min_size=2, max_size=12))
def test_repeated_moves_approach_the_shortest_time_and_end(speeds):
    n = 1_000_000
    cuts = bounds(n, len(speeds))
    for _ in range(30):
        cuts, before = balanced_cuts(cuts, speeds), cuts
    assert cuts == before
    assert longest(cuts, speeds) <= 1.08 * best(n, np.array(speeds))


@given(st.floats(0, 0.04), st.integers(2, 12), st.integers(0, 99))
def test_small_differences_move_nothing(noise, size, seed):
    speeds = 1 + noise * np.random.default_rng(seed).random(size)
    assert balanced_cuts(bounds(10**6, size), speeds) == bounds(10**6, size)


def test_one_rank_of_half_the_speed():
    cuts = balanced_cuts([0, 400, 800, 1200], [100, 100, 50])
    assert cuts == [0, 460, 920, 1200]
    assert balanced_cuts(cuts, [100, 100, 50]) == [0, 475, 950, 1200]


def test_whole_groups_move():
    cuts = balanced_cuts([0, 2, 5, 8], [1, 1, 0.5])
    assert cuts == [0, 3, 7, 8]
    assert balanced_cuts([0, 1, 2, 3], [1, 1, 0.1]) == [0, 1, 2, 3]


def test_a_constant_part_of_the_time_only_slows_the_approach():
    cuts, seconds_a_row = bounds(9000, 3), np.array([1.0, 1.0, 2.0])
    for _ in range(9):
        counts = np.diff(cuts)
        times = 2000 + counts * seconds_a_row
        cuts = balanced_cuts(cuts, counts / times)
    assert (2000 + np.diff(cuts) * seconds_a_row).max() < 1.06 * (2000 + 3600)
