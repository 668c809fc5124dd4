"""Runs of entries add up to the products of sparse rows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.backends import entry_runs
from pympi_train.backends.csr import CSR


def sums(found, w, n_out):
    """Return what the kernels compute, run by run; each output must be written once."""
    out, pieces = np.zeros((n_out, w.shape[1])), np.full(found.n_pieces, False)
    times, parts = np.zeros(n_out, int), np.empty((found.n_pieces, w.shape[1]))
    for place, start, stop in zip(found.places, found.starts, found.starts[1:]):
        assert 0 <= stop - start <= entry_runs.PIECE
        entries = slice(start, stop)
        total = found.values[entries] @ w[found.indices[entries]]
        if place >= 0:
            out[place], times[place] = total, times[place] + 1
        else:
            assert not pieces[-1 - place]
            parts[-1 - place], pieces[-1 - place] = total, True
    joins = zip(found.join_places, found.join_starts, found.join_starts[1:])
    for place, start, stop in joins:
        assert stop - start > 1 and pieces[start:stop].all()
        out[place], times[place] = parts[start:stop].sum(axis=0), times[place] + 1
    assert (times <= 1).all()
    return out


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.sampled_from([0, 1, 2, 5, 255, 256, 257, 600]), max_size=8),
    n_columns=st.sampled_from([600, 70_000]),
    seed=st.integers(0, 2**32 - 1),
    has_common=st.booleans(),
)
def test_products(counts, n_columns, seed, has_common):
    rng = np.random.default_rng(seed)
    columns = [np.sort(rng.choice(n_columns, c, replace=False)) for c in counts]
    if has_common:  # a column of more rows than a piece
        columns += [np.array([n_columns - 1])] * 300
    pointers = np.cumsum([0, *map(len, columns)])
    indices = np.concatenate([[], *columns]).astype(np.int32)
    values = rng.standard_normal(len(indices))
    x = CSR.of_pointers(pointers, indices, values, n_columns)
    w = rng.standard_normal((n_columns, 2))
    delta = rng.standard_normal((len(x), 2))
    rows, out = x.row_numbers(), np.zeros((len(x), 2))
    np.add.at(out, rows, values[:, None] * w[indices])
    assert_allclose(sums(entry_runs.runs_of_rows(x), w, len(x)), out, atol=1e-12)
    gradient = np.zeros(w.shape)
    np.add.at(gradient, indices, values[:, None] * delta[rows])
    by_column = entry_runs.runs_of_columns(x)
    assert_allclose(sums(by_column, delta, n_columns), gradient, atol=1e-12)
    order = np.argsort(indices, kind="stable")  # in the order of the rows
    assert_array_equal(by_column.values, values[order])
    assert_array_equal(by_column.indices, rows[order])


def test_types_are_those_of_the_kernels():
    starts = np.array([0, 300])
    x = CSR.of_pointers(starts, np.arange(300, dtype=np.int32), np.ones(300, "f4"), 300)
    for found in (entry_runs.runs_of_rows(x), entry_runs.runs_of_columns(x)):
        kinds = [array.dtype.name for array in found.arrays]
        want = ["int32", "float32", "int64", "int32", "int64", "int32"]
        assert kinds == want
    assert entry_runs.runs_of_rows(x).n_pieces == 2
