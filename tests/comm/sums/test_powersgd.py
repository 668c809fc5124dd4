"""Sums of matrices by thin factors."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pympi_train as pt
from pympi_train.comm.sums.powersgd import PowerSGD, orthonormalise, product

TENSORS = [
    pt.Tensor("small", (3, 5)),
    pt.Tensor("w", (40, 60)),
    pt.Tensor("b", (61,), is_weight=False),
    pt.Tensor("v", (60, 30)),
]


def layout(dtype="float64"):
    return pt.Layout(TENSORS, dtype)


def blocks_of(comm, rank=None, seed=5):
    """What each rank has, on every rank, with matrices of ``rank``; rank 1: nothing."""
    rng, blocks = np.random.default_rng(seed), []
    for r in range(comm.size):
        block = np.zeros(layout().size)
        for view in layout().views(block):
            if view.ndim == 1 or rank is None:
                view[:] = rng.standard_normal(view.shape)
            else:
                left, right = (rng.standard_normal((s, rank)) for s in view.shape)
                view[:] = left @ right.T
        blocks.append(block if r != 1 else 0 * block)
    return blocks


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_orthonormal(dtype):
    p = np.random.default_rng(0).standard_normal((50, 4)).astype(dtype)
    p[:, 2] = 2 * p[:, 0] - p[:, 1]
    p[:, 3] *= 1e-20
    orthonormalise(p)
    assert_allclose(p.T @ p, np.diag([1.0, 1, 0, 1]), atol=1e-6)
    p = np.zeros((5, 4), dtype)
    orthonormalise(p)
    assert (p == 0).all()


def test_product():
    rng = np.random.default_rng(0)
    p, q = rng.standard_normal((7, 4)), rng.standard_normal((9, 4))
    assert_allclose(product(p, q), p @ q.T, rtol=1e-12, atol=1e-12)


@pytest.mark.mpi(min_size=2)
def test_a_sum_of_low_rank_is_found_at_once(comm):
    blocks = blocks_of(comm, rank=1)
    want, block = np.sum(blocks, axis=0), blocks[comm.rank].copy()
    total = PowerSGD(comm, layout())
    total.sum(block)  # of rank 1 a rank that has something, at most 3 in all
    assert_allclose(block, want, atol=1e-9 * np.abs(want).max())
    for other in comm.allgather(block):
        assert_array_equal(block, other)


@pytest.mark.mpi(min_size=2)
def test_mean_of_many_sums_approaches_the_sum(comm):
    blocks = blocks_of(comm)
    want, total = np.sum(blocks, axis=0), PowerSGD(comm, layout())
    mean, errors = np.zeros(want.size), []
    for t in range(1, 201):
        block = blocks[comm.rank].copy()
        total.sum(block)
        for name in ("small", "b"):  # as they are
            got, expected = (layout().named(x)[name] for x in (block, want))
            assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
        mean += (block - mean) / t
        errors.append(np.linalg.norm(mean - want) / np.linalg.norm(want))
    assert errors[199] < 0.1 and errors[199] < errors[19] / 4


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_wrong_number_reaches_all_and_is_forgotten(comm, wrong):
    total = PowerSGD(comm, layout("float32"))
    block = np.ones(layout("float32").size, np.float32)
    if comm.rank == comm.size - 1:
        layout("float32").named(block)["w"][3, 4] = wrong
    total.sum(block)
    assert not np.isfinite(layout("float32").named(block)["w"]).any()
    for _ in range(3):
        block = np.ones(layout("float32").size, np.float32)
        total.sum(block)
        assert_allclose(block, comm.size, rtol=1e-4)


@pytest.mark.mpi(min_size=2)
def test_zeros_and_what_comes_after(comm):
    total, zeros = PowerSGD(comm, layout()), np.zeros(layout().size)
    for _ in range(2):
        total.sum(zeros)
        assert (zeros == 0).all()
    blocks = blocks_of(comm, rank=1)
    block = blocks[comm.rank].copy()
    total.sum(block)
    assert_allclose(block, np.sum(blocks, axis=0), atol=1e-8)


@pytest.mark.mpi(min_size=2)
def test_sent_bytes(comm):
    total = PowerSGD(comm, layout())
    total.sum(np.zeros(layout().size))
    left = 4 * (40 + 60) + layout().size - 40 * 60 - 60 * 30
    right = 4 * (60 + 30)
    sent = [2 * 8 * n * (comm.size - 1) // comm.size for n in (left, right)]
    assert total.sent_bytes == sum(sent)


def test_alone_nothing_is_lost():
    from mpi4py import MPI

    block = np.random.default_rng(0).standard_normal(layout().size)
    want = block.copy()
    PowerSGD(MPI.COMM_SELF, layout()).sum(block)
    assert_array_equal(block, want)
