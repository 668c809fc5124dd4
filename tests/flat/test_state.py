"""A state saved by some ranks is read by ranks with another partition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.backends.numpy import ops
from pympi_train.errors import DataError
from pympi_train.flat.memory import Layout, Tensor
from pympi_train.flat.parts import Part
from pympi_train.flat.state import State, held

SHAPES = st.lists(st.lists(st.integers(1, 5), max_size=3).map(tuple), min_size=1)


def filled(layout):
    """Return a block whose elements are their positions + 1; zero in the padding."""
    block = np.zeros(layout.size)
    for view, start in zip(layout.views(block), layout.offsets):
        view[...] = np.arange(start + 1, start + 1 + view.size).reshape(view.shape)
    return block


@st.composite
def layouts_and_cuts(draw):
    shapes = draw(SHAPES)
    tensors = [Tensor(f"layer/{i}", shape) for i, shape in enumerate(shapes)]
    layout = Layout(tensors, "float64")
    cut = st.integers(0, layout.size)
    parts = []
    for _ in range(2):  # the ranks that save, the ranks that load
        inner = sorted(draw(st.lists(cut, max_size=4)))
        cuts = [0, *inner, layout.size]
        n_ranks = draw(st.integers(1, 3))
        pieces = list(zip(cuts, cuts[1:]))
        parts.append([Part(layout, pieces[rank::n_ranks]) for rank in range(n_ranks)])
    return layout, *parts


def taken(part, block):
    own = np.empty(part.size)
    part.take(block, own)
    return own


@given(layouts_and_cuts())
def test_other_cuts_read_the_same_block(case):
    layout, before, after = case
    block = filled(layout)
    states = [State() for _ in before]
    for state, part in zip(states, before):
        state.add(held("params", part, taken(part, block), ops))
        state.values["steps"] = 3
    whole = State.merged(states)
    assert whole.values == {"steps": 3}
    for part in after:
        found = whole.array_of(held("params", part, np.empty(part.size), ops))
        np.testing.assert_array_equal(found, taken(part, block))


@given(layouts_and_cuts(), st.integers(1, 4), st.integers(1, 4))
def test_blocks_of_each_rank_are_mixed_by_other_numbers_of_ranks(case, n, m):
    layout, _, _ = case
    blocks = [filled(layout) * (rank + 1) for rank in range(n)]
    states = [State() for _ in blocks]
    for rank, (state, block) in enumerate(zip(states, blocks)):
        for mixing in ("mean", "sum"):
            how = {"of_rank": (rank, n), "mixing": mixing}
            state.add(held(mixing, layout, block, ops, **how))
    whole = State.merged(states)
    for rank in range(m):
        for mixing, total in (("mean", sum(blocks) / n), ("sum", sum(blocks) / m)):
            how = {"of_rank": (rank, m), "mixing": mixing}
            found = whole.array_of(held(mixing, layout, blocks[0], ops, **how))
            want = blocks[rank] if n == m else total
            np.testing.assert_allclose(found, want, rtol=1e-15)


@given(layouts_and_cuts())
def test_slices_of_a_part_lie_where_they_did_in_the_block(case):
    """Like the losses of sums: slices of a part, in separate arrays."""
    layout, parts, _ = case
    block = filled(layout)
    for part in parts:
        own = taken(part, block)
        half = part.size // 2
        state = State()
        for name, a, b in (("a", 0, half), ("b", half, part.size)):
            slices = [(a, b, 0)]
            state.add(held(name, part, own[a:b], ops, slices=slices))
        regions = {}
        for name in ("a", "b"):
            for key, found in state.regions.items():
                if key.startswith(f"{name}/"):
                    regions.setdefault(f"x/{key.removeprefix(f'{name}/')}", [])
                    regions[f"x/{key.removeprefix(f'{name}/')}"] += found
        whole = State({}, regions)
        found = whole.array_of(held("x", part, np.empty(part.size), ops))
        np.testing.assert_array_equal(found, own)


def test_what_is_missing_is_named():
    layout = Layout([Tensor("w", (2, 3)), Tensor("b", (3,))], "float32")
    block, state = np.ones(layout.size, np.float32), State()
    params = held("params", layout, block, ops)
    with pytest.raises(DataError, match="params/w: .*found nothing"):
        state.array_of(params)
    first_row = Part(layout, [(0, 3)])
    state.add(held("params", first_row, block[:3], ops))
    rest = r"params/w: .*found not \(\(1, 2\), \(0, 3\)\)"
    with pytest.raises(DataError, match=rest):
        state.array_of(params)
    other = Layout([Tensor("w", (3, 2))], "float32")
    with pytest.raises(DataError, match=r"shape \(3, 2\), found \(2, 3\)"):
        state.array_of(held("params", other, block, ops))


def test_what_is_optional_may_be_missing_as_a_whole_alone():
    layout = Layout([Tensor("w", (2,)), Tensor("b", (2,))], "float64")
    lost = held("residual", layout, np.ones(layout.size), ops, default=0.0)
    state = State()
    assert state.array_of(lost) is None
    state.add(held("residual", Part(layout, [(0, 8)]), np.ones(8), ops))
    with pytest.raises(DataError, match="residual/b"):
        state.array_of(lost)


def test_a_state_is_a_copy():
    layout = Layout([Tensor("w", (4,))], "float64")
    block, state = np.ones(layout.size), State()
    params = held("params", layout, block, ops)
    state.add(params)
    block[:] = 2
    assert state.array_of(params)[:4].tolist() == [1.0] * 4
