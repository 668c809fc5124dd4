"""Boxes hold every element exactly once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.flat.boxes import (
    boxes_of,
    difference,
    intersection,
    size_of,
    stretch_around,
    within,
)

SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@st.composite
def stretches(draw):
    shape = draw(SHAPES)
    size = int(np.prod(shape, dtype=int))
    cuts = sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size))))
    return shape, *cuts


@st.composite
def boxes(draw, shape):
    pairs = [draw(st.tuples(st.integers(0, n), st.integers(0, n))) for n in shape]
    return tuple(tuple(sorted(pair)) for pair in pairs)


def elements(shape, box):
    """Return the indices of the elements of a box, in order."""
    numbers = np.arange(int(np.prod(shape, dtype=int))).reshape(shape)
    return numbers[tuple(slice(*pair) for pair in box)].ravel().tolist()


@given(stretches())
def test_a_stretch_is_its_boxes_one_after_the_other(stretch):
    shape, start, stop = stretch
    found = boxes_of(shape, start, stop)
    assert sum((elements(shape, box) for box in found), []) == list(range(start, stop))
    assert len(found) <= max(1, 2 * len(shape) - 1)


@given(SHAPES.flatmap(lambda s: st.tuples(st.just(s), boxes(s), boxes(s))))
def test_intersection_and_difference_are_those_of_sets(case):
    shape, a, b = case
    first, second = set(elements(shape, a)), set(elements(shape, b))
    common = intersection(a, b)
    both = set() if common is None else set(elements(shape, common))
    assert both == first & second
    if common is not None:
        rest = [elements(shape, box) for box in difference(a, common)]
        assert sorted(sum(rest, [])) == sorted(first - second)  # no element twice
        assert size_of(common) == len(first & second)
        numbers = np.arange(int(np.prod(shape, dtype=int))).reshape(shape)
        mine = numbers[tuple(slice(*pair) for pair in a)]
        assert mine[within(common, a)].ravel().tolist() == elements(shape, common)


@given(SHAPES.flatmap(lambda s: st.tuples(st.just(s), boxes(s))))
def test_stretch_around_a_box_is_the_shortest_one(case):
    shape, box = case
    start, stop, outer = stretch_around(shape, box)
    numbers = np.arange(int(np.prod(shape, dtype=int)))
    held = numbers[start:stop].reshape([high - low for low, high in outer])
    wanted = elements(shape, box)
    assert held[within(box, outer)].ravel().tolist() == wanted
    assert held.ravel().tolist() == elements(shape, outer)
    if wanted and wanted == list(range(wanted[0], wanted[-1] + 1)):
        assert (start, stop) == (wanted[0], wanted[-1] + 1)
