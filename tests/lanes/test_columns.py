"""Arrays of lanes as columns of blocks, and back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.lanes.columns import LaneColumns

SIZES = st.integers(1, 20), st.integers(1, 18), st.booleans()


@given(*SIZES)
def test_round_trip(n_lanes, n_outputs, is_exact):
    columns = LaneColumns(n_lanes, n_outputs, is_exact)
    arrays = np.arange(1.0, n_lanes * 3 * n_outputs + 1).reshape(n_lanes, 3, n_outputs)
    blocks = columns.pack(arrays)
    assert blocks.shape == (columns.n_blocks, 3, columns.width)
    assert np.array_equal(columns.unpack(blocks), arrays)
    assert blocks.sum() == arrays.sum()  # all other columns are 0
    assert not is_exact or columns.width % 8 == 0
    assert is_exact or columns.n_blocks == 1


@given(*SIZES)
def test_values_by_column(n_lanes, n_outputs, is_exact):
    columns = LaneColumns(n_lanes, n_outputs, is_exact)
    values = np.arange(1.0, n_lanes + 1)
    arrays = np.broadcast_to(values[:, None, None], (n_lanes, 1, n_outputs))
    expected = columns.pack(arrays)
    found = columns.by_column(values)
    assert np.array_equal(found, expected[:, 0])
    assert np.array_equal(columns.lane_sums(found), n_outputs * values)
    two = columns.by_column(np.array([values, -values]))
    assert np.array_equal(two, [found, -found])
    assert np.array_equal(columns.by_lane(columns.by_slot(values)), values)
