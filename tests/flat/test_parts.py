"""Cuts and parts of a flat block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.flat.memory import Layout, Tensor
from pympi_train.flat.parts import Part, even_cuts


@given(st.integers(0, 50), st.integers(0, 400), st.integers(1, 9))
def test_cuts_are_even_and_complete(first, length, n_slices):
    start = 8 * first
    cuts = even_cuts(start, start + length, n_slices)
    assert cuts[0] == start and cuts[-1] == start + length
    sizes = np.diff(cuts)
    assert len(sizes) == n_slices and (sizes >= 0).all()
    assert all(cut % 8 == 0 for cut in cuts[:-1] if cut < start + length)
    assert sizes.max() - sizes.min() < 16  # a step, and an end that is no multiple


@given(
    st.integers(0, 2**60), st.sampled_from([1, 8, 256]), st.sampled_from([63, 64, 999])
)
def test_cuts_are_those_of_a_loop(length, step, n_slices):
    n_steps = -(-length // step)
    want = [min(i * n_steps // n_slices * step, length) for i in range(n_slices)]
    found = even_cuts(0, length, n_slices, step)
    assert found == [*want, length] and {type(cut) for cut in found} == {int}


TENSORS = [
    Tensor("w", (3, 5)),
    Tensor("b", (5,), is_weight=False),
    Tensor("v", (7, 1)),
]


@given(st.integers(1, 6), st.sampled_from(["float32", "float64"]))
def test_parts_hold_every_element_once(n_parts, dtype):
    layout = Layout(TENSORS, dtype)
    cuts = even_cuts(0, layout.size, n_parts)
    block = np.arange(layout.size, dtype=dtype)
    back = np.full_like(block, -1)
    for i in range(n_parts):
        part = Part(layout, [(cuts[i], cuts[i + 1])])
        mine = np.empty(part.size, dtype)
        part.take(block, mine)
        part.put(mine, back)
    np.testing.assert_array_equal(block, back)


@pytest.mark.parametrize("pieces", [[(0, 8), (12, 20)], [(4, 30)], [], [(5, 5)]])
def test_runs_of_a_part_are_those_of_its_elements(pieces):
    layout = Layout(TENSORS, "float32")
    kinds = np.zeros(layout.size, bool)
    for run, is_weight in layout.runs():
        kinds[run] = is_weight
    part = Part(layout, [(a, min(b, layout.size)) for a, b in pieces])
    want = np.empty(part.size, bool)
    part.take(kinds, want)
    got = np.zeros(part.size, bool)
    for run, is_weight in part.runs():
        got[run] = is_weight
    np.testing.assert_array_equal(got, want)
    assert len(part.runs()) <= 1 + np.count_nonzero(want[1:] != want[:-1])
