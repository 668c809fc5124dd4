"""Exact mode: the bits of a lane depend neither on the ranks nor on other lanes."""

import numpy as np
import pytest
from lanes_apart import data_set, model_of, rows_of
from mpi4py import MPI

import pympi_train as pt
from pympi_train.lanes.lane import Lane
from pympi_train.lanes.train import train_lanes

RATES = 0.01, 0.1, 1.0
LANES = [Lane(r, l2, f) for r in RATES for l2 in (0, 0.01) for f in (0, 1, 2)]


def bits(result):
    """Return the weights and records of a lane as bytes."""
    weights = [array.tobytes() for array in result.weights.values()]
    return b"".join(weights) + repr(result.records).encode()


def run(comm, kind, is_sparse, lanes, optimizer=None, dtype="float32", **how):
    arrays = rows_of(kind, is_sparse, kind == "linear", dtype)
    data, own = data_set(*arrays[:3], is_sparse, comm)
    made_of = model_of(kind, dtype=dtype), optimizer or pt.Adam(), lanes, data
    how = {"virtual_shards": 5, "batch_size": 20, "micro_batch_size": 6} | how
    return train_lanes(
        *made_of, folds=arrays[3][own], epochs=3, seed=3, comm=comm, **how
    )


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("kind", ["linear", "logistic", "softmax"])
def test_same_bits_on_any_ranks_and_beside_any_lanes(comm, kind, is_sparse):
    full = run(comm, kind, is_sparse, LANES)
    assert {result.status for result in full} == {"finished"}
    alone = run(MPI.COMM_SELF, kind, is_sparse, LANES)
    assert [bits(result) for result in full] == [bits(result) for result in alone]
    single = run(comm, kind, is_sparse, LANES[7:8])
    assert bits(single[0]) == bits(full[7])

    def drop(epoch, results):
        return range(1, len(LANES), 4) if epoch == 1 else None

    part = run(comm, kind, is_sparse, LANES, on_epoch=drop)
    for place, (result, other) in enumerate(zip(part, full)):
        if place % 4 == 1:
            assert result.status == "dropped"
            assert result.records == other.records[:1]
        else:
            assert bits(result) == bits(other)


@pytest.mark.parametrize("is_sparse", [False, True])
def test_standardised_by_fold_beside_any_lanes(is_sparse):
    """The moments of a fold do not depend on the folds of other lanes."""
    made_of = MPI.COMM_SELF, "linear", is_sparse
    how = {"standardise": True, "dtype": "float64"}
    full = run(*made_of, LANES, **how)
    for places in ([1], [2, 0], [4]):
        found = run(*made_of, [LANES[place] for place in places], **how)
        assert [bits(r) for r in found] == [bits(full[place]) for place in places]


@pytest.mark.mpi(min_size=2)
def test_two_ranks(comm):
    small = comm.Split(comm.rank < 2)
    try:
        if comm.rank < 2:
            found = run(small, "logistic", False, LANES)
            alone = run(MPI.COMM_SELF, "logistic", False, LANES)
            assert [bits(r) for r in found] == [bits(r) for r in alone]
    finally:
        small.Free()


@pytest.mark.mpi(min_size=2)
def test_neighbours_that_diverge_change_no_bit(comm):
    lanes = [Lane(0.05, 0.0, 0), Lane(1e30, 0.0, 1), Lane(0.1, 0.01, 2)]
    how = {"optimizer": pt.SGD(1), "standardise": np.ones(6, bool)}
    found = run(comm, "linear", False, lanes, **how)
    assert [r.status for r in found] == ["finished", "diverged", "finished"]
    alone = run(MPI.COMM_SELF, "linear", False, lanes[::2], **how)
    assert [bits(r) for r in found[::2]] == [bits(r) for r in alone]


@pytest.mark.mpi(min_size=2)
def test_lbfgs(comm):
    lanes = [Lane(None, l2, fold) for l2 in (0.01, 1.0) for fold in (0, 1)]
    how = {"optimizer": pt.LBFGS()}
    found = run(comm, "softmax", False, lanes, **how)
    alone = run(MPI.COMM_SELF, "softmax", False, lanes[2:3], **how)
    assert bits(found[2]) == bits(alone[0])
