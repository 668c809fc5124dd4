"""The largest elements, and their sums over ranks."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pympi_train.comm.sums.topk import STRIDE, TopK, largest


@pytest.mark.parametrize("n, k", [(1, 1), (10, 10), (50_000, 500), (50_000, 1)])
@pytest.mark.parametrize("kind", ["normal", "equal", "sparse", "hidden"])
def test_finds_the_largest(n, k, kind):
    x = np.random.default_rng(n).standard_normal(n)
    if kind == "equal":
        x[:] = -1
    if kind == "sparse":
        x[k // 2 :] = 0
    if kind == "hidden":  # the sample sees nothing but what is large
        x[:] = 1e-3 * x
        x[::STRIDE] = 1
    found = largest(x, k)
    assert len(np.unique(found)) == k
    assert_array_equal(np.sort(np.abs(x[found])), np.sort(np.abs(x))[n - k :])


def blocks_of(comm, n, dtype="float64"):
    """What each rank has, on every rank; rank 1 has nothing."""
    rng = np.random.default_rng(5)
    blocks = [rng.standard_normal(n).astype(dtype) for _ in range(comm.size)]
    if comm.size > 1:
        blocks[1][:] = 0
    return blocks


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("piece", [2**24, 600])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sum(comm, piece, dtype):
    blocks, n = blocks_of(comm, 1000, dtype), 1000
    want = np.zeros(n, dtype)
    for b in blocks:
        for start in range(0, n, piece):
            part = b[start : start + piece]
            k = -(-part.size // 100)
            i = np.argsort(np.abs(part))[part.size - k :]
            want[start : start + piece][i] += part[i]
    block, total = blocks[comm.rank].copy(), TopK(comm, n, dtype, piece=piece)
    total.sum(block)
    assert_array_equal(block, want)
    assert total.sent_bytes == 10 * (4 + block.itemsize) * (comm.size - 1)


@pytest.mark.mpi(min_size=2)
def test_mean_of_many_sums_approaches_the_sum(comm):
    blocks = blocks_of(comm, 500)
    want, total = np.sum(blocks, axis=0), TopK(comm, 500, "float64", share=0.1)
    mean, errors = np.zeros(500), []
    for t in range(1, 201):
        block = blocks[comm.rank].copy()
        total.sum(block)
        mean += (block - mean) / t
        errors.append(np.linalg.norm(mean - want) / np.linalg.norm(want))
    assert errors[199] < 0.1 and errors[199] < errors[19] / 5


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n_wrong", [1, 300])
def test_a_wrong_number_reaches_all_and_is_forgotten(comm, n_wrong):
    block, total = np.ones(20_000, np.float32), TopK(comm, 20_000, "float32")
    if comm.rank == comm.size - 1:
        block[17 : 17 + n_wrong] = np.resize([np.nan, np.inf, -np.inf], n_wrong)
    total.sum(block)
    assert not np.isfinite(block).all()
    for _ in range(2):
        block = np.ones(20_000, np.float32)
        total.sum(block)
        assert np.isfinite(block).all()


def test_alone_nothing_is_lost():
    from mpi4py import MPI

    block, total = np.arange(500.0), TopK(MPI.COMM_SELF, 500, "float64")
    total.sum(block)
    assert_array_equal(block, np.arange(500.0))
    assert total.sent_bytes == 0
