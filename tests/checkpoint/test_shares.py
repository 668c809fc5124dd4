"""What several ranks hold is written once, in shares of sufficient size."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.checkpoint import shares
from pympi_train.checkpoint.shares import LEAST_BYTES, stretch
from pympi_train.flat.state import Region, State


@given(st.integers(0, 10 * LEAST_BYTES), st.integers(1, 50))
def test_stretches_cover_each_byte_once(n_bytes, n_holders):
    end, writers = 0, []
    for number in range(n_holders):
        start, stop = stretch(n_bytes, number, n_holders)
        if start < stop:
            assert start == end
            end, writers = stop, [*writers, number]
            assert stop - start >= min(n_bytes, LEAST_BYTES)
    assert end == n_bytes
    assert len(writers) == (n_bytes > 0) * max(
        1, min(n_holders, n_bytes // LEAST_BYTES)
    )


def test_writers_are_spread_over_the_holders():
    found = [n for n in range(9) if stretch(3 * LEAST_BYTES, n, 9) != (0, 0)]
    assert found == [0, 3, 6]


@given(
    st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=4),
    st.integers(1, 5),
)
def test_parts_of_regions_make_up_the_whole(tensor_shapes, n_holders):
    state, tensors = State(), []
    for i, shape in enumerate(map(tuple, tensor_shapes)):
        dtype = [np.float64, np.float32][i % 2]
        array = np.arange(np.prod(shape, dtype=int), dtype=dtype).reshape(shape)
        box = tuple((2, 2 + n) for n in shape)
        whole = tuple(n + 5 for n in shape)
        state.regions[f"t{i}"] = [Region(whole, box, array)]
        tensors.append(f"t{i}")
    total = sum(state.regions[t][0].array.nbytes for t in tensors)
    joined = State()
    for number in range(n_holders):
        start, stop = total * number // n_holders, total * (number + 1) // n_holders
        for name, region in shares._cut(state, tensors, start, stop):
            assert region.array.shape == tuple(b - a for a, b in region.box)
            joined.regions.setdefault(name, []).append(region)
    for name in tensors:
        (region,) = state.regions[name]
        out = np.full(region.array.shape, -1, region.array.dtype)
        joined.read(name, region.shape, region.box, out)
        np.testing.assert_array_equal(out, region.array)
        n_written = sum(r.array.size for r in joined.regions.get(name, ()))
        assert n_written == region.array.size
