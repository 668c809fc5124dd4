"""What each rank has, on every rank: as by an allgather of objects."""

import numpy as np
import pytest

from pympi_train.comm.messages import numbers_of_ranks, objects_of_ranks

pytestmark = pytest.mark.mpi


def test_numbers_are_those_of_an_allgather(comm):
    own = 2**40 + comm.rank
    assert numbers_of_ranks(comm, own).tolist() == comm.allgather(own)
    pairs = numbers_of_ranks(comm, own, comm.rank == 1)
    assert list(map(tuple, pairs.tolist())) == comm.allgather((own, comm.rank == 1))
    halves = numbers_of_ranks(comm, own / 2, dtype=np.float64)
    assert halves.tolist() == comm.allgather(own / 2)


@pytest.mark.parametrize("first", [0, 1, 9])
def test_objects_are_those_of_an_allgather(comm, first):
    own = {"rank": comm.rank, "text": "x" * comm.rank} if comm.rank >= first else None
    found = objects_of_ranks(comm, own)
    everyones = enumerate(comm.allgather(own))
    assert found == {rank: value for rank, value in everyones if value is not None}
    assert list(found) == sorted(found)
