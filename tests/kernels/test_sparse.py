"""The kernels of products with sparse rows, compared with dense ones in float64."""

import numpy as np
import pytest
from kernel_runs import Kind
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.backends import entry_runs as made
from pympi_train.backends.csr import CSR

WHOLE = [Kind("f32"), Kind("f64")]
whole = pytest.mark.parametrize("kind", WHOLE, ids=repr)
# Rows, columns, outputs, and the share of entries that are there.
SIZES = [
    (0, 5, 1, 0.5),
    (1, 1, 1, 1.0),  # one entry
    (7, 4, 3, 0.0),  # none
    (37, 70, 1, 0.1),  # empty rows and columns
    (100, 33, 2, 0.3),
    (9, 12, 33, 0.5),
    (5, 3, 70, 0.9),
    (3, 900, 1, 0.9),  # rows longer than a piece
    (600, 3, 5, 0.95),  # columns longer than a piece
]
SHARES = [(1, 1), (4, 1), (8, 8), (32, 2), (32, 32)]  # lanes of a run, and of outputs


def sparse_rows(rng, k, d, share, kind):
    dense = rng.standard_normal((k, d)) * (rng.random((k, d)) < share)
    dense = dense.astype(kind.dtype)
    rows, columns = np.nonzero(dense)
    pointers = np.searchsorted(rows, np.arange(k + 1))
    values = dense[rows, columns]
    return dense, CSR.of_pointers(pointers, columns.astype(np.int32), values, d)


def product(run, place, kind, runs, w, n_out, lanes, width):
    """Return what the kernels make of some EntryRuns and a dense factor."""
    c, t = w.shape[1], [place(part) for part in runs.arrays]
    indices, values, starts, places, join_starts, join_places = t
    out = place(np.zeros((n_out, c), kind.dtype))
    pieces = place(np.full((runs.n_pieces, c), np.nan, kind.dtype))
    how = np.int64(c), np.int32(lanes), np.int32(width)
    entries = starts, places, indices, values, np.int64(len(places))
    run("sparse", f"csr_times_{kind}", *entries, place(w), *how, out, pieces)
    joins = join_starts, join_places, pieces, np.int64(len(join_places))
    run("sparse", f"csr_join_{kind}", *joins, *how, out)
    return out


@whole
@pytest.mark.parametrize("k, d, c, share", SIZES)
@pytest.mark.parametrize("lanes, width", SHARES)
def test_products(run, place, rng, kind, k, d, c, share, lanes, width):
    dense, x = sparse_rows(rng, k, d, share, kind)
    w = rng.standard_normal((d, c)).astype(kind.dtype)
    delta = rng.standard_normal((k, c)).astype(kind.dtype)
    how = lanes, width
    out = product(run, place, kind, made.runs_of_rows(x), w, k, *how)
    gradient = product(run, place, kind, made.runs_of_columns(x), delta, d, *how)
    wide, limit = dense.astype(float), 2e-4 if kind.suffix == "f32" else 1e-12
    assert_allclose(out, wide @ w, atol=limit)
    assert_allclose(gradient, wide.T @ delta, atol=limit)


@whole
def test_bits_do_not_depend_on_the_order_of_threads(orders, place, rng, kind):
    _, x = sparse_rows(rng, 300, 40, 0.9, kind)
    delta = rng.standard_normal((300, 3)).astype(kind.dtype)
    runs = made.runs_of_columns(x)
    found = [product(one, place, kind, runs, delta, 40, 16, 4) for one in orders]
    assert_array_equal(*found)


def test_what_is_not_finite_stays_in_its_rows(run, place, rng):
    kind = WHOLE[0]
    dense, x = sparse_rows(rng, 20, 30, 0.3, kind)
    w = rng.standard_normal((30, 2)).astype(kind.dtype)
    w[7, 1] = np.nan
    out = product(run, place, kind, made.runs_of_rows(x), w, 20, 8, 2)
    assert_array_equal(np.isnan(out[:, 1]), dense[:, 7] != 0)
    assert not np.isnan(out[:, 0]).any()
