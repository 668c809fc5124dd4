"""Sums in memory that the ranks of a node share, against sums one after the other."""

import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pympi_train as pt
from pympi_train.comm import collectives, node_sums
from pympi_train.comm.control import Control
from pympi_train.comm.node_sums import LINE_BYTES, fits
from pympi_train.comm.watch.guard import guarded
from pympi_train.errors import ConfigError, RankMismatchError

pytestmark = pytest.mark.mpi(min_size=2)


@pytest.fixture
def ranks(comm):
    """Guarded ranks, so with sums of their own."""
    ranks = guarded(comm.Dup(), 0)
    yield ranks
    ranks.Free()


def values_of(rank, shape, dtype, seed=0):
    rng = np.random.default_rng([seed, rank])
    return rng.standard_normal(shape).astype(dtype)


def in_order(ufunc, parts):
    """What ``ufunc`` makes of the first and the second, of that and the third, ..."""
    total = parts[0].copy()
    for part in parts[1:]:
        ufunc(total, part, out=total)
    return total


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 7850])
@pytest.mark.parametrize("op", ["SUM", "MIN", "MAX"])
def test_blocks_are_reduced_in_the_order_of_ranks(ranks, op, n, dtype):
    assert node_sums.node_sums(ranks)
    parts = [values_of(rank, n, dtype) for rank in range(ranks.size)]
    block = parts[ranks.rank].copy()
    node_sums.reduce(ranks, block, op=op)
    want = in_order(node_sums.UFUNCS[op], parts)
    if n > 1 or ranks.size < 3:
        assert_array_equal(block, want)
    else:  # of one column NumPy makes what it makes of a row
        np.testing.assert_allclose(block, want, rtol=1e-6)
    others = ranks.allgather(block.tobytes())
    assert set(others) == {block.tobytes()}


def test_nothing_is_overwritten_before_all_have_read_it(ranks):
    assert fits(ranks, np.zeros(2))
    rng = np.random.default_rng(ranks.rank)
    for turn in range(300):
        if rng.random() < 0.05:
            time.sleep(rng.random() * 2e-3)  # the ranks come in any order
        size = 1 + turn % 3
        small = np.full(size, turn + ranks.rank, np.float64)
        large = np.full(100 * size, turn - ranks.rank, np.float32)
        if turn % 7 == 0:
            collectives.barrier(ranks)
        node_sums.reduce(ranks, small, large)
        p = ranks.size
        assert set(small) == {p * turn + p * (p - 1) / 2}
        assert set(large) == {p * turn - p * (p - 1) / 2}


def test_largest_blocks(ranks):
    most = node_sums.node_sums(ranks).most_bytes
    assert most % LINE_BYTES == 0
    for n_bytes in (most - 8, most, most + 8):  # the last goes by MPI
        block = np.full(n_bytes // 8, 1.0 + ranks.rank)
        collectives.sum_in_place(ranks, block)
        assert set(block) == {ranks.size * (ranks.size + 1) / 2}
    gradient = np.ones((most - 2 * LINE_BYTES) // 4, np.float32)
    assert fits(ranks, gradient) and not fits(ranks, np.zeros(most, np.int8))
    found = Control(ranks).exchange(1.0, 2.0, block=gradient)
    assert found == (ranks.size, 2.0 * ranks.size, 0.0)
    assert set(gradient) == {ranks.size}


def test_a_block_that_comes_with_control_is_left_alone_by_an_error(ranks):
    assert fits(ranks, np.zeros(3))
    control, error = Control(ranks), None
    if ranks.rank == 1:
        error = ConfigError("what rank 1 met")
    with pytest.raises(ConfigError, match="what rank 1 met"):
        control.exchange(1.0, 1.0, error=error, block=np.ones(3))
    block = np.ones(3)
    assert control.exchange(1.0, 0.5, block=block)[0] == ranks.size
    assert set(block) == {ranks.size}


def test_what_is_reduced(ranks):
    assert set(collectives.reduced(ranks, [ranks.rank], op="MAX")) == {ranks.size - 1}
    assert set(collectives.reduced(ranks, [ranks.rank, 5.0], op="MIN")) == {0.0, 5.0}
    assert collectives.reduced(ranks, []).size == 0
    table = collectives.reduced(ranks, np.full((2, 3), ranks.rank))
    assert table.shape == (2, 3) and set(table.flat) == {sum(range(ranks.size))}


def test_order_of_memory_does_not_matter(ranks):
    values = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert_array_equal(collectives.reduced(ranks, values), ranks.size * values)


def test_blocks_of_different_sizes_are_told_of_on_all_ranks(ranks):
    for _ in range(3):
        with pytest.raises(RankMismatchError, match="blocks of different sizes"):
            collectives.sum_in_place(ranks, np.ones(4 + (ranks.rank == 1)))
        block = np.ones(4)
        collectives.sum_in_place(ranks, block)
        assert set(block) == {ranks.size}


def test_overflow_is_no_error_in_the_midst_of_a_sum(comm):
    with pt.Exchange(comm) as exchange, np.errstate(all="raise"):
        block = np.full(3, 3e38, np.float32)
        exchange.sum(block)
        assert np.isinf(block).all()


def test_parts_have_sums_of_their_own_and_free_them(ranks):
    half = ranks.Split(ranks.rank % 2, ranks.rank)
    block = np.ones(5)
    collectives.sum_in_place(half, block)
    assert set(block) == {half.size}
    collectives.sum_in_place(ranks, block)
    is_alone = half.size == 1
    half.Free()
    assert is_alone or half.node_sums is None
    assert node_sums.node_sums(ranks)


@pytest.mark.parametrize("why", ["two nodes", "no room on one rank"])
def test_without_shared_memory_sums_are_those_of_mpi(comm, monkeypatch, why):
    if why == "two nodes":
        monkeypatch.setattr(node_sums, "_share_a_node", lambda comm: False)
    elif comm.rank == 1:

        def refuse(*args):
            raise ConfigError("full")

        monkeypatch.setattr(node_sums, "require_space", refuse)
    ranks = guarded(comm.Dup(), 0)
    block = np.ones(3)
    collectives.sum_in_place(ranks, block)
    assert set(block) == {ranks.size} and not fits(ranks, block)
    collectives.barrier(ranks)
    assert ranks.node_sums is None
    ranks.Free()


def test_ranks_that_debug_compare_calls(comm):
    ranks = guarded(comm.Dup(), 0, debug=True)
    assert fits(ranks, np.zeros(1))
    with pytest.raises(RankMismatchError, match="part ways"):
        if comm.rank == 0:
            node_sums.meet(ranks)
        else:
            node_sums.reduce(ranks, np.ones(2))
    ranks.Free()
