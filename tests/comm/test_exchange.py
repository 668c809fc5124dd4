"""Sums of other people's arrays."""

import array

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pympi_train as pt
from pympi_train.comm.exchange import COMPRESSIONS, as_block
from pympi_train.errors import ConfigError, DataError, RankMismatchError

SHAPES = [(3,), (70, 40), (), (2, 3, 2), (0,), (5,)]
DTYPES = ["float32", "float64", "float32", "float32", "float64", "float64"]


class Lent:
    """An array that speaks DLPack alone."""

    def __init__(self, values, device=(1, 0)):
        self._values, self._device = values, device

    def __dlpack__(self, **options):
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._device


def arrays_of(rank):
    rng = np.random.default_rng(rank)
    return [np.array(rng.standard_normal(s), d) for s, d in zip(SHAPES, DTYPES)]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("bucket_bytes", [1, 100, 2**20])
def test_sums_all(comm, bucket_bytes):
    arrays = arrays_of(comm.rank)
    want = [np.sum(same, axis=0) for same in zip(*map(arrays_of, range(comm.size)))]
    with pt.Exchange(comm, bucket_bytes=bucket_bytes) as exchange:
        for _ in range(2):
            arrays = arrays_of(comm.rank)
            exchange.sum_all(arrays)
            for got, expected in zip(arrays, want):
                assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        assert exchange.sent_bytes > 0


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("compression", COMPRESSIONS[1:])
def test_compressed_mean_approaches_the_sum(comm, compression):
    every = [arrays_of(rank) for rank in range(comm.size)]
    want = sum(np.concatenate([a.ravel() for a in arrays]) for arrays in every)
    mean = np.zeros(want.size)
    with pt.Exchange(comm, compression=compression, backend="numpy") as exchange:
        for t in range(1, 101):
            arrays = arrays_of(comm.rank)
            exchange.sum_all(arrays, "gradient")
            mean += (np.concatenate([a.ravel() for a in arrays]) - mean) / t
    slow = compression in ("topk", "powersgd")
    assert np.linalg.norm(mean - want) < (0.5 if slow else 0.001) * np.linalg.norm(want)


@pytest.mark.mpi(min_size=2)
def test_names_keep_their_own_feedback(comm):
    with pt.Exchange(comm, compression="int8", backend="numpy") as exchange:
        for _ in range(3):
            a, b = np.array([100.0, 0.3]), np.zeros(2)
            exchange.sum(a, "a")
            exchange.sum(b, "b")
            assert_array_equal(b, 0)


@pytest.mark.mpi(min_size=2)
def test_other_protocols(comm):
    lent, buffer = np.ones(4), array.array("d", [1, 2])
    with pt.Exchange(comm) as exchange:
        exchange.sum(Lent(lent))
        exchange.sum(buffer)
    assert_array_equal(lent, comm.size)
    assert buffer.tolist() == [comm.size, 2 * comm.size]


@pytest.mark.mpi(min_size=2)
def test_sizes_that_differ_are_refused_on_all(comm):
    with pt.Exchange(comm) as exchange:
        with pytest.raises(RankMismatchError, match="shapes"):
            exchange.sum(np.ones(3 + (comm.rank == 1)))


def frozen():
    x = np.ones(3)
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "wrong, says",
    [
        (np.ones(3, "i4"), "int32"),
        (np.ones(3, "f2"), "float16"),
        (np.ones(3, ">f4"), "float32 or float64, got >f4"),
        (np.ones((3, 4)).T, "contiguous"),
        (frozen(), "read-only"),
        (Lent(np.ones(3), device=(2, 0)), "device"),
        ([1.0, 2.0], "neither DLPack"),
    ],
)
def test_what_cannot_be_summed(wrong, says):
    with pytest.raises(DataError, match=f"array 5 .*{says}"):
        as_block(wrong, 5)


def test_unknown_compression():
    with pytest.raises(ConfigError, match="zip"):
        pt.Exchange(compression="zip")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("compression", ["none", "int8"])
def test_arrays_without_elements_are_left_alone(comm, compression):
    with pt.Exchange(comm, compression=compression) as exchange:
        exchange.sum(np.zeros(0))
        arrays = [np.zeros((0, 3), np.float32), np.ones(4), np.zeros(0)]
        exchange.sum_all(arrays)
    np.testing.assert_allclose(arrays[1], comm.size, rtol=1e-2)
    with pytest.raises(RuntimeError, match="freed"):
        exchange.sum(arrays[1])


def test_bucket_bytes_are_positive():
    pytest.importorskip("mpi4py")
    with pytest.raises(ConfigError, match="bucket_bytes"):
        pt.Exchange(bucket_bytes=0)


@pytest.mark.mpi(min_size=2)
def test_free_gives_the_communicator_back(comm):
    from mpi4py import MPI

    with pt.Exchange(comm) as exchange:
        own = exchange.comm
        assert MPI.Comm.Compare(own, comm) == MPI.CONGRUENT  # not the caller's
    assert own == MPI.COMM_NULL
    exchange.free()  # nothing to do
    with pytest.raises(RuntimeError, match="freed"):
        exchange.sum(np.ones(3))
    assert comm.allreduce(1) == comm.size
