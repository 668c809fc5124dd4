"""Properties of the buckets of a gradient block, for any layers."""

from hypothesis import given
from hypothesis import strategies as st

import pympi_train as pt
from pympi_train.flat.buckets import layer_bounds, make_buckets


@st.composite
def layers(draw):
    sizes = draw(st.lists(st.integers(0, 60), min_size=0, max_size=8))
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + 8 * size)
    return list(zip(ends, ends[1:]))


@given(layers(), st.integers(8, 600))
def test_every_element_once_from_the_end(layers, most):
    buckets = make_buckets(layers, most)
    end = layers[-1][1] if layers else 0
    for start, stop in buckets:
        assert start < stop == end
        end = start
    assert end == 0


@given(layers(), st.integers(8, 600))
def test_whole_layers_or_pieces_of_one(layers, most):
    starts = {start for start, _ in layers}
    for start, stop in make_buckets(layers, most):
        assert stop - start <= most
        whole = start in starts and stop in starts | {layers[-1][1]}
        assert whole or any(a <= start and stop <= b for a, b in layers)


@given(layers(), st.integers(8, 600))
def test_two_neighbours_would_be_too_large_together(layers, most):
    buckets = make_buckets(layers, most)
    large = [(a, b) for a, b in layers if b - a > most // 8 * 8]
    for (start, stop), (low, high) in zip(buckets, buckets[1:]):
        pieces = any(a <= low < b or a <= start < b for a, b in large)
        assert stop - low > most // 8 * 8 or pieces


@given(layers(), st.integers(8, 600))
def test_pieces_of_a_layer_are_about_equal(layers, most):
    for a, b in layers:
        if b - a > most // 8 * 8:
            sizes = [y - x for x, y in make_buckets(layers, most) if a <= x < b]
            assert max(sizes) - min(sizes) <= 8


def test_bounds_of_layers_hold_their_padding():
    tensors = [pt.Tensor(name, (n,)) for name, n in zip("abc", (3, 5, 2))]
    layout = pt.Layout(tensors, "float32")
    assert layer_bounds(layout, (slice(0, 2), slice(2, 3))) == [(0, 16), (16, 24)]
    assert layer_bounds(layout, ()) == []
