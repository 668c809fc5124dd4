"""Planted clocks are found again from planted messages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.trace.clocks import Reading, offset_from, on_common_clock, rounds_of

DELAY = st.tuples(st.floats(1e-7, 1e-2), st.floats(1e-7, 1e-2))


@given(st.floats(-1e4, 1e4), st.lists(DELAY, min_size=1, max_size=20))
def test_a_planted_offset_lies_within_the_error(offset_s, delays):
    sent_s, answered_s, received_s, now_s = [], [], [], 50.0
    for there_s, back_s in delays:
        sent_s.append(now_s)
        answered_s.append(now_s + there_s + offset_s)
        now_s += there_s + back_s
        received_s.append(now_s)
        now_s += 1e-3
    found_s, error_s = offset_from(sent_s, answered_s, received_s)
    assert error_s == pytest.approx(min(map(sum, delays)) / 2, abs=1e-11)
    assert abs(found_s - offset_s) <= error_s + 1e-11


@given(st.integers(1, 300))
def test_the_tree_reaches_each_rank_once_after_its_parent(size):
    rounds = {rank: rounds_of(rank, size) for rank in range(size)}
    for rank, mine in rounds.items():
        parents = [other for other, is_parent in mine if is_parent]
        assert len(parents) == (rank > 0)
        assert [is_parent for _, is_parent in mine[1:]] == [False] * len(mine[1:])
        assert len(mine) <= max(1, (size - 1).bit_length())
        for other, is_parent in mine:
            assert (rank, not is_parent) in rounds[other]
    # The obvious version: pairs in the order of the rounds, each rank's own order kept.
    known, left = {0}, {rank: list(mine) for rank, mine in rounds.items()}
    while any(left.values()):
        ready = [
            rank
            for rank in known
            if left[rank] and left[left[rank][0][0]][0][0] == rank
        ]
        assert ready
        for rank in ready:
            child, _ = left[rank].pop(0)
            left[child].pop(0)
            known.add(child)
    assert known == set(range(size))


@given(
    st.floats(-1e3, 1e3),
    st.floats(-1e-4, 1e-4),
    st.floats(1.0, 1e5),
    st.lists(st.floats(0, 1), min_size=1, max_size=10),
)
def test_a_planted_drift_is_taken_back(offset_s, drift, seconds, parts):
    start_s = 1000.0
    own_s = start_s + seconds * np.array(parts)
    root_s = own_s + offset_s + drift * (own_s - start_s)
    first = Reading(start_s, offset_s)
    last = Reading(start_s + seconds, offset_s + drift * seconds)
    assert on_common_clock(own_s, first, last) == pytest.approx(root_s, abs=1e-7)


def test_beyond_the_readings_the_nearer_one_counts():
    first, last = Reading(10.0, 1.0), Reading(20.0, 3.0)
    found = on_common_clock(np.array([0.0, 15.0, 30.0]), first, last)
    assert found.tolist() == [1.0, 17.0, 33.0]
    assert on_common_clock(np.array([4.0]), first, first).tolist() == [5.0]
