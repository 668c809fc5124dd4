"""Replicas that are no longer equal are found, and who and what is named."""

import numpy as np
import pytest

import pympi_train as pt
from pympi_train.comm.checks import is_agreed
from pympi_train.comm.watch.drift import digest, odd_ones, require_same
from pympi_train.errors import DriftError
from pympi_train.flat.memory import Layout


@pytest.fixture
def layout():
    tensors = [pt.Tensor("a", (3,)), pt.Tensor("b", (2, 5)), pt.Tensor("c", (1,))]
    return Layout(tensors, "float32")


def block_of(layout):
    block = np.zeros(layout.size, dtype=layout.dtype)
    for view in layout.views(block):
        view[...] = np.arange(view.size).reshape(view.shape)
    return block


def test_digest_sees_single_bits():
    block = np.zeros(1000, dtype=np.float32)
    other = block.copy()
    other[777] = -0.0
    assert digest(block) != digest(other)
    assert 0 <= digest(block) < 2**64
    assert digest(np.zeros(0)) == digest(np.zeros((0, 3)))


@pytest.mark.parametrize(
    "values, odd, usual",
    [([3, 3], [], 0), ([1, 2, 2], [0], 1), ([1, 2, 1, 3], [1, 3], 0), ([4, 9], [1], 0)],
)
def test_odd_ones(values, odd, usual):
    assert odd_ones(values) == (odd, usual)


def test_one_rank_agrees_with_itself(layout):
    from mpi4py import MPI

    require_same(MPI.COMM_SELF, layout, block_of(layout), "now")


@pytest.mark.mpi(min_size=2)
def test_equal_blocks(comm, layout):
    require_same(comm, layout, block_of(layout), "after step 3")


@pytest.mark.mpi(min_size=2)
def test_first_difference_is_named(comm, layout):
    block, last = block_of(layout), comm.size - 1
    views = layout.named(block)
    if comm.rank == last:
        views["b"][1, 4] = np.nextafter(views["b"][1, 4], np.float32(np.inf))
        views["c"][0] += 1
    with pytest.raises(DriftError) as info:
        require_same(comm, layout, block, "after step 3")
    text = str(info.value)
    assert text.startswith("after step 3 the ranks' parameters are no longer equal")
    assert f"rank {last} has other ones than rank 0" in text
    assert "tensor b (2 of 3 differ)" in text
    assert is_agreed(info.value, comm)
    assert comm.allgather(text) == [text] * comm.size


@pytest.mark.mpi(min_size=3)
def test_most_ranks_are_right(comm, layout):
    block = block_of(layout)
    block[0] += comm.rank == 0
    with pytest.raises(DriftError, match="rank 0 has other ones than rank 1 and"):
        require_same(comm, layout, block, "now")


@pytest.mark.mpi(min_size=2)
def test_padding_is_named(comm, layout):
    block = block_of(layout)
    block[3] = comm.rank  # tensor a has three elements, b begins at the fifth
    with pytest.raises(DriftError, match="padding between the tensors"):
        require_same(comm, layout, block, "now")
