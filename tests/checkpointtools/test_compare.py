"""Differences of arrays and of nested values, against the obvious ones."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pympi_train.checkpointtools.compare import changes, differences

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)


def obvious(a, b):
    n, absolute, relative = 0, 0.0, 0.0
    for x, y in zip(a.astype("f8").ravel().tolist(), b.astype("f8").ravel().tolist()):
        if x == y or (np.isnan(x) and np.isnan(y)):
            continue
        gap, size = abs(x - y), max(abs(x), abs(y))
        n += 1
        absolute = max(absolute, np.inf if np.isnan(gap) else gap)
        is_odd = np.isnan(gap) or np.isinf(size)
        relative = max(relative, np.inf if is_odd else gap / size)
    return n, absolute, relative


@given(st.data())
def test_differences(data):
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=2, max_side=4))
    a, b = (data.draw(arrays.arrays("f4", shape, elements=NUMBERS)) for _ in "ab")
    assert differences(a, b) == obvious(a, b)
    assert differences(a, a) == (0, 0.0, 0.0)


def test_differences_of_whole_numbers_and_truth():
    assert differences(np.array([1, 2**40]), np.array([1, 0])) == (1, 2.0**40, 1.0)
    assert differences(np.array([True]), np.array([False])) == (1, 1.0, 1.0)


def test_changes():
    nan = float("nan")
    a = {"a": {"b": 1, "c": nan, "d": [1, 2]}, "e": {}, "f": "x"}
    b = {"a": {"b": 2, "c": nan, "d": [1, 3]}, "e": {}, "g": None}
    assert changes(a, a) == {}
    want = {"a.b": [1, 2], "a.d": [[1, 2], [1, 3]], "f": ["x", None]}
    assert changes(a, b) == want
