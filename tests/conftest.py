"""What every test may use: communicators, shared folders, and mpirun."""

import sys

import pytest


@pytest.fixture(scope="session")
def comm():
    """A duplicate of COMM_WORLD, so that tests cannot meet another's messages."""
    from mpi4py import MPI

    duplicate = MPI.COMM_WORLD.Dup()
    yield duplicate
    duplicate.Free()
