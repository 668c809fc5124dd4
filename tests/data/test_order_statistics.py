"""Order statistics over ranks are those of the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from spread import SPREADS, own

from pympi_train.data.order_statistics import _keys, _values, medians, select

floats = st.floats(allow_nan=False, allow_infinity=False)


class Alone:
    """A communicator of one rank, as far as ``reduced`` asks."""

    size = 1


@given(st.lists(floats, min_size=1))
def test_keys_are_in_the_order_of_the_values(values):
    values = np.array(values)
    keys = _keys(values)
    assert_array_equal(_values(keys), values)
    assert_array_equal(values[np.argsort(keys, kind="stable")], np.sort(values))


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2)), min_size=1))
def test_select_finds_what_sorting_finds(pairs):
    keys, groups = np.array([p[0] for p in pairs], np.uint64), [p[1] for p in pairs]
    groups = np.array(groups, np.intp)
    counts = np.bincount(groups, minlength=3)
    places = np.stack([np.zeros(3, int), counts // 2, np.maximum(counts - 1, 0)], 1)
    halves = np.array_split(np.arange(len(keys)), 2)
    found = select(lambda: ((keys[h], groups[h]) for h in halves), places, Alone())
    for group in np.flatnonzero(counts):
        want = np.sort(keys[groups == group])[places[group]]
        assert_array_equal(found[group], want)


@given(st.lists(st.lists(floats | st.just(np.nan), min_size=2, max_size=2), min_size=1))
def test_median_is_numpy_s_and_does_not_overflow(rows):
    x = np.array(rows)
    found = medians(x, np.ones(len(x), bool), (~np.isnan(x)).sum(axis=0), Alone())
    for column, median in zip(x.T, found):
        values = np.sort(column[~np.isnan(column)])
        if not len(values):
            assert np.isnan(median)
            continue
        low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
        assert low <= median <= high
        with np.errstate(over="ignore"):
            if np.isfinite(low + high):
                assert median == np.median(values)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", SPREADS)
def test_medians_over_ranks(comm, spread):
    """Some rank has no row; the last column has values on one rank alone."""
    rng = np.random.default_rng(3)
    n = 101
    x = np.round(rng.standard_normal((n, 4)), 1) * 10.0 ** rng.integers(-3, 4, 4)
    x[rng.random((n, 4)) < 0.2] = np.nan
    x[:-3, 3] = np.nan
    x[-3:, 3] = 7.0, 9.0, 8.0
    keep = rng.random(n) < 0.7
    keep[-3:] = True
    mine = own(comm, n, spread)
    counts = (~np.isnan(x[keep])).sum(axis=0)
    found = medians(x[mine], keep[mine], counts, comm)
    assert_array_equal(found, np.nanmedian(x[keep], axis=0))
