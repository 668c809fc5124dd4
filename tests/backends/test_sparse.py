"""Products with sparse rows compared with those of dense rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.backends.csr import CSR

TOLERANCE = {"float32": 2e-5, "float64": 1e-13}


def sparse_rows(rng, k, d, dtype, share=0.2):
    """A dense array with zeros, whole empty rows too, and the same rows as a CSR."""
    dense = rng.standard_normal((k, d)) * (rng.random((k, d)) < share)
    dense[rng.random(k) < 0.2] = 0
    dense = dense.astype(dtype)
    rows, columns = np.nonzero(dense)
    pointers = np.searchsorted(rows, np.arange(k + 1))
    values = dense[rows, columns]
    return dense, CSR.of_pointers(pointers, columns.astype(np.int32), values, d)


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("k, d", [(0, 5), (1, 1), (7, 4), (300, 50)])
def test_products_are_those_of_dense_rows(cpu_ops, dtype, k, d, c):
    rng = np.random.default_rng(k + c)
    dense, x = sparse_rows(rng, k, d, dtype)
    w = rng.standard_normal((d, c)).astype(dtype)
    delta = rng.standard_normal((k, c)).astype(dtype)
    out, gradient = np.full((k, c), np.nan, dtype), np.full((d, c), np.nan, dtype)
    cpu_ops.sparse.csr_matmul(x, w, out)
    cpu_ops.sparse.csr_transposed_matmul(x, delta, gradient)
    assert_allclose(out, dense @ w, atol=TOLERANCE[dtype.name])
    assert_allclose(gradient, dense.T @ delta, atol=5 * TOLERANCE[dtype.name])


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**32),
    k=st.integers(0, 20),
    d=st.integers(1, 12),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    data=st.data(),
)
def test_selected_rows(seed, k, d, share, data):
    from pympi_train.backends.numpy import ops

    rng = np.random.default_rng(seed)
    dense, x = sparse_rows(rng, k, d, "float64", share)
    rows = data.draw(
        st.lists(st.integers(0, k - 1)).map(lambda r: np.array(r, np.intp))
        if k
        else st.just(slice(0, 0))
    )
    part = x[rows]
    assert_array_equal(part.toarray(), dense[rows])
    own = part.compact()
    assert_array_equal(own.toarray(), dense[rows])
    assert len(own.values) == own.n_entries == part.n_entries
    out = np.empty((len(part), 2))
    w = rng.standard_normal((d, 2))
    ops.sparse.csr_matmul(part, w, out)
    assert_allclose(out, dense[rows] @ w, atol=1e-13)
    mask = rng.random(k) < 0.5
    assert_array_equal(x[mask].toarray(), dense[mask])


@pytest.mark.parametrize("c", [1, 2])
def test_results_do_not_know_the_number_of_threads(crew_of, c):
    pytest.importorskip("numba")
    from pympi_train.backends.numba import ops

    rng = np.random.default_rng(0)
    _, x = sparse_rows(rng, 40_000, 50, "float32", 0.6)
    assert x.n_entries > 3 * 262_144  # more than a thread's least share
    w = rng.standard_normal((50, c)).astype("float32")
    delta = rng.standard_normal((len(x), c)).astype("float32")
    results = []
    for n_threads in (1, 3):
        crew_of(n_threads)
        out = np.full((len(x), c), np.nan, "float32")
        gradient = np.full((50, c), np.nan, "float32")
        ops.sparse.csr_matmul(x, w, out)
        ops.sparse.csr_transposed_matmul(x, delta, gradient)
        results.append((out.tobytes(), gradient.tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_order_of_summation_of_vectors(dtype):
    pytest.importorskip("numba")
    from pympi_train.backends.numba import ops

    rng = np.random.default_rng(5)
    _, x = sparse_rows(rng, 150, 60, dtype, 0.3)
    x = x[rng.permutation(150)]  # rows that lie apart are fetched first
    w, delta = (rng.standard_normal((n, 1)).astype(dtype) for n in (60, 150))
    out, gradient = np.empty((150, 1), dtype), np.empty((60, 1), dtype)
    ops.sparse.csr_matmul(x, w, out)
    ops.sparse.csr_transposed_matmul(x, delta, gradient)
    want_out, want = np.zeros_like(out), np.zeros_like(gradient)
    for i, (start, stop) in enumerate(zip(x.starts, x.stops)):
        sums = np.zeros(4, dtype)  # entries in turn; the last few to the first sum
        for e in range(start, stop):
            turn = (e - start) % 4 if e - start < (stop - start) // 4 * 4 else 0
            sums[turn] += x.values[e] * w[x.indices[e], 0]
            want[x.indices[e]] += x.values[e] * delta[i]
        want_out[i] = (sums[0] + sums[1]) + (sums[2] + sums[3])
    assert out.tobytes() == want_out.tobytes()
    assert gradient.tobytes() == want.tobytes()
