"""The groups of ranks that tests run on: all ranks, and each rank alone."""

import pytest


@pytest.fixture(params=["all", "alone"])
def group(request, comm):
    """A communicator of all ranks, and one of this rank only."""
    from mpi4py import MPI

    return comm if request.param == "all" else MPI.COMM_SELF
