"""The table of tokens' vectors, beside the obvious versions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.backends import select
from pympi_train.layers.embedding import Embedding

N_TOKENS, WIDTH, COLUMNS = 50, 6, 3


def make(dtype, backend):
    layer = Embedding(N_TOKENS, WIDTH, COLUMNS, dtype=dtype)
    layer.use(select.select(backend).ops, np.dtype(dtype))
    return layer


@pytest.mark.parametrize("backend", select.present())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("k", [0, 1, 7, 3000])
def test_forward_and_backward(k, dtype, backend):
    rng = np.random.default_rng(k)
    table = rng.standard_normal((N_TOKENS, WIDTH)).astype(dtype)
    x = rng.integers(0, N_TOKENS // 2, (k, COLUMNS))  # half of them never occur
    delta = rng.standard_normal((k, COLUMNS * WIDTH)).astype(dtype)
    layer = make(dtype, backend)

    output, saved = layer.forward(x, [table])
    assert_array_equal(output, table[x].reshape(k, COLUMNS * WIDTH))
    found = []
    for _ in range(2):
        grads = [np.full_like(table, np.nan)]
        assert layer.backward(delta, saved, [table], grads) is None
        found.append(grads[0])

    want = np.zeros((N_TOKENS, WIDTH))
    np.add.at(want, x, delta.reshape(k, COLUMNS, WIDTH).astype(np.float64))
    assert_array_equal(*found)  # the same bits in each call
    rtol = 1e-12 if dtype == "float64" else 1e-4
    assert_allclose(found[0], want, rtol=rtol, atol=rtol)


def test_several_passes_are_in_flight():
    layer, table = make("float64", "numpy"), np.random.default_rng(1).random((50, 6))
    rows = [np.full((k, COLUMNS), k) for k in (4, 2, 9)]
    passes = [layer.forward(x, [table]) for x in rows]
    for x, (output, saved) in zip(rows, passes):
        assert_array_equal(output, table[x].reshape(len(x), -1))
        grads = [np.empty_like(table)]
        layer.backward(np.ones_like(output), saved, [table], grads)
        assert grads[0].sum() == output.size and (grads[0][len(x)] != 0).all()
    for _, saved in passes:
        layer.drop(saved)
    again, _ = layer.forward(rows[1], [table])
    assert np.shares_memory(again, passes[2][0])


@pytest.mark.parametrize("counts", [(0, 1, 1), (3, 0, 1), (3, 2, -1), (3, 2, "1")])
def test_counts_are_checked(counts):
    with pytest.raises(ValueError, match="expected an integer >= 1"):
        Embedding(*counts, dtype="float32")
